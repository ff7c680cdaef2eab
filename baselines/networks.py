"""Scales, stacked twin critics and Bellman targets of the learners for continuous actions."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import gymnasium as gym
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dtbench import IncompatibleTask, TrajectoryDataset
from dtbench.data import observation_moments, require_unit
from dtbench.nn import MLPEnsemble, indices_of

STD_FLOOR = 1e-3  # added to the standard deviation, as in CORL and in the code of TD3+BC


@dataclass(frozen=True, slots=True)
class ObservationScale:
    """Observations with mean 0 and standard deviation 1 over the data; as they are where `mean` is None."""

    mean: Tensor | None = None  # [observation]
    rate: Tensor | None = None  # [observation]: 1 / (standard deviation + 1e-3)

    def __call__(self, observations: Tensor) -> Tensor:
        """Scale [..., observation]."""
        if self.mean is None or self.rate is None:
            return observations.float()
        return (observations.float() - self.mean) * self.rate


class TwinCritics(MLPEnsemble):
    """Two Q-functions."""

    def __init__(
        self, observations: int, actions: int, *, hidden_size: int, num_layers: int, last_gain: float | None = None
    ) -> None:
        """Draw the weights: PyTorch's own, or orthogonal with this gain in the last layer."""
        sizes = [observations + actions, *[hidden_size] * num_layers, 1]
        super().__init__([critic_layers(sizes, last_gain=last_gain) for _ in range(2)])

    def forward(self, observations: Tensor, actions: Tensor, *, frozen: bool = False, critics: int = 2) -> Tensor:
        """Return values [critics, B] of actions [B, A], or [critics, B, M] of actions [B, M, A].

        `frozen`: no gradient for weights.
        """
        if actions.dim() == 3:
            observations = observations[:, None].expand(-1, actions.shape[1], -1)
        inputs = torch.cat([observations, actions], dim=-1).flatten(0, -2)
        return self.evaluate(inputs, frozen=frozen, members=critics).view(critics, *actions.shape[:-1])


def critic_layers(sizes: list[int], *, last_gain: float | None) -> list[nn.Linear]:
    """Return the linear layers of one Q-function."""
    made = [nn.Linear(inputs, outputs) for inputs, outputs in pairwise(sizes)]
    if last_gain is not None:
        make_orthogonal(made, last_gain=last_gain)
    return made


def make_orthogonal(layers: Sequence[nn.Linear], *, last_gain: float) -> None:
    """Draw orthogonal weights with a gain of sqrt(2), of `last_gain` in the last layer, and biases of 0."""
    for layer in layers:
        nn.init.orthogonal_(layer.weight, gain=last_gain if layer is layers[-1] else math.sqrt(2))
        nn.init.zeros_(layer.bias)


def bellman_target(rewards: Tensor, terminals: Tensor, following: Tensor, discount: float) -> Tensor:
    """Return r + γ V(s'), [B], and the reward alone where the environment ended."""
    return rewards + discount * torch.where(terminals, 0.0, following)


def bellman_error(values: Tensor, target: Tensor) -> Tensor:
    """Return the mean of (Q(s, a) - target)² over the batch, summed over both critics: [2, B] and [B] to a scalar.

    The authors of all three methods and d3rlpy do so; CORL's IQL has the mean of both, which is the same to Adam.
    """
    return (values - target).square().mean(dim=-1).sum()


class Deferred:
    """A metric that is computed where it is read: most steps are not logged."""

    def __init__(self, compute: Callable[[], Tensor]) -> None:
        self.compute = compute

    def __float__(self) -> float:
        return float(self.compute())


@torch.no_grad()
def soft_update(target: nn.Module, network: nn.Module, tau: float) -> None:
    """Move the target's weights by the share `tau` to the network's: Polyak averaging."""
    torch._foreach_lerp_(list(target.parameters()), list(network.parameters()), tau)


def cosine(step: int, steps: int | None) -> float:
    """Return the share of the learning rate after `step` of `steps` steps: 1 at first, 0 from the end on."""
    return 1.0 if steps is None else (1 + math.cos(math.pi * min(step / steps, 1))) / 2


def descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """Take one step of `optimizer` along the gradient of `loss`."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def require_flat_boxes(algorithm: str, dataset: TrajectoryDataset) -> tuple[int, int]:
    """Return the sizes of observation and action; raise IncompatibleTask unless both are flat, actions in [-1, 1]."""
    observations, actions = dataset.observation_space, dataset.action_space
    if not isinstance(actions, gym.spaces.Box) or len(actions.shape) != 1:
        raise IncompatibleTask(f"{algorithm} needs a flat Box of actions, not {actions}. Try discrete_cql.")
    require_unit(algorithm, actions)
    if not isinstance(observations, gym.spaces.Box) or len(observations.shape) != 1:
        raise IncompatibleTask(f"{algorithm} needs flat Box observations, not {observations}.")
    return observations.shape[0], actions.shape[0]


def observation_scale(dataset: TrajectoryDataset, *, normalize: bool, device: torch.device) -> ObservationScale:
    """Return the scale of the dataset's observations; without `normalize` it leaves them as they are."""
    if not normalize:
        return ObservationScale()
    mean, std = (moment.reshape(-1) for moment in observation_moments(dataset))
    tensors = (torch.from_numpy(numbers).float().to(device) for numbers in (mean, 1 / (std + STD_FLOOR)))
    return ObservationScale(*tensors)


def reward_scale(dataset: TrajectoryDataset, *, normalize: bool) -> float:
    """Return what rewards are multiplied by: with `normalize` best and worst episode come to be 1000 apart.

    Kostrikov et al. (2021) scale the rewards of Gym so. 1 where all returns are equal.
    """
    span = float(dataset.returns.max() - dataset.returns.min()) if normalize else 0.0
    return 1000 / span if span else 1.0


def flat_size(space: gym.Space[Any]) -> int:
    """Return how many numbers one flat observation has."""
    return int(space.n) if isinstance(space, gym.spaces.Discrete) else math.prod(space.shape or ())


def flat_observations(observations: Tensor, space: gym.Space[Any]) -> Tensor:
    """Flatten [..., *observation] to [..., numbers]; indices become one-hot."""
    if isinstance(space, gym.spaces.Discrete):
        return F.one_hot(indices_of(observations, space), int(space.n)).float()
    return observations.float().flatten(observations.dim() - len(space.shape or ()))
