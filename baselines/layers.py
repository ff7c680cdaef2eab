"""Forward passes and gradients of MLPs written out.

A product in the networks of a TD learner takes some 50 microseconds, and autograd and fresh memory take as long again
beside each. Here a pass writes into memory that it keeps, and gradients are written where Adam reads them. Nothing
waits for the device or changes its shape from step to step, so that a CUDA graph can hold an update.
"""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from baselines.flat import MEMORY, layers_of, stack_of
from dtbench.nn import faster_product, is_large_product

ROWS = 1024  # that go through the layers at a time: what lies between the layers fits a cache
ALIGNED = 8  # numbers that a processor with AVX2 takes at once: rows begin with a multiple

RELU_BACKWARD = torch.ops.aten.threshold_backward.grad_input
TANH_BACKWARD = torch.ops.aten.tanh_backward.default


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


class Pass:
    """One use of k MLPs of equal hidden sizes in an update: rows [B, inputs] to [k, B, outputs], and back.

    Each use of networks within an update has a Pass of its own, which keeps what lies between the layers until the
    way back.
    """

    def __init__(
        self, network: nn.Module | Sequence[nn.Module], scratch: Scratch | None = None, *, members: int | None = None
    ) -> None:
        """Read the layers of a network, of its first `members`, or of several which follow each other in memory.

        Those that learn come first. Passes with one `scratch` must not overlap: the way back follows the way forth
        before another begins.
        """
        self.scratch = scratch or Scratch()
        networks = [network] if isinstance(network, nn.Module) else network
        parts = [[_Layer(*_matrices(*pair, members)) for pair in layers_of(part)] for part in networks]
        self.first = [part[0] for part in parts]
        self.layers = [_stacked(layers) for layers in zip(*(part[1:] for part in parts), strict=True)]
        self._blocks: dict[int, _Block] = {}

    def forward(self, rows: Tensor, *more: Tensor) -> Tensor:
        """Return the outputs [k, B, outputs] of rows [B, inputs], which each network has of its own."""
        count = rows.shape[0]  # len() takes longer
        if count <= ROWS:
            return self._block(0, count).forward((rows, *more))
        parts = zip(*(torch.split(one, ROWS) for one in (rows, *more)), strict=True)
        return torch.cat([self._block(i, part[0].shape[0]).forward(part) for i, part in enumerate(parts)], dim=1)

    def backward(self, grad: Tensor, *, weights: bool = True, rows: bool = False, add: bool = False) -> Tensor | None:
        """Write the gradients of `weights`, or `add` to them, given those of the outputs of members that learn.

        Return those of the rows, [B, inputs], where they are wanted of a single network.
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
            block = self._blocks[number] = _Block(self.first, self.layers, rows, self.scratch, number)
        return block


class _Layer:
    """A layer of k networks, the first of which learn: matrices [k, 1 + inputs, outputs], and their gradients."""

    def __init__(self, matrix: Tensor, grad: Tensor | None) -> None:
        self.matrix, self.grad, self.members = matrix, grad, matrix.shape[0]
        self.learning = self.members if grad is None else grad.shape[0]
        self.turned, self.single = matrix.mT, matrix.shape[2] == 1  # output
        self.lies_turned = matrix.stride(-1) != 1
        self.back = self.turned[: self.learning, :, 1:]  # the way back ends at the ones
        self.lying_grad = grad.mT if grad is not None and self.lies_turned else grad

    def is_large(self, rows: int) -> bool:
        """Return whether products with so many rows are oneDNN's."""
        return is_large_product(rows, self.matrix.shape[1], self.matrix.shape[2], self.matrix.device)


class _Rows:
    """Memory for the inputs of a layer, [k, B, inputs], a one before each row."""

    def __init__(self, scratch: Scratch, name: str, members: int, rows: int, layer: _Layer) -> None:
        before = 1 if layer.is_large(rows) else ALIGNED  # oneDNN wants rows without gaps
        width = before - 1 + layer.matrix.shape[1]
        self.memory = scratch.take(f"{name} {width}", (members, rows, width), layer.matrix.device)
        self.memory[..., before - 1] = 1
        self.values, self.with_ones = self.memory[..., before:], self.memory[..., before - 1 :]


class _Block:
    """The memory of a pass for some rows: what lies between the layers, and its gradients."""

    def __init__(self, first: list[_Layer], layers: list[_Layer], rows: int, scratch: Scratch, number: int) -> None:
        self.rows, self.last = rows, [*first, *layers][-1]
        members = sum(layer.members for layer in first)
        inputs = [_Rows(scratch, f"inputs {number} {i}", 1, rows, layer) for i, layer in enumerate(first)]
        hidden = [_Rows(scratch, f"values {number} {i}", members, rows, layer) for i, layer in enumerate(layers)]
        self.inputs = [one.values[0] for one in inputs]
        self.parts: list[tuple[_Layer, Tensor, slice, bool]] = []  # of the first layer, one a network
        for layer, one in zip(first, inputs, strict=True):
            begin = self.parts[-1][2].stop if self.parts else 0
            part = slice(begin, begin + layer.members)
            self.parts.append((layer, one.with_ones.expand(layer.members, -1, -1), part, layer.is_large(rows)))
        self.last_values = hidden[-1].with_ones if hidden else self.parts[0][1]
        self.forth: list[tuple[list[tuple[Tensor, Tensor, Tensor, bool]], Tensor]] = []  # products, then ReLU
        self.back: list[tuple[_Layer, Tensor, Tensor, Tensor, bool]] = []
        for i, (layer, one) in enumerate(zip(layers, hidden, strict=True)):
            before = (layers[i - 1], hidden[i - 1].with_ones, slice(None), layers[i - 1].is_large(rows))
            products = [
                (values, former.matrix, one.values[part], large)
                for former, values, part, large in ([before] if i else self.parts)
            ]
            self.forth.append((products, one.memory))
            shape = (layer.learning, *one.values.shape[1:])
            grads = scratch.take(f"grads {number} {i}", shape, one.memory.device)
            with_ones, values = (t[: layer.learning] for t in (one.with_ones, one.values))
            self.back.insert(0, (layer, with_ones, values, grads, layer.is_large(rows)))

    def forward(self, parts: Iterable[Tensor]) -> Tensor:
        for place, rows in zip(self.inputs, parts, strict=True):
            place.copy_(rows)
        for products, memory in self.forth:
            for product in products:
                _multiply(*product)
            torch.relu_(memory)
        if self.last.lies_turned:
            return torch.bmm(self.last.turned, self.last_values.mT).mT  # for one output, twice as fast
        return torch.bmm(self.last_values, self.last.matrix)

    def backward(self, grad: Tensor, *, weights: bool, rows: bool, add: bool) -> Tensor | None:
        for layer, with_ones, values, out, large in self.back:
            if weights:
                _write(layer, with_ones, grad, add=add, large=large)
            if layer.single:
                torch.mul(grad, layer.back, out=out)
            else:
                _multiply(grad, layer.back, out, large)
            grad = RELU_BACKWARD(out, values, 0, grad_input=out)
        for layer, with_ones, part, large in self.parts:
            if weights and layer.grad is not None:
                _write(layer, with_ones, grad[part], add=add, large=large)
        if not rows:
            return None
        found = torch.bmm(grad, self.parts[0][0].back)
        return found[0] if found.shape[0] == 1 else found.sum(0)


def _write(layer: _Layer, values: Tensor, grad: Tensor, *, add: bool, large: bool) -> None:
    """Write, or add, the gradient of a layer's matrix, given its inputs after ones and the gradient of its outputs."""
    assert layer.lying_grad is not None
    first, second = (grad.mT, values) if layer.lies_turned else (values.mT, grad)
    if add:
        layer.lying_grad.baddbmm_(first, second)
    else:
        _multiply(first, second, layer.lying_grad, large)


def _multiply(first: Tensor, second: Tensor, out: Tensor, large: bool) -> None:
    """Write first @ second, [k, n, m] of [k, n, l] and [k, l, m], to `out`; by oneDNN where it is `large`."""
    if not large:
        torch.bmm(first, second, out=out)
        return
    for i in range(out.shape[0]):
        out[i].copy_(faster_product(first[i], second[i].t()))


def _matrices(weight: Tensor, bias: Tensor, members: int | None) -> tuple[Tensor, Tensor | None]:
    """Return bias and weight as one matrix [members, 1 + inputs, outputs], and its gradient where it has one."""

    def joined(weight: Tensor, bias: Tensor) -> Tensor:
        below = stack_of(weight)
        count, inputs, outputs = below.shape
        return below.as_strided((count, 1 + inputs, outputs), below.stride(), bias.storage_offset())[:members]

    grad = None if weight.grad is None or bias.grad is None else joined(weight.grad, bias.grad)
    return joined(weight.detach(), bias.detach()), grad


def _stacked(layers: Sequence[_Layer]) -> _Layer:
    """Return the layers of several networks, [k, ...] each, as one."""
    if len(layers) == 1:
        return layers[0]
    grads = [layer.grad for layer in layers if layer.grad is not None]
    return _Layer(_joined([layer.matrix for layer in layers]), _joined(grads) if grads else None)


def _joined(stacks: Sequence[Tensor]) -> Tensor:
    """View stacks [k, n, m] that follow each other in memory, all in equal steps, as one."""
    begins = [matrix.storage_offset() for stack in stacks for matrix in stack]
    step = begins[1] - begins[0]
    assert begins == [begins[0] + i * step for i in range(len(begins))], "members do not follow each other"
    first = stacks[0]
    return first.as_strided((len(begins), *first.shape[1:]), (step, *first.stride()[1:]), begins[0])
