"""Statistics over seeds and tasks, in numpy and seeded: aggregates, bootstrap, profiles, rank correlation.

Scores are arrays of seeds x tasks, ``nan`` where a trial is missing. A statistic maps [..., seeds, tasks] to [...],
so that the bootstrap evaluates it on many resamples at once (Agarwal et al. 2021, sections 4 and A). It is over the
seeds that each task has, and nan where a task has none: nothing can be said of all tasks then.
"""

import itertools
import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Statistic = Callable[..., Array]  # one or more arrays of [..., seeds, tasks] -> [...]

LEVEL = 0.95
RESAMPLES = 2000
GAMMA = 100.0  # the score that is as good as wanted

_TUPLES = 4096  # of runs, at most, that one random number chooses from
_CHUNK = 500_000  # numbers at once, a few times over: few enough for the processor's cache


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


@dataclass(frozen=True, slots=True)
class Profile:
    """A performance profile: at each threshold, the share of runs that score more."""

    thresholds: Array
    share: Array  # 0 to 1; nan where a task has no run
    band: tuple[Array, Array] | None  # low and high end at each threshold; None where a task has fewer than two runs


def estimate(values: Sequence[float]) -> Estimate:
    """Mean over the training seeds that are not nan, with its interval; raise ValueError where there are none."""
    scores = np.asarray(values, np.float64)
    scores = scores[~np.isnan(scores)]
    if not len(scores):
        raise ValueError("an estimate needs at least one seed")
    interval = aggregate_intervals(scores[:, None], which=["mean"])["mean"]
    return Estimate(tuple(scores.tolist()), float(scores.mean()), interval)


def mean(scores: Array) -> Array:
    """Mean over tasks of each task's mean over seeds."""
    return np.asarray(_task_means(scores).mean(axis=-1))


def median(scores: Array) -> Array:
    """Median over tasks of each task's mean over seeds."""
    return np.asarray(np.median(_task_means(scores), axis=-1))


def iqm(scores: Array) -> Array:
    """Mean of the middle half of all scores: a quarter of them, rounded down, is cut off at either end."""
    ranked = np.sort(scores.reshape(*scores.shape[:-2], -1), axis=-1)  # nan comes last
    present = (~np.isnan(ranked)).sum(axis=-1, keepdims=True)
    cut = present // 4
    rank = np.arange(ranked.shape[-1])
    kept = (rank >= cut) & (rank < present - cut)
    # A task without a run makes it nan, as it does the other aggregates.
    ran = (~np.isnan(scores)).any(axis=-2).all(axis=-1)
    return _ratio(np.where(kept, ranked, 0).sum(axis=-1), np.where(ran, kept.sum(axis=-1), 0))


def optimality_gap(scores: Array, *, gamma: float = GAMMA) -> Array:
    """By how much runs fall short of `gamma`, which more does not make up for; averaged as in `mean`.

    Agarwal et al. have scores around 1 and gamma = 1. Ours are around 100, and so is gamma: the gap is in points.
    """
    return mean(_shortfall(scores, gamma))


AGGREGATES: dict[str, Statistic] = {"mean": mean, "median": median, "iqm": iqm, "optimality_gap": optimality_gap}


def probability_of_improvement(ours: Array, theirs: Array) -> Array:
    """Chance that a run of ours beats one of theirs, ties counting half, averaged over tasks (Agarwal et al.)."""
    difference = ours[..., :, None, :] - theirs[..., None, :, :]
    won = (difference > 0) + 0.5 * (difference == 0)
    pairs = (~np.isnan(difference)).sum(axis=(-3, -2))
    return np.asarray(_ratio(won.sum(axis=(-3, -2)), pairs).mean(axis=-1))


def bootstrap_interval(
    statistic: Statistic, *samples: Array, seed: int = 0, resamples: int = RESAMPLES, level: float = LEVEL
) -> Interval:
    """Percentile interval of a statistic; seeds are resampled within each task, each sample on its own.

    Of the four aggregates, `aggregate_intervals` gives the same interval faster.
    """
    rng = np.random.default_rng(seed)
    if statistic is probability_of_improvement:
        ours, theirs = samples
        return Interval(*_percentiles(_resampled_improvement(ours, theirs, rng, resamples), level).tolist())
    parts = _chunks(resamples, samples[0].shape[1] * math.prod(len(scores) for scores in samples))
    drawn = [_resampled(scores, _draws(scores, resamples, rng), parts) for scores in samples]
    values = [statistic(*matrices) for matrices in zip(*drawn, strict=True)]
    return Interval(*_percentiles(np.concatenate(values), level).tolist())


def aggregate_intervals(
    scores: Array,
    *,
    which: Collection[str] = tuple(AGGREGATES),
    gamma: float = GAMMA,
    seed: int = 0,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> dict[str, Interval | None]:
    """The interval of each of AGGREGATES in `which`, from one set of resamples; None unless `repeated(scores)`."""
    if not repeated(scores):
        return dict.fromkeys(which)
    draws = _draws(scores, resamples, np.random.default_rng(seed))
    values: dict[str, Array] = {}
    if {"mean", "median"} & set(which):
        means = _resampled_task_means(scores, draws)
        values = {"mean": means.mean(axis=0), "median": _middle(means)}
    if "optimality_gap" in which:
        values["optimality_gap"] = _resampled_task_means(_shortfall(scores, gamma), draws).mean(axis=0)
    if "iqm" in which:
        values["iqm"] = _resampled_iqm(scores, draws)
    return {name: Interval(*_percentiles(values[name], level).tolist()) for name in which}


def repeated(scores: Array) -> bool:
    """Whether there are tasks and each has two runs or more: with fewer, resampling shows no spread."""
    return bool(scores.size) and bool(((~np.isnan(scores)).sum(axis=0) > 1).all())


def performance_profile(
    scores: Array,
    thresholds: Array,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> Profile:
    """Share of each task's runs that score more than each threshold, averaged over tasks, with pointwise intervals.

    Agarwal et al.'s run-score distribution (section 4.2). With one task, that task's own.
    """
    above = np.where(np.isnan(scores)[..., None], np.nan, scores[..., None] > thresholds)  # [seeds, tasks, thresholds]
    share = mean(np.moveaxis(above, -1, 0))
    if not repeated(scores):
        return Profile(thresholds, share, None)
    draws = _draws(scores, resamples, np.random.default_rng(seed))
    drawn = sum((means for _, means in _resampled_parts(above, draws)), np.zeros((resamples, len(thresholds))))
    low, high = _percentiles(drawn / scores.shape[1], level)
    return Profile(thresholds, share, (low, high))


def matrix_estimate(scores: Array) -> Estimate | None:
    """The mean over tasks with its interval, seeds resampled within each task; None where a task has no seed."""
    if not scores.size or np.isnan(scores).all(axis=0).any():
        return None
    complete = scores[~np.isnan(scores).any(axis=1)]
    interval = aggregate_intervals(scores, which=["mean"])["mean"]
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
    return Interval(*_percentiles(values.ravel(), level).tolist())


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


@dataclass(frozen=True, slots=True)
class _Draw:
    """Some of a task's runs drawn with replacement, in every resample: `codes` choose from all tuples of runs.

    One random number that chooses among all n^k tuples of k runs is as good as k numbers, and what a tuple sums to can
    be looked up: that makes the aggregates fast.
    """

    task: int
    first: int  # place of the tuple among the task's draws
    runs: NDArray[np.intp]  # the rows that the task has
    picks: int  # k
    codes: NDArray[np.uint32]  # [resamples]

    @property
    def tuples(self) -> NDArray[np.intp]:
        """[n^k, k] rows of the matrix of scores."""
        return np.asarray(self.runs[_tuples(len(self.runs), self.picks)])


def _draws(scores: Array, resamples: int, rng: np.random.Generator) -> list[_Draw]:
    """Each task's present seeds drawn with replacement, as many as there are, task after task."""
    draws = []
    for task, column in enumerate(scores.T):
        runs = np.flatnonzero(~np.isnan(column))
        at_once = max(k for k in range(1, 13) if k == 1 or len(runs) ** k <= _TUPLES)
        for first in range(0, len(runs), at_once):
            picks = min(at_once, len(runs) - first)
            codes = rng.integers(len(runs) ** picks, size=resamples, dtype=np.uint32)
            draws.append(_Draw(task, first, runs, picks, codes))
    return draws


@lru_cache(maxsize=64)
def _tuples(runs: int, picks: int) -> NDArray[np.intp]:
    """All tuples of `picks` of so many runs, the last changing fastest."""
    return np.indices((runs,) * picks).reshape(picks, -1).T


def _resampled(scores: Array, draws: Sequence[_Draw], parts: Sequence[slice]) -> Iterator[Array]:
    """[resamples of a part, seeds, tasks], nan below where a task has fewer seeds than another."""
    tables = [scores[draw.tuples, draw.task] for draw in draws]
    for part in parts:
        drawn = np.full((part.stop - part.start, *scores.shape), np.nan)
        for draw, table in zip(draws, tables, strict=True):
            places = slice(draw.first, draw.first + draw.picks)
            drawn[:, places, draw.task] = table.take(draw.codes[part], axis=0)
        yield drawn


def _resampled_improvement(ours: Array, theirs: Array, rng: np.random.Generator, resamples: int) -> Array:
    """[resamples]: how often each run was drawn, against who beats whom, which no resample changes."""
    total = np.zeros(resamples)
    for task in range(ours.shape[1]):
        sides = [scores[~np.isnan(scores[:, task]), task] for scores in (ours, theirs)]
        if not all(map(len, sides)):
            return np.full(resamples, np.nan)
        won = (np.sign(np.subtract.outer(*sides)) + 1) / 2
        drawn = [rng.multinomial(len(side), np.full(len(side), 1 / len(side)), size=resamples) for side in sides]
        total += ((drawn[0] @ won) * drawn[1]).sum(axis=1) / won.size
    return np.asarray(total / ours.shape[1])


def _resampled_parts(values: Array, draws: Sequence[_Draw]) -> Iterator[tuple[int, Array]]:
    """What each draw adds to its task's mean, [resamples, ...], for values of [seeds, tasks, ...]."""
    for draw in draws:
        shares = values[draw.runs, draw.task] / len(draw.runs)
        sums = reduce(_sums_of_pairs, [shares] * draw.picks)
        yield draw.task, sums.take(draw.codes, axis=0)


def _sums_of_pairs(some: Array, others: Array) -> Array:
    """Along the first axis, in the order of `_tuples`."""
    return np.asarray(some[:, None] + others[None]).reshape(-1, *others.shape[1:])


def _resampled_task_means(scores: Array, draws: Sequence[_Draw]) -> Array:
    """[tasks, resamples]."""
    means = np.zeros((scores.shape[1], len(draws[0].codes)))
    for task, part in _resampled_parts(scores, draws):
        means[task] += part
    return means


def _middle(values: Array) -> Array:
    """The median along the first axis; to sort it all is faster than numpy's median, which selects."""
    ranked, half = np.sort(values, axis=0), len(values) // 2
    return np.asarray(ranked[half] if len(values) % 2 else (ranked[half - 1] + ranked[half]) / 2)


def _resampled_iqm(scores: Array, draws: Sequence[_Draw]) -> Array:
    """[resamples]; they hold no nan, which is never drawn."""
    tables = [scores[draw.tuples, draw.task] for draw in draws]
    present = sum(draw.picks for draw in draws)
    cut, values = present // 4, []
    for part in _chunks(len(draws[0].codes), present):
        drawn = [table.take(draw.codes[part], axis=0) for table, draw in zip(tables, draws, strict=True)]
        ranked = np.concatenate(drawn, axis=1)
        ranked.sort(axis=1)
        values.append(ranked[:, cut : present - cut].mean(axis=1))
    return np.concatenate(values)


def _chunks(resamples: int, numbers: int) -> list[slice]:
    """The resamples in parts of no more than _CHUNK numbers, where each has so many."""
    ends = itertools.chain(range(0, resamples, max(1, _CHUNK // max(1, numbers))), [resamples])
    return [slice(start, stop) for start, stop in itertools.pairwise(ends)]


def _percentiles(values: Array, level: float) -> Array:
    """Low and high end of the middle `level` of the values, along the first axis."""
    tail = 50 * (1 - level)
    return np.asarray(np.percentile(values, [tail, 100 - tail], axis=0))


def _task_means(scores: Array) -> Array:
    """[..., tasks]: mean over the seeds that a task has, nan where it has none."""
    present = ~np.isnan(scores)
    return _ratio(np.where(present, scores, 0).sum(axis=-2), present.sum(axis=-2))


def _shortfall(scores: Array, gamma: float) -> Array:
    return np.asarray(np.maximum(gamma - scores, 0))  # of nan it is nan


def _ratio(above: Array, below: Array) -> Array:
    """Above / below, nan where below is not positive."""
    return np.asarray(np.divide(above, np.where(below > 0, below, np.nan)))
