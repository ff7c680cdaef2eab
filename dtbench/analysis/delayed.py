"""What delaying all reward to the end of an episode costs: tasks `X-delayed-v2` beside `X-v2`."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from dtbench.analysis import statistics
from dtbench.analysis.published import NOT_RUN, Circumstances, Published, PublishedTable, verdict
from dtbench.analysis.statistics import Array, Estimate, Interval
from dtbench.analysis.tables.scores import Counts, Estimates, Links, no_number
from dtbench.analysis.tables.table import DASH, Cell, Column, Table, hole, number_cell, with_interval

LOSS_RULE = (
    "Loss: by how much the mean score falls, in per cent of the score with dense rewards; negative where delay helps. "
    "Its interval resamples the seeds of both tasks (2000 resamples, fixed seed). Verdict: on the score with delayed "
    "rewards."
)


def delayed_pairs(tasks: Sequence[str]) -> dict[str, str]:
    """Delayed task -> the same with dense rewards, for those of which both are there."""
    pairs = {task: task.replace("-delayed", "", 1) for task in tasks if "-delayed" in task}
    return {late: dense for late, dense in pairs.items() if dense in tasks}


def loss(scores: Array) -> Array:
    """Per cent of the dense score that is lost; `scores` are [..., seeds, (dense, delayed)]."""
    means = np.nanmean(scores, axis=-2)
    dense = np.where(means[..., 0] > 0, means[..., 0], np.nan)
    return np.asarray(100 * (dense - means[..., 1]) / dense)


def delayed_table(
    finals: pd.DataFrame,
    estimates: Estimates,
    *,
    tasks: Sequence[str],
    contenders: Sequence[str],
    published: Sequence[PublishedTable],
    circumstances: Mapping[str, Circumstances],
    broken: Counts | None = None,
    diverged: Counts | None = None,
    links: Links | None = None,
) -> Table | None:
    """Dense and delayed scores side by side, ours and the paper's; None where the suite has no such pair.

    `broken` counts trials that ended without a number, `diverged` those of them that diverged.
    """
    rows, broken, diverged, links = [], broken or {}, diverged or {}, links or {}
    for late, dense in delayed_pairs(tasks).items():
        for name in contenders:
            cells = [(task, name) for task in (dense, late)]
            ours = [estimates.get(cell) for cell in cells]
            theirs = [_printed(published, *cell) for cell in cells]
            lost = [(broken.get(cell, 0), diverged.get(cell, 0)) for cell in cells]
            shown = [_ours(estimates.get(c), *lost[i], link=links.get(c, "")) for i, c in enumerate(cells)]
            if any(ours) or any(theirs) or any(map(broken.get, cells)):
                here = _both(circumstances, dense, late)
                labels = (Cell(dense), Cell(name), Cell(here.source or DASH))
                said = _verdict(ours[1], published, cells[1], here, lost[1])
                rows.append((*labels, *shown, _loss_cell(finals, dense, late, name), *_theirs(theirs), said))
    if not rows:
        return None
    names = ("Dense", "Delayed", "Loss (%)", "Published dense", "Published delayed", "Published loss (%)")
    columns = (Column("Task"), Column("Contender"), Column("Data"), *(Column(name, number=True) for name in names))
    caption = "Delayed rewards: all of an episode's reward at its end"
    return Table("delayed", caption, (*columns, Column("Verdict")), tuple(rows), (LOSS_RULE,))


def _both(circumstances: Mapping[str, Circumstances], dense: str, late: str) -> Circumstances:
    """What holds for either of the two: a loss compares both."""
    found = [circumstances.get(task, Circumstances()) for task in (dense, late)]
    return Circumstances(
        source=_joined(one.source for one in found),
        physics=_joined(one.physics for one in found),
        protocol=_joined(one.protocol for one in found),
        smoke=any(one.smoke for one in found),
    )


def _joined(lists: Iterable[str]) -> str:
    """One list of names, separated as in Circumstances."""
    return ", ".join(sorted({name for text in lists for name in text.split(", ") if name}))


def _ours(ours: Estimate | None, broken: int, diverged: int, *, link: str) -> Cell:
    if ours is None:
        said = no_number(broken, broken, diverged)
        return Cell(said, kind="hole", link=link) if broken else Cell(NOT_RUN, kind="hole")
    return Cell(with_interval(ours.mean, ours.interval), ours.mean, link=link)


def _loss_cell(finals: pd.DataFrame, dense: str, late: str, name: str) -> Cell:
    own = finals[finals["contender"] == name]
    pivot = own.pivot_table(index="seed", columns="task", values="score").reindex(columns=[dense, late])
    scores = pivot.to_numpy(np.float64)
    present = (~np.isnan(scores)).sum(axis=0)
    if not present.all() or np.isnan(loss(scores)):
        return hole()
    interval: Interval | None = statistics.bootstrap_interval(loss, scores) if present.min() > 1 else None
    value = float(loss(scores))
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


def _verdict(
    ours: Estimate | None,
    published: Sequence[PublishedTable],
    cell: tuple[str, str],
    here: Circumstances,
    lost: tuple[int, int],
) -> Cell:
    broken, diverged = lost
    table = next((table for table in published if cell in table.numbers), None)
    if table is None:
        return Cell("no published number", kind="hole")
    why_not = table.why_not(*cell, here, broken=broken, diverged=diverged)
    said = verdict(ours, table.numbers[cell], why_not=why_not, broken=broken)
    return Cell(said, kind="hole" if ours is None else said.partition(":")[0].replace(" ", "-"))
