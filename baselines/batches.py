"""The batches of a learner: drawn some ahead, and prepared for its losses."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from itertools import repeat
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from baselines.networks import ObservationScale, flat_size
from dtbench import TrajectoryDataset, TransitionSampler
from dtbench.data import Transitions, balanced_weights, generator

ROWS_AHEAD = 4096  # drawn at once: to draw 128 rows takes half as long as to draw these
NUMBERS_AHEAD = 2**20  # of observations, 4 MB, that are drawn at once
Batch = TypeVar("Batch")


class Sampler(Protocol):
    """Random rows of a fixed dataset, or of a replay buffer, which gives one batch at a time."""

    rng: np.random.Generator
    batch_size: int

    def sample(self, batches: int = 1) -> Any:
        """Draw the rows of some batches."""
        ...


class Batches(Generic[Batch]):
    """The batches of a sampler, prepared; several at once, which are the same as one by one."""

    def __init__(self, sampler: Sampler, prepare: Callable[[Any], Batch], *, ahead: int) -> None:
        """`prepare` makes a dataclass of tensors [B, ...] of what is drawn; about `ahead` rows are drawn at once."""
        self.sampler, self.prepare, self.ahead = sampler, prepare, ahead
        self._ready: list[Batch] = []
        self._begun: Mapping[str, Any] = {}  # the random state before those at hand were drawn
        self._taken = 0

    def next(self) -> Batch:
        """Return the next batch."""
        if not self._ready:
            self._begun, self._taken = self.sampler.rng.bit_generator.state, 0
            self._ready = self._drawn()
        self._taken += 1
        return self._ready.pop()

    @torch.inference_mode(False)
    def _drawn(self) -> list[Batch]:
        size = self.sampler.batch_size
        count = max(1, self.ahead // size)
        whole = self.prepare(self.sampler.sample(count) if count > 1 else self.sampler.sample())
        columns = [getattr(whole, field.name) for field in fields(whole)]  # type: ignore[arg-type]
        parts = [
            repeat(None) if column is None else column.view(-1, size, *column.shape[1:]).unbind() for column in columns
        ]
        return [type(whole)(*part) for part in zip(*parts, strict=False)][::-1]

    @property
    def state(self) -> dict[str, Any]:
        """Return what an exact resume needs."""
        if not self._ready:
            return {"rng": self.sampler.rng.bit_generator.state, "taken": 0}
        return {"rng": self._begun, "taken": self._taken}

    @state.setter
    def state(self, state: Mapping[str, Any]) -> None:
        self.sampler.rng.bit_generator.state = state.get("rng", state)
        self._ready = []
        for _ in range(state.get("taken", 0)):
            self.next()


def draw_weights(dataset: TrajectoryDataset, *, balance_returns: bool) -> NDArray[np.float64] | None:
    """Return the weights of steps in draws, [N]; None where all are equal."""
    return balanced_weights(dataset) if balance_returns else None


class DrawHyperparameters(Protocol):
    """What learners on transitions say of their batches."""

    @property
    def batch_size(self) -> int:
        """Transitions of a batch."""
        ...

    @property
    def balance_returns(self) -> bool:
        """Whether they are drawn evenly over returns."""
        ...


def transition_sampler(
    algorithm: DrawHyperparameters,
    dataset: TrajectoryDataset,
    *,
    seed: int,
    device: torch.device,
    next_actions: bool = False,
) -> TransitionSampler:
    """Return a learner's sampler of transitions."""
    return TransitionSampler(
        dataset,
        batch_size=algorithm.batch_size,
        rng=generator(seed, 1),
        device=device,
        weights=draw_weights(dataset, balance_returns=algorithm.balance_returns),
        next_actions=next_actions,
    )


class TDHyperparameters(DrawHyperparameters, Protocol):
    """What TD learners on transitions have in common."""

    @property
    def discount(self) -> float:
        """The discount."""
        ...


def td_batches(
    algorithm: TDHyperparameters,
    dataset: TrajectoryDataset,
    scale: ObservationScale,
    *,
    reward_scale: float,
    seed: int,
    device: torch.device,
) -> "Batches[TDBatch]":
    """Return the batches of a TD learner."""
    sampler = transition_sampler(algorithm, dataset, seed=seed, device=device)
    return Batches(
        sampler,
        lambda drawn: td_batch(drawn, scale, discount=algorithm.discount, reward_scale=reward_scale),
        ahead=rows_ahead(dataset),
    )


def rows_ahead(dataset: TrajectoryDataset, *, steps: int = 1) -> int:
    """Return how many rows, of so many steps each, are drawn at once: few where observations are large."""
    return min(ROWS_AHEAD, NUMBERS_AHEAD // (steps * flat_size(dataset.observation_space)))


@dataclass(frozen=True, slots=True)
class TDBatch:
    """Transitions as the losses take them."""

    observations: Tensor  # [B, observation], scaled
    actions: Tensor  # [B, action]
    pairs: Tensor  # [B, observation + action]: both
    rewards: Tensor  # [B]
    discounts: Tensor  # [B]: the discount, and 0 where the environment ended
    following: Tensor  # [B, observation], scaled: the next observations


def td_batch(
    transitions: Transitions, scale: ObservationScale, *, discount: float, reward_scale: float = 1.0
) -> TDBatch:
    """Scale and join what TD learners read of transitions."""
    observations, actions = scale(transitions.observations), transitions.actions.float()
    return TDBatch(
        observations=observations,
        actions=actions,
        pairs=torch.cat([observations, actions], dim=-1),
        rewards=transitions.rewards * reward_scale if reward_scale != 1 else transitions.rewards,
        discounts=torch.where(transitions.terminals, 0.0, discount),
        following=scale(transitions.next_observations),
    )
