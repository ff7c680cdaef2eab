"""A uniformly random policy: the row that every table needs."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import torch
from torch import Tensor

from dtbench import History, IncompatibleTask, Metrics, TrajectoryDataset


@dataclass(frozen=True)
class UniformRandom:
    """Every action equally likely; nothing is learnt. Give it `train_steps: 0` and `action_mode: sample`."""

    def learner(self, dataset: TrajectoryDataset, *, seed: int, device: torch.device) -> "UniformRandomLearner":
        """A learner for discrete actions; raise IncompatibleTask for others."""
        if not isinstance(dataset.action_space, gym.spaces.Discrete):
            raise IncompatibleTask(f"random plays discrete actions, not {dataset.action_space}.")
        return UniformRandomLearner(int(dataset.action_space.n))


class UniformRandomLearner:
    """Equal logits for every action."""

    context = 1
    return_conditioned = False

    def __init__(self, actions: int) -> None:
        """`actions` is how many there are to choose from."""
        self.actions = actions

    def update(self) -> Metrics:
        """Learn nothing."""
        return {}

    def act(self, history: History) -> Tensor:
        """The first action: an argmax of equal logits. Sample instead."""
        return self.action_logits(history).argmax(dim=-1)

    def action_logits(self, history: History) -> Tensor:
        """Zeros, [B, actions]."""
        return torch.zeros(len(history.mask), self.actions, device=history.mask.device)

    def state_dict(self) -> dict[str, Any]:
        """Nothing to keep."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Nothing to restore."""
