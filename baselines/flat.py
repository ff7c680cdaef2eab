"""All weights of a learner as one vector, which Adam and Polyak averaging move in one operation each."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dtbench.nn import MLP, MLPEnsemble

BLOCK = 2**20  # numbers, 4 MB: for arrays of this size numpy asks Linux for huge pages
LINE = 16  # numbers of a line of the cache, with which each vector begins


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
        taken, self.left = self.left[:count], self.left[_lines(count) :]
        return taken


MEMORY = Memory()


class FlatParameters:
    """All parameters of networks as one vector, and their gradients as another; the parameters become views.

    Bias and weight of a layer are one matrix [1 + inputs, outputs], for rows that begin with a 1; it lies in memory so
    that the larger of its sides is contiguous, which products with few inputs or few outputs want. The layers of an
    MLP follow each other, and its first has room for the inputs of the widest first layer: so MLPs of equal hidden
    sizes take equal steps in memory, and a `Pass` can hold several as one stack.
    """

    def __init__(self, *networks: nn.Module) -> None:
        """Move the parameters, of networks that learn first; the networks must be on their device already."""
        units = [unit for network in networks for unit in _units(network)]
        inputs = max((layers_of(unit)[0][0].shape[1] for unit in units if isinstance(unit, nn.Module)), default=0)
        shapes = [_room(unit, inputs) for unit in units]
        learn = [count * size for unit, (count, size) in zip(units, shapes, strict=True) if _learns(unit)]
        device = next(networks[0].parameters()).device
        self.values = MEMORY.zeros(sum(count * size for count, size in shapes), device)
        self.grads = MEMORY.zeros(sum(learn), device)
        self._places: dict[int, tuple[int, int]] = {}
        begin = 0
        for unit, (count, size) in zip(units, shapes, strict=True):
            end = begin + count * size
            grads = self.grads[begin:end].view(count, size) if _learns(unit) else None
            self._move(unit, self.values[begin:end].view(count, size), grads)
            begin = end

    def _move(self, unit: nn.Module | nn.Parameter, values: Tensor, grads: Tensor | None) -> None:
        """Make the parameters of an MLP's members, or a single parameter, views of their memory [members, numbers]."""
        moved = _views(unit, values)
        of_moved = [None] * len(moved) if grads is None else [view for _, view in _views(unit, grads)]
        for (parameter, view), grad in zip(moved, of_moved, strict=True):
            parameter.data, parameter.grad = view.copy_(parameter.detach()), grad
            begin = view.storage_offset() - self.values.storage_offset()
            reach = sum((size - 1) * stride for size, stride in zip(view.shape, view.stride(), strict=True))
            self._places[id(parameter)] = int(begin), int(begin + reach + 1)

    def span(self, parameters: Iterable[nn.Parameter]) -> slice:
        """Return where these parameters, which lie side by side, are in `values` and `grads`."""
        ids = {id(parameter) for parameter in parameters}
        begin = min(self._places[one][0] for one in ids)
        end = max(self._places[one][1] for one in ids)
        others = [place for one, place in self._places.items() if one not in ids]
        assert all(place[1] <= begin or place[0] >= end for place in others), "not side by side"
        return slice(begin, end)

    def values_of(self, network: nn.Module) -> Tensor:
        """Return all weights of a network as one vector; networks of equal sizes have equal ones."""
        return self.values[self.span(network.parameters())]


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
            self._vectors.append((flat.values[span], flat.grads[span], *moments))
        self._steps = torch.zeros((), device=flat.values.device)  # of all groups
        # A CUDA graph reads learning rates from the device; elsewhere a number is faster.
        on_cuda = flat.values.device.type == "cuda"
        self._rates = [torch.zeros((), device=flat.values.device) for _ in self.param_groups] if on_cuda else None
        self._link()
        self._copy_rates()

    def _link(self) -> None:
        """Make the state of each parameter a view of its group's vectors, with the numbers that it has."""
        for group, (values, _, first, second) in zip(self.param_groups, self._vectors, strict=True):
            for parameter in group["params"]:
                begin = parameter.storage_offset() - values.storage_offset()
                kept = self.state.get(parameter, {})
                views = {"step": self._steps}
                for name, vector in (("exp_avg", first), ("exp_avg_sq", second)):
                    views[name] = vector.as_strided(
                        parameter.shape, parameter.stride(), vector.storage_offset() + begin
                    )
                for name, view in views.items():
                    if name in kept:
                        view.copy_(kept[name])
                self.state[parameter] = views

    def load_state_dict(self, state: Any) -> None:
        """Continue where `state_dict` was taken."""
        super().load_state_dict(state)
        self._link()
        self._copy_rates()

    def set_rate(self, group: int, rate: float) -> None:
        """Set the learning rate of a group, by its index."""
        self.param_groups[group]["lr"] = rate
        if self._rates is not None:
            self._rates[group].fill_(rate)

    def _copy_rates(self) -> None:
        for index, group in enumerate(self.param_groups):
            self.set_rate(index, group["lr"])

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
        self._steps += 1
        rates = self._rates or [group["lr"] for group in self.param_groups]
        for group, rate, (values, grads, first, second) in zip(self.param_groups, rates, self._vectors, strict=True):
            beta1, beta2 = group["betas"]
            self._fused(
                [values],
                [grads],
                [first],
                [second],
                [],
                [self._steps],
                lr=rate,
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


@dataclass(frozen=True, slots=True)
class FlatActorCritic:
    """An `actor` and its `critics` with targets of both as one vector, and an optimizer each."""

    flat: FlatParameters
    averaged: list[tuple[Tensor, Tensor]]  # weights of targets, and those that they follow
    actor_optimizer: FlatAdam
    critic_optimizer: FlatAdam

    @classmethod
    def of(cls, network: Any, target: Any, *, learning_rate: float) -> "FlatActorCritic":
        """Move the parameters of both networks."""
        flat = FlatParameters(network.actor, network.critics, target.critics, target.actor)
        pairs = ((target.critics, network.critics), (target.actor, network.actor))
        averaged = [(flat.values_of(slow), flat.values_of(fast)) for slow, fast in pairs]
        actor, critic = (
            FlatAdam(flat, [{"params": list(part.parameters())}], lr=learning_rate)
            for part in (network.actor, network.critics)
        )
        return cls(flat, averaged, actor, critic)


def _units(network: nn.Module) -> list[nn.Module | nn.Parameter]:
    """Return the MLPs of a network and its other parameters, in its order."""
    if isinstance(network, (MLP, MLPEnsemble)):
        return [network]
    return [*network.parameters(recurse=False), *(unit for child in network.children() for unit in _units(child))]


def layers_of(network: nn.Module) -> list[tuple[Tensor, Tensor]]:
    """Return weight and bias of each layer."""
    if isinstance(network, MLPEnsemble):
        return list(zip(network.weights.parameters(), network.biases.parameters(), strict=True))
    return [(layer.weight, layer.bias) for layer in network.modules() if isinstance(layer, nn.Linear)]


def stack_of(tensor: Tensor) -> Tensor:
    """View a weight as [k, inputs, outputs], a bias as [k, 1, outputs], as they are in an ensemble."""
    if tensor.dim() == 3:
        return tensor
    return tensor.T[None] if tensor.dim() == 2 else tensor[None, None]


def _room(unit: nn.Module | nn.Parameter, inputs: int) -> tuple[int, int]:
    """Return how many members an MLP has, and the numbers of each, with so many inputs; 1 for other parameters."""
    if isinstance(unit, nn.Parameter):
        return 1, unit.numel()
    shapes = [stack_of(weight).shape for weight, _ in layers_of(unit)]
    sizes = [(1 + (shape[1] if i else inputs)) * shape[2] for i, shape in enumerate(shapes)]
    return shapes[0][0], sum(map(_lines, sizes))


def _views(unit: nn.Module | nn.Parameter, memory: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Return the parameters of an MLP, or a single one, each with its place in memory [members, numbers]."""
    if isinstance(unit, nn.Parameter):
        return [(unit, memory.view(unit.shape))]
    end = memory.shape[1]
    found: list[tuple[Tensor, Tensor]] = []
    for weight, bias in reversed(layers_of(unit)):
        members, inputs, outputs = stack_of(weight).shape
        count = (1 + inputs) * outputs
        end -= _lines(count)  # what a first layer has too much of stays free before it
        part = memory[:, end : end + count]
        wide = outputs >= inputs
        matrix = part.view(members, 1 + inputs, outputs) if wide else part.view(members, outputs, 1 + inputs).mT
        if weight.dim() == 3:
            found += [(weight, matrix[:, 1:]), (bias, matrix[:, :1])]
        else:
            found += [(weight, matrix[0, 1:].T), (bias, matrix[0, 0])]
    return found


def _learns(unit: nn.Module | nn.Parameter) -> bool:
    """Return whether a gradient is wanted; a target network has none."""
    parameter = unit if isinstance(unit, nn.Parameter) else next(unit.parameters())
    return parameter.requires_grad


def _lines(count: int) -> int:
    """Round up to whole lines of the cache."""
    return -(-count // LINE) * LINE
