"""Achieved against target return: a figure a task, and the paper's Figure 4."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from dtbench.analysis.figures import style
from dtbench.analysis.figures.style import INK, WALKS, Drawing
from dtbench.analysis.figures.tooltips import compact, draw_points, explain, sentence
from dtbench.analysis.statistics import Array, Interval
from dtbench.analysis.suite_analysis import SuiteAnalysis
from dtbench.analysis.tables.targets import Achieved, TaskTargets

FENCE = 1.5  # spans of targets or middle halves of the curves beyond which a point is drawn at the edge
_TILES = 4  # in a row
_CAPTION = (
    "Lines: means over seeds and episodes; bands: 95 % intervals, seeds and their episodes redrawn together; thin "
    "lines: contenders that take no target; triangles: targets set beforehand; grey: beyond the data's best."
)
_OUTSIDE = " Open triangles at the edge: means that lie beyond it; bands are cut there too."


def draw_targets(analysis: SuiteAnalysis, found: TaskTargets) -> Drawing:
    """Draw achieved against target return on one task."""
    with style.figure(analysis.smoke, 6.4, 4.4) as sheet:
        axes = sheet.subplots()
        outside = _draw_achieved(axes, analysis, found)
        title = style.wrapped(analysis.title(found.task), 68)
        axes.set(xlabel="target return", ylabel=_achieved_label(found.units), title=title)
        style.legend_below(sheet, first=analysis.contenders)
        about = f"{analysis.title(found.task)}: achieved against target return at the last checkpoint."
        alt = f"Achieved return over {len(found.achieved[0].targets)} targets, {found.task}."
        return style.drawing(sheet, f"targets-{found.task}", f"{about} {_CAPTION}{_OUTSIDE if outside else ''}", alt)


def draw_target_grid(analysis: SuiteAnalysis, found: Sequence[TaskTargets]) -> Drawing | None:
    """Draw the paper's Figure 4: a panel for each task; None for fewer than two tasks."""
    if len(found) < 2:
        return None
    with style.panels(analysis, [one.task for one in found], below="target return") as (sheet, grid):
        units = {one.units for one in found}
        outside = [_draw_achieved(axes, analysis, one) for axes, one in zip(grid, found, strict=True)]
        if len(units) > 1:
            for axes, one in zip(grid, found, strict=True):
                axes.set_ylabel(one.units, fontsize=8)
        sheet.supylabel(_achieved_label(units.pop() if len(units) == 1 else ""), fontsize=9)
        style.legend_below(sheet, first=analysis.contenders)
        about = "Achieved against target return at the last checkpoint."
        alt = f"Achieved against target return on {len(found)} tasks."
        return style.drawing(sheet, "targets", f"{about} {_CAPTION}{_OUTSIDE if any(outside) else ''}", alt, wide=True)


def draw_target_tiles(found: Sequence[tuple[SuiteAnalysis, TaskTargets]]) -> Drawing | None:
    """Draw a small panel for each task of several suites, each once; None where there is none."""
    tiles: dict[str, tuple[SuiteAnalysis, TaskTargets]] = {}
    for analysis, one in found:
        tiles.setdefault(one.task, (analysis, one))
    if not tiles:
        return None
    columns = min(_TILES, len(tiles))
    rows = math.ceil(len(tiles) / columns)
    with style.figure(all(a.smoke for a, _ in tiles.values()), 0.3 + 2.6 * columns, 0.8 + 2.0 * rows) as sheet:
        grid = sheet.subplots(rows, columns, squeeze=False).flat
        for axes, (analysis, one) in zip(grid, tiles.values(), strict=False):
            _draw_achieved(axes, analysis, one)
            axes.set_title(style.wrapped(one.task, 30), fontsize=8)
            axes.tick_params(labelsize=7)
        for axes in grid[len(tiles) :]:
            axes.set_axis_off()
        for axes in grid[max(0, len(tiles) - columns) : len(tiles)]:
            axes.set_xlabel("target return", fontsize=8)
        sheet.supylabel("achieved return", fontsize=9)
        style.legend_below(sheet)
        alt = f"Achieved against target return on {len(tiles)} tasks of all suites."
        return style.drawing(sheet, "target-tiles", f"Achieved against target return. {_CAPTION}", alt, wide=True)


def fences(found: TaskTargets) -> Interval:
    """Return the lowest and highest mean that a figure makes room for, so that one outlier does not flatten all else.

    Tukey's fences around the middle half of all means, but never within a span of the targets and the data.
    """
    means = np.concatenate([achieved.curve for achieved in found.achieved])
    asked = np.concatenate([achieved.targets for achieved in found.achieved])
    data = (found.data.low, found.data.high) if found.data else ()
    ends = [*asked, *filter(np.isfinite, data)]
    low, high = np.percentile(means[np.isfinite(means)], [25, 75]) if np.isfinite(means).any() else (0.0, 0.0)
    reach = FENCE * max(high - low, max(ends) - min(ends))
    return Interval(min(low - reach, min(ends)), max(high + reach, max(ends)))


def _draw_achieved(axes: Axes, analysis: SuiteAnalysis, found: TaskTargets) -> bool:
    """Draw a panel; give whether something lies beyond it."""
    asked = np.unique(np.concatenate([achieved.targets for achieved in found.achieved]))
    palette, shapes, room = (
        style.colours(analysis.contenders, analysis.families),
        style.markers(analysis.contenders),
        fences(found),
    )
    _draw_data_range(axes, found.data, float(asked[-1]))
    axes.plot(asked[[0, -1]], asked[[0, -1]], color=INK, linestyle=":", linewidth=1.2, label="achieved = target")
    for name, level in found.levels.items():
        if room.holds(level.mean):
            look: dict[str, Any] = {"color": palette[name], "linestyle": "-.", "linewidth": 1}
            line = axes.axhline(level.mean, label=style.legend_name(name), **look)
            subject = f"{name} on {found.task}, asked for no return"
            explain(line, [sentence(subject, level.mean, level.interval, seeds=level.values)])
    cut = False
    for index, achieved in enumerate(found.achieved):
        name = achieved.contender
        look = {"color": palette[name], "marker": shapes[name], "zorder": 3 - 0.01 * index}
        cut = _draw_curve(axes, found.task, achieved, room, look) or cut
    style.mark_targets(axes, found.fixed)
    whole = bool((asked == asked.round()).all())
    axes.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 2.5, 5, 10], integer=whole))
    axes.margins(x=0.03)
    style.thousands(axes.xaxis, axes.yaxis)
    return cut


def _draw_curve(axes: Axes, task: str, achieved: Achieved, room: Interval, look: dict[str, Any]) -> bool:
    low, high = achieved.band()
    inside = np.array([room.holds(mean) for mean in achieved.curve])
    ends = np.clip(low, room.low, room.high), np.clip(high, room.low, room.high)
    axes.fill_between(achieved.targets, *ends, color=look["color"], alpha=0.2, lw=0)
    seen = np.where(inside, achieved.curve, np.nan)
    # The markers are drawn alone, so that each can be explained; the line keeps one for the legend.
    axes.plot(achieved.targets, seen, label=style.legend_name(achieved.contender), markevery=[], **look)
    labels = np.array(_labels(task, achieved, low, high))
    draw_points(axes, achieved.targets[inside], achieved.curve[inside], labels[inside].tolist(), **look)
    for beyond, edge, marker in (
        (achieved.curve > room.high, room.high, "^"),
        (achieved.curve < room.low, room.low, "v"),
    ):
        if beyond.any():
            open_look = {**look, "marker": marker, "markerfacecolor": "none", "markersize": 7}
            draw_points(
                axes, achieved.targets[beyond], [edge] * int(beyond.sum()), labels[beyond].tolist(), **open_look
            )
    return bool((low < room.low).any() or (high > room.high).any())


def _labels(task: str, achieved: Achieved, low: Array, high: Array) -> list[str]:
    seeds, episodes, _ = achieved.returns.shape
    return [
        sentence(
            f"{achieved.contender} on {task}, asked {compact(target)}",
            float(achieved.curve[index]),
            Interval(float(low[index]), float(high[index])) if seeds * episodes > 1 else None,
            seeds=achieved.returns[:, :, index].mean(axis=1).tolist(),
            episodes=episodes,
        )
        for index, target in enumerate(achieved.targets)
    ]


def _draw_data_range(axes: Axes, data: Interval | None, highest: float) -> None:
    """Draw the best episode of the data as a line, what lies beyond it in grey."""
    if data is None:
        return
    line = axes.axhline(data.high, color=INK, linestyle="--", linewidth=1, label="best episode of the data")
    explain(line, [f"Best episode of the data: {compact(data.high)}"])
    if highest > data.high:
        axes.axvspan(data.high, highest, color=WALKS, alpha=0.25, lw=0, label="beyond the data", zorder=0)


def _achieved_label(units: str) -> str:
    return f"achieved return ({units})" if units else "achieved return"
