"""Linear maps and dropout of every network: PyTorch's mathematics, by the fastest way this processor has.

PyTorch hands single-precision products to MKL, which on AMD's processors never leaves AVX2; oneDNN, which PyTorch
brings along, uses AVX-512 wherever it exists. PyTorch's dropout draws a floating-point number for each element; here
four elements share one draw of 64 bits.
"""

import functools
import math
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

_LARGE = 2**20  # multiplications of a product from which oneDNN is asked while learning
_LARGE_WEIGHT = 2**12  # numbers of a weight from which it is asked while acting
_LEVELS = 2**16  # of chance that dropout can tell apart: 0.1 becomes 0.100006, and the scale follows it


class Linear(nn.Linear):
    """`nn.Linear` in all but its speed: [..., inputs] to [..., outputs]."""

    def forward(self, values: Tensor) -> Tensor:
        """See `linear`."""
        return linear(values, self.weight, self.bias)


class Perceptron(nn.Sequential):
    """Linear layers with ReLU between them, named as in the `nn.Sequential` of these modules."""

    def __init__(self, *sizes: int) -> None:
        """`sizes` are those of the input, of the hidden layers and of the output."""
        *hidden, last = (Linear(inputs, outputs) for inputs, outputs in pairwise(sizes))
        super().__init__(*(module for layer in hidden for module in (layer, nn.ReLU())), last)

    def forward(self, values: Tensor) -> Tensor:
        """[..., first size] to [..., last size]."""
        *hidden, last = (layer for layer in self if isinstance(layer, nn.Linear))
        for layer in hidden:
            values = linear(values, layer.weight, layer.bias, relu=True)
        return linear(values, last.weight, last.bias)


class Dropout(nn.Module):
    """`nn.Dropout` in all but its speed and the numbers that it draws."""

    def __init__(self, p: float) -> None:
        """`p` is the chance that an element becomes zero."""
        super().__init__()
        self.p = p

    def forward(self, values: Tensor) -> Tensor:
        """See `dropout`."""
        return dropout(values, self.p) if self.training else values

    def extra_repr(self) -> str:
        """The chance."""
        return f"p={self.p}"


def linear(values: Tensor, weight: Tensor, bias: Tensor | None = None, *, relu: bool = False) -> Tensor:
    """The product values @ weight.T + bias, [..., inputs] to [..., outputs], or its positive part where `relu`.

    Differentiable once, where oneDNN is asked.
    """
    if not is_faster(values, weight):
        product = F.linear(values, weight, bias)
        return product.relu_() if relu else product
    if torch.is_autocast_enabled("cpu"):
        kind = torch.get_autocast_dtype("cpu")
        values, weight = values.to(kind), weight.to(kind)
        bias = None if bias is None else bias.to(kind)
    if not torch.is_grad_enabled():
        return _product(values, weight, bias, relu=relu)
    values = values.contiguous()
    found: Tensor = _Linear.apply(values, weight, bias, relu)  # type: ignore[no-untyped-call]
    return found


def is_faster(values: Tensor, weight: Tensor) -> bool:
    """Whether `linear` asks oneDNN for the product of values [..., inputs] and weight [outputs, inputs].

    It takes some 10 microseconds to begin, so that small products are left to PyTorch.

    Where nothing is learned the number of rows does not decide, as kernels differ in their last bits: a game must not
    depend on how many are played beside it. One row alone takes another kernel with either library.
    """
    if values.device.type != "cpu" or values.dtype not in (torch.float32, torch.bfloat16):
        return False
    rows = values.numel() // max(1, values.shape[-1])
    learning = torch.is_grad_enabled()
    large = rows * weight.numel() >= _LARGE if learning else rows > 1 and weight.numel() >= _LARGE_WEIGHT
    return large and has_faster_products()


def dropout(values: Tensor, p: float) -> Tensor:
    """Zero each element with chance `p` and scale the others up, so that the mean stays."""
    if p == 0:
        return values
    if values.device.type != "cpu":
        return F.dropout(values, p)
    return values * keep_mask(values.shape, p, values.dtype)


def keep_mask(shape: torch.Size, p: float, dtype: torch.dtype = torch.float32) -> Tensor:
    """What dropout multiplies by on the processor: 0 with chance `p`, 1 / (1 - p) otherwise, of `shape`."""
    dropped = round(p * _LEVELS)
    if dropped == _LEVELS:
        return torch.zeros(shape, dtype=dtype)
    count = math.prod(shape)
    bits = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(2**63), None)
    kept = bits.view(torch.int16)[:count].view(shape) >= dropped - _LEVELS // 2
    return kept.to(dtype).mul_(_LEVELS / (_LEVELS - dropped))


@functools.cache
def has_faster_products() -> bool:
    """Whether oneDNN is to be asked for products: where it exists and the processor has AVX-512."""
    return (
        bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


def _product(values: Tensor, weight: Tensor, bias: Tensor | None = None, *, relu: bool = False) -> Tensor:
    kind = "relu" if relu else "none"
    found: Tensor = torch.ops.mkldnn._linear_pointwise(values, weight, bias, kind, [], "")
    return found


class _Linear(torch.autograd.Function):
    """The product and its gradients, all by oneDNN."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, weight: Tensor, bias: Tensor | None, relu: bool) -> Tensor:
        """See `linear`."""
        product = _product(values, weight, bias, relu=relu)
        ctx.save_for_backward(values, weight, product if relu else None)
        ctx.biased = bias is not None
        return product

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        """Slopes of values, weight and bias, each where it is asked for."""
        values, weight, positive = ctx.saved_tensors
        wants_values, wants_weight, wants_bias, _ = ctx.needs_input_grad
        if positive is not None:
            slope = torch.ops.aten.threshold_backward(slope, positive, 0)
        flat = slope.reshape(-1, slope.shape[-1]).contiguous()  # oneDNN is lost between strided rows
        of_values = _product(flat, weight.t()).view(values.shape) if wants_values else None
        of_weight = _weight_slope(flat, values.reshape(-1, values.shape[-1])) if wants_weight else None
        of_bias = flat.sum(0) if ctx.biased and wants_bias else None
        return of_values, of_weight, of_bias, None


def _weight_slope(slope: Tensor, values: Tensor) -> Tensor:
    """slope.T @ values, [outputs, inputs]; oneDNN is quicker where the first factor has fewer rows."""
    if slope.shape[1] <= values.shape[1]:
        return _product(slope.t(), values.t())
    return _product(values.t(), slope.t()).t()
