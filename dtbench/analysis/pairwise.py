"""Two contenders compared on common evaluation seeds: the difference, its verdict, and how many seeds would decide.

Episodes of one evaluation seed begin alike for everyone, so that their luck cancels from a difference. Training seeds
are not paired: seed 3 of one algorithm has nothing but its name in common with seed 3 of another.
"""

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, reduce
from statistics import NormalDist

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dtbench.analysis import statistics
from dtbench.analysis.published import NOT_RUN
from dtbench.analysis.results import same
from dtbench.analysis.statistics import LEVEL, RESAMPLES, Array, Interval
from dtbench.analysis.suite_analysis import TableInputs
from dtbench.analysis.tables.table import Cell, Column, Table, hole, number_cell, with_interval
from dtbench.ledger.store import TrialRecord
from dtbench.ledger.trial_spec import TrialState

POWER = 0.8  # of the repetitions of a plan that decide
MOST = 1000  # seeds that a plan may ask for

PAIR_RULE = (
    "Difference: mean score of the first less that of its rival over the evaluation episodes that all of their trials "
    "have in common. Interval: 95 %, training seeds of either side redrawn on their own, episodes redrawn for both "
    f"sides together ({RESAMPLES} resamples, fixed seed); none with one training seed on a side. A pair is decided "
    "where it excludes 0, without a correction for the number of pairs. P: chance that a training seed of the first "
    "has the higher mean. More seeds: for each side, so that four of five repetitions would decide if means and "
    "spreads stay as they are (normal approximation). The luck of the episodes does not fall with training seeds: "
    "where it alone hides the difference, more episodes are needed first."
)


@dataclass(frozen=True, slots=True)
class Difference:
    """How far one contender scores above another on the same evaluation episodes."""

    mean: float
    interval: Interval | None  # None with one training seed on a side: it says nothing of the next training
    ours_seeds: int
    theirs_seeds: int
    episodes: int

    @property
    def sign(self) -> int:
        """Return 1 where ours is above, -1 where it is below, 0 where the interval holds 0 or there is none."""
        if self.interval is None:
            return 0
        return int(self.interval.low > 0) - int(self.interval.high < 0)


@dataclass(frozen=True, slots=True)
class Pair:
    """Complete scores of [training seeds, episodes] of both sides, and resampled differences."""

    ours: Array
    theirs: Array
    drawn: Array | None  # None with one training seed on a side


def pair_of(ours: Array, theirs: Array, *, seed: int = 0, resamples: int = RESAMPLES) -> Pair:
    """Return a pair from complete scores, whose columns are the same evaluation seeds."""
    repeated = min(len(ours), len(theirs)) > 1
    return Pair(ours, theirs, _resampled_differences(ours, theirs, seed, resamples) if repeated else None)


def mean_difference(pairs: Sequence[Pair]) -> Difference:
    """Return the difference averaged over tasks; of seeds and episodes, the fewest that a task has.

    The interval redraws training seeds of each side on their own and episodes for both sides together.
    """
    drawn = [pair.drawn for pair in pairs if pair.drawn is not None]
    whole = len(drawn) == len(pairs)
    return Difference(
        mean=float(np.mean([pair.ours.mean() - pair.theirs.mean() for pair in pairs])),
        interval=statistics.percentile_interval(np.mean(drawn, axis=0)) if whole else None,
        ours_seeds=min(len(pair.ours) for pair in pairs),
        theirs_seeds=min(len(pair.theirs) for pair in pairs),
        episodes=min(pair.ours.shape[1] for pair in pairs),
    )


@dataclass(frozen=True, slots=True)
class Spread:
    """A difference and the parts of its variance."""

    difference: float
    ours: float  # variance between the means of training seeds; the episodes' noise of each alone is in it
    theirs: float
    ours_seeds: int
    theirs_seeds: int
    shared: float  # variance of the mean luck of the episodes, which is the same for all training seeds

    def variance(self, more: NDArray[np.int_]) -> Array:
        """Return the difference's variance with so many more training seeds on each side."""
        return self.ours / (self.ours_seeds + more) + self.theirs / (self.theirs_seeds + more) + self.shared


def spread_of(ours: Array, theirs: Array) -> Spread:
    """Return the parts, from complete scores of two training seeds and more on each side."""
    return Spread(
        difference=float(ours.mean() - theirs.mean()),
        ours=float(ours.mean(axis=1).var(ddof=1)),
        theirs=float(theirs.mean(axis=1).var(ddof=1)),
        ours_seeds=len(ours),
        theirs_seeds=len(theirs),
        shared=_luck_variance(ours, theirs) / ours.shape[1],
    )


def pair_table(
    records: Iterable[TrialRecord],
    finals: pd.DataFrame,
    *,
    tasks: Sequence[str],
    contenders: Sequence[str],
    averages: Mapping[str, Sequence[str]] | None = None,
    inputs: TableInputs | None = None,
) -> Table | None:
    """Return the first contender against each other one on each task; None where nobody can be compared.

    A row of `finals` says which step and target of a trial count. `averages` are names of sets of tasks on one scale:
    rows of the mean difference over them.
    """
    known = inputs or TableInputs()
    first, *rivals = contenders
    played = _played(records, finals)
    pairs = _pairs(played, tasks, contenders)
    if not pairs:
        return None
    rows = [
        _row(first, task, rival, [pairs[task, rival]], known)
        if (task, rival) in pairs
        else _empty_row(task, rival, _why_not(task, (first, rival), played, known))
        for task, rival in itertools.product(tasks, rivals)
    ]
    for name, over in (averages or {}).items():
        whole = [rival for rival in rivals if over and all((task, rival) in pairs for task in over)]
        rows += [_row(first, name, rival, [pairs[task, rival] for task in over], known) for rival in whole]
    caption = f"{first} against each rival on common evaluation seeds"
    return Table("pairs", caption, _columns(first), tuple(rows), (PAIR_RULE,))


def differences(
    records: Iterable[TrialRecord], finals: pd.DataFrame, *, tasks: Sequence[str], contenders: Sequence[str]
) -> dict[tuple[str, str], Difference]:
    """Return what `pair_table` says, by (task, rival); pairs that did not both run are not there."""
    found = _pairs(_played(records, finals), tasks, contenders)
    return {index: mean_difference([pair]) for index, pair in found.items()}


@dataclass(frozen=True, slots=True)
class _Played:
    """A trial's last episodes at its headline target: evaluation seeds, rising, and their scores."""

    seeds: NDArray[np.int64]
    scores: Array


def _resampled_differences(ours: Array, theirs: Array, seed: int, resamples: int) -> Array:
    """Return [resamples]: the seeds' means redrawn, and what the luck of redrawn episodes adds.

    To redraw rows and columns of the scores at once would count three times the noise that is neither the seed's nor
    the episode's (Owen 2007, "The pigeonhole bootstrap"). The seeds' means hold it once; so the episodes' differences
    are shrunk to the part of their variance that is not it.
    """
    of_ours, of_theirs, of_episodes = _redrawn((len(ours), len(theirs), ours.shape[1]), seed, resamples)
    by_episode = ours.mean(axis=0) - theirs.mean(axis=0)
    luck, variance = by_episode - by_episode.mean(), _luck_variance(ours, theirs)
    if variance > 0:
        luck *= math.sqrt(variance / by_episode.var(ddof=1))
    else:
        luck[:] = 0
    return np.asarray(of_ours @ ours.mean(axis=1) - of_theirs @ theirs.mean(axis=1) + of_episodes @ luck)


def _luck_variance(ours: Array, theirs: Array) -> float:
    """Return the variance between episodes of what one adds to the difference of every two training seeds.

    That of the episodes' mean differences less what residuals (analysis of variance without repetition) leave in it.
    0 with a single episode, whose luck cannot be seen.
    """
    if ours.shape[1] < 2:
        return 0.0
    left = sum(_residual_variance(scores) / len(scores) for scores in (ours, theirs))
    return max(0.0, float((ours.mean(axis=0) - theirs.mean(axis=0)).var(ddof=1)) - left)


@lru_cache(maxsize=8)
def _redrawn(sizes: tuple[int, ...], seed: int, resamples: int) -> list[Array]:
    """Return [resamples, size] each: the weight of every member of a sample that is drawn with replacement."""
    rng = np.random.default_rng(seed)
    rows = np.arange(resamples)[:, None]
    weights = []
    for size in sizes:
        drawn = rng.integers(size, size=(resamples, size)) + rows * size
        weights.append(np.bincount(drawn.ravel(), minlength=resamples * size).reshape(resamples, size) / size)
    return weights


def _residual_variance(scores: Array) -> float:
    """Return the variance of [training seeds, episodes] that neither the training seed nor the episode explains."""
    residual = scores - scores.mean(axis=1, keepdims=True) - scores.mean(axis=0) + scores.mean()
    return float((residual**2).sum() / ((scores.shape[0] - 1) * (scores.shape[1] - 1)))


def _seeds_to_decide(spreads: Sequence[Spread]) -> int | None:
    """Return the seeds that decide the mean difference over tasks, undecided so far; None where MOST are too few."""
    more = np.arange(1, MOST + 1)
    variance = sum((spread.variance(more) for spread in spreads), np.zeros(len(more))) / len(spreads) ** 2
    difference = abs(float(np.mean([spread.difference for spread in spreads])))
    enough = (difference > 0) & (difference >= _reach() * np.sqrt(variance))
    return int(more[enough.argmax()]) if enough.any() else None


def _hidden_by_episodes(spreads: Sequence[Spread]) -> bool:
    """Return whether no number of training seeds would do."""
    shared = math.sqrt(sum(spread.shared for spread in spreads)) / len(spreads)
    return abs(float(np.mean([spread.difference for spread in spreads]))) < _reach() * shared


def _reach() -> float:
    """Return how many standard deviations a difference must be from 0, for its interval to exclude 0 with POWER."""
    normal = NormalDist()
    return normal.inv_cdf(0.5 + LEVEL / 2) + normal.inv_cdf(POWER)


def _played(records: Iterable[TrialRecord], finals: pd.DataFrame) -> dict[tuple[str, str], list[_Played]]:
    """Return the last episodes of every trial that has a row in `finals`, by task and contender."""
    columns = (finals[name].tolist() for name in ("contender", "trial", "step", "target"))
    wanted = {(contender, trial): (step, target) for contender, trial, step, target in zip(*columns, strict=True)}
    keyed = [(record.spec.seed, record.spec.key, record) for record in records]
    played: dict[tuple[str, str], list[_Played]] = {}
    for _, key, record in sorted(keyed, key=lambda row: row[:2]):
        task, contender = record.spec.task, record.spec.contender
        if (contender, key) in wanted:
            own = _last_episodes(record.episodes(), *wanted[contender, key])
            played.setdefault((task, contender), []).append(own)
    return played


def _last_episodes(episodes: pd.DataFrame, step: int, target: float) -> _Played:
    """Return scores at a step and target; an evaluation seed that was played twice counts by its mean."""
    scores = episodes["score"].to_numpy(np.float64)
    chosen = (episodes["step"].to_numpy() == step) & same(episodes["target"], target) & ~np.isnan(scores)
    seeds, index, times = np.unique(episodes["seed"].to_numpy()[chosen], return_inverse=True, return_counts=True)
    return _Played(seeds, np.bincount(index, weights=scores[chosen], minlength=len(seeds)) / times)


def _common(ours: Sequence[_Played], theirs: Sequence[_Played]) -> tuple[Array, Array] | None:
    """Return scores of [training seeds, common episodes]; None where there is no such episode."""
    both = [*ours, *theirs]
    if not ours or not theirs:
        return None
    if all(np.array_equal(trial.seeds, both[0].seeds) for trial in both):
        scores = np.stack([trial.scores for trial in both])
    else:
        common = reduce(np.intersect1d, (trial.seeds for trial in both))
        scores = np.stack([trial.scores[np.isin(trial.seeds, common)] for trial in both])
    return (scores[: len(ours)], scores[len(ours) :]) if scores.size else None


def _pairs(
    played: Mapping[tuple[str, str], Sequence[_Played]], tasks: Sequence[str], contenders: Sequence[str]
) -> dict[tuple[str, str], Pair]:
    first, *rivals = contenders
    pairs = {}
    for index, (task, rival) in enumerate(itertools.product(tasks, rivals)):
        sides = _common(played.get((task, first), []), played.get((task, rival), []))
        if sides is not None:
            pairs[task, rival] = pair_of(*sides, seed=index // len(rivals))
    return pairs


def _row(first: str, name: str, rival: str, pairs: Sequence[Pair], inputs: TableInputs) -> tuple[Cell, ...]:
    """Return the row of a task, or of the mean of several, each of which was resampled on its own."""
    found = mean_difference(pairs)
    low, high = (found.interval.low, found.interval.high) if found.interval else (None, None)
    return (
        Cell(name),
        Cell(rival),
        Cell(with_interval(found.mean, found.interval), found.mean),
        number_cell(low),
        number_cell(high),
        _probability_cell(pairs),
        replace(number_cell(found.ours_seeds, 0), link=inputs.status(name, first).link),
        replace(number_cell(found.theirs_seeds, 0), link=inputs.status(name, rival).link),
        number_cell(found.episodes, 0),
        _verdict_cell(first, found),
        _plan_cell(found, pairs),
    )


def _probability_cell(pairs: Sequence[Pair]) -> Cell:
    sides = [_seed_means([pair.ours for pair in pairs]), _seed_means([pair.theirs for pair in pairs])]
    chance = statistics.probability_of_improvement
    value = float(chance(*sides))
    return Cell(with_interval(value, statistics.bootstrap_interval(chance, *sides), 2), value)


def _seed_means(scores: Sequence[Array]) -> Array:
    """Return training seeds x tasks from each task's training seeds x episodes, nan where a task has fewer."""
    means = np.full((max(map(len, scores)), len(scores)), np.nan)
    for task, own in enumerate(scores):
        means[: len(own), task] = own.mean(axis=1)
    return means


def _verdict_cell(first: str, found: Difference) -> Cell:
    if found.interval is None:
        return Cell("undecided: one seed on a side", kind="undecided")
    kind = {1: "above", -1: "below", 0: "undecided"}[found.sign]
    return Cell(f"{first} is {kind}" if found.sign else kind, kind=kind)


def _plan_cell(found: Difference, pairs: Sequence[Pair]) -> Cell:
    if found.interval is None or found.mean == 0:
        return hole()
    if found.sign:
        return Cell("0", 0)
    spreads = [spread_of(pair.ours, pair.theirs) for pair in pairs]
    more = _seeds_to_decide(spreads)
    if more is not None:
        return Cell(str(more), more)
    return Cell("more episodes first" if _hidden_by_episodes(spreads) else f"over {MOST}")


def _why_not(
    task: str, sides: Sequence[str], played: Mapping[tuple[str, str], Sequence[_Played]], inputs: TableInputs
) -> str:
    absent = [name for name in sides if (task, name) not in played]
    lost = [name for name in absent if inputs.status(task, name).diverged]
    reasons = {TrialState.DIVERGED: lost, NOT_RUN: [name for name in absent if name not in lost]}
    return ", ".join(f"{' and '.join(names)} {why}" for why, names in reasons.items() if names) or "no common episodes"


def _empty_row(task: str, rival: str, why_not: str) -> tuple[Cell, ...]:
    return (Cell(task), Cell(rival), *[hole()] * 7, Cell(why_not, kind="hole"), hole())


def _columns(first: str) -> tuple[Column, ...]:
    def numbers(*names: str, shown: bool = True) -> Iterator[Column]:
        return (Column(name, number=True, shown=shown) for name in names)

    return (
        Column("Task"),
        Column("Rival"),
        *numbers("Difference"),
        *numbers("95% low", "95% high", shown=False),
        *numbers(f"P({first} is above)", f"Seeds of {first}", "Seeds of the rival", "Common episodes"),
        Column("Verdict"),
        *numbers("More seeds to decide"),
    )
