"""RvS-R: an MLP conditioned on the return, DT without a transformer (Emmons et al. 2021, arXiv 2112.10751)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from baselines.bc import BehaviorCloning, BehaviorCloningLearner
from dtbench import History, TrajectoryDataset
from dtbench.data import Windows


@dataclass(frozen=True)
class RvSR(BehaviorCloning):
    """Predict the action from the observation and the mean reward that is still to come.

    That is the return-to-go over the steps left until the longest episode of the data would end. The defaults are
    those of the authors on Gym. They maximise the likelihood of a Gaussian with a spread of its own, here errors are
    squared and a tanh bounds the mean, as in `bc`; and they hold the wanted reward fixed during an episode, here it
    follows what was earned, as DT's return-to-go does.
    """

    version: ClassVar[int] = 1
    family: ClassVar[str] = "other"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"official": {}}

    hidden_size: int = 1024
    num_layers: int = 2
    dropout: float = 0.0
    batch_size: int = 16384
    learning_rate: float = 1e-3
    weight_decay: float = 0.0

    def learner(self, dataset: TrajectoryDataset, *, seed: int, device: torch.device) -> "RvSRLearner":
        """Build the network for the dataset's spaces; raise IncompatibleTask where they do not fit."""
        self.check(dataset)
        return RvSRLearner(self, dataset, seed=seed, device=device)


def mean_reward_to_go(returns_to_go: Tensor, timesteps: Tensor, horizon: int) -> Tensor:
    """Return R_t / (H - t), the reward a step that earns R_t until step H."""
    return returns_to_go / (horizon - timesteps).clamp(min=1)


class RvSRLearner(BehaviorCloningLearner):
    """A learner that imitates, with the mean reward to go as a further input, over its spread in the data."""

    return_conditioned = True

    def __init__(self, algorithm: RvSR, dataset: TrajectoryDataset, *, seed: int, device: torch.device) -> None:
        self.horizon = int(dataset.lengths.max())
        future, timesteps = (torch.from_numpy(column) for column in (dataset.returns_to_go, dataset.timesteps))
        rewards = mean_reward_to_go(future, timesteps, self.horizon)
        self.reward_mean, spread = float(rewards.mean()), float(rewards.std(correction=0))
        self.reward_rate = 1 / spread if spread else 1.0
        super().__init__(algorithm, dataset, seed=seed, device=device)

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "reward_scale": [self.reward_mean, self.reward_rate]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.reward_mean, self.reward_rate = state.get("reward_scale", (self.reward_mean, self.reward_rate))

    def _input(self, seen: Windows | History) -> Tensor:
        rewards = mean_reward_to_go(seen.returns_to_go.float(), seen.timesteps, self.horizon)
        scaled = (rewards - self.reward_mean) * self.reward_rate * seen.mask
        return torch.cat([super()._input(seen), scaled], dim=-1)

    def _inputs(self) -> int:
        return super()._inputs() + self.context
