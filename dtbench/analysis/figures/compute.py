"""Quality against compute: mean score over the seconds of a trial."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullLocator

from dtbench.analysis import statistics
from dtbench.analysis.figures import style
from dtbench.analysis.figures.style import Drawing
from dtbench.analysis.figures.tooltips import compact, draw_points
from dtbench.analysis.suite_analysis import SuiteAnalysis

_COLUMNS = 3  # panels in a row


def draw_compute(analyses: Sequence[SuiteAnalysis]) -> Drawing | None:
    """Draw a panel a suite, a point a contender; None where no suite of one scale has two contenders to place."""
    found = [(analysis, points) for analysis in analyses if len(points := _points(analysis)) > 1]
    if not found:
        return None
    columns = min(_COLUMNS, len(found))
    rows = math.ceil(len(found) / columns)
    smoke = all(analysis.smoke for analysis, _ in found)
    with style.figure(smoke, 0.6 + 3.4 * columns, 0.7 + 2.6 * rows) as sheet:
        grid = sheet.subplots(rows, columns, squeeze=False).flat
        for axes, (analysis, points) in zip(grid, found, strict=False):
            palette, shapes = style.colours(list(points), analysis.families), style.markers(list(points))
            for name, (seconds, score) in points.items():
                label = f"{name}, {analysis.results.name}: {compact(score)} in {compact(seconds)} s a trial"
                look: dict[str, Any] = {"color": palette[name], "marker": shapes[name], "markersize": 7}
                draw_points(axes, [seconds], [score], [label], label=style.legend_name(name), **look)
            _log_seconds(axes, [seconds for seconds, _ in points.values()])
            axes.set_title(style.wrapped(analysis.results.name, 34), fontsize=9)
            axes.set_xlabel("seconds of a trial", fontsize=8)
            axes.set_ylabel(style.wrapped(analysis.shared_score(analysis.ran) or "score", 34), fontsize=7)
        for axes in grid[len(found) :]:
            axes.set_axis_off()
        style.legend_below(sheet)
        caption = (
            "Mean score over mean seconds of a trial, evaluation included, on the machine where it ran, of contenders "
            "with a number on every task of the suite that ran. Up and to the left is better."
        )
        return style.drawing(sheet, "compute", caption, f"Score over seconds in {len(found)} suites.", wide=True)


def _log_seconds(axes: Axes, seconds: Sequence[float]) -> None:
    low, high = 0.6 * min(seconds), 1.6 * max(seconds)
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    decades = [digit * 10.0**power for power in range(-3, 8) for digit in (1, 2, 5)]
    axes.set_xticks([tick for tick in decades if low < tick < high][:: 2 if high > 100 * low else 1])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())


def _points(analysis: SuiteAnalysis) -> dict[str, tuple[float, float]]:
    """Return seconds and score by contender; empty where tasks have several scales."""
    if not analysis.ran or not analysis.shared_score(analysis.ran):
        return {}
    found = {}
    for name, scores in analysis.matrices(analysis.ran).items():
        own = [one.result.get("seconds") for one in analysis.results.records if one.spec.contender == name]
        seconds = [float(value) for value in own if value]
        if seconds and statistics.complete(scores):
            found[name] = (float(np.mean(seconds)), float(np.nanmean(scores, axis=0).mean()))
    return found
