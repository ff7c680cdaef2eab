"""Do our scores rank contenders as published ones do? Kendall's tau between both, over tasks and contenders.

Generated and re-recorded data are stand-ins: what they say of the question is worth as much as this agreement.
"""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from dtbench.analysis import statistics
from dtbench.analysis.published import PublishedTable
from dtbench.analysis.statistics import RESAMPLES, Array, Interval
from dtbench.analysis.suite_analysis import TableInputs

FEWEST = 3  # contenders of a task, or tasks: two are ranked alike by chance half of the time

RULE = (
    "Kendall's tau-b between our means and published ones: 1 where they rank alike, 0 where they have nothing to do "
    "with each other, -1 where they rank the other way round. Within tasks: contenders are ranked on each task, and "
    f"tau is averaged over the tasks with at least {FEWEST} of them. Over all cells it is higher wherever easy tasks "
    f"are easy for everybody. Intervals: 95 %, percentiles of {RESAMPLES} resamples of whole tasks (fixed seed); none "
    f"below {FEWEST} tasks."
)


@dataclass(frozen=True, slots=True)
class RankedPair:
    """Our mean and the published one of a contender on a task."""

    task: str
    contender: str
    ours: float
    theirs: float


@dataclass(frozen=True, slots=True)
class RankAgreement:
    """How far two rankings agree; None where too little ran to tell."""

    tasks: int
    cells: int
    overall: float | None
    overall_interval: Interval | None
    within: float | None
    within_interval: Interval | None


def ranked_pairs(table: PublishedTable, inputs: TableInputs) -> list[RankedPair]:
    """Return the cells that have a number on both sides, without averages."""
    return [
        RankedPair(task, contender, ours.mean, number.mean)
        for (task, contender), number in table.numbers.items()
        if task and contender and task not in table.averages
        if (ours := inputs.estimates.get((task, contender))) and np.isfinite(ours.mean)
    ]


def rank_agreement(pairs: Iterable[RankedPair]) -> RankAgreement:
    """Return how far the rankings of these cells agree."""
    ordered = sorted(pairs, key=lambda pair: pair.task)
    groups = [list(group) for _, group in itertools.groupby(ordered, key=lambda pair: pair.task)]
    known = np.array([tau for group in groups if (tau := _tau(group)) is not None])
    intervals: list[Interval | None] = [None, None]
    if len(groups) >= FEWEST:
        counts = np.random.default_rng(0).multinomial(len(groups), [1 / len(groups)] * len(groups), size=RESAMPLES)
        drawn = _taus(ordered, np.repeat(counts, [len(group) for group in groups], axis=1))
        intervals[0] = statistics.percentile_interval(drawn[np.isfinite(drawn)])
    if len(known) >= FEWEST:
        picks = np.random.default_rng(0).integers(len(known), size=(RESAMPLES, len(known)))
        intervals[1] = statistics.percentile_interval(known[picks].mean(axis=1))
    within = float(known.mean()) if len(known) else None
    return RankAgreement(len(groups), len(ordered), _tau(ordered), intervals[0], within, intervals[1])


def _tau(pairs: Sequence[RankedPair]) -> float | None:
    if len(pairs) < FEWEST:
        return None
    (found,) = _taus(pairs, np.ones((1, len(pairs))))
    return float(found) if np.isfinite(found) else None


def _taus(pairs: Sequence[RankedPair], counts: ArrayLike) -> Array:
    """Return tau-b for each row of `counts`, how often each pair is in a resample; nan where a side does not vary."""
    counts = np.asarray(counts, np.float64)

    def total(signs: Array) -> Array:
        return np.asarray(((counts @ signs) * counts).sum(axis=1))

    ours, theirs = (
        np.sign(np.subtract.outer(values, values))
        for values in ([pair.ours for pair in pairs], [pair.theirs for pair in pairs])
    )
    with np.errstate(invalid="ignore"):
        return np.asarray(total(ours * theirs) / np.sqrt(total(ours**2) * total(theirs**2)))
