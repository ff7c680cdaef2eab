"""The best to be expected of so many settings tried."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from dtbench.analysis.figures import style
from dtbench.analysis.figures.style import MARKERS, PALETTE, Drawing
from dtbench.analysis.figures.tooltips import compact, draw_points
from dtbench.analysis.tables.searches import ExpectedBest
from dtbench.tuning.search import SearchRecord

_MOST_MARKERS = 16  # on one curve
_CAPTION = (
    "Best score to be expected of n settings, over tuning episodes, which no report uses (Dodge et al. 2019). Where "
    "target returns were chosen too, each pair of a setting and a target counts as one tried."
)


def draw_expected_best(record: SearchRecord, curves: Sequence[ExpectedBest]) -> Drawing | None:
    """Draw a panel for each task of the search, a curve for each way to count settings; None without a score."""
    tasks = [task for task in record.config.tasks if any(curve.task == task for curve in curves)]
    if not tasks:
        return None
    with style.figure(record.config.preset == "smoke", 1.2 + 4.4 * len(tasks), 3.8) as sheet:
        panels = sheet.subplots(1, len(tasks), squeeze=False)[0]
        for axes, task in zip(panels, tasks, strict=True):
            own = [curve for curve in curves if curve.task == task]
            for index, curve in enumerate(own):
                _draw_curve(axes, record, curve, index)
            score = record.config.score_names.get(task, "score")
            title = f"{task} (data: {record.config.data.get(task, 'unknown')})"
            axes.set(xlabel="settings tried, n", ylabel=style.wrapped(score, 44), title=style.wrapped(title, 60))
            axes.margins(x=0.03)
        style.legend_below(sheet, columns=1)
        who = f"{record.config.contender} on {', '.join(tasks)}"
        alt = f"Best score to be expected of n settings of {who}, rising with n."
        caption = f"{record.name}: {who}. {_CAPTION}"
        return style.drawing(sheet, f"expected-best-{record.name}", caption, alt, wide=len(tasks) > 1)


def _draw_curve(axes: Axes, record: SearchRecord, curve: ExpectedBest, index: int) -> None:
    scores = curve.curve
    n = np.arange(1, len(scores) + 1)
    look: dict[str, Any] = {"color": PALETTE[index % len(PALETTE)], "zorder": 3 - 0.01 * index}
    shape = MARKERS[index % len(MARKERS)]
    label = style.legend_name(f"{record.config.contender}: {curve.tried}", 70)
    axes.plot(n, scores, label=label, marker=shape, markevery=[], **look)
    gap = -(-len(n) // _MOST_MARKERS)
    every = slice((len(n) - 1) % gap, None, gap)
    labels = [
        f"the best of {count} {curve.tried}: {compact(float(score))} expected"
        for count, score in zip(n, scores, strict=True)
    ]
    draw_points(axes, n[every], scores[every], labels[every], marker=shape, **look)
