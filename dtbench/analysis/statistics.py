"""Statistics over seeds and tasks, in numpy and seeded: aggregates, bootstrap, profiles, rank correlation.

Scores are arrays of seeds x tasks, ``nan`` where a trial is missing. A statistic maps [..., seeds, tasks] to [...],
so that the bootstrap evaluates it on many resamples at once (Agarwal et al. 2021, sections 4 and A). It is over the
seeds that each task has, and nan where a task has none: there is no number over all tasks then.
"""

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binomtest, rankdata
from scipy.stats import t as student

Array = NDArray[np.float64]
Statistic = Callable[..., Array]  # one or more arrays of [..., seeds, tasks] -> [...]

LEVEL = 0.95
RESAMPLES = 2000
MIN_SEEDS = 5  # training seeds, below which nothing is decided
MARGIN = 5.0  # points, within which two scores match, where a suite declares no other
GAMMA = 100.0  # the score that is as good as wanted

_TUPLES = 4096  # of runs, at most, that one random number chooses from


@dataclass(frozen=True, slots=True)
class Interval:
    """Two ends, both inside."""

    low: float
    high: float

    @property
    def half_width(self) -> float:
        """Return the ± of the interval."""
        return (self.high - self.low) / 2

    def holds(self, value: float, *, slack: float = 0.0) -> bool:
        """Return whether the value lies inside, or outside by no more than `slack`."""
        return self.low - slack <= value <= self.high + slack

    def overlaps(self, other: "Interval") -> bool:
        """Return whether the two share a value."""
        return self.low <= other.high and other.low <= self.high


@dataclass(frozen=True, slots=True)
class Estimate:
    """One cell of a table: what its seeds scored and what follows."""

    values: tuple[float, ...]  # one a seed
    mean: float
    interval: Interval | None  # None with fewer than two seeds: one number has no spread


@dataclass(frozen=True, slots=True)
class Profile:
    """A performance profile: at each threshold, the share of runs that score more."""

    thresholds: Array
    share: Array  # 0 to 1; nan where a task has no run
    band: tuple[Array, Array] | None  # low and high end at each threshold; None where a task has fewer than two runs


def estimate(values: Sequence[float]) -> Estimate:
    """Return the mean over training seeds that are not nan, with its interval; raise ValueError for none."""
    scores = np.asarray(values, np.float64)
    scores = scores[~np.isnan(scores)]
    if not len(scores):
        raise ValueError("an estimate needs at least one seed")
    return Estimate(tuple(scores.tolist()), float(scores.mean()), mean_interval(scores))


def mean_interval(values: ArrayLike) -> Interval | None:
    """Return Student's t interval of the mean; None with fewer than two values.

    A percentile bootstrap of five values holds the mean in 84 of 100 cases.
    """
    scores = np.asarray(values, np.float64)
    if len(scores) < 2:
        return None
    return t_interval(float(scores.mean()), [mean_part(scores)])


def mean_over_draws(draws: Sequence[str], values: Sequence[float]) -> tuple[float, Interval | None]:
    """Return the mean of values with its interval: of several draws that of their means, else over the values.

    `draws` names each value's draw of the data; seeds of one draw share its luck, so that only draws vary freely.
    """
    scores, names = np.asarray(values, np.float64), np.asarray(draws)
    means = [float(scores[names == name].mean()) for name in dict.fromkeys(draws)]
    return float(np.mean(means)), mean_interval(means if len(means) > 1 else scores)


def t_interval(centre: float, parts: Sequence[tuple[float, float]], level: float = LEVEL) -> Interval:
    """Return the interval of a sum of independent means, from the variance and degrees of freedom of each."""
    variance = sum(variance for variance, _ in parts)
    reach = float(student.ppf(0.5 + level / 2, freedom(parts))) * math.sqrt(variance) if variance else 0.0
    return Interval(centre - reach, centre + reach)


def freedom(parts: Sequence[tuple[float, float]]) -> float:
    """Return Welch and Satterthwaite's degrees of freedom, (Σ v)² / Σ v² / f; infinite without variance."""
    spread = sum(variance**2 / degrees for variance, degrees in parts if variance)
    return sum(variance for variance, _ in parts) ** 2 / spread if spread else math.inf


@dataclass(frozen=True, slots=True)
class Deviation:
    """A difference of means, its standard error and its degrees of freedom (Welch 1947)."""

    mean: float
    error: float
    freedom: float = math.inf

    def p_of_none(self) -> float:
        """Return the p-value of no difference, two-sided."""
        return min(1.0, 2 * self._tail(-abs(self.mean)))

    def p_of_more_than(self, margin: float) -> float:
        """Return the p-value of a difference beyond the margin either way: the larger of two one-sided tests'."""
        return self._tail(abs(self.mean) - margin)

    def _tail(self, distance: float) -> float:
        """Return the probability of a value below `distance`."""
        if self.error == 0:
            return float(distance > 0) + 0.5 * float(distance == 0)
        return float(student.cdf(distance / self.error, self.freedom))


def deviation(mean: float, parts: Sequence[tuple[float, int]]) -> Deviation:
    """Return a difference with the variance and degrees of freedom of each independent mean in it."""
    return Deviation(mean, math.sqrt(sum(variance for variance, _ in parts)), freedom(parts))


def mean_part(values: ArrayLike) -> tuple[float, int]:
    """Return the variance of the mean of two values or more, and its degrees of freedom."""
    scores = np.asarray(values, np.float64)
    return float(scores.var(ddof=1)) / len(scores), len(scores) - 1


def welch_p(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Return the two-sided p-value of Welch's test of equal means, of two values or more on each side."""
    return deviation(float(np.mean(ours) - np.mean(theirs)), [mean_part(ours), mean_part(theirs)]).p_of_none()


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for their number (Holm 1979), in their order."""
    order = np.argsort(p_values)
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def mean(scores: Array) -> Array:
    """Return the mean over tasks of each task's mean over seeds."""
    return np.asarray(_task_means(scores).mean(axis=-1))


def median(scores: Array) -> Array:
    """Return the median over tasks of each task's mean over seeds."""
    return np.asarray(np.median(_task_means(scores), axis=-1))


def iqm(scores: Array) -> Array:
    """Return the mean of the middle half of all scores: a quarter of them, rounded down, is cut at either end."""
    ranked = np.sort(scores.reshape(*scores.shape[:-2], -1), axis=-1)  # nan comes last
    present = (~np.isnan(ranked)).sum(axis=-1, keepdims=True)
    cut = present // 4
    rank = np.arange(ranked.shape[-1])
    middle = (rank >= cut) & (rank < present - cut)
    # A task without a run makes it nan, as it does the other aggregates.
    ran = (~np.isnan(scores)).any(axis=-2).all(axis=-1)
    return _ratio(np.where(middle, ranked, 0).sum(axis=-1), np.where(ran, middle.sum(axis=-1), 0))


def optimality_gap(scores: Array, *, gamma: float = GAMMA) -> Array:
    """Return by how much runs fall short of `gamma`, which more does not make up for; averaged as in `mean`.

    Agarwal et al. have scores around 1 and gamma = 1. Ours are around 100, and so is gamma: the gap is in points.
    """
    return mean(_shortfall(scores, gamma))


AGGREGATES: dict[str, Statistic] = {"mean": mean, "median": median, "iqm": iqm, "optimality_gap": optimality_gap}


def probability_of_improvement(ours: Array, theirs: Array) -> Array:
    """Return the chance that our run beats theirs, ties counting half, averaged over tasks (Agarwal et al.)."""
    difference = ours[..., :, None, :] - theirs[..., None, :, :]
    won = (difference > 0) + 0.5 * (difference == 0)
    pairs = (~np.isnan(difference)).sum(axis=(-3, -2))
    return np.asarray(_ratio(won.sum(axis=(-3, -2)), pairs).mean(axis=-1))


def bootstrap_interval(
    statistic: Statistic, *samples: Array, seed: int = 0, resamples: int = RESAMPLES
) -> Interval | None:
    """Return the percentile interval of a statistic, seeds resampled within each task; None unless `repeated`."""
    if not all(map(repeated, samples)):
        return None
    rng = np.random.default_rng(seed)
    if statistic is probability_of_improvement:
        ours, theirs = samples
        values = _resampled_improvement(ours, theirs, rng, resamples)
    else:
        values = statistic(*(_resampled(scores, resamples, rng) for scores in samples))
    return Interval(*_percentiles(values).tolist())


def aggregate_intervals(
    scores: Array,
    *,
    which: Collection[str] = tuple(AGGREGATES),
    gamma: float = GAMMA,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> dict[str, Interval | None]:
    """Return the interval of each of AGGREGATES in `which` from the same resamples; None unless `repeated(scores)`."""
    if not repeated(scores):
        return dict.fromkeys(which)
    drawn = _resampled(scores, resamples, np.random.default_rng(seed))
    functions: dict[str, Statistic] = {**AGGREGATES, "optimality_gap": partial(optimality_gap, gamma=gamma)}
    return {name: Interval(*_percentiles(functions[name](drawn)).tolist()) for name in which}


def complete(scores: Array) -> bool:
    """Return whether there are tasks and each has a run."""
    return bool(scores.size) and not bool(np.isnan(scores).all(axis=0).any())


def repeated(scores: Array) -> bool:
    """Return whether there are tasks and each has two runs or more: with fewer, resampling shows no spread."""
    return bool(scores.size) and bool(((~np.isnan(scores)).sum(axis=0) > 1).all())


def performance_profile(scores: Array, thresholds: Array, *, seed: int = 0, resamples: int = RESAMPLES) -> Profile:
    """Return the share of each task's runs above each threshold, averaged over tasks, with pointwise intervals.

    Agarwal et al.'s run-score distribution (section 4.2). With one task, that task's own.
    """
    share = _shares_above(scores, thresholds)
    if not repeated(scores):
        return Profile(thresholds, share, None)
    drawn = _shares_above(_resampled(scores, resamples, np.random.default_rng(seed)), thresholds)
    low, high = _percentiles(drawn)
    return Profile(thresholds, share, (low, high))


def matrix_estimate(scores: Array) -> Estimate | None:
    """Return the mean over tasks with Student's t interval over its seeds; None if a task has no seed."""
    if not complete(scores):
        return None
    whole = scores[~np.isnan(scores).any(axis=1)]
    interval = t_interval(float(mean(scores)), task_parts(scores)) if repeated(scores) else None
    return Estimate(tuple(whole.mean(axis=1).tolist()), float(mean(scores)), interval)


def draws_estimate(scores: Array) -> Estimate | None:
    """Return the mean over draws of the same data (columns), with Student's t over them; None if one has no seed."""
    return estimate(np.nanmean(scores, axis=0).tolist()) if complete(scores) else None


def task_parts(scores: Array) -> list[tuple[float, int]]:
    """Return, of a mean over tasks, the variance that each task's seeds add, and its degrees of freedom."""
    columns = [column[~np.isnan(column)] for column in scores.T]
    return [(float(own.var(ddof=1)) / len(own) / len(columns) ** 2, len(own) - 1) for own in columns]


def resampled_means(returns: Array, *, seed: int = 0, resamples: int = RESAMPLES) -> Array:
    """Return [resamples, seeds, targets] from returns of [seeds, episodes, targets]: means over redrawn episodes.

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


def percentile_interval(values: Array) -> Interval | None:
    """Return the middle 95 % of resampled values; None where one is nan, as the rest would be biased."""
    if not values.size or np.isnan(values).any():
        return None
    return Interval(*_percentiles(values.ravel()).tolist())


def coefficient(x: Array, y: Array) -> Array:
    """Return the coefficient of the least-squares line of y over x, along the last axis; nan where x does not vary."""
    centred = x - x.mean(axis=-1, keepdims=True)
    spread = (centred**2).sum(axis=-1)
    covariance = (centred * (y - y.mean(axis=-1, keepdims=True))).sum(axis=-1)
    return _ratio(covariance, spread)


def spearman(x: Array, y: Array) -> Array:
    """Return Spearman's rank correlation along the last axis; nan where either does not vary."""
    ranks = [rankdata(values, axis=-1) for values in np.broadcast_arrays(x, y)]
    a, b = (rank - rank.mean(axis=-1, keepdims=True) for rank in ranks)
    scale = np.sqrt((a**2).sum(axis=-1) * (b**2).sum(axis=-1))
    return _ratio((a * b).sum(axis=-1), scale)


def success_interval(successes: int, episodes: int) -> Interval:
    """Return Wilson's interval of a success rate, in per cent: the noise of evaluating one trained policy."""
    low, high = binomtest(successes, episodes).proportion_ci(LEVEL, method="wilson")
    return Interval(100 * float(low), 100 * float(high))


def _resampled(scores: Array, resamples: int, rng: np.random.Generator) -> Array:
    """Return [resamples, seeds, tasks]: each task's runs drawn with replacement, nan below where it has fewer."""
    drawn = np.full((resamples, *scores.shape), np.nan)
    for task, column in enumerate(scores.T):
        runs = column[~np.isnan(column)]
        if len(runs):
            drawn[:, : len(runs), task] = runs[_draws(len(runs), resamples, rng)]
    return drawn


def _draws(runs: int, resamples: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """Return [resamples, runs]: numbers from 0 to runs, several from one random number (_TUPLES)."""
    at_once = max(k for k in range(1, 13) if k == 1 or runs**k <= _TUPLES)
    indices: list[NDArray[np.intp]] = []
    for first in range(0, runs, at_once):
        picks = min(at_once, runs - first)
        codes = rng.integers(runs**picks, size=resamples, dtype=np.uint32)
        indices += np.unravel_index(codes, (runs,) * picks)
    return np.stack(indices, axis=1)


def _resampled_improvement(ours: Array, theirs: Array, rng: np.random.Generator, resamples: int) -> Array:
    """Return [resamples]: how often each run was drawn, against who beats whom, which no resample changes."""
    total = np.zeros(resamples)
    for task in range(ours.shape[1]):
        sides = [scores[~np.isnan(scores[:, task]), task] for scores in (ours, theirs)]
        if not all(map(len, sides)):
            return np.full(resamples, np.nan)
        won = (np.sign(np.subtract.outer(*sides)) + 1) / 2
        drawn = [rng.multinomial(len(side), np.full(len(side), 1 / len(side)), size=resamples) for side in sides]
        total += ((drawn[0] @ won) * drawn[1]).sum(axis=1) / won.size
    return np.asarray(total / ours.shape[1])


def _shares_above(scores: Array, thresholds: Array) -> Array:
    """Return [..., thresholds]: share of each task's runs that score more, averaged over tasks."""
    missing = np.isnan(scores)
    return np.stack([mean(np.where(missing, np.nan, scores > threshold)) for threshold in thresholds], axis=-1)


def _percentiles(values: Array) -> Array:
    """Return both ends of the middle LEVEL of the values, along the first axis."""
    tail = 50 * (1 - LEVEL)
    return np.asarray(np.percentile(values, [tail, 100 - tail], axis=0))


def _task_means(scores: Array) -> Array:
    """Return [..., tasks]: mean over the seeds that a task has, nan where it has none."""
    present = ~np.isnan(scores)
    return _ratio(np.where(present, scores, 0).sum(axis=-2), present.sum(axis=-2))


def _shortfall(scores: Array, gamma: float) -> Array:
    return np.asarray(np.maximum(gamma - scores, 0))  # of nan it is nan


def _ratio(above: Array, below: Array) -> Array:
    """Return above / below, nan where below is not positive."""
    return np.asarray(np.divide(above, np.where(below > 0, below, np.nan)))
