"""The state of a learner, for an exact resume."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from baselines.averages import WeightAverage
from baselines.batches import Batches


class Checkpointed:
    """A learner with `state_dict` and `load_state_dict`: `parts`, its average, its batches and its stream."""

    parts: ClassVar[tuple[str, ...]] = ("network", "target", "optimizer", "steps")
    batches: Batches[Any]
    stream: Any
    acting: WeightAverage[Any]  # of the network that acts

    def _parts(self) -> tuple[str, ...]:
        return (*self.parts, "acting") if self.acting.decay else self.parts

    def state_dict(self) -> dict[str, Any]:
        """Return the state of all parts and of both random streams."""
        values = {name: getattr(self, name) for name in self._parts()}
        state = {name: v.state_dict() if hasattr(v, "state_dict") else v for name, v in values.items()}
        return {**copied(state), "sampler": self.batches.state, "stream": self.stream.state}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state_dict` was taken."""
        for name in self._parts():
            part = getattr(self, name)
            if hasattr(part, "load_state_dict"):
                part.load_state_dict(state[name])
            else:
                setattr(self, name, state[name])
        self.batches.state = state["sampler"]
        self.stream.state = state["stream"]


def copied(state: Any) -> Any:
    """Copy the tensors of a state: they may be views of a block that holds much more, all of which would be saved."""
    if isinstance(state, Tensor):
        return state.detach().clone(memory_format=torch.contiguous_format)
    if isinstance(state, Mapping):
        return {name: copied(value) for name, value in state.items()}
    return [copied(value) for value in state] if isinstance(state, list) else state
