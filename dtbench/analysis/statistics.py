"""Statistics over seeds and tasks, in numpy and seeded: IQM, bootstrap, success intervals, rank correlation.

Scores are arrays of seeds x tasks, ``nan`` where a trial is missing. A statistic maps [..., seeds, tasks] to [...],
so that the bootstrap evaluates it on all resamples at once (Agarwal et al. 2021, sections 4 and A).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Statistic = Callable[..., Array]  # one or more arrays of [..., seeds, tasks] -> [...]

LEVEL = 0.95
RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Interval:
    """Two ends, both inside."""

    low: float
    high: float

    def holds(self, value: float, *, slack: float = 0.0) -> bool:
        """Whether the value lies inside, or outside by no more than `slack`."""
        return self.low - slack <= value <= self.high + slack

    def overlaps(self, other: "Interval") -> bool:
        """Whether the two share a value."""
        return self.low <= other.high and other.low <= self.high


@dataclass(frozen=True, slots=True)
class Estimate:
    """One cell of a table: what its seeds scored and what follows."""

    values: tuple[float, ...]  # one a seed
    mean: float
    interval: Interval | None  # None with fewer than two seeds: one number has no spread


def estimate(values: Sequence[float]) -> Estimate:
    """Mean over training seeds with its bootstrap interval; raise ValueError where there are none."""
    if not len(values):
        raise ValueError("an estimate needs at least one seed")
    scores = np.asarray(values, np.float64)[:, None]
    interval = bootstrap_interval(mean, scores) if len(values) > 1 else None
    return Estimate(tuple(float(v) for v in values), float(scores.mean()), interval)


def mean(scores: Array) -> Array:
    """Mean over tasks of each task's mean over seeds."""
    return np.asarray(np.nanmean(scores, axis=-2).mean(axis=-1))


def median(scores: Array) -> Array:
    """Median over tasks of each task's mean over seeds."""
    return np.asarray(np.median(np.nanmean(scores, axis=-2), axis=-1))


def iqm(scores: Array) -> Array:
    """Mean of the middle half of all scores: a quarter of them, rounded down, is cut off at either end."""
    ranked = np.sort(scores.reshape(*scores.shape[:-2], -1), axis=-1)  # nan comes last
    present = (~np.isnan(ranked)).sum(axis=-1, keepdims=True)
    cut = present // 4
    rank = np.arange(ranked.shape[-1])
    kept = (rank >= cut) & (rank < present - cut)
    return np.asarray(np.where(kept, ranked, 0).sum(axis=-1) / kept.sum(axis=-1))


def probability_of_improvement(ours: Array, theirs: Array) -> Array:
    """Chance that a run of ours beats one of theirs, ties counting half, averaged over tasks (Agarwal et al.)."""
    difference = ours[..., :, None, :] - theirs[..., None, :, :]
    won = np.where(np.isnan(difference), np.nan, (np.sign(difference) + 1) / 2)
    return np.asarray(np.nanmean(won, axis=(-3, -2)).mean(axis=-1))


def bootstrap_interval(
    statistic: Statistic, *samples: Array, seed: int = 0, resamples: int = RESAMPLES, level: float = LEVEL
) -> Interval:
    """Percentile interval of a statistic; seeds are resampled within each task, each sample on its own."""
    rng = np.random.default_rng(seed)
    values = statistic(*(_resampled(scores, resamples, rng) for scores in samples))
    tail = 50 * (1 - level)
    low, high = np.percentile(values, [tail, 100 - tail])
    return Interval(float(low), float(high))


def matrix_estimate(scores: Array) -> Estimate | None:
    """The mean over tasks with its interval, seeds resampled within each task; None where a task has no seed."""
    if not scores.size or np.isnan(scores).all(axis=0).any():
        return None
    complete = scores[~np.isnan(scores).any(axis=1)]
    repeated = bool(((~np.isnan(scores)).sum(axis=0) > 1).all())
    interval = bootstrap_interval(mean, scores) if repeated else None
    return Estimate(tuple(complete.mean(axis=1).tolist()), float(mean(scores)), interval)


def resampled_means(returns: Array, *, seed: int = 0, resamples: int = RESAMPLES) -> Array:
    """[resamples, seeds, targets] from returns of [seeds, episodes, targets]: means over redrawn episodes.

    Seeds are drawn with replacement and, within each drawn seed, episodes; one draw serves all targets, so that the
    points of a curve move together as they do in truth.
    """
    rng = np.random.default_rng(seed)
    seeds, episodes, targets = returns.shape
    means = np.empty((resamples, seeds, targets))
    for sample in range(resamples):
        picks = rng.integers(seeds, size=(seeds, 1)), rng.integers(episodes, size=(seeds, episodes))
        means[sample] = returns[picks].mean(axis=1)
    return means


def percentile_interval(values: Array, *, level: float = LEVEL) -> Interval | None:
    """The middle `level` of resampled values; None where a resample has no value, so that it would be biased."""
    if not values.size or np.isnan(values).any():
        return None
    tail = 50 * (1 - level)
    low, high = np.percentile(values, [tail, 100 - tail])
    return Interval(float(low), float(high))


def slope(x: Array, y: Array) -> Array:
    """Least-squares slope of y over x, along the last axis; nan where x does not vary."""
    centred = x - x.mean(axis=-1, keepdims=True)
    spread = (centred**2).sum(axis=-1)
    covariance = (centred * (y - y.mean(axis=-1, keepdims=True))).sum(axis=-1)
    return _ratio(covariance, spread)


def average_ranks(values: Array) -> Array:
    """Ranks from 1 along the last axis; equal values share the mean of their ranks."""
    ordered = np.sort(values, axis=-1)
    flat, rows = values.reshape(-1, values.shape[-1]), ordered.reshape(-1, values.shape[-1])
    ends = [
        np.searchsorted(row, own, "left") + np.searchsorted(row, own, "right")
        for own, row in zip(flat, rows, strict=True)
    ]
    return (np.asarray(ends, np.float64).reshape(values.shape) + 1) / 2


def spearman(x: Array, y: Array) -> Array:
    """Spearman's rank correlation along the last axis; nan where either does not vary."""
    ranks = [average_ranks(np.asarray(values, np.float64)) for values in np.broadcast_arrays(x, y)]
    a, b = (rank - rank.mean(axis=-1, keepdims=True) for rank in ranks)
    scale = np.sqrt((a**2).sum(axis=-1) * (b**2).sum(axis=-1))
    return _ratio((a * b).sum(axis=-1), scale)


def success_interval(successes: int, episodes: int, *, level: float = LEVEL) -> Interval:
    """Wilson's interval for a success rate, in per cent: the noise of evaluating one trained policy."""
    if not 0 <= successes <= episodes or episodes == 0:
        raise ValueError(f"{successes} successes in {episodes} episodes")
    z = NormalDist().inv_cdf(0.5 + level / 2)
    rate = successes / episodes
    centre = rate + z**2 / (2 * episodes)
    reach = z * np.sqrt(rate * (1 - rate) / episodes + z**2 / (4 * episodes**2))
    scale = 100 / (1 + z**2 / episodes)
    # The ends are exact where all or none succeed; arithmetic would miss them by a rounding error.
    low = 0.0 if successes == 0 else float(scale * (centre - reach))
    high = 100.0 if successes == episodes else float(scale * (centre + reach))
    return Interval(low, high)


def _ratio(above: Array, below: Array) -> Array:
    """Above / below, nan where below is not positive."""
    return np.asarray(np.divide(above, np.where(below > 0, below, np.nan)))


def _resampled(scores: Array, resamples: int, rng: np.random.Generator) -> Array:
    """[resamples, seeds, tasks]: each task's present seeds drawn with replacement, as many as there are."""
    drawn = np.full((resamples, *scores.shape), np.nan)
    for task in range(scores.shape[1]):
        present = scores[~np.isnan(scores[:, task]), task]
        if len(present):
            picks = rng.integers(len(present), size=(resamples, len(present)))
            drawn[:, : len(present), task] = present[picks]
    return drawn
