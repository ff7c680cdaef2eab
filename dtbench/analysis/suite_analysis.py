"""All that the tables and figures of a suite are made from."""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import pandas as pd

from dtbench.analysis import statistics
from dtbench.analysis.convergence import Convergence, convergences
from dtbench.analysis.data_scores import DataScores, data_scores
from dtbench.analysis.final_scores import final_rows
from dtbench.analysis.published import PublishedTable, RunConditions, published_tables
from dtbench.analysis.results import SuiteResults, contenders, headline_rows
from dtbench.analysis.settings_tried import settings_tried
from dtbench.analysis.statistics import Estimate, estimate
from dtbench.analysis.superseded import apart
from dtbench.ledger.families import FAMILIES, family_of
from dtbench.ledger.store import TrialRecord, Unfinished
from dtbench.ledger.trial_spec import TrialSpec, TrialState
from dtbench.tuning.search import SearchRecord

RAW = "raw return"  # how the name of a score without references begins: no two tasks' returns have a scale in common

DIVERGED_RULE = (
    "A trial whose loss became NaN has diverged: it has no score, and every number is of the other seeds alone."
)
MIXED_RULE = (
    "The tasks are scored on {} scales, which their names say. Nothing is averaged over tasks of different ones."
)


Estimates = Mapping[tuple[str, str], Estimate]  # by (task, contender)


@dataclass(frozen=True, slots=True)
class CellStatus:
    """How many trials of one contender on one task have no number, and why."""

    missing: int = 0
    broken: int = 0  # of them, those that ended: as NaN, or because they diverged
    diverged: int = 0  # of those, the latter
    link: str = ""  # the id on the page that the cell's numbers lead to
    unconverged: str = ""  # why its trials had not finished learning; "" where nothing says so
    unknown: str = ""  # why nobody can say whether they had

    @property
    def bar(self) -> str:
        """Return why it takes no part in bold and verdicts; "" where it does."""
        if self.unconverged:
            return f"not converged ({self.unconverged})"
        return f"convergence unknown ({self.unknown})" if self.unknown else ""


@dataclass(frozen=True, slots=True)
class TableInputs:
    """The numbers of a suite by (task, contender), averages over tasks among the tasks; empty where nothing ran."""

    estimates: Estimates = field(default_factory=dict)
    conditions: Mapping[str, RunConditions] = field(default_factory=dict)  # by task
    statuses: Mapping[tuple[str, str], CellStatus] = field(default_factory=dict)
    over_draws: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # averages over draws of the same data
    tried: Mapping[tuple[str, str], int] = field(default_factory=dict)  # settings that recorded searches tried

    def status(self, task: str, contender: str) -> CellStatus:
        """Return the status of a cell, without counts where nothing is known of it."""
        return self.statuses.get((task, contender), CellStatus())

    def conditions_of(self, task: str) -> RunConditions:
        """Return what a task ran under."""
        return self.conditions.get(task, RunConditions())

    def diverged(self, tasks: Sequence[str]) -> Counter[str]:
        """Return how many trials of each contender diverged on these tasks, of those with any."""
        found: Counter[str] = Counter()
        for (task, contender), status in self.statuses.items():
            if task in tasks and status.diverged:
                found[contender] += status.diverged
        return found


def scales_of(tasks: Sequence[str], score_names: Mapping[str, str]) -> tuple[tuple[str, ...], ...]:
    """Return the tasks in groups of one scale each, both in the suite's order: those whose scores share a name.

    A task that has not run tells no name: it belongs to the others where they have but one scale, else to nobody.
    """
    groups: dict[str, list[str]] = {}
    for task in tasks:
        if name := score_names.get(task):
            groups.setdefault(f"{name} of {task}" if name.startswith(RAW) else name, []).append(task)
    if len(groups) <= 1 and not any(name.startswith(RAW) for name in groups):
        return (tuple(tasks),)
    return (*map(tuple, groups.values()), *((task,) for task in tasks if task not in score_names))


def averages_of(
    scales: Sequence[tuple[str, ...]], score_names: Mapping[str, str], ran: Collection[str]
) -> dict[str, tuple[str, ...]]:
    """Return the averages over each scale's tasks, by name: over all and over those that `ran`, if two or more."""
    found = {}
    for scale in (scale for scale in scales if len(scale) > 1):
        scope = "" if len(scales) == 1 else f", {score_names[scale[0]]}"
        finished = tuple(task for task in scale if task in ran)
        found[f"average over {len(scale)} tasks{scope}"] = scale
        if 1 < len(finished) < len(scale):
            found[f"average over the {len(finished)} tasks that ran{scope}"] = finished
    return found


@dataclass(frozen=True, slots=True)
class SuiteAnalysis:
    """The results of a suite, and what follows from them for every table and figure."""

    results: SuiteResults
    contenders: Sequence[str]  # in table order: those with a trial that ended, as a number or not
    tasks: Sequence[str]  # likewise
    finals: pd.DataFrame  # a row a trial: its last checkpoint at its headline target
    score_names: Mapping[str, str]  # by task
    scales: Sequence[tuple[str, ...]] = ()  # the tasks in groups of one scale
    averages: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # means over tasks: the suite's, the papers'
    inputs: TableInputs = field(default_factory=TableInputs)  # averages included
    published: Sequence[PublishedTable] = ()
    provenance: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # by task: that of one of its trials
    broken: tuple[TrialRecord, ...] = ()  # finished, but with a score that is no number: counted as missing
    convergence: Mapping[tuple[str, str], Convergence] = field(default_factory=dict)  # by (task, contender)
    data_scores: Mapping[str, DataScores] = field(default_factory=dict)  # by task or average, where known
    families: Mapping[str, str] = field(default_factory=dict)  # by contender

    @property
    def scores(self) -> pd.DataFrame:
        """Return all checkpoints and targets, COLUMNS of results.py."""
        return self.results.scores

    @property
    def smoke(self) -> bool:
        """Return whether the numbers mean nothing."""
        return self.results.suite.get("preset") == "smoke"

    @property
    def margin(self) -> float | None:
        """Return the margin of a match in points: the suite's, else 5 where scores are not raw returns."""
        declared = self.results.suite.get("margin")
        if isinstance(declared, int | float) and not isinstance(declared, bool):
            return float(declared)
        return None if any(name.startswith(RAW) for name in self.score_names.values()) else statistics.MARGIN

    @property
    def mixed_score_names(self) -> Mapping[str, str]:
        """Return the names of scores that must stand beside their tasks: all where there are several scales."""
        return self.score_names if len(self.scales) > 1 else {}

    @property
    def diverged_text(self) -> tuple[str, ...]:
        """Return a sentence that names the cells where trials diverged; () where none did."""
        finished = Counter(zip(self.finals["task"], self.finals["contender"], strict=True))
        cells = [
            f"{contender} on {task} ({one.diverged} of {one.missing + finished[task, contender]} seeds)"
            for (task, contender), one in sorted(self.inputs.statuses.items())
            if one.diverged and task not in self.averages
        ]
        return (f"{DIVERGED_RULE} Diverged: {'; '.join(cells)}.",) if cells else ()

    @property
    def absent(self) -> tuple[list[str], list[str]]:
        """Return the planned tasks and contenders of which nothing ran."""
        planned = (self.results.suite.get("tasks") or (), contenders(self.results))
        tasks, names = (
            [n for n in all_ if n not in shown]
            for all_, shown in zip(planned, (self.tasks, self.contenders), strict=True)
        )
        return tasks, names

    @property
    def ran(self) -> list[str]:
        """Return the tasks with at least one number."""
        finished = set(self.finals["task"])
        return [task for task in self.tasks if task in finished]

    @property
    def shown_averages(self) -> list[str]:
        """Return a name for each set of the suite's tasks, a paper's before our own."""
        names = {over: name for name, over in self.averages.items() if set(over) <= set(self.tasks)}
        return list(names.values())

    def matrices(self, over: Sequence[str]) -> dict[str, statistics.Array]:
        """Return each contender's scores as seeds x tasks, nan where a trial is missing."""
        return matrices_of(self.finals, self.contenders, over)

    def title(self, task: str) -> str:
        """Return the task, with where its data came from."""
        source = self.source(task)
        return f"{task} (data: {source})" if source else task

    def source(self, task: str) -> str:
        """Return where the task's data came from; "" where no trial says."""
        return self.inputs.conditions_of(task).source

    def shared_score(self, tasks: Sequence[str]) -> str:
        """Return the name of the score that all of these tasks share; empty where they have several."""
        names = {self.score_names[task] for task in tasks if task in self.score_names}
        return names.pop() if len(names) == 1 else ""


def analyze(results: SuiteResults, searches: Sequence[SearchRecord] = ()) -> SuiteAnalysis:
    """Return all that tables and figures need, from the results of a suite with at least one finished trial.

    Of `searches` those of this suite and preset say how many settings were tried for each contender.
    """
    everyone, suite = final_rows(results), results.suite
    finals = everyone[everyone["score"].notna()].reset_index(drop=True)
    bad = set(everyone.loc[everyone["score"].isna(), "trial"])
    broken = tuple(record for record in results.records if record.spec.key in bad)
    ended = _ended(results)
    tasks = [task for task in suite.get("tasks") or sorted(set(everyone["task"])) if task in ended]
    provenance = {record.spec.task: record.provenance for record in results.records}
    about = {task: (facts.get("task") or {}) for task, facts in provenance.items()}
    score_names = {task: str(facts.get("score_name") or "score") for task, facts in about.items()}
    scales, published = scales_of(tasks, score_names), published_tables(suite)
    averages = averages_of(scales, score_names, set(finals["task"]))
    averages |= averages_over_draws(tasks, suite.get("draws") or ())
    for table in published:
        averages |= table.averages
    families = _families(results)
    names = _by_family([name for name in contenders(results) if name in ended], families)
    over_draws = draws_among(averages, suite.get("draws") or ())
    earlier = apart(results)
    curves = [headline_rows(one.scores, rows) for one, rows in ((results, everyone), (earlier, final_rows(earlier)))]
    shares = [task for task, name in score_names.items() if name.endswith("(%)")]
    convergence = convergences(results.records, pd.concat(curves), over_draws, earlier.records, shares)
    inputs = TableInputs(
        {**estimates_of(finals), **dict(_average_estimates(finals, names, averages, over_draws))},
        run_conditions(results, averages),
        _statuses(results, broken, names, averages, convergence),
        over_draws,
        settings_tried(searches, {**suite, "name": results.name}, averages),
    )
    return SuiteAnalysis(
        results,
        names,
        tasks,
        finals,
        score_names,
        scales,
        averages,
        inputs,
        published,
        provenance,
        broken,
        convergence,
        data_scores(provenance, results.scores, averages),
        families,
    )


def _ended(results: SuiteResults) -> set[str]:
    """Return the tasks and contenders with a trial that finished, diverged or failed."""
    lost = [trial.spec for trial in results.unfinished if trial.state not in ("missing", "interrupted")]
    return {name for spec in (*lost, *(one.spec for one in results.records)) for name in (spec.task, spec.contender)}


def _families(results: SuiteResults) -> dict[str, str]:
    found = {spec.contender: family_of(spec, {}) for spec in results.not_run}
    return found | {record.spec.contender: family_of(record.spec, record.result) for record in results.records}


def _by_family(names: Sequence[str], families: Mapping[str, str]) -> list[str]:
    """Return the contenders in the order of their families, but for the first, which all others are held against."""
    order = list(FAMILIES)
    return [*names[:1], *sorted(names[1:], key=lambda name: order.index(families.get(name, "other")))]


def return_inputs(analysis: SuiteAnalysis) -> TableInputs:
    """Return the inputs of a table that prints returns in a task's own points."""
    return replace(analysis.inputs, estimates=estimates_of(analysis.finals, "return_mean"))


def estimates_of(finals: pd.DataFrame, column: str = "score") -> dict[tuple[str, str], Estimate]:
    """Return the estimate of each cell with a number, from rows of task, contender, seed and the column."""
    groups = finals.dropna(subset=[column]).groupby(["task", "contender"], sort=True)[column]
    return {(str(task), str(contender)): estimate(values.tolist()) for (task, contender), values in groups}


def diverged_of(unfinished: Iterable[Unfinished]) -> Counter[tuple[str, str]]:
    """Return how many trials of each task and contender diverged."""
    lost = (trial.spec for trial in unfinished if trial.state == TrialState.DIVERGED)
    return Counter((spec.task, spec.contender) for spec in lost)


def _average_estimates(
    finals: pd.DataFrame, names: Sequence[str], averages: Mapping[str, Sequence[str]], over_draws: Collection[str]
) -> Iterator[tuple[tuple[str, str], Estimate]]:
    for name, over in averages.items():
        average = statistics.draws_estimate if name in over_draws else statistics.matrix_estimate
        for contender, scores in matrices_of(finals, names, over).items():
            if found := average(scores):
                yield (name, contender), found


def averages_over_draws(tasks: Sequence[str], patterns: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return the average over the tasks of each pattern, by a name that says which data: "graph, mean of 5 draws"."""
    groups = {pattern: tuple(task for task in tasks if fnmatchcase(task, pattern)) for pattern in patterns}
    return {f"{p.rstrip('*-_:')}, mean of {len(over)} draws": over for p, over in groups.items() if len(over) > 1}


def draws_among(averages: Mapping[str, tuple[str, ...]], patterns: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return the averages over draws of the same data, each once: all of their tasks match one of these patterns."""
    names = {
        over: name
        for name, over in averages.items()
        if len(over) > 1 and any(all(fnmatchcase(task, pattern) for task in over) for pattern in patterns)
    }
    return {name: over for over, name in names.items()}


def _statuses(
    results: SuiteResults,
    broken: Sequence[TrialRecord],
    names: Sequence[str],
    averages: Mapping[str, Sequence[str]],
    convergence: Mapping[tuple[str, str], Convergence],
) -> dict[tuple[str, str], CellStatus]:
    """Return statuses by task and contender; of an average the sums over its tasks."""
    diverged, nans = diverged_of(results.unfinished), _count(record.spec for record in broken)
    missing = _count(results.not_run) + nans
    # A cell may be several where hyperparameters were changed: the last one that finished.
    lost = [trial.spec for trial in results.unfinished if trial.state == TrialState.DIVERGED]
    specs = [*lost, *(record.spec for record in results.records)]
    links = {(spec.task, spec.contender): f"cell-{spec.cell}" for spec in specs}
    none = Convergence()
    found = {
        cell: CellStatus(
            missing[cell],
            nans[cell] + diverged[cell],
            diverged[cell],
            links.get(cell, ""),
            convergence.get(cell, none).reason,
            convergence.get(cell, none).unknown,
        )
        for cell in {**missing, **links}
    }
    for name, over in averages.items():
        for contender in names:
            parts = [found.get((task, contender), CellStatus()) for task in over]
            lost_there = sum(part.diverged for part in parts)
            late, unknown = (
                f"on {count} of {len(parts)} tasks" if (count := sum(map(bool, reasons))) else ""
                for reasons in ([part.unconverged for part in parts], [part.unknown for part in parts])
            )
            if together := convergence.get((name, contender)):
                late, unknown = together.reason, together.unknown
            broken_there = sum(part.broken for part in parts)
            found[name, contender] = CellStatus(0, broken_there, lost_there, unconverged=late, unknown=unknown)
    return found


def _count(specs: Iterable[TrialSpec]) -> Counter[tuple[str, str]]:
    return Counter((spec.task, spec.contender) for spec in specs)


def matrices_of(finals: pd.DataFrame, names: Sequence[str], over: Sequence[str]) -> dict[str, statistics.Array]:
    """Return scores as seeds x tasks, by contender."""
    return {name: matrix_of(finals[finals["contender"] == name], over) for name in names}


def matrix_of(rows: pd.DataFrame, tasks: Sequence[str], column: str = "score") -> statistics.Array:
    """Return a column as seeds x tasks, nan where a trial is missing."""
    pivot = rows.pivot_table(index="seed", columns="task", values=column).reindex(columns=list(tasks))
    return np.asarray(pivot, np.float64)


def run_conditions(results: SuiteResults, averages: Mapping[str, Sequence[str]]) -> dict[str, RunConditions]:
    """Return the conditions of each task that ran, and of each average over such tasks."""
    smoke = results.suite.get("preset") == "smoke"
    groups = {record.spec.task: [record.spec.task] for record in results.records}
    found = {}
    for name, over in {**groups, **averages}.items():
        records = [record for record in results.records if record.spec.task in over]
        found[name] = RunConditions(
            source=", ".join(sorted({record.spec.dataset_source for record in records})),
            physics=_stamps(records, "physics"),
            protocol=_stamps(records, "protocol"),
            smoke=smoke,
        )
    return found


def _stamps(records: Sequence[TrialRecord], kind: str) -> str:
    """Return what was chosen for the tasks of these trials, else the default that the names of their scores say."""
    found = set()
    for record in records:
        named = re.search(rf"\({kind} ([^()]+)\)", str((record.provenance.get("task") or {}).get("score_name") or ""))
        if kind in record.spec.task_options:
            found.add(str(record.spec.task_options[kind]))
        elif named:
            found.add(named[1])
    return ", ".join(sorted(found))
