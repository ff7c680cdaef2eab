"""The tables of results: scores, aggregates, and ours beside all published numbers."""

import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from dtbench.analysis import statistics
from dtbench.analysis.data_scores import DataScores
from dtbench.analysis.published import NOT_RUN, PublishedTable
from dtbench.analysis.statistics import MIN_SEEDS, Array, Estimate, Statistic
from dtbench.analysis.suite_analysis import CellStatus, TableInputs
from dtbench.analysis.tables.diverged import not_on_every_task
from dtbench.analysis.tables.table import DASH, Cell, Column, Table, hole, number_cell, with_interval
from dtbench.ledger.trial_spec import TrialState

BOLD_RULE = (
    "Bold: the highest mean of a task and every mean that Welch's test does not find below it (p above 0.05 after "
    "Holm's correction for the contenders of the task). Nothing is bold where the highest mean has fewer than 5 "
    "training seeds, and no mean with fewer is. A contender with a trial that returned no number takes no part, nor "
    "does one that has not converged (†) or of which nobody can tell."
)

AGGREGATE_RULE = (
    "Mean: with the interval that it has among the final scores, Student's t. For the others seeds are resampled "
    "within each task (stratified percentile bootstrap, 2000 resamples, fixed seed). Median: of the tasks' means. "
    "IQM: mean of the middle half of all runs. Optimality gap: how far runs stay below 100 on average, those above "
    "counting as 100; less is better. A contender that misses a task has no numbers."
)

MANY_TASKS = 5  # with more than these, tasks become rows and figures share a grid


def score_table(
    inputs: TableInputs,
    *,
    tasks: Sequence[str],
    contenders: Sequence[str],
    headings: Mapping[str, str],
    data: Mapping[str, DataScores] | None = None,
) -> Table:
    """Return mean and interval of contenders x tasks, transposed for more than MANY_TASKS; the best in bold.

    `headings` name the tasks, means over tasks among them; `data` are what the data themselves score.
    """
    best = {task: best_on(task, contenders, inputs) for task in tasks}
    own = _of_data(data or {}, tasks)
    names = (*contenders, *own)

    def shown(task: str, name: str) -> Cell:
        if name in own:
            return number_cell(own[name][task], 1) if task in own[name] else hole()
        status, ours = inputs.status(task, name), inputs.estimates.get((task, name))
        text = score_text(ours, status)
        if ours is None:
            return Cell(text, kind="hole", link=status.link if status.broken else "")
        return Cell(text, strong=name in best[task], link=status.link, rank=ours.mean)

    caption = "Final score: mean over training seeds, with its 95 % interval and the number of seeds"
    if len(tasks) > MANY_TASKS:
        stamps = {headings[task].removeprefix(task).strip() for task in tasks if headings.get(task, task) != task}
        if len(stamps) == 1:  # once for all
            caption, headings = f"{caption} {stamps.pop()}", {}
        columns = (Column("Task"), *(Column(name, number=True) for name in names))
        rows = [(Cell(headings.get(task, task)), *(shown(task, name) for name in names)) for task in tasks]
    else:
        columns = (Column("Contender"), *(Column(headings.get(task, task), number=True) for task in tasks))
        rows = [(Cell(name), *(shown(task, name) for task in tasks)) for name in names]
    notes = (BOLD_RULE, *([_POLICY_RULE] if any(heading.startswith("Behaviour") for heading in own) else []))
    return Table("scores", caption, columns, tuple(rows), notes)


_DATA_ROWS = {
    "Data: mean episode": "mean",
    "Data: best episode": "best",
    "Behaviour policy, with noise": "with_noise",
    "Behaviour policy, without noise": "without_noise",
}
_POLICY_RULE = (
    "Behaviour policy: the best that recorded the data (medium-expert: its expert), as it explored and by the mean of "
    "its actions, over 50 episodes of its own."
)


def _of_data(data: Mapping[str, DataScores], tasks: Sequence[str]) -> dict[str, dict[str, float]]:
    """Return what the data and their policy score, by heading and task, where anything is known."""
    scores = {
        heading: {task: getattr(data[task], part) for task in tasks if task in data}
        for heading, part in _DATA_ROWS.items()
    }
    known = {heading: {t: s for t, s in row.items() if s is not None} for heading, row in scores.items()}
    return {heading: row for heading, row in known.items() if row}


def best_on(task: str, contenders: Sequence[str], inputs: TableInputs) -> set[str]:
    """Return the contenders in bold on a task."""
    ours = {name: inputs.estimates[task, name] for name in contenders if (task, name) in inputs.estimates}
    statuses = {name: inputs.status(task, name) for name in contenders}
    return best_contenders(ours, barred=[name for name, one in statuses.items() if one.broken or one.bar])


def best_contenders(estimates: Mapping[str, Estimate], *, barred: Collection[str] = ()) -> set[str]:
    """Return the contenders in bold by BOLD_RULE, without those `barred`."""
    able = {name: ours for name, ours in estimates.items() if name not in barred and math.isfinite(ours.mean)}
    if not able:
        return set()
    # Among equal means one with few seeds decides, whatever the order: then nothing is bold.
    best = max(able, key=lambda name: (able[name].mean, len(able[name].values) < MIN_SEEDS))
    if len(able[best].values) < MIN_SEEDS:
        return set()
    others = [name for name, ours in able.items() if name != best and len(ours.values) >= MIN_SEEDS]
    p_values = statistics.holm([statistics.welch_p(able[best].values, able[name].values) for name in others])
    return {best, *(name for name, p in zip(others, p_values, strict=True) if p > 1 - statistics.LEVEL)}


def side_by_side_table(references: Sequence[PublishedTable], inputs: TableInputs) -> Table:
    """Return ours beside all that was published: a row for each task and contender, a column for each source."""
    named = dict.fromkeys(cell for table in references for cell in table.numbers if all(cell))
    cells = [cell for cell in named if cell in inputs.estimates or inputs.status(*cell).broken]
    rows = []
    for cell in cells:
        ours, status = inputs.estimates.get(cell), inputs.status(*cell)
        text = score_text(ours, CellStatus(status.missing))
        mean = Cell(text, ours.mean if ours else None, kind="" if ours else "hole", link=status.link)
        printed = [table.numbers.get(cell) for table in references]
        theirs = [Cell(number.printed, number.mean) if number else hole() for number in printed]
        rows.append((*map(Cell, cell), Cell(inputs.conditions_of(cell[0]).source or DASH), mean, *theirs))
    columns = [Column("Task"), Column("Contender"), Column("Data"), Column("Ours", number=True)]
    columns += [Column(table.title, number=True) for table in references]
    notes = [
        f"{table.title}: {' '.join(filter(None, (table.note, f'Source: {table.source}.')))}" for table in references
    ]
    return Table("published", "Ours and all published numbers", tuple(columns), tuple(rows), tuple(notes))


def aggregate_table(
    scores: Mapping[str, Array],
    means: Mapping[str, Estimate],
    *,
    first: str,
    name: str = "aggregate",
    over: str = "",
    diverged: Collection[str] = (),
) -> Table:
    """Return contenders over all tasks, or those that `over` names, from seeds x tasks; holes where one misses a task.

    `means` are the contenders' averages of the score table. The last column is the probability that `first` improves
    on the row's contender. `diverged` are contenders that may miss a task for that reason.
    """
    rows = [
        (
            Cell(contender),
            *_aggregates(matrix, means.get(contender), scores.get(first), diverged=contender in diverged),
        )
        for contender, matrix in scores.items()
    ]
    columns = [Column("Contender"), *(Column(statistic, number=True) for statistic in _AGGREGATES)]
    columns.append(Column(f"P({first} improves on it)", number=True))
    caption = f"Over {over or 'all tasks of the suite'}, with 95 % intervals"
    return Table(name, caption, tuple(columns), tuple(rows), (AGGREGATE_RULE, *_holes_note(scores)))


_AGGREGATES = ("Mean", "Median", "IQM", "Optimality gap")  # as statistics.AGGREGATES has them


def score_text(ours: Estimate | None, status: CellStatus) -> str:
    """Return a text like "61.2 [50.1, 70.3] (n = 3)", which names seeds that are missing, diverged or no number."""
    if ours is None:
        return no_number(status) if status.broken else NOT_RUN
    diverged, nans = status.diverged, status.broken - status.diverged
    remarks = (
        f"{diverged} {TrialState.DIVERGED}" if diverged else "",
        f"{nans} without a number" if nans else "",
        "no interval" if ours.interval is None else "",
    )
    text = ", ".join(filter(None, remarks))
    mark = " †" if status.unconverged else ""
    seeds = f"n = {_seeds(ours, status.missing)}" if len(ours.values) > 1 or status.missing else "1 seed"
    return f"{with_interval(ours.mean, ours.interval)}{mark} ({seeds}{': ' if text else ''}{text})"


def no_number(status: CellStatus) -> str:
    """Return the text of a cell whose trials all finished without a number, diverged, or failed to finish."""
    diverged, broken = status.diverged, status.broken
    if diverged and diverged == broken:
        return f"{TrialState.DIVERGED}: {diverged} of {max(status.missing, diverged)} seeds"
    also = f", {diverged} {TrialState.DIVERGED}" if diverged else ""
    return f"no number: {broken - diverged} of {max(status.missing, broken)} seeds returned NaN{also}"


def _seeds(ours: Estimate, missing: int) -> str:
    """Return how many seeds a number has, and how many it should have."""
    done = len(ours.values)
    return f"{done} of {done + missing}" if missing else str(done)


def _holes_note(scores: Mapping[str, Array]) -> list[str]:
    """Return which contenders' numbers are made from fewer runs than seeds x tasks."""
    holes = {name: int(np.isnan(matrix).sum()) for name, matrix in scores.items() if statistics.complete(matrix)}
    parts = [f"{name} {count} of {scores[name].size}" for name, count in holes.items() if count]
    return [f"Runs without a score, which no number here counts: {', '.join(parts)}."] if parts else []


def _aggregates(matrix: Array, mean: Estimate | None, first: Array | None, *, diverged: bool = False) -> list[Cell]:
    if not statistics.complete(matrix) or mean is None:
        return [Cell(not_on_every_task(diverged=diverged), kind="hole")] + [hole()] * len(_AGGREGATES)
    values = {name: float(statistic(matrix)) for name, statistic in statistics.AGGREGATES.items() if name != "mean"}
    intervals = statistics.aggregate_intervals(matrix, which=values)
    cells = [Cell(with_interval(mean.mean, mean.interval, 1), mean.mean)]
    cells += [Cell(with_interval(value, intervals[name], 1), value) for name, value in values.items()]
    if first is matrix or first is None or not statistics.complete(first):
        return [*cells, hole()]
    return [*cells, aggregate_cell(statistics.probability_of_improvement, first, matrix, decimals=2)]


def aggregate_cell(statistic: Statistic, *samples: Array, decimals: int) -> Cell:
    """Return a statistic of seeds x tasks with its interval, where every task has two seeds."""
    value = float(statistic(*samples))
    return Cell(with_interval(value, statistics.bootstrap_interval(statistic, *samples), decimals), value)
