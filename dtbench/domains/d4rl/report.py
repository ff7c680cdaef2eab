"""The report section on delayed rewards: tasks `X-delayed-v2` beside `X-v2`."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from dtbench.analysis import statistics
from dtbench.analysis.page.paper_tables import cell_verdict
from dtbench.analysis.page.section import Section
from dtbench.analysis.published import NOT_RUN, Published, PublishedTable, RunConditions
from dtbench.analysis.statistics import Array
from dtbench.analysis.suite_analysis import SuiteAnalysis, TableInputs, matrix_of
from dtbench.analysis.tables.diverged import of_cell, with_diverged
from dtbench.analysis.tables.scores import no_number
from dtbench.analysis.tables.table import DASH, Cell, Column, Table, hole, number_cell, with_interval

LOSS_RULE = (
    "Loss: by how much the mean score falls, in per cent of the score with dense rewards; negative where delay helps. "
    "Its interval resamples the seeds of both tasks (2000 resamples, fixed seed). Verdict: on the score with delayed "
    "rewards."
)


def sections(analysis: SuiteAnalysis) -> Iterator[Section]:
    """Yield the section, where the suite has a task with dense and with delayed rewards."""
    table = delayed_table(
        analysis.finals,
        analysis.inputs,
        tasks=analysis.tasks,
        contenders=analysis.contenders,
        published=analysis.published,
    )
    if table:
        delayed = {dense: late for late, dense in delayed_pairs(analysis.tasks).items()}
        yield Section("Delayed rewards", tables=(with_diverged(table, of_cell(analysis.inputs, beside=delayed)),))


def delayed_pairs(tasks: Sequence[str]) -> dict[str, str]:
    """Map each delayed task to the same with dense rewards, where both are there."""
    pairs = {task: task.replace("-delayed", "", 1) for task in tasks if "-delayed" in task}
    return {late: dense for late, dense in pairs.items() if dense in tasks}


def loss(scores: Array) -> Array:
    """Return the per cent of the dense score that is lost; `scores` are [..., seeds, (dense, delayed)]."""
    means = np.nanmean(scores, axis=-2)
    dense = np.where(means[..., 0] > 0, means[..., 0], np.nan)
    return np.asarray(100 * (dense - means[..., 1]) / dense)


def delayed_table(
    finals: pd.DataFrame,
    inputs: TableInputs,
    *,
    tasks: Sequence[str],
    contenders: Sequence[str],
    published: Sequence[PublishedTable],
) -> Table | None:
    """Return dense and delayed scores side by side, ours and the paper's; None where the suite has no such pair."""
    rows = []
    for late, dense in delayed_pairs(tasks).items():
        both = replace(inputs, conditions={late: _both(inputs, dense, late)})
        for name in contenders:
            cells = [(task, name) for task in (dense, late)]
            theirs = [_printed(published, *cell) for cell in cells]
            if any(theirs) or any(cell in inputs.estimates or inputs.status(*cell).broken for cell in cells):
                labels = (Cell(dense), Cell(name), Cell(both.conditions_of(late).source or DASH))
                ours = [_ours(inputs, *cell) for cell in cells]
                verdict = _verdict(published, late, name, both)
                rows.append((*labels, *ours, _loss_cell(finals, dense, late, name), *_theirs(theirs), verdict))
    if not rows:
        return None
    names = ("Dense", "Delayed", "Loss (%)", "Published dense", "Published delayed", "Published loss (%)")
    columns = (Column("Task"), Column("Contender"), Column("Data"), *(Column(name, number=True) for name in names))
    caption = "Delayed rewards: all of an episode's reward at its end"
    return Table("delayed", caption, (*columns, Column("Verdict")), tuple(rows), (LOSS_RULE,))


def _both(inputs: TableInputs, dense: str, late: str) -> RunConditions:
    """Return what holds for either of the two: a loss compares both."""
    found = [inputs.conditions_of(task) for task in (dense, late)]
    return RunConditions(
        source=_joined(one.source for one in found),
        physics=_joined(one.physics for one in found),
        protocol=_joined(one.protocol for one in found),
        smoke=any(one.smoke for one in found),
    )


def _joined(lists: Iterable[str]) -> str:
    """Return one list of names, separated as in RunConditions."""
    return ", ".join(sorted({name for text in lists for name in text.split(", ") if name}))


def _ours(inputs: TableInputs, task: str, contender: str) -> Cell:
    ours, status = inputs.estimates.get((task, contender)), inputs.status(task, contender)
    if ours is None:
        lost = replace(status, missing=status.broken)
        return Cell(no_number(lost), kind="hole", link=status.link) if status.broken else Cell(NOT_RUN, kind="hole")
    return Cell(with_interval(ours.mean, ours.interval), ours.mean, link=status.link)


def _loss_cell(finals: pd.DataFrame, dense: str, late: str, name: str) -> Cell:
    own = finals[finals["contender"] == name]
    scores = matrix_of(own, [dense, late])
    if not statistics.complete(scores) or np.isnan(loss(scores)):
        return hole()
    value, interval = float(loss(scores)), statistics.bootstrap_interval(loss, scores)
    if (
        interval and not np.isfinite([interval.low, interval.high]).all()
    ):  # some resample's dense score was not above 0
        interval = None
    return Cell(with_interval(value, interval), value)


def _printed(published: Sequence[PublishedTable], task: str, name: str) -> Published | None:
    return next((table.numbers[task, name] for table in published if (task, name) in table.numbers), None)


def _theirs(theirs: Sequence[Published | None]) -> tuple[Cell, ...]:
    dense, late = theirs
    shown = tuple(Cell(one.printed, one.mean) if one else hole() for one in theirs)
    lost = 100 * (dense.mean - late.mean) / dense.mean if dense and late and dense.mean > 0 else None
    return (*shown, number_cell(lost))


def _verdict(published: Sequence[PublishedTable], task: str, contender: str, inputs: TableInputs) -> Cell:
    table = next((table for table in published if (task, contender) in table.numbers), None)
    if table is None:
        return Cell("no published number", kind="hole")
    verdict = cell_verdict(table, task, contender, inputs)
    known = (task, contender) in inputs.estimates
    return Cell(verdict, kind=verdict.partition(":")[0].replace(" ", "-") if known else "hole")
