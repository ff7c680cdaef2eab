"""The tables of results: scores, aggregates, paths and ours beside a paper's."""

import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from dtbench.analysis import statistics
from dtbench.analysis.published import NOT_RUN, Circumstances, Published, PublishedTable, spread_note, verdict
from dtbench.analysis.statistics import Array, Estimate, Statistic, estimate
from dtbench.analysis.tables.diverged import not_on_every_task
from dtbench.analysis.tables.table import DASH, Cell, Column, Table, hole, number_cell, with_interval
from dtbench.ledger.store import DIVERGED

BOLD_RULE = (
    "Bold: the highest mean of a task and every mean whose 95 % interval overlaps its interval; "
    "nothing is bold where the highest mean has no interval, and no mean without one is. A contender with a trial "
    "that returned no number takes no part."
)

AGGREGATE_RULE = (
    "Seeds are resampled within each task (stratified percentile bootstrap, 2000 resamples, fixed seed). Median: of "
    "the tasks' means. IQM: mean of the middle half of all runs. Optimality gap: how far runs stay below 100 on "
    "average, those above counting as 100; less is better. A contender that misses a task has no numbers."
)

MANY_TASKS = 5  # with more than these, tasks become rows and figures share a grid

Estimates = Mapping[tuple[str, str], Estimate]  # by (task, contender)
Counts = Mapping[tuple[str, str], int]  # by (task, contender)
Links = Mapping[tuple[str, str], str]  # by (task, contender), what its numbers lead to: an id on the page

_NONE: Mapping[tuple[str, str], Any] = MappingProxyType({})


def estimates_of(finals: pd.DataFrame, column: str = "score") -> dict[tuple[str, str], Estimate]:
    """The estimate of every cell that has a number, from rows of task, contender, seed and the column."""
    groups = finals.dropna(subset=[column]).groupby(["task", "contender"], sort=True)[column]
    return {(str(task), str(contender)): estimate(values.tolist()) for (task, contender), values in groups}


def score_table(
    estimates: Estimates,
    *,
    tasks: Sequence[str],
    contenders: Sequence[str],
    headings: Mapping[str, str],
    missing: Counts,
    broken: Counts = _NONE,
    diverged: Counts = _NONE,
    links: Links = _NONE,
) -> Table:
    """Mean and interval of contenders x tasks, turned round for more than MANY_TASKS; the best in bold by BOLD_RULE.

    `headings` name the tasks, means over tasks among them. `missing` counts trials without a number, `broken` those of
    them that ended, as NaN or because they diverged, and `diverged` the latter.
    """
    best = {task: best_contenders(_on(task, estimates, contenders), barred=_broken_on(task, broken)) for task in tasks}

    def shown(task: str, contender: str) -> Cell:
        cell, strong = (task, contender), contender in best[task]
        text = score_text(estimates.get(cell), missing.get(cell, 0), broken.get(cell, 0), diverged.get(cell, 0))
        if cell not in estimates:
            return Cell(text, kind="hole", link=links.get(cell, "") if broken.get(cell) else "")
        return Cell(text, strong=strong, link=links.get(cell, ""), rank=estimates[cell].mean)

    caption = "Final score: mean over training seeds, with its 95 % interval and the number of seeds"
    if len(tasks) > MANY_TASKS:
        stamps = {headings[task].removeprefix(task).strip() for task in tasks if headings.get(task, task) != task}
        if len(stamps) == 1:  # said once for all
            caption, headings = f"{caption} {stamps.pop()}", {}
        names = (Column("Task"), *(Column(contender, number=True) for contender in contenders))
        turned = [(Cell(headings.get(task, task)), *(shown(task, name) for name in contenders)) for task in tasks]
        return Table("scores", caption, names, tuple(turned), (BOLD_RULE,))
    columns = (Column("Contender"), *(Column(headings.get(task, task), number=True) for task in tasks))
    rows = [(Cell(name), *(shown(task, name) for task in tasks)) for name in contenders]
    return Table("scores", caption, columns, tuple(rows), (BOLD_RULE,))


def best_contenders(estimates: Mapping[str, Estimate], *, barred: Collection[str] = ()) -> set[str]:
    """Who is shown in bold by BOLD_RULE; `barred` are those with a trial that returned no number."""
    able = {name: ours for name, ours in estimates.items() if name not in barred and math.isfinite(ours.mean)}
    if not able:
        return set()
    # Among equal means one without an interval decides, whatever the order: then nothing is bold.
    highest = max(able.values(), key=lambda ours: (ours.mean, ours.interval is None)).interval
    if highest is None:
        return set()
    return {name for name, ours in able.items() if ours.interval and ours.interval.overlaps(highest)}


def comparison_table(
    published: PublishedTable,
    estimates: Estimates,
    *,
    name: str,
    episodes: Counts,
    missing: Counts,
    circumstances: Mapping[str, Circumstances],
    broken: Counts = _NONE,
    diverged: Counts = _NONE,
    links: Links = _NONE,
) -> Table:
    """Ours beside one table of a paper, a row for each task and contender; `circumstances` are those of each task."""
    rows = []
    for task, contender in itertools.product(published.tasks, published.contenders):
        cell = (task, contender)
        ours, theirs = estimates.get(cell), published.numbers.get(cell)
        here = circumstances.get(task, Circumstances())
        nans, lost = broken.get(cell, 0), diverged.get(cell, 0)
        why_not = published.why_not(task, contender, here, broken=nans, diverged=lost)
        labels = (Cell(task), Cell(contender), Cell(here.source or DASH))
        ran = _ours(ours, missing.get(cell, 0), nans, lost, link=links.get(cell, ""))
        compared = None if why_not else ours  # a difference would say that there is something to compare
        said = _verdict_cell(ours, theirs, why_not, nans)
        rows.append((*labels, *ran, number_cell(episodes.get(cell), 0), *_theirs(theirs, compared), said))
    notes = tuple(
        note
        for note in (
            published.rerecorded_note(circumstances),
            published.note,
            spread_note(published.numbers.values()),
            *_number_notes(published),
        )
        if note
    )
    return Table(name, f"Ours beside the published numbers: {published.title}", _COMPARISON, tuple(rows), notes)


def side_by_side_table(
    references: Sequence[PublishedTable],
    estimates: Estimates,
    *,
    missing: Counts,
    circumstances: Mapping[str, Circumstances],
    links: Links = _NONE,
) -> Table:
    """Ours beside all that was published: a row for each task and contender, a column for each source."""
    cells = dict.fromkeys(cell for table in references for cell in table.numbers if all(cell))
    rows = []
    for task, contender in cells:
        ours, here = estimates.get((task, contender)), circumstances.get(task, Circumstances())
        text = score_text(ours, missing.get((task, contender), 0), 0)
        mean = Cell(
            text, ours.mean if ours else None, kind="" if ours else "hole", link=links.get((task, contender), "")
        )
        printed = [table.numbers.get((task, contender)) for table in references]
        theirs = [Cell(number.printed, number.mean) if number else hole() for number in printed]
        rows.append((Cell(task), Cell(contender), Cell(here.source or DASH), mean, *theirs))
    columns = [Column("Task"), Column("Contender"), Column("Data"), Column("Ours", number=True)]
    columns += [Column(table.title, number=True) for table in references]
    notes = [
        f"{table.title}: {' '.join(filter(None, (table.note, f'Source: {table.source}.')))}" for table in references
    ]
    return Table("published", "Ours and all published numbers", tuple(columns), tuple(rows), tuple(notes))


def aggregate_table(
    scores: Mapping[str, Array],
    *,
    first: str,
    name: str = "aggregate",
    over: str = "",
    diverged: Collection[str] = (),
) -> Table:
    """Contenders over all tasks, or those that `over` names, from seeds x tasks; those that miss a task are holes.

    The last column is the probability that `first` improves on the row's contender. `diverged` are contenders that
    may miss a task for that reason.
    """
    rows = [
        (Cell(contender), *_aggregates(matrix, scores.get(first), diverged=contender in diverged))
        for contender, matrix in scores.items()
    ]
    columns = [Column("Contender"), *(Column(statistic, number=True) for statistic in _AGGREGATES)]
    columns.append(Column(f"P({first} improves on it)", number=True))
    caption = f"Over {over or 'all tasks of the suite'}, with 95 % intervals"
    return Table(name, caption, tuple(columns), tuple(rows), (AGGREGATE_RULE, *_holes_note(scores)))


def path_table(
    finals: pd.DataFrame,
    *,
    tasks: Sequence[str],
    contenders: Sequence[str],
    measures: Mapping[str, str],
    diverged: Counts = _NONE,
) -> Table:
    """Measures of paths (columns of `finals`, in per cent) for each task and contender, then over all tasks."""
    ran = set(zip(finals["task"], finals["contender"], strict=True))
    found = {name: estimates_of(finals.dropna(subset=[name]), name) for name in measures}
    rows = [
        (Cell(task), Cell(contender), *(_path_cell(found[name].get((task, contender))) for name in measures))
        if (task, contender) in ran
        else (
            Cell(task),
            Cell(contender),
            _absent(diverged.get((task, contender), 0)),
            *[hole()] * (len(measures) - 1),
        )
        for task in tasks
        for contender in contenders
    ]
    if len(tasks) > 1:
        for contender in contenders:
            own = finals[finals["contender"] == contender]
            rows.append((Cell("all"), Cell(contender), *(_over_all(own, name, tasks) for name in measures)))
    columns = (Column("Task"), Column("Contender"), *(Column(name, number=True) for name in measures.values()))
    caption = "Paths at the last checkpoint: mean over seeds, with 95 % intervals"
    return Table("paths", caption, columns, tuple(rows))


_COMPARISON = (
    Column("Task"),
    Column("Contender"),
    Column("Data"),
    Column("Ours", number=True),
    Column("95% low", number=True),
    Column("95% high", number=True),
    Column("Seeds", number=True),
    Column("Episodes", number=True),
    Column("Published", number=True),
    Column("Published std", number=True, shown=False),
    Column("Source", shown=False),
    Column("Difference", number=True),
    Column("Verdict"),
)
_AGGREGATES = ("Mean", "Median", "IQM", "Optimality gap")  # as statistics.AGGREGATES has them


def _on(task: str, estimates: Estimates, contenders: Sequence[str]) -> dict[str, Estimate]:
    return {name: estimates[task, name] for name in contenders if (task, name) in estimates}


def _broken_on(task: str, broken: Counts) -> set[str]:
    return {contender for (where, contender), count in broken.items() if where == task and count}


def score_text(ours: Estimate | None, missing: int, broken: int, diverged: int = 0) -> str:
    """Like "61.2 [50.1, 70.3] (n = 3)"; says where seeds are missing, diverged, are no number or are but one."""
    if ours is None:
        return no_number(broken, missing, diverged) if broken else NOT_RUN
    alone = "no interval" if ours.interval is None else ""
    nans = f"{broken - diverged} without a number" if broken > diverged else ""
    told = ", ".join(filter(None, (f"{diverged} {DIVERGED}" if diverged else "", nans, alone)))
    seeds = f"n = {_seeds(ours, missing)}" if len(ours.values) > 1 or missing else "1 seed"
    return f"{with_interval(ours.mean, ours.interval)} ({seeds}{': ' if told else ''}{told})"


def no_number(broken: int, seeds: int, diverged: int = 0) -> str:
    """What is said of a cell whose trials all finished without a number, diverged, or failed to finish."""
    if diverged and diverged == broken:
        return f"{DIVERGED}: {diverged} of {max(seeds, diverged)} seeds"
    also = f", {diverged} {DIVERGED}" if diverged else ""
    return f"no number: {broken - diverged} of {max(seeds, broken)} seeds returned NaN{also}"


def _absent(diverged: int) -> Cell:
    return Cell(no_number(diverged, diverged, diverged) if diverged else NOT_RUN, kind="hole")


def _seeds(ours: Estimate, missing: int) -> str:
    """How many seeds stand behind a number, and how many should."""
    done = len(ours.values)
    return f"{done} of {done + missing}" if missing else str(done)


def _ours(ours: Estimate | None, missing: int, broken: int, diverged: int, *, link: str) -> tuple[Cell, ...]:
    if ours is None:
        text = no_number(broken, missing, diverged)
        said = Cell(text, kind="hole", link=link) if broken else Cell(NOT_RUN, kind="hole")
        return said, hole(), hole(), Cell("0", 0)
    low, high = (ours.interval.low, ours.interval.high) if ours.interval else (None, None)
    mean = replace(number_cell(ours.mean), link=link)
    return mean, number_cell(low), number_cell(high), Cell(_seeds(ours, missing), len(ours.values))


def _theirs(published: Published | None, ours: Estimate | None) -> tuple[Cell, ...]:
    if published is None:
        return hole(), hole(), hole(), hole()
    difference = None if ours is None else ours.mean - published.mean
    return (
        Cell(published.printed, published.mean),
        number_cell(published.std),
        Cell(published.source),
        number_cell(difference),
    )


def _verdict_cell(ours: Estimate | None, published: Published | None, why_not: str, broken: int) -> Cell:
    said = verdict(ours, published, why_not=why_not, broken=broken) or "no published number"
    kind = "hole" if ours is None or published is None else said.partition(":")[0].replace(" ", "-")
    return Cell(said, kind=kind)


def _number_notes(published: PublishedTable) -> list[str]:
    """What the file of published numbers says of single ones, e.g. a mistake in the paper."""
    said: dict[str, list[str]] = {}
    for (task, contender), printed in published.numbers.items():
        if printed.note:
            said.setdefault(printed.note, []).append(f"{contender} on {task}")
    return [f"{', '.join(where) if len(where) <= 4 else f'{len(where)} numbers'}: {n}." for n, where in said.items()]


def _holes_note(scores: Mapping[str, Array]) -> list[str]:
    """Which contenders' numbers are made from fewer runs than seeds x tasks."""
    holes = {name: int(np.isnan(matrix).sum()) for name, matrix in scores.items() if _complete(matrix)}
    told = [f"{name} {count} of {scores[name].size}" for name, count in holes.items() if count]
    return [f"Runs without a score, which no number here counts: {', '.join(told)}."] if told else []


def _complete(matrix: Array) -> bool:
    """Whether every task has a score."""
    return matrix.size > 0 and bool((~np.isnan(matrix)).any(axis=0).all())


def _aggregates(matrix: Array, first: Array | None, *, diverged: bool = False) -> list[Cell]:
    if not _complete(matrix):
        return [Cell(not_on_every_task(diverged=diverged), kind="hole")] + [hole()] * len(_AGGREGATES)
    intervals = statistics.aggregate_intervals(matrix)
    values = {name: float(statistic(matrix)) for name, statistic in statistics.AGGREGATES.items()}
    cells = [Cell(with_interval(value, intervals[name], 1), value) for name, value in values.items()]
    if first is matrix or first is None or np.isnan(first).all(axis=0).any():
        return [*cells, hole()]
    return [*cells, _aggregate_cell(statistics.probability_of_improvement, first, matrix, decimals=2)]


def _aggregate_cell(statistic: Statistic, *samples: Array, decimals: int) -> Cell:
    value = float(statistic(*samples))
    repeated = all(((~np.isnan(scores)).sum(axis=0) > 1).all() for scores in samples)
    interval = statistics.bootstrap_interval(statistic, *samples) if repeated else None
    return Cell(with_interval(value, interval, decimals), value)


def _path_cell(ours: Estimate | None) -> Cell:
    return hole() if ours is None else Cell(with_interval(ours.mean, ours.interval), ours.mean)


def _over_all(own: pd.DataFrame, measure: str, tasks: Sequence[str]) -> Cell:
    """Mean over tasks; a hole where a task is missing."""
    matrix = own.pivot_table(index="seed", columns="task", values=measure).reindex(columns=list(tasks)).to_numpy(float)
    missing = matrix.size == 0 or bool(np.isnan(matrix).all(axis=0).any())
    return hole() if missing else _aggregate_cell(statistics.mean, matrix, decimals=1)
