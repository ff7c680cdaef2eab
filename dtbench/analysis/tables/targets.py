"""Achieved against target return: what return-conditioned contenders were asked for, and what they got."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dtbench.analysis import statistics
from dtbench.analysis.statistics import Array, Estimate, Interval
from dtbench.analysis.suite_analysis import SuiteAnalysis
from dtbench.analysis.tables.table import Cell, Column, Table, hole, number, number_cell, with_interval
from dtbench.ledger.store import TrialRecord

BULK = 0.99  # of the data's episodes
FEWEST_TARGETS = 3  # fewer points inside the data say nothing of a coefficient or a rank correlation

TARGET_RULE = (
    "Targets inside the data lie between its lowest and its highest episode return. Coefficient: of the "
    "least-squares line of the mean achieved return over those targets; 1 where the target is obeyed, 0 where it is "
    "ignored. Error: mean distance of the mean achieved return from the target, in return units. Rank correlation: "
    "Spearman's, of the mean achieved return; of all seeds' means together, where it falls too because seeds differ "
    "in level; of each seed alone; and of the mean in the bulk of the data. Brackets: 95 % intervals, training "
    "seeds and their episodes redrawn together (2000 resamples, fixed seed). The bulk of the data ends where 99 % "
    "of its episodes return no more (at the upper end of that bin of its histogram): beyond it there may be a "
    f"single episode to learn from. No numbers with fewer than {FEWEST_TARGETS} targets."
)


@dataclass(frozen=True, slots=True)
class Achieved:
    """One contender on one task at its last checkpoints."""

    contender: str
    seeds: tuple[int, ...]
    targets: Array  # [targets], rising
    returns: Array  # [seeds, episodes, targets]

    @property
    def curve(self) -> Array:
        """Return [targets]: mean over seeds and episodes."""
        return np.asarray(self.returns.mean(axis=(0, 1)))

    def band(self) -> tuple[Array, Array]:
        """Return both ends of the curve's 95 % interval at each target."""
        low, high = np.percentile(statistics.resampled_means(self.returns).mean(axis=1), [2.5, 97.5], axis=0)
        return low, high


@dataclass(frozen=True, slots=True)
class TaskTargets:
    """All that a figure of achieved against target return shows of a task."""

    task: str
    achieved: tuple[Achieved, ...]  # contenders that were asked for two targets and more
    levels: Mapping[str, Estimate]  # contenders that take no target: their returns, a value a seed
    data: Interval | None  # lowest and highest episode return of the data, as far as it was recorded
    fixed: tuple[float, ...]  # targets that were set beforehand, the headline first
    bulk: Interval | None = None  # from the lowest to what 99 % of the data's episodes do not exceed
    units: str = ""  # of targets and of all returns here, where they are not the environment's own rewards


@dataclass(frozen=True, slots=True)
class Measured:
    """A number with its interval."""

    value: float
    interval: Interval | None

    def cell(self, decimals: int) -> Cell:
        """Return both as a table shows them."""
        return Cell(with_interval(self.value, self.interval, decimals), self.value)


@dataclass(frozen=True, slots=True)
class TargetTracking:
    """How far a contender does what it is asked, over the targets inside the data's range."""

    coefficient: Measured
    error: Measured
    correlation: Measured  # of the mean over seeds
    pooled: Measured  # of all seeds' means together: also falls where seeds differ in level
    by_seed: tuple[float, ...]  # the correlation within each seed


def task_targets(records: Iterable[TrialRecord], task: str, contenders: Sequence[str]) -> TaskTargets | None:
    """Return targets and returns of a task at the last checkpoints; None where nobody was asked for two targets."""
    own = [record for record in records if record.spec.task == task]
    achieved: list[Achieved] = []
    levels: dict[str, Estimate] = {}
    for name in contenders:
        last = {record.spec.seed: _last(record) for record in own if record.spec.contender == name}
        found = _achieved(name, last)
        if found:
            achieved.append(found)
        elif means := [rows[_measure(rows)].mean() for rows in last.values() if rows[_measure(rows)].notna().any()]:
            levels[name] = statistics.estimate(means)
    if not achieved:
        return None
    conditioned = {found.contender for found in achieved}
    asked = [record.spec.evaluation.targets for record in own if record.spec.contender in conditioned]
    fixed = tuple(dict.fromkeys(target for targets in asked for target in targets))
    card = next(filter(None, map(_card, own)), {})
    return TaskTargets(task, tuple(achieved), levels, _data_range(card), fixed, _bulk(card), _units(own))


def all_targets(analysis: SuiteAnalysis) -> list[TaskTargets]:
    """Return what was asked and achieved on each task where somebody was asked for two targets."""
    found = (task_targets(analysis.results.records, task, analysis.contenders) for task in analysis.tasks)
    return [one for one in found if one]


def target_tracking(achieved: Achieved, data: Interval | None) -> TargetTracking | None:
    """Return how the data's range is tracked; None with fewer than FEWEST_TARGETS inside it."""
    inside = targets_inside(achieved.targets, data)
    if inside.sum() < FEWEST_TARGETS:
        return None
    asked, returns = achieved.targets[inside], achieved.returns[:, :, inside]
    seeds, drawn = returns.mean(axis=1), statistics.resampled_means(returns)
    mean, means = seeds.mean(axis=0), drawn.mean(axis=1)
    every = np.tile(asked, len(seeds))

    def measured(value: Array, resampled: Array) -> Measured:
        return Measured(float(value), statistics.percentile_interval(resampled))

    return TargetTracking(
        coefficient=measured(statistics.coefficient(asked, mean), statistics.coefficient(asked, means)),
        error=measured(np.abs(mean - asked).mean(), np.abs(means - asked).mean(axis=-1)),
        correlation=measured(statistics.spearman(asked, mean), statistics.spearman(asked, means)),
        pooled=measured(
            statistics.spearman(every, seeds.ravel()), statistics.spearman(every, drawn.reshape(len(drawn), -1))
        ),
        by_seed=tuple(statistics.spearman(asked, seeds).tolist()),
    )


def targets_inside(targets: Array, data: Interval | None) -> NDArray[np.bool_]:
    """Return which targets lie inside the data's range, its ends included."""
    if data is None:
        return np.zeros(len(targets), bool)
    sliver = 1e-4 * max(1.0, abs(data.high))  # the sweep names the best return rounded to a tenth
    return (targets >= data.low - sliver) & (targets <= data.high + sliver)


def target_table(found: Sequence[TaskTargets]) -> Table | None:
    """Return the numbers behind the figures, a row for each task and contender; None where no row has numbers."""
    rows = [(one, achieved, target_tracking(achieved, one.data)) for one in found for achieved in one.achieved]
    if not any(facts for *_, facts in rows):
        return None
    names = (
        *("Targets inside the data", "Coefficient", "Mean error", "Rank correlation", "Of seeds together"),
        *("Of each seed", "In the bulk of the data", "Highest achieved", "At target", "Best of the data"),
    )
    lists = ("Of each seed",)  # which break where a number must not
    columns = (Column("Task"), Column("Contender"), *(Column(name, number=name not in lists) for name in names))
    caption = "Achieved against target return at the last checkpoint"
    return Table("targets", caption, columns, tuple(_row(*row) for row in rows), (*_unit_notes(found), TARGET_RULE))


def _unit_notes(found: Iterable[TaskTargets]) -> Iterator[str]:
    """Yield the units of targets and returns where they are not the environment's rewards."""
    tasks: dict[str, list[str]] = {}
    for one in found:
        if one.units:
            tasks.setdefault(one.units, []).append(one.task)
    for units, names in tasks.items():
        yield f"Targets and returns of {', '.join(names)} are sums of {units}, as in the data."


def _last(record: TrialRecord) -> pd.DataFrame:
    episodes = record.episodes()
    return episodes[episodes["step"] == episodes["step"].max()]


def _achieved(name: str, last: Mapping[int, pd.DataFrame]) -> Achieved | None:
    """Return returns by target; None where fewer than two targets were asked of every seed."""
    tables = {seed: _by_target(episodes) for seed, episodes in sorted(last.items())}
    asked = {seed: returns for seed, returns in tables.items() if returns and len(next(iter(returns.values())))}
    if not asked:
        return None
    targets = sorted(set.intersection(*map(set, asked.values())))
    if len(targets) < 2:
        return None
    fewest = min(len(returns[targets[0]]) for returns in asked.values())
    returns_at = [[returns[target][:fewest] for target in targets] for returns in asked.values()]
    return Achieved(name, tuple(asked), np.asarray(targets, np.float64), np.asarray(returns_at).transpose(0, 2, 1))


def _by_target(episodes: pd.DataFrame) -> dict[float, Array]:
    """Return for each target the returns in its units, of the episodes that have one for all of them."""
    own = episodes[episodes["target"].notna()]
    targets, columns = np.unique(own["target"].to_numpy(np.float64), return_inverse=True)
    numbers, rows = np.unique(own["episode"].to_numpy(), return_inverse=True)
    table = np.full((len(numbers), len(targets)), np.nan)
    table[rows, columns] = own[_measure(episodes)].to_numpy(np.float64)
    whole = table[~np.isnan(table).any(axis=1)]
    return dict(zip(targets.tolist(), whole.T, strict=True))


def _measure(episodes: pd.DataFrame) -> str:
    """Return the column of returns that can be held against targets."""
    return "achieved" if "achieved" in episodes else "return"


def _units(records: Iterable[TrialRecord]) -> str:
    """Return the name of the targets' units; empty where they are those of the environment's rewards."""
    named = ((record.provenance.get("task") or {}).get("target_units") for record in records)
    return str(next(filter(None, named), ""))


def _card(record: TrialRecord) -> Mapping[str, Any]:
    """Return the statistics card of the trial's data."""
    card: Mapping[str, Any] = (record.provenance.get("dataset") or {}).get("card") or {}
    return card


def _data_range(card: Mapping[str, Any]) -> Interval | None:
    if card.get("return_max") is None:
        return None
    low = card.get("return_min")
    return Interval(float("-inf") if low is None else float(low), float(card["return_max"]))


def _bulk(card: Mapping[str, Any]) -> Interval | None:
    whole, histogram = _data_range(card), card.get("return_histogram")
    if whole is None or not histogram:
        return None
    share = np.cumsum(histogram["counts"]) / np.sum(histogram["counts"])
    return Interval(whole.low, float(histogram["edges"][1 + int(np.argmax(share >= BULK))]))


def _row(one: TaskTargets, achieved: Achieved, facts: TargetTracking | None) -> tuple[Cell, ...]:
    inside = int(targets_inside(achieved.targets, one.data).sum())
    best = int(achieved.curve.argmax())
    decimals = _decimals(achieved.targets)
    labels = (Cell(one.task), Cell(achieved.contender), Cell(f"{inside} of {len(achieved.targets)}", inside))
    ends = (number_cell(achieved.curve[best], decimals), number_cell(achieved.targets[best], decimals))
    limit = number_cell(one.data.high if one.data else None, decimals)
    if facts is None:
        return (*labels, *[hole()] * 6, *ends, limit)
    within = target_tracking(achieved, one.bulk)
    middle = (
        *(facts.coefficient.cell(2), facts.error.cell(decimals), facts.correlation.cell(2), facts.pooled.cell(2)),
        Cell(", ".join(number(value, 2) for value in facts.by_seed)),
        within.correlation.cell(2) if within else hole(),
    )
    return (*labels, *middle, *ends, limit)


def _decimals(targets: Array) -> int:
    """Return how many decimals returns need: in the thousands none, of 0 and 1 two."""
    largest = float(np.abs(targets).max())
    return 0 if largest >= 1000 else 1 if largest >= 10 else 2
