"""Score over training."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from dtbench.analysis import statistics
from dtbench.analysis.figures import style
from dtbench.analysis.figures.style import Drawing
from dtbench.analysis.figures.tooltips import compact, draw_points, explain, sentence
from dtbench.analysis.results import headline_rows
from dtbench.analysis.statistics import Array, Interval
from dtbench.analysis.suite_analysis import SuiteAnalysis

_MOST_MARKERS = 12  # on one curve
_CAPTION = (
    "Lines: means over seeds; bands: 95 % intervals over seeds, none where there is one; dashed lines: contenders "
    "with a single evaluation."
)


def draw_progress(analysis: SuiteAnalysis, task: str) -> Drawing | None:
    """Draw score over training steps; None where no trial of the task has finished."""
    rows = headline_rows(analysis.scores[analysis.scores["task"] == task], analysis.finals)
    if rows.empty:
        return None
    with style.figure(analysis.smoke, 6.4, 3.8) as sheet:
        axes = sheet.subplots()
        _draw_curves(axes, analysis, rows)
        score = analysis.score_names.get(task, "score")
        axes.set(
            xlabel="gradient steps", ylabel=style.wrapped(score, 44), title=style.wrapped(analysis.title(task), 68)
        )
        style.legend_below(sheet, first=analysis.contenders)
        caption = f"{analysis.title(task)}: score over training. {_CAPTION}"
        return style.drawing(
            sheet, f"progress-{task}", caption, f"Score of every contender over gradient steps on {task}."
        )


def draw_progress_grid(analysis: SuiteAnalysis, tasks: Sequence[str]) -> Drawing | None:
    """Draw score over training steps, a panel for each task; None where no trial has finished."""
    rows = headline_rows(analysis.scores, analysis.finals)
    ran = [task for task in tasks if task in set(rows["task"])]
    if not ran:
        return None
    with style.panels(analysis, ran, below="gradient steps") as (sheet, grid):
        shared = analysis.shared_score(ran)
        for axes, task in zip(grid, ran, strict=True):
            _draw_curves(axes, analysis, rows[rows["task"] == task])
            if not shared:
                axes.set_ylabel(style.wrapped(analysis.score_names.get(task, "score"), 34), fontsize=7)
        if shared:
            sheet.supylabel(shared, fontsize=9)
        style.legend_below(sheet, first=analysis.contenders)
        alt = f"Score of every contender over gradient steps on {len(ran)} tasks."
        return style.drawing(sheet, "progress", f"Score over training. {_CAPTION}", alt, wide=True)


@dataclass(frozen=True, slots=True)
class _Curve:
    """One contender on one task."""

    contender: str
    task: str
    steps: Array
    seeds: Array  # [seeds, steps], nan where a seed has no checkpoint there
    episodes: int

    @property
    def mean(self) -> Array:
        counts = (~np.isnan(self.seeds)).sum(axis=0)
        return np.asarray(np.where(counts, np.nansum(self.seeds, axis=0) / np.maximum(counts, 1), np.nan))

    def intervals(self) -> list[Interval | None]:
        """Return the interval at each step, None with fewer than two seeds there."""
        columns = [column[~np.isnan(column)] for column in self.seeds.T]
        return [statistics.estimate(column.tolist()).interval if len(column) else None for column in columns]

    def labels(self, intervals: Sequence[Interval | None]) -> Iterator[str]:
        """Yield a sentence for each step."""
        for step, mean, interval, column in zip(self.steps, self.mean, intervals, self.seeds.T, strict=True):
            subject = f"{self.contender} on {self.task} after {compact(step)} steps"
            seeds = column[~np.isnan(column)].tolist()
            yield sentence(subject, float(mean), interval, seeds=seeds, episodes=self.episodes)


def _curves(analysis: SuiteAnalysis, rows: pd.DataFrame) -> Iterator[_Curve]:
    for name in analysis.contenders:
        own = rows[rows["contender"] == name]
        if not own.empty:
            table = own.pivot_table(index="seed", columns="step", values="score", dropna=False).sort_index(axis=1)
            seeds, steps = table.to_numpy(np.float64), table.columns.to_numpy(np.float64)
            yield _Curve(name, str(own["task"].iloc[0]), steps, seeds, int(own["episodes"].max()))


def _draw_curves(axes: Axes, analysis: SuiteAnalysis, rows: pd.DataFrame) -> None:
    palette, shapes = style.colours(analysis.contenders, analysis.families), style.markers(analysis.contenders)
    for index, curve in enumerate(_curves(analysis, rows)):
        # The first contender is drawn on top of the others.
        look: dict[str, Any] = {"color": palette[curve.contender], "zorder": 3 - 0.01 * index}
        intervals = curve.intervals()
        labels, label = list(curve.labels(intervals)), style.legend_name(curve.contender)
        if len(curve.steps) == 1:
            explain(axes.axhline(float(curve.mean[0]), linestyle="--", label=label, **look), labels)
            continue
        look["marker"] = shapes[curve.contender]
        axes.plot(curve.steps, curve.mean, label=label, markevery=[], **look)
        low, high = zip(*((one.low, one.high) if one else (np.nan, np.nan) for one in intervals), strict=True)
        axes.fill_between(curve.steps, low, high, color=look["color"], alpha=0.15, lw=0)
        every = slice((len(curve.steps) - 1) % (gap := -(-len(curve.steps) // _MOST_MARKERS)), None, gap)
        draw_points(axes, curve.steps[every], curve.mean[every], labels[every], **look)
    axes.margins(x=0.03)
    style.thousands(axes.xaxis, axes.yaxis)
