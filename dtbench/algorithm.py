"""What the harness asks of an algorithm: hyperparameters that make a learner, a learner that learns and acts."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor

from dtbench.data.dataset import TrajectoryDataset

Metrics: TypeAlias = Mapping[str, Tensor | float]
"""Named scalars of one gradient step; tensors are converted only when they are logged."""


@dataclass(frozen=True, slots=True)
class History:
    """The recent past of B running episodes, oldest step first, padded on the left to the learner's context T.

    The last slot is the present: its observation is known, its action is the one to choose (zeros), and its
    return-to-go is what is left of the target return (zeros for a learner that is not return-conditioned).
    """

    observations: Tensor  # [B, T, *observation]
    actions: Tensor  # [B, T, *action]; the last slot is the action to choose
    returns_to_go: Tensor  # [B, T]
    timesteps: Tensor  # [B, T]
    mask: Tensor  # [B, T] bool, False where padded

    def of(self, rows: Tensor | slice, begin: int = 0) -> "History":
        """What these rows hold from slot `begin` on."""
        return History(
            observations=self.observations[rows, begin:],
            actions=self.actions[rows, begin:],
            returns_to_go=self.returns_to_go[rows, begin:],
            timesteps=self.timesteps[rows, begin:],
            mask=self.mask[rows, begin:],
        )


class Learner(Protocol):
    """An algorithm at work on one dataset with one seed.

    It may also have `resumable = False`, if it cannot continue exactly from its state, so that an interrupted
    trial starts over; `network`, a `torch.nn.Module` to count; `action_logits` (`DiscreteLearner`);
    and `rollout` (`CachingLearner`).
    """

    context: int
    """How many recent steps `act` looks at; 1 for a Markov policy."""
    return_conditioned: bool
    """Whether a target return means anything to it."""

    def update(self) -> Metrics:
        """Take one gradient step on a batch of the learner's own choosing."""
        ...

    def act(self, history: History) -> Tensor:
        """Choose the actions of the present, [B, *action]."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """All that an exact resume needs, random streams included: tensors and plain values only."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue exactly where `state_dict` was taken."""
        ...


@runtime_checkable
class DiscreteLearner(Protocol):
    """A learner whose choice among discrete actions can be sampled as well as taken greedily."""

    def action_logits(self, history: History) -> Tensor:
        """Unnormalised log-probabilities of the present's actions, [B, actions]."""
        ...


class Rollout(Protocol):
    """What a learner keeps between the steps of episodes that are played together.

    It is called once for every step from the first on, with the history of all episodes that were begun, in their
    order, and `rows`, the rising numbers [B] of those still active. It holds until the learner's next update.
    """

    def act(self, history: History, rows: Tensor) -> Tensor:
        """Choose the actions of the present of these rows, [B, *action]."""
        ...

    def action_logits(self, history: History, rows: Tensor) -> Tensor:
        """What `DiscreteLearner` gives for these rows, [B, actions]; asked of such learners alone."""
        ...


@runtime_checkable
class CachingLearner(Protocol):
    """A learner that acts faster when it may keep things from step to step; `act` stays what both must agree with."""

    def rollout(self) -> Rollout | None:
        """Return what acts in one batch of episodes from their first steps on; None where there is nothing to keep.

        It does what `act` does up to rounding.
        """
        ...


class Algorithm(Protocol):
    """A frozen dataclass: its fields are the hyperparameters, its defaults those of its paper."""

    def learner(self, dataset: TrajectoryDataset, *, seed: int, device: torch.device) -> Learner:
        """Begin learning from `dataset`; raise IncompatibleTask where its spaces do not fit."""
        ...
