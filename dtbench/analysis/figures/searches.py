"""The best to be expected of so many settings tried."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from dtbench.analysis.figures import style
from dtbench.analysis.figures.style import MARKERS, PALETTE, Drawing
from dtbench.analysis.figures.tooltips import compact, draw_points
from dtbench.analysis.tables.searches import ExpectedBest, expected_curves
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


def draw_searches_together(records: Sequence[SearchRecord]) -> tuple[Drawing, ...]:
    """Draw the searches of several contenders on the same data on one axis: a figure for each suite, task and data."""
    groups: dict[tuple[str, ...], list[tuple[SearchRecord, ExpectedBest]]] = {}
    for record in records:
        for task in record.config.tasks:
            own = [curve for curve in expected_curves(record) if curve.task == task]
            options = [one for one in record.config.overrides if one.startswith("task_options.")]
            if own:  # the last counts the targets that were tried too
                groups.setdefault((record.config.suite, task, *options), []).append((record, own[-1]))
    found = {where: group for where, group in groups.items() if len({one.config.contender for one, _ in group}) > 1}
    return tuple(_draw_together(where, group) for where, group in found.items())


def _draw_together(where: Sequence[str], group: Sequence[tuple[SearchRecord, ExpectedBest]]) -> Drawing:
    suite, task, *options = where
    contenders = list(dict.fromkeys(record.config.contender for record, _ in group))
    palette, shapes = style.colours(contenders), style.markers(contenders)
    with style.figure(any(record.config.preset == "smoke" for record, _ in group), 6.4, 4.2) as sheet:
        axes = sheet.subplots()
        for index, (record, curve) in enumerate(group):
            name = record.config.contender
            _draw_curve(axes, record, curve, index, color=palette[name], shape=shapes[name])
        score = group[0][0].config.score_names.get(task, "score")
        axes.set(xlabel="settings tried, n", ylabel=style.wrapped(score, 44))
        style.legend_below(sheet, columns=2)
        data = f"{task} ({', '.join(options)})" if options else task
        caption = f"Searches of {suite} on {data}, side by side. {_CAPTION}"
        alt = f"Best score to be expected of n settings of {', '.join(contenders)} on {data}."
        return style.drawing(sheet, f"expected-best-together-{suite}-{task}", caption, alt)


def _draw_curve(
    axes: Axes, record: SearchRecord, curve: ExpectedBest, index: int, *, color: str = "", shape: str = ""
) -> None:
    scores = curve.curve
    n = np.arange(1, len(scores) + 1)
    look: dict[str, Any] = {"color": color or PALETTE[index % len(PALETTE)], "zorder": 3 - 0.01 * index}
    shape = shape or MARKERS[index % len(MARKERS)]
    label = style.legend_name(f"{record.config.contender}: {curve.tried}", 70)
    axes.plot(n, scores, label=label, marker=shape, markevery=[], **look)
    gap = -(-len(n) // _MOST_MARKERS)
    every = slice((len(n) - 1) % gap, None, gap)
    labels = [
        f"the best of {count} {curve.tried}: {compact(float(score))} expected"
        for count, score in zip(n, scores, strict=True)
    ]
    draw_points(axes, n[every], scores[every], labels[every], marker=shape, **look)
