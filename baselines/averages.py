"""Averages of weights over training, with which a policy may act."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any, Generic, TypeVar

from torch import nn

from baselines.networks import soft_update
from dtbench import InvalidValue

Network = TypeVar("Network", bound=nn.Module)


class WeightAverage(Generic[Network]):
    """The network that acts: the trained one, or a copy with the exponential moving average of its weights."""

    def __init__(self, trained: Network, decay: float) -> None:
        """Average with `decay` a step, 0 for none; raise InvalidValue unless it lies in [0, 1)."""
        if not 0 <= decay < 1:
            raise InvalidValue(f"ema_decay {decay} must lie in [0, 1).")
        self.trained, self.decay, self.steps = trained, decay, 0
        self.network: Network = deepcopy(trained).requires_grad_(False) if decay else trained

    def update(self) -> None:
        """Move the average to the present weights; early it forgets fast, or the first weights would linger."""
        if self.decay:
            soft_update(self.network, self.trained, 1 - min(self.decay, (1 + self.steps) / (10 + self.steps)))
            self.steps += 1

    def state_dict(self) -> dict[str, Any]:
        """Return the average and the number of its updates."""
        return {"network": self.network.state_dict(), "steps": self.steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state_dict` was taken."""
        self.network.load_state_dict(state["network"])
        self.steps = state["steps"]
