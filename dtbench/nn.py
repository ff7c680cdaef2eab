"""Building blocks of networks: MLPs, encoders, and linear maps and dropout that are faster on CPUs.

PyTorch computes single-precision products with MKL, which uses only AVX2 on AMD's CPUs; oneDNN, which comes with
PyTorch, uses AVX-512 where it exists. On Intel's both do: large products take as long, small ones half as long in MKL.
PyTorch's dropout draws a floating-point number for each element; here four elements share one draw of 64 bits.
"""

import functools
import itertools
import math
import platform
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from dtbench.data.dataset import TrajectoryDataset, release_pages

__all__ = [
    "MLP",
    "Dropout",
    "ImageScale",
    "Linear",
    "MLPEnsemble",
    "NatureEncoder",
    "faster_product",
    "greedy_actions",
    "image_scale",
    "indices_of",
    "is_image",
    "is_large_product",
]

_LARGE = 2**19  # multiplications of a product, from which oneDNN is used in training
_LARGE_WEIGHT = 2**12  # numbers of a weight, from which it is used in acting
_ROWS = 512  # of a product that go through the layers at a time: what lies between the layers fits a cache
_LEVELS = 2**16  # of dropout probabilities: 0.1 becomes 0.100006, and the scale follows it


class Linear(nn.Linear):
    """A faster `nn.Linear`: [..., inputs] to [..., outputs]."""

    def forward(self, values: Tensor) -> Tensor:
        """Map [..., inputs] to [..., outputs]."""
        return linear(values, self.weight, self.bias)


class MLP(nn.Sequential):
    """Linear layers with ReLU, and optionally dropout, between them."""

    def __init__(self, *sizes: int, dropout: float | None = None, output: nn.Module | None = None) -> None:
        """`sizes` are those of the input, of the hidden layers and of the output; `output` acts on the last layer."""
        modules: list[nn.Module] = []
        for inputs, outputs in itertools.pairwise(sizes[:-1]):
            modules += [Linear(inputs, outputs), nn.ReLU(), *([] if dropout is None else [Dropout(dropout)])]
        super().__init__(*modules, Linear(sizes[-2], sizes[-1]), *([] if output is None else [output]))
        self.dropout, self.has_output = dropout or 0.0, output is not None

    def forward(self, values: Tensor) -> Tensor:
        """Map [..., first size] to [..., last size]."""
        if self.training and self.dropout:
            dropped: Tensor = super().forward(values)  # type: ignore[no-untyped-call]
            return dropped
        output = feed_forward(values, [(layer.weight, layer.bias) for layer in self if isinstance(layer, nn.Linear)])
        return self[-1](output) if self.has_output else output


class MLPEnsemble(nn.Module):
    """MLPs of equal sizes as one stack of weights, so that a layer of all of them is one operation."""

    def __init__(self, members: Sequence[Sequence[nn.Linear]]) -> None:
        """Copy the weights of each member's linear layers, between which stands ReLU."""
        super().__init__()
        layers = list(zip(*members, strict=True))
        self.weights = nn.ParameterList([torch.stack([one.weight.detach().T for one in layer]) for layer in layers])
        self.biases = nn.ParameterList([torch.stack([one.bias.detach()[None] for one in layer]) for layer in layers])

    def evaluate(self, values: Tensor, *, frozen: bool = False, members: int | None = None) -> Tensor:
        """Return [members, B, outputs] of [B, inputs], of all or the first `members`; `frozen`: no weight gradient."""
        weights, biases = [*self.weights], [*self.biases]
        if frozen:
            weights, biases = ([parameter.detach() for parameter in part] for part in (weights, biases))
        members = members or len(biases[0])
        if is_faster(values, weights[1][0]):  # one member after the other, yet each at twice the speed
            pairs = [(w.mT.unbind(), b[:, 0].unbind()) for w, b in zip(weights, biases, strict=True)]
            return torch.stack([feed_forward(values, [(w[i], b[i]) for w, b in pairs]) for i in range(members)])
        stack = values.expand(len(biases[0]), -1, -1)
        for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
            stack = torch.baddbmm(bias, stack, weight).relu_()
        return torch.baddbmm(biases[-1], stack, weights[-1])[:members]


class NatureEncoder(nn.Sequential):
    """Mnih et al. (2015): images [B, frames, 84, 84] to [B, size], with an activation at the end."""

    def __init__(
        self, frames: int, size: int, *, activation: nn.Module, channels: tuple[int, int, int] = (32, 64, 64)
    ) -> None:
        """`channels` are those of the three convolutions."""
        first, second, third = channels
        super().__init__(
            nn.Conv2d(frames, first, 8, stride=4),
            nn.ReLU(inplace=True),
            nn.Conv2d(first, second, 4, stride=2),
            nn.ReLU(inplace=True),
            nn.Conv2d(second, third, 3, stride=1),
            nn.ReLU(inplace=True),
            nn.Flatten(),
            Linear(third * 7 * 7, size),
            activation,
        )


def indices_of(values: Tensor, space: "gym.spaces.Discrete[Any]") -> Tensor:
    """Return values of the space counted from 0, int64 of the same shape.

    Padding and what follows a terminal step are zeros: where those are not values of the space, the nearest one.
    """
    counted, first = values.long(), int(space.start)
    return counted if first == 0 else (counted - first).clamp(0, int(space.n) - 1)


def greedy_actions(predictions: Tensor, space: gym.Space[Any]) -> Tensor:
    """Return the likeliest discrete actions [B], or predicted continuous ones [B, *action], from [B, actions]."""
    if isinstance(space, gym.spaces.Discrete):
        return predictions.argmax(dim=-1) + int(space.start)
    return predictions.view(-1, *(space.shape or ()))


class Dropout(nn.Module):
    """A faster `nn.Dropout`, which draws other numbers."""

    def __init__(self, p: float) -> None:
        """Zero elements with probability `p`."""
        super().__init__()
        self.p = p

    def forward(self, values: Tensor) -> Tensor:
        """Drop elements in training."""
        return dropout(values, self.p) if self.training else values


def linear(values: Tensor, weight: Tensor, bias: Tensor | None = None, *, relu: bool = False) -> Tensor:
    """Return values @ weight.T + bias, [..., inputs] to [..., outputs], with `relu` its positive part.

    Differentiable only once.
    """
    if not is_faster(values, weight):
        product = F.linear(values, weight, bias)
        return product.relu_() if relu else product
    if torch.is_autocast_enabled("cpu"):
        kind = torch.get_autocast_dtype("cpu")
        values, weight = values.to(kind), weight.to(kind)
        bias = None if bias is None else bias.to(kind)
    if not torch.is_grad_enabled():
        return faster_product(values, weight, bias, relu=relu)
    values = values.contiguous()
    output: Tensor = _Linear.apply(values, weight, bias, relu)  # type: ignore[no-untyped-call]
    return output


def feed_forward(values: Tensor, layers: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Apply linear layers (weight, bias) with ReLU between them, [..., inputs] to [..., outputs]."""
    widest = max((weight for weight, _ in layers), key=Tensor.numel)
    if torch.is_grad_enabled() and is_faster(values, widest) and not torch.is_autocast_enabled("cpu"):
        flat = values.reshape(-1, values.shape[-1])
        output: Tensor = _Layers.apply(flat, *itertools.chain(*layers))  # type: ignore[no-untyped-call]
        return output.view(*values.shape[:-1], output.shape[-1])
    *hidden, last = layers
    for weight, bias in hidden:
        values = linear(values, weight, bias, relu=True)
    return linear(values, *last)


def is_faster(values: Tensor, weight: Tensor) -> bool:
    """Return whether `linear` uses oneDNN for values [..., inputs] and weight [outputs, inputs].

    It takes some 10 microseconds to start, so that small products are left to PyTorch. Without gradients the number
    of rows does not decide, as kernels differ in their last bits and an episode must not depend on how many run
    beside it. A single row takes another kernel with either library.
    """
    if values.device.type != "cpu" or values.dtype not in (torch.float32, torch.bfloat16):
        return False
    rows = values.numel() // max(1, values.shape[-1])
    learning = torch.is_grad_enabled()
    large = rows * weight.numel() >= _LARGE if learning else rows > 1 and weight.numel() >= _LARGE_WEIGHT
    return large and has_faster_products()


def dropout(values: Tensor, p: float) -> Tensor:
    """Zero each element with probability `p` and scale the others up, so that the mean stays."""
    if p == 0:
        return values
    if values.device.type != "cpu":
        return F.dropout(values, p)
    return values * keep_mask(values.shape, p, values.dtype)


def keep_mask(shape: torch.Size, p: float, dtype: torch.dtype = torch.float32) -> Tensor:
    """Draw the factors of dropout on a CPU: 0 with probability `p`, else 1 / (1 - p)."""
    dropped = round(p * _LEVELS)
    if dropped == _LEVELS:
        return torch.zeros(shape, dtype=dtype)
    count = math.prod(shape)
    bits = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(2**63), None)
    kept = bits.view(torch.int16)[:count].view(shape) >= dropped - _LEVELS // 2
    return kept.to(dtype).mul_(_LEVELS / (_LEVELS - dropped))


@functools.cache
def has_faster_products() -> bool:
    """Return whether oneDNN exists and the CPU has AVX-512."""
    return (
        bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


def is_large_product(rows: int, inputs: int, outputs: int, device: torch.device) -> bool:
    """Return whether `faster_product` is faster than a batched product for [rows, inputs] and [inputs, outputs]."""
    large = device.type == "cpu" and rows * inputs * outputs >= _LARGE
    return large and has_faster_products() and not is_intel()


@functools.cache
def is_intel() -> bool:
    """Return whether this is a processor of Intel's, on which MKL uses AVX-512 too and starts sooner than oneDNN."""
    try:
        return "GenuineIntel" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return "Intel" in platform.processor()


def faster_product(values: Tensor, weight: Tensor, bias: Tensor | None = None, *, relu: bool = False) -> Tensor:
    """Return values @ weight.T + bias by oneDNN, with `relu` its positive part."""
    kind = "relu" if relu else "none"
    product: Tensor = torch.ops.mkldnn._linear_pointwise(values, weight, bias, kind, [], "")
    return product


class _Linear(torch.autograd.Function):
    """The product and its gradients, all by oneDNN."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, weight: Tensor, bias: Tensor | None, relu: bool) -> Tensor:
        """Return the product."""
        product = faster_product(values, weight, bias, relu=relu)
        ctx.save_for_backward(values, weight, product if relu else None)
        ctx.biased = bias is not None
        return product

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        """Return the gradients of values, weight and bias where needed, some rows at a time to fit the caches."""
        values, weight, positive = ctx.saved_tensors
        wants_values, wants_weight, wants_bias, _ = ctx.needs_input_grad
        of_values = torch.empty_like(values) if wants_values else None
        parts = [_by_rows(tensor) for tensor in (grad, values, positive, of_values)]
        of_weight = of_bias = None
        for rows, inputs, outputs, found in zip(*parts, strict=False):
            if outputs is not None:
                rows = torch.ops.aten.threshold_backward(rows, outputs, 0)
            rows = rows.contiguous()  # oneDNN is lost between strided rows
            if found is not None:
                found.copy_(faster_product(rows, weight.t()))
            if wants_weight:
                of_weight = _sum(of_weight, _grad_weight(rows, inputs))
            if ctx.biased and wants_bias:
                of_bias = _sum(of_bias, rows.sum(0))
        return of_values, of_weight, of_bias, None


def _by_rows(tensor: Tensor | None) -> Iterable[Tensor | None]:
    """Split [..., numbers] into parts of `_ROWS` rows; repeat None for None."""
    return itertools.repeat(None) if tensor is None else torch.split(tensor.reshape(-1, tensor.shape[-1]), _ROWS)


def _sum(sum_so_far: Tensor | None, part: Tensor) -> Tensor:
    return part if sum_so_far is None else sum_so_far.add_(part)


class _Layers(torch.autograd.Function):
    """All layers of an MLP, some rows at a time, so that hidden values stay in the caches."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, *parameters: Tensor) -> Tensor:
        """Apply layers, whose weights and biases alternate, to rows [B, inputs]."""
        *hidden, last = zip(parameters[::2], parameters[1::2], strict=True)
        ctx.save_for_backward(*parameters)
        ctx.inputs = []  # of each part of the rows, those of each layer
        outputs = []
        for rows in torch.split(values, _ROWS):
            inputs = [rows.contiguous()]
            for weight, bias in hidden:
                inputs.append(_layer(inputs[-1], weight, bias, relu=True))
            ctx.inputs.append(inputs)
            outputs.append(_layer(inputs[-1], *last, relu=False))
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of rows, weights and biases where needed."""
        weights = ctx.saved_tensors[::2]
        wanted = ctx.needs_input_grad
        grads: list[Tensor | None] = [None] * len(wanted)
        grad_values = []
        for rows, inputs in zip(torch.split(grad, _ROWS), ctx.inputs, strict=True):
            for layer in reversed(range(len(weights))):
                if layer < len(weights) - 1:
                    rows = torch.ops.aten.threshold_backward(rows, inputs[layer + 1], 0)
                rows = rows.contiguous()
                if wanted[2 * layer + 1]:
                    grads[2 * layer + 1] = _sum(grads[2 * layer + 1], _grad_weight(rows, inputs[layer]))
                if wanted[2 * layer + 2]:
                    grads[2 * layer + 2] = _sum(grads[2 * layer + 2], rows.sum(0))
                if layer or wanted[0]:
                    rows = _grad_input(rows, weights[layer])
            grad_values.append(rows)
        grads[0] = torch.cat(grad_values) if wanted[0] else None
        ctx.inputs = None
        return tuple(grads)


def _layer(values: Tensor, weight: Tensor, bias: Tensor, *, relu: bool) -> Tensor:
    if len(values) * weight.numel() >= _LARGE:
        return faster_product(values, weight, bias, relu=relu)
    product = torch.addmm(bias, values, weight.t())
    return product.relu_() if relu else product


def _grad_input(grad: Tensor, weight: Tensor) -> Tensor:
    return faster_product(grad, weight.t()) if len(grad) * weight.numel() >= _LARGE else grad @ weight


def _grad_weight(grad: Tensor, values: Tensor) -> Tensor:
    """Return grad.T @ values, [outputs, inputs]; oneDNN is faster where the first factor has fewer rows."""
    if grad.numel() * values.shape[1] < _LARGE:
        return grad.t() @ values
    if grad.shape[1] <= values.shape[1]:
        return faster_product(grad.t(), values.t())
    return faster_product(values.t(), grad.t()).t()


SAMPLED = 2000  # frames, evenly spread over the data, from which the scale is computed


def is_image(space: gym.Space[Any]) -> bool:
    """Return whether observations are stacks of 84 x 84 frames of bytes, [frames, 84, 84]."""
    return isinstance(space, gym.spaces.Box) and space.dtype == np.uint8 and space.shape[1:] == (84, 84)


class ImageScale(nn.Module):
    """A scale from bytes to floats, [B, frames, 84, 84]: between 0 and 1, or standardized by the data.

    A standardized frame is the difference from the mean frame over the standard deviation of all such differences:
    what moves on a screen becomes large, and networks learn several times as fast.
    """

    mean: Tensor
    rate: Tensor

    def __init__(self, mean: Tensor, rate: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("rate", rate)

    def forward(self, images: Tensor) -> Tensor:
        """Return floats of the same shape."""
        return to_floats(images).sub_(self.mean).mul_(self.rate)


def to_floats(images: Tensor) -> Tensor:
    """Return bytes [B, frames, 84, 84] as floats, with a pixel's frames side by side for faster convolutions."""
    return images.contiguous(memory_format=torch.channels_last).float()


def image_scale(dataset: TrajectoryDataset, *, standardize: bool) -> ImageScale:
    """Return the scale of a dataset's frames; without `standardize` it divides by 255, as the papers do."""
    if not standardize:
        return ImageScale(torch.zeros(()), torch.tensor(1 / 255))
    steps = np.unique(np.linspace(0, dataset.num_steps - 1, SAMPLED).astype(np.int64))
    newest = dataset.observations_at(steps)[:, -1].astype(np.float64)
    release_pages(dataset.observations)
    mean = newest.mean(axis=0)
    deviation = (newest - mean).std()
    return ImageScale(torch.tensor(mean, dtype=torch.float32), torch.tensor(1 / max(deviation, 1.0)).float())
