"""The protocols that every algorithm implements: Algorithm, Learner, History, Rollout."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, SupportsFloat, TypeAlias, runtime_checkable

import torch
from torch import Tensor

from dtbench.data.dataset import TrajectoryDataset

Metrics: TypeAlias = Mapping[str, SupportsFloat]
"""Named scalars of one gradient step: numbers, tensors, or anything that is converted only when it is logged."""


@dataclass(frozen=True, slots=True)
class History:
    """The last T steps of B running episodes, oldest first, padded on the left; T is the learner's context.

    The last slot is the present: its observation is given, its action is to be chosen (zeros), and its return-to-go is
    the rest of the target return (zeros for a learner that is not return-conditioned).
    """

    observations: Tensor  # [B, T, *observation]
    actions: Tensor  # [B, T, *action]; the last slot is the action to choose
    returns_to_go: Tensor  # [B, T]
    timesteps: Tensor  # [B, T]
    mask: Tensor  # [B, T] bool, False where padded

    def of(self, rows: Tensor | slice, begin: int = 0) -> "History":
        """Return the history of these rows, from slot `begin` on."""
        return History(
            observations=self.observations[rows, begin:],
            actions=self.actions[rows, begin:],
            returns_to_go=self.returns_to_go[rows, begin:],
            timesteps=self.timesteps[rows, begin:],
            mask=self.mask[rows, begin:],
        )


class Learner(Protocol):
    """An algorithm that trains on one dataset with one seed.

    Optional attributes: `resumable = False` if it cannot continue exactly from its state, so that an interrupted
    trial starts over; `network`, a `torch.nn.Module` whose parameters are counted; `action_logits`
    (`DiscreteLearner`); `rollout` (`CachingLearner`); `action_values` (`CriticLearner`).
    """

    context: int
    """The number of recent steps that `act` uses; 1 for a Markov policy."""
    return_conditioned: bool
    """Whether it uses a target return."""

    def update(self) -> Metrics:
        """Take one gradient step on a batch that the learner samples."""
        ...

    def act(self, history: History) -> Tensor:
        """Return the actions of the present, [B, *action]."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return all that an exact resume needs, random streams included: tensors and plain values only."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue exactly where `state_dict` was called."""
        ...


@runtime_checkable
class DiscreteLearner(Protocol):
    """A learner whose discrete actions can be sampled as well as chosen greedily."""

    def action_logits(self, history: History) -> Tensor:
        """Return unnormalised log-probabilities of the present's actions, [B, actions]."""
        ...


class Rollout(Protocol):
    """A learner's policy in one batch of episodes, with what it caches between their steps.

    It is called once for every step from the first on, with the history of all episodes of the batch and `rows`, the
    ascending indices [B] of those still active. It is valid until the learner's next update.
    """

    def act(self, history: History, rows: Tensor) -> Tensor:
        """Return the actions of the present of these rows, [B, *action]."""
        ...

    def action_logits(self, history: History, rows: Tensor) -> Tensor:
        """Return `DiscreteLearner.action_logits` of these rows, [B, actions]; only for such learners."""
        ...


@runtime_checkable
class CachingLearner(Protocol):
    """A learner that acts faster with a cache from step to step."""

    def rollout(self) -> Rollout | None:
        """Return a policy for one batch of episodes that equals `act` up to rounding; None without a cache."""
        ...


@runtime_checkable
class CriticLearner(Protocol):
    """A learner with action values, which `dtbench.convergence` holds against the data's returns."""

    def action_values(self, history: History, actions: Tensor) -> Tensor:
        """Return Q(s, a), [B], of the present's observations and these actions [B, *action], in the data's rewards."""
        ...


class Algorithm(Protocol):
    """A frozen dataclass of hyperparameters, whose defaults are those of its paper.

    Its class attribute `family` (or a property of its hyperparameters) is "dt", "imitation", "td" or "other", the
    default: reports order and colour contenders by it and compare Decision Transformer with the best of each.

    That of a value learner has `discount` and `backups_per_step`: how many Bellman backups a gradient step brings to
    what is bootstrapped from, τ / d with Polyak rate τ and policy delay d, or 1 / n where the target network is copied
    every n steps. From them follows how many steps its values need (`dtbench.convergence`).
    """

    def learner(self, dataset: TrajectoryDataset, *, seed: int, device: torch.device) -> Learner:
        """Return a learner for `dataset`; raise IncompatibleTask where its spaces do not fit."""
        ...
