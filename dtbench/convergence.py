"""How far values have come: the share of a return that a number of backups can reach, and Q beside the data's returns.

A Bellman backup carries a reward one step back. Of the discounted return r0 + γ r1 + γ² r2 + ... values know, after n
backups, the first n terms. With a target network that follows by Polyak averaging backups come at random times, so
that their number is Poisson distributed with mean n: the share known is Σ γ^k |r_k| P(N > k) / Σ γ^k |r_k| over the
data's returns. With one reward a step and no end it is 1 - exp(-n (1 - γ)).
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dtbench import foreign
from dtbench.algorithm import Algorithm, CriticLearner, History
from dtbench.data.dataset import TrajectoryDataset
from dtbench.data.randomness import generator
from dtbench.data.sampling import Windows, WindowSampler
from dtbench.errors import FOREIGN, InvalidAlgorithm

PAIRS = 4096  # of the data, fixed, at which values are read
ROWS = 256  # that a learner values at a time
TAIL = 0.05  # discount below which what follows a truncation is left out of sight
MOST_STEPS = 2**40


@dataclass(frozen=True, slots=True)
class Backups:
    """The rate at which a value learner's steps bring rewards back, and its discount."""

    per_step: float
    discount: float


def backups_of(algorithm: Algorithm) -> Backups | None:
    """Return the rate of a value learner; None for an algorithm that does not bootstrap.

    Raises InvalidAlgorithm where the algorithm's own code for it fails.
    """
    try:
        per_step, discount = (getattr(algorithm, name, None) for name in ("backups_per_step", "discount"))
    except FOREIGN as error:
        raise InvalidAlgorithm(
            f"backups_per_step or discount of {type(algorithm).__name__} cannot be read: {foreign.describe(error)}. "
            "Correct it there."
        ) from error
    if not isinstance(per_step, int | float) or not isinstance(discount, int | float) or per_step <= 0:
        return None
    return Backups(float(per_step), float(discount))


@dataclass(frozen=True, slots=True, eq=False)
class ReturnProfile:
    """The discounted returns of fixed pairs of the data."""

    steps: NDArray[np.int64]  # [pairs] indices into the data
    returns: NDArray[np.float64]  # [pairs] discounted Monte-Carlo returns
    terms: NDArray[np.float64]  # [longest]: discounted |reward| k steps ahead, summed over pairs

    def share(self, backups: float) -> float:
        """Return the share of the returns that lies within so many backups; 1 where there is no reward."""
        total = self.terms.sum()
        if not total:
            return 1.0
        order = torch.arange(1, len(self.terms) + 1, dtype=torch.float64)
        known = torch.special.gammainc(order, torch.full_like(order, max(backups, 0.0)))  # P(N > k), N ~ Poisson
        return float((self.terms / total) @ known.numpy())

    def steps_for(self, per_step: float, share: float) -> int:
        """Return the fewest gradient steps whose backups reach `share` of the returns."""
        low, high = 0, 1
        while self.share(high * per_step) < share and high < MOST_STEPS:
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self.share(middle * per_step) >= share else (middle, high)
        return high


def return_profile(dataset: TrajectoryDataset, discount: float) -> ReturnProfile:
    """Return the profile of `PAIRS` steps of the data, the same for equal data.

    Steps shortly before a truncation are left out, as most of their return is unknown, unless nothing else is there.
    """
    steps = _fixed_steps(dataset, discount)
    episodes = np.searchsorted(dataset.offsets, steps, side="right") - 1
    ends, rewards = dataset.offsets[episodes + 1], np.asarray(dataset.rewards, np.float64)
    powers = discount ** np.arange(int((ends - steps).max()))
    returns, terms = np.empty(len(steps)), np.zeros(len(powers))
    for index, (begin, end) in enumerate(zip(steps, ends, strict=True)):
        discounted = powers[: end - begin] * rewards[begin:end]
        returns[index] = discounted.sum()
        terms[: end - begin] += np.abs(discounted)
    return ReturnProfile(steps, returns, terms)


class ValueProbe:
    """Reads a value learner's Q at fixed pairs of the data."""

    def __init__(self, dataset: TrajectoryDataset, backups: Backups, *, context: int, device: torch.device) -> None:
        """Prepare the pairs, with the `context` steps up to each."""
        self.backups, self.device = backups, device
        self.profile = return_profile(dataset, backups.discount)
        self.windows = WindowSampler(
            dataset, context=context, batch_size=ROWS, rng=generator(0), device=torch.device("cpu"), anchor="end"
        )

    def measure(self, learner: CriticLearner, step: int) -> dict[str, float]:
        """Return what is known of the learner's values after so many gradient steps.

        `value_share`: the share of the data's discounted return that its backups can have reached; `value_mean`: its
        mean Q at the pairs; `value_ratio`: that over the mean of their returns; `value_correlation` with the returns.
        The last two are left out where returns are all 0 or all equal.
        """
        parts = np.array_split(self.profile.steps, math.ceil(len(self.profile.steps) / ROWS))
        values = np.concatenate([self._values(learner, part) for part in parts])
        returns = self.profile.returns
        found = {"value_share": self.profile.share(step * self.backups.per_step), "value_mean": float(values.mean())}
        if mean := float(returns.mean()):
            found["value_ratio"] = found["value_mean"] / mean
        if values.std() > 0 and returns.std() > 0:
            found["value_correlation"] = float(np.corrcoef(values, returns)[0, 1])
        return found

    def _values(self, learner: CriticLearner, steps: NDArray[np.int64]) -> NDArray[np.float64]:
        windows = self.windows.at(steps)
        with torch.no_grad():
            values = learner.action_values(_history(windows, self.device), windows.actions[:, -1].to(self.device))
        return values.double().cpu().numpy()


def probe(algorithm: Algorithm, learner: Any, dataset: TrajectoryDataset, device: torch.device) -> ValueProbe | None:
    """Return a probe of a learner's values; None for one without."""
    backups = backups_of(algorithm)
    if backups is None or not isinstance(learner, CriticLearner):
        return None
    return ValueProbe(dataset, backups, context=getattr(learner, "context", 1), device=device)


def _fixed_steps(dataset: TrajectoryDataset, discount: float) -> NDArray[np.int64]:
    left = np.repeat(dataset.offsets[1:], dataset.lengths) - np.arange(dataset.num_steps)
    horizon = math.log(TAIL) / math.log(discount) if 0 < discount < 1 else 1.0
    whole = np.flatnonzero(~np.repeat(dataset.cut_off, dataset.lengths) | (left >= horizon))
    steps = whole if len(whole) else np.arange(dataset.num_steps)
    if len(steps) <= PAIRS:
        return steps
    return np.sort(generator(0).choice(steps, PAIRS, replace=False))


def _history(windows: Windows, device: torch.device) -> History:
    """Return what a policy would have seen before the last action of each window."""
    actions = windows.actions.clone()
    actions[:, -1] = 0
    columns = (windows.observations, actions, windows.returns_to_go, windows.timesteps, windows.mask)
    return History(*(column.to(device) for column in columns))
