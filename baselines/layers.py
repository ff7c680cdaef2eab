"""Forward passes and gradients of MLPs written out, and an Adam for all weights of a learner at once.

A product in the networks of a TD learner takes some 50 microseconds, and autograd, `torch.optim` and fresh memory take
as long again beside each. Here a pass writes into memory that it keeps, gradients are written where Adam reads them,
and Adam and Polyak averaging are one operation over all weights. Nothing waits for the device or changes its shape
from step to step, so that a CUDA graph can hold an update.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dtbench.nn import MLPEnsemble, faster_product, is_large_product

ROWS = 1024  # that go through the layers at a time: what lies between the layers fits a cache
BLOCK = 2**20  # numbers, 4 MB: for arrays of this size numpy asks Linux for huge pages
LINE = 16  # numbers of a line of the cache, with which each vector begins

RELU_BACKWARD = torch.ops.aten.threshold_backward.grad_input
TANH_BACKWARD = torch.ops.aten.tanh_backward.default


class Memory:
    """Vectors cut from large blocks: on huge pages, products of small networks are a tenth faster."""

    def __init__(self) -> None:
        self.left = torch.empty(0)

    @torch.inference_mode(False)
    def zeros(self, count: int, device: torch.device) -> Tensor:
        """Return a vector of `count` zeros."""
        if device.type != "cpu":
            return torch.zeros(count, device=device)
        if len(self.left) < count:
            block = torch.from_numpy(np.zeros(max(count, BLOCK) + LINE, np.float32))
            self.left = block[-block.data_ptr() % (4 * LINE) // 4 :]
        taken, self.left = self.left[:count], self.left[-(-count // LINE) * LINE :]
        return taken


MEMORY = Memory()


class Scratch:
    """Memory for what lies between layers, which passes share that do not overlap: so it stays in the cache."""

    def __init__(self) -> None:
        self._vectors: dict[str, Tensor] = {}

    def take(self, name: str, shape: tuple[int, ...], device: torch.device) -> Tensor:
        """Return the memory of this name in this shape."""
        count = math.prod(shape)
        if name not in self._vectors or len(self._vectors[name]) < count:
            self._vectors[name] = MEMORY.zeros(count, device)
        return self._vectors[name][:count].view(shape)


class FlatParameters:
    """All parameters of a network as one vector, and their gradients as another; the parameters become views.

    A weight lies in memory so that the larger of its sides is contiguous, which products with few inputs or few
    outputs want; its shape stays.
    """

    def __init__(self, network: nn.Module) -> None:
        """Move the parameters; the network must be on its device already."""
        parameters = list(network.parameters())
        size, device = sum(p.numel() for p in parameters), parameters[0].device
        learns = parameters[0].requires_grad  # a target network does not
        self.values, self.grads = MEMORY.zeros(size, device), MEMORY.zeros(size if learns else 0, device)
        self._places: dict[int, tuple[int, int]] = {}
        begin = 0
        for parameter in parameters:
            end = begin + parameter.numel()
            self._places[id(parameter)] = begin, end
            values = _view(self.values[begin:end], parameter.shape)
            parameter.data = values.copy_(parameter.detach())
            parameter.grad = _view(self.grads[begin:end], parameter.shape) if learns else None
            begin = end

    def span(self, parameters: Iterable[nn.Parameter]) -> slice:
        """Return where these parameters, which lie side by side, are in `values` and `grads`."""
        places = sorted(self._places[id(parameter)] for parameter in parameters)
        assert all(one[1] == other[0] for one, other in pairwise(places)), "not side by side"
        return slice(places[0][0], places[-1][1])


class FlatAdam(torch.optim.Adam):
    """Adam on the gradients of a `FlatParameters`, in one operation for each group; its state is that of PyTorch's."""

    _fused = staticmethod(torch._fused_adam_)

    def __init__(self, flat: FlatParameters, groups: Sequence[dict[str, Any]], **settings: Any) -> None:
        """Take groups as PyTorch's; the parameters of each, in any order, lie side by side in the network."""
        super().__init__(groups, fused=True, **settings)
        self.flat = flat
        self._vectors = []
        for group in self.param_groups:
            span = flat.span(group["params"])
            size = span.stop - span.start
            device = flat.values.device
            moments = [MEMORY.zeros(size, device) for _ in range(2)]
            self._vectors.append((flat.values[span], flat.grads[span], *moments, torch.zeros((), device=device)))
        self._link()

    def _link(self) -> None:
        """Make the state of each parameter a view of its group's vectors, with the numbers that it has."""
        for group, (_, _, first, second, steps) in zip(self.param_groups, self._vectors, strict=True):
            begin = self.flat.span(group["params"]).start
            for parameter in group["params"]:
                own = self.flat.span([parameter])
                kept = self.state.get(parameter, {})
                views = {"step": steps}
                for name, vector in (("exp_avg", first), ("exp_avg_sq", second)):
                    views[name] = _view(vector[own.start - begin : own.stop - begin], parameter.shape)
                for name, view in views.items():
                    if name in kept:
                        view.copy_(kept[name])
                self.state[parameter] = views

    def load_state_dict(self, state: Any) -> None:
        """Continue where `state_dict` was taken."""
        super().load_state_dict(state)
        self._link()

    def zero_grad(self, set_to_none: bool = False) -> None:
        """Set the gradients to zero, for autograd to add to; they stay where they are."""
        for _, grads, *_ in self._vectors:
            grads.zero_()

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Move the weights along the gradients."""
        self.descend()

    @torch.no_grad()
    def descend(self) -> None:
        """Move the weights along the gradients; PyTorch wraps `step` in a profiler, which takes as long again."""
        for group, (values, grads, first, second, steps) in zip(self.param_groups, self._vectors, strict=True):
            steps += 1
            beta1, beta2 = group["betas"]
            self._fused(
                [values],
                [grads],
                [first],
                [second],
                [],
                [steps],
                lr=group["lr"],
                beta1=beta1,
                beta2=beta2,
                weight_decay=group["weight_decay"],
                eps=group["eps"],
                amsgrad=False,
                maximize=False,
            )


class FlatAdamW(FlatAdam):
    """The same with decoupled weight decay."""

    _fused = staticmethod(torch._fused_adamw_)


class Pass:
    """One use of k MLPs of equal sizes in an update: rows [B, inputs] to [k, B, outputs], and back.

    Each use of a network within an update has a Pass of its own, which keeps what lies between its layers until the
    way back.
    """

    def __init__(self, network: nn.Module, scratch: Scratch | None = None, *, members: int | None = None) -> None:
        """Read the layers of the network, or of its first `members`, after its parameters have become flat.

        Passes with one `scratch` must not overlap: the way back follows the way forth before another begins.
        """
        self.scratch = scratch or Scratch()
        if isinstance(network, MLPEnsemble):
            pairs = list(zip(network.weights, network.biases, strict=True))
            self.layers = [_Layer(*(_both(p, lambda t: t[:members]) for p in pair)) for pair in pairs]
        else:
            linear = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
            self.layers = [
                _Layer(_both(one.weight, lambda t: t.T[None]), _both(one.bias, lambda t: t[None, None]))
                for one in linear
            ]
        self._blocks: dict[int, _Block] = {}

    def forward(self, rows: Tensor) -> Tensor:
        """Return the outputs [k, B, outputs] of rows [B, inputs]."""
        count = rows.shape[0]  # len() takes longer
        if count <= ROWS:
            return self._block(0, count).forward(rows)
        parts = torch.split(rows, ROWS)
        return torch.cat([self._block(i, part.shape[0]).forward(part) for i, part in enumerate(parts)], dim=1)

    def backward(self, grad: Tensor, *, weights: bool = True, rows: bool = False, add: bool = False) -> Tensor | None:
        """Write the gradients of `weights`, or `add` to them, given those of the outputs, [k, B, outputs].

        Return those of the rows, [B, inputs], where they are wanted.
        """
        if grad.shape[1] <= ROWS:
            return self._blocks[0].backward(grad, weights=weights, rows=rows, add=add)
        found = [
            self._blocks[i].backward(part, weights=weights, rows=rows, add=add or i > 0)
            for i, part in enumerate(torch.split(grad, ROWS, dim=1))
        ]
        return torch.cat(found) if rows else None  # type: ignore[arg-type]

    def _block(self, number: int, rows: int) -> "_Block":
        block = self._blocks.get(number)
        if block is None or block.rows != rows:
            block = self._blocks[number] = _Block(self.layers, rows, self.scratch, number)
        return block


class _Layer:
    """A layer of k networks as products take it: weight [k, inputs, outputs], bias [k, 1, outputs], and gradients."""

    def __init__(self, weight: tuple[Tensor, Tensor | None], bias: tuple[Tensor, Tensor | None]) -> None:
        (self.weight, weight_grad), (self.bias, self.bias_grad) = weight, bias
        self.turned, self.single = self.weight.mT, self.weight.shape[2] == 1  # output
        self.lies_turned = self.weight.stride(-1) != 1
        self.weight_grad = weight_grad.mT if weight_grad is not None and self.lies_turned else weight_grad


class _Block:
    """The memory of a pass for some rows: what lies between the layers, and its gradients."""

    def __init__(self, layers: list[_Layer], rows: int, scratch: Scratch, number: int) -> None:
        self.layers, self.rows = layers, rows
        self.members, device = len(layers[0].weight), layers[0].weight.device
        shapes = [(self.members, rows, layer.weight.shape[2]) for layer in layers[:-1]]
        self.hidden, self.grads = (
            [scratch.take(f"{kind} {number} {i}", shape, device) for i, shape in enumerate(shapes)]
            for kind in ("values", "grads")
        )
        self.turned = [hidden.mT for hidden in self.hidden]
        large = [is_large_product(rows, layer.weight.shape[1], layer.weight.shape[2], device) for layer in layers]
        self.forth = list(zip(layers[:-1], self.hidden, large[:-1], strict=True))
        self.back = list(zip(layers[1:], self.hidden, self.turned, self.grads, large[1:], strict=True))[::-1]
        self.first_large = large[0]
        self.inputs = torch.empty(0)

    def forward(self, rows: Tensor) -> Tensor:
        self.inputs = values = rows.expand(self.members, -1, -1)
        for layer, out, large in self.forth:
            if large:
                multiply(values, layer.weight, out, layer.bias)
            else:
                torch.baddbmm(layer.bias, values, layer.weight, out=out)
            torch.relu_(out)
            values = out
        last = self.layers[-1]
        if not last.single:
            return torch.baddbmm(last.bias, values, last.weight)
        turned = self.turned[-1] if self.turned else values.mT
        return torch.baddbmm(last.bias, last.turned, turned).mT  # twice as fast as with a single column

    def backward(self, grad: Tensor, *, weights: bool, rows: bool, add: bool) -> Tensor | None:
        for layer, values, turned, out, large in self.back:
            if weights:
                _write(layer, values, turned, grad, add=add, large=large)
            if layer.single:
                torch.mul(grad, layer.turned, out=out)
            elif large:
                multiply(grad, layer.turned, out)
            else:
                torch.bmm(grad, layer.turned, out=out)
            grad = RELU_BACKWARD(out, values, 0, grad_input=out)
        first = self.layers[0]
        if weights:
            _write(first, self.inputs, self.inputs.mT, grad, add=add, large=self.first_large)
        if not rows:
            return None
        found = torch.bmm(grad, first.turned)
        return found[0] if self.members == 1 else found.sum(0)


def _write(layer: _Layer, values: Tensor, turned: Tensor, grad: Tensor, *, add: bool, large: bool) -> None:
    """Write, or add, the gradients of a layer's weight and bias."""
    assert layer.weight_grad is not None
    assert layer.bias_grad is not None
    first, second = (grad.mT, values) if layer.lies_turned else (turned, grad)
    if add:
        layer.weight_grad.baddbmm_(first, second)
        layer.bias_grad.add_(grad.sum(1, keepdim=True))
        return
    if large:
        multiply(first, second, layer.weight_grad)
    else:
        torch.bmm(first, second, out=layer.weight_grad)
    torch.sum(grad, 1, keepdim=True, out=layer.bias_grad)


def multiply(first: Tensor, second: Tensor, out: Tensor, bias: Tensor | None = None) -> None:
    """Write first @ second + bias, [k, n, m] of [k, n, l] and [k, l, m], to `out` by oneDNN."""
    for i in range(len(out)):
        out[i].copy_(faster_product(first[i], second[i].t(), None if bias is None else bias[i, 0]))


def _both(parameter: Tensor, view: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor | None]:
    """Return a view of a parameter and of its gradient, None where it has none."""
    return view(parameter.detach()), None if parameter.grad is None else view(parameter.grad)


def _view(vector: Tensor, shape: torch.Size) -> Tensor:
    """Return the vector in this shape, the larger of the last two sides contiguous."""
    if len(shape) < 2 or shape[-1] >= shape[-2]:
        return vector.view(shape)
    return vector.view(*shape[:-2], shape[-1], shape[-2]).mT
