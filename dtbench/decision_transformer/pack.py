"""Decision Transformers of several seeds as one stack of parameters (torch.func)."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dtbench.algorithm import Metrics
from dtbench.data.sampling import Windows, sample_each

if TYPE_CHECKING:  # agent.py offers packs
    from dtbench.decision_transformer.agent import DecisionTransformerLearner

ALIGNED = 16  # numbers: products of a GPU are slower where parameters begin between its words
MOMENTS = ("exp_avg", "exp_avg_sq")  # what AdamW keeps of every number


class TransformerPack:
    """S learners that take their steps together: one forward and backward pass, one clipping, one step of AdamW.

    All numbers of a learner lie in one row, so that a step costs about as many calls as that of a single learner.
    Dropout cannot draw from S streams at once: it draws from the first learner's.
    """

    def __init__(self, learners: "Sequence[DecisionTransformerLearner]") -> None:
        """All learners stand at the same step."""
        self.learners, self.first = learners, learners[0]
        self.samplers = [learner.sampler for learner in learners]
        self.model = _Losses(self.first)
        names = {parameter: name for name, parameter in self.first.network.named_parameters()}
        self.stacks = [
            _Stack([names[parameter] for parameter in group["params"]], learners)
            for group in self.first.optimizer.param_groups
        ]
        groups = [
            {**group, "params": [stack.weights]}
            for group, stack in zip(self.first.optimizer.param_groups, self.stacks, strict=True)
        ]
        self.optimizer = torch.optim.AdamW(groups, fused=True)
        for stack in self.stacks:
            if state := stack.optimizer_state(learners):
                self.optimizer.state[stack.weights] = state
        self.is_unpacked = True

    def update(self) -> list[Metrics]:
        """See `Pack`."""
        self.is_unpacked = False
        batches = self._windows()
        for group in self.optimizer.param_groups:
            group["lr"] = self.first.learning_rate()
        self.first.network.train()
        with self.first.stream.active():
            weights = {f"network.{name}": value for stack in self.stacks for name, value in stack.views().items()}
            losses = torch.func.vmap(self._losses, randomness="different")(weights, batches)
            self.optimizer.zero_grad(set_to_none=True)
            self.first.weighed(losses).sum().backward()  # type: ignore[no-untyped-call]
            norms = self._clip()
            self.optimizer.step()
        for learner in self.learners:
            learner.step += 1
        share = self.first.average_share()
        for stack in self.stacks:
            if stack.average is not None:
                stack.average.lerp_(stack.weights.detach(), share)
        metrics = {name: value.detach() for name, value in losses.items()} | {"gradient_norm": norms}
        return [{name: values[row] for name, values in metrics.items()} for row in range(len(self.learners))]

    def unpack(self) -> None:
        """See `Pack`."""
        if self.is_unpacked:
            return
        for stack in self.stacks:
            stack.write(self.learners, self.optimizer.state[stack.weights])
        for learner in self.learners:
            for group, packed in zip(learner.optimizer.param_groups, self.optimizer.param_groups, strict=True):
                group["lr"] = packed["lr"]
        self.is_unpacked = True

    def _windows(self) -> dict[str, Tensor]:
        """Every learner's own batch, [S, B, ...] each."""
        windows, rows = sample_each(self.samplers), len(self.samplers)
        fields = (field.name for field in dataclasses.fields(Windows))
        return {name: getattr(windows, name).unflatten(0, (rows, -1)) for name in fields}

    def _losses(self, weights: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Of one learner."""
        found: dict[str, Tensor] = torch.func.functional_call(self.model, dict(weights), (Windows(**batch),))
        return found

    @torch.no_grad()
    def _clip(self) -> Tensor:
        """Shorten each learner's gradient as `nn.utils.clip_grad_norm_` does; give the norms [S]."""
        slopes = [stack.weights.grad for stack in self.stacks if stack.weights.grad is not None]
        norms: Tensor = torch.stack([slope.norm(dim=1) for slope in slopes]).norm(dim=0)
        factors = (self.first.algorithm.gradient_clip / (norms + 1e-6)).clamp(max=1.0)
        torch._foreach_mul_(slopes, [factors[:, None]] * len(slopes))
        return norms


class _Losses(nn.Module):
    """What gives a learner's losses with other weights: `functional_call` puts them into its network meanwhile."""

    def __init__(self, learner: "DecisionTransformerLearner") -> None:
        super().__init__()
        self.network: nn.Module = learner.network
        self.losses = learner.losses

    def forward(self, windows: Windows) -> dict[str, Tensor]:
        return self.losses(windows)


class _Stack:
    """Some parameters of all learners: a row holds one learner's, one after the other, with zeros between them."""

    def __init__(self, names: list[str], learners: "Sequence[DecisionTransformerLearner]") -> None:
        self.names = names
        shaped = [dict(learners[0].network.named_parameters())[name] for name in names]
        self.shapes = [value.shape for value in shaped]
        self.rooms = [-(-value.numel() // ALIGNED) * ALIGNED for value in shaped]
        self.weights = self._rows([self._of(learner) for learner in learners]).requires_grad_()
        averages = [[learner.average[name] for name in names] for learner in learners]
        self.average = self._rows(averages) if learners[0].average_share() else None

    def views(self) -> dict[str, Tensor]:
        """Each parameter of all learners, [S, ...], through which gradients reach `weights`."""
        return dict(zip(self.names, self._parts(self.weights), strict=True))

    def optimizer_state(self, learners: "Sequence[DecisionTransformerLearner]") -> dict[str, Tensor]:
        """What AdamW knows of `weights`; nothing before the first step."""
        own = [
            [(value, learner.optimizer.state.get(value, {})) for value in self._of(learner)] for learner in learners
        ]
        begun = [state for pairs in own for _, state in pairs if state]
        if not begun:
            return {}
        rows = {
            name: self._rows([[state.get(name, torch.zeros_like(value)) for value, state in pairs] for pairs in own])
            for name in MOMENTS
        }
        return {"step": begun[0]["step"].clone(), **rows}

    @torch.no_grad()
    def write(self, learners: "Sequence[DecisionTransformerLearner]", state: Mapping[str, Any]) -> None:
        """Give every learner its weights, their average and what its optimizer is to know."""
        moments = {name: self._parts(state[name]) for name in MOMENTS}
        weights = self._parts(self.weights.detach())
        averages = None if self.average is None else self._parts(self.average)
        for row, learner in enumerate(learners):
            own = self._of(learner)
            torch._foreach_copy_(own, [value[row] for value in weights])
            if averages is not None:
                average = [learner.average[name] for name in self.names]
                torch._foreach_copy_(average, [value[row] for value in averages])
            for place, parameter in enumerate(own):
                kept = {name: values[place][row].clone() for name, values in moments.items()}
                learner.optimizer.state[parameter] = {"step": state["step"].clone(), **kept}

    def _of(self, learner: "DecisionTransformerLearner") -> list[Tensor]:
        parameters = dict(learner.network.named_parameters())
        return [parameters[name] for name in self.names]

    def _rows(self, values: Sequence[Sequence[Tensor]]) -> Tensor:
        """[S, numbers] from each learner's tensors."""
        flat = [[value.detach().flatten() for value in own] for own in values]
        gaps = [room - math.prod(shape) for room, shape in zip(self.rooms, self.shapes, strict=True)]
        padded = [[F.pad(value, (0, gap)) for value, gap in zip(own, gaps, strict=True)] for own in flat]
        return torch.stack([torch.cat(own) for own in padded])

    def _parts(self, rows: Tensor) -> list[Tensor]:
        """Views of rows [S, numbers] as parameters, [S, ...] each."""
        rooms = zip(torch.split(rows, self.rooms, dim=1), self.shapes, strict=True)
        return [_begin(room, math.prod(shape)).view(len(rows), *shape) for room, shape in rooms]


def _begin(room: Tensor, count: int) -> Tensor:
    """The first `count` numbers of each row; no call where that is all of them."""
    return room if room.shape[1] == count else room[:, :count]
