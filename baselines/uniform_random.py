"""A uniformly random policy, the reference of every table."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import torch
from torch import Tensor

from dtbench import History, IncompatibleTask, Metrics, TrajectoryDataset


@dataclass(frozen=True)
class UniformRandom:
    """A policy under which every action is equally likely. Give it `train_steps: 0` and `action_mode: sample`."""

    def learner(self, dataset: TrajectoryDataset, *, seed: int, device: torch.device) -> "UniformRandomLearner":
        """Return a learner for discrete actions; raise IncompatibleTask for others."""
        if not isinstance(dataset.action_space, gym.spaces.Discrete):
            raise IncompatibleTask(f"random plays discrete actions, not {dataset.action_space}.")
        return UniformRandomLearner(int(dataset.action_space.n))


class UniformRandomLearner:
    """A learner that learns nothing and gives every action the same logit."""

    context = 1
    return_conditioned = False

    def __init__(self, actions: int) -> None:
        self.actions = actions

    def update(self) -> Metrics:
        """Learn nothing."""
        return {}

    def act(self, history: History) -> Tensor:
        """Return the first action, the argmax of equal logits: evaluate with `action_mode: sample`."""
        return self.action_logits(history).argmax(dim=-1)

    def action_logits(self, history: History) -> Tensor:
        """Return zeros, [B, actions]."""
        return torch.zeros(len(history.mask), self.actions, device=history.mask.device)

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: there is no state."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Do nothing: there is no state."""
