"""Final scores as bars, published numbers beside them; the paper's Figure 3."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes

from dtbench.analysis.figures import style
from dtbench.analysis.figures.style import INK, Drawing
from dtbench.analysis.figures.tooltips import compact, draw_points, explain, sentence
from dtbench.analysis.published import PublishedTable
from dtbench.analysis.statistics import Estimate
from dtbench.analysis.suite_analysis import Estimates, SuiteAnalysis

_PUBLISHED_MARKERS = "D*^vPX"
_BESIDE_AXIS = 26  # characters of a contender's name there
_PANELS = 4  # suites in one row
_CAPTION = "Bars: means; lines: 95 % intervals over seeds; dots: seeds"


@dataclass(frozen=True, slots=True)
class SuiteAverage:
    """One panel of the paper's Figure 3: what the contenders of a suite score on average over its tasks."""

    title: str
    score: str  # its name
    tasks: int
    estimates: Mapping[str, Estimate | None]  # by contender in table order; None: not run on every task
    published: Mapping[str, Mapping[str, float]]  # by a table's title, then by contender: comparable numbers alone
    families: Mapping[str, str]  # by contender


def suite_average(
    analysis: SuiteAnalysis,
    average: str,
    *,
    title: str,
    tasks: int,
    estimates: Estimates,
    published: Sequence[PublishedTable],
) -> SuiteAverage:
    """Return the panel of a suite; `average` is the name of its mean over tasks, or of its only task."""
    printed = {table.title: dict(_printed(analysis, table, average)) for table in published}
    return SuiteAverage(
        title=title,
        score=analysis.shared_score(list(analysis.score_names)) or "score",
        tasks=tasks,
        estimates={name: estimates.get((average, name)) for name in analysis.contenders},
        published={table: numbers for table, numbers in printed.items() if numbers},
        families=analysis.families,
    )


def draw_suite_bars(suites: Sequence[SuiteAverage], *, smoke: bool = False) -> Drawing | None:
    """Draw the paper's Figure 3: a panel for each suite, a bar for each contender; None where nothing has finished."""
    ran = [suite for suite in suites if any(suite.estimates.values())]
    if not ran:
        return None
    columns = min(_PANELS, len(ran))
    rows = math.ceil(len(ran) / columns)
    tables = list(dict.fromkeys(table for suite in ran for table in suite.published))
    shapes = dict(zip(tables, _PUBLISHED_MARKERS, strict=False))
    with style.figure(smoke, max(4.2, 0.3 + 3.0 * columns), 0.6 + 3.1 * rows) as sheet:
        grid = sheet.subplots(rows, columns, squeeze=False).flat
        for axes, suite in zip(grid, ran, strict=False):
            _draw_suite(axes, suite, shapes)
        for axes in grid[len(ran) :]:
            axes.set_axis_off()
        if tables:
            style.legend_below(sheet)
        caption = f"Final scores of each suite, averaged over its tasks. {_CAPTION} with a score on every task."
        alt = f"Average final score of every contender in {len(ran)} suites."
        return style.drawing(sheet, "suites", caption, alt, wide=True)


def draw_bars(
    analysis: SuiteAnalysis, task: str, *, estimates: Estimates, published: Sequence[PublishedTable]
) -> Drawing | None:
    """Draw final scores with intervals and seeds, published numbers as markers; None where nothing has finished."""
    if not any((task, name) in estimates for name in analysis.contenders):
        return None
    palette = style.colours(analysis.contenders, analysis.families)
    lost = {name: analysis.inputs.status(task, name).diverged for name in analysis.contenders}
    there = [name for name in analysis.contenders if lost[name] or (task, name) in estimates]
    with style.figure(analysis.smoke, 6.4, 1.3 + 0.38 * len(there)) as sheet:
        axes = sheet.subplots()
        for index, name in enumerate(there):
            if (task, name) in estimates:
                _draw_bar(axes, index, estimates[task, name], palette[name], _label(analysis, task, name, estimates))
            else:
                axes.text(0, index, " diverged", va="center", fontstyle="italic")
        for table, marker in zip(published, _PUBLISHED_MARKERS, strict=False):
            numbers = dict(_printed(analysis, table, task))
            points = [(numbers[name], index) for index, name in enumerate(there) if name in numbers]
            labels = [_printed_label(table.title, task, name, numbers[name]) for name in there if name in numbers]
            _draw_published(axes, points, labels, table.title, marker)
        short = [style.shortened(name, _BESIDE_AXIS) for name in there]
        names = [
            text + (f"\n({lost[name]} diverged)" if lost[name] else "")
            for text, name in zip(short, there, strict=True)
        ]
        axes.set_yticks(range(len(there)), names)
        title, below = analysis.title(task), len(there) - 0.4
        score = style.wrapped(analysis.score_names.get(task, "score"), 60)
        axes.set(xlabel=score, title=style.wrapped(title, 66 - max(map(len, names))), ylim=(below, -0.6))
        if score.endswith("(%)"):
            axes.set_xlim(0, 102)
        axes.grid(axis="y", visible=False)
        style.thousands(axes.xaxis)
        if axes.get_legend_handles_labels()[0]:
            style.legend_below(sheet)
        alt = f"Final score of every contender on {task}, as in the tables."
        return style.drawing(sheet, f"final-{task}", f"{title}: final scores. {_CAPTION}.", alt)


def draw_grouped_bars(
    analysis: SuiteAnalysis, tasks: Sequence[str], *, estimates: Estimates, published: Sequence[PublishedTable]
) -> Drawing | None:
    """Draw final scores of many tasks in one figure, means over tasks among them; None where nothing has finished."""
    if not any((task, name) in estimates for task in tasks for name in analysis.contenders):
        return None
    count, palette = len(analysis.contenders), style.colours(analysis.contenders, analysis.families)
    width = 0.84 / count
    shifts = {name: (index - (count - 1) / 2) * width for index, name in enumerate(analysis.contenders)}
    with style.figure(analysis.smoke, max(6.4, 1.0 + 1.05 * len(tasks)), 4.4) as sheet:
        axes = sheet.subplots()
        for name, shift in shifts.items():
            bars = [_bar(analysis, task, name, group + shift, estimates) for group, task in enumerate(tasks)]
            _draw_columns(axes, bars, width, colour=palette[name], label=style.legend_name(name))
        for table, marker in zip(published, _PUBLISHED_MARKERS, strict=False):
            printed = [(group, task, _printed(analysis, table, task)) for group, task in enumerate(tasks)]
            points = [(group + shifts[name], mean) for group, _, found in printed for name, mean in found]
            labels = [_printed_label(table.title, task, *one) for _, task, found in printed for one in found]
            _draw_published(axes, points, labels, table.title, marker)
        shared = analysis.shared_score(tasks)
        below = {task: "" if shared else analysis.score_names.get(task, "") for task in tasks}
        names = [_stacked(task, analysis.source(task), score) for task, score in below.items()]
        axes.set_xticks(range(len(tasks)), names, fontsize=8)
        axes.set(ylabel=style.wrapped(shared or "score", 44), xlim=(-0.55, len(tasks) - 0.45))
        if shared.endswith("(%)"):
            axes.set_ylim(0, 102)
        axes.grid(axis="x", visible=False)
        style.thousands(axes.yaxis)
        style.legend_below(sheet, first=analysis.contenders)
        caption = (
            f"Final scores. {_CAPTION}; crosses: nothing ran. In brackets: where the data came from. Published "
            "numbers are drawn only where they are comparable."
        )
        alt = f"Final score of every contender on {len(tasks)} tasks and averages, as in the tables."
        return style.drawing(sheet, "final", caption, alt, wide=True)


@dataclass(frozen=True, slots=True)
class _Bar:
    """One column: where it stands, what it shows and says; an estimate of None is a cross."""

    at: float
    ours: Estimate | None
    label: str


def _bar(analysis: SuiteAnalysis, task: str, name: str, at: float, estimates: Estimates) -> _Bar:
    found = estimates.get((task, name))
    return _Bar(at, found, _label(analysis, task, name, estimates) if found else "")


def _label(analysis: SuiteAnalysis, task: str, name: str, estimates: Estimates) -> str:
    ours, finals = estimates[task, name], analysis.finals
    own = finals[(finals["task"] == task) & (finals["contender"] == name)]
    episodes = 0 if own.empty else int(own["episodes"].max())
    return sentence(f"{name} on {task}", ours.mean, ours.interval, seeds=ours.values, episodes=episodes)


def _printed_label(table: str, task: str, name: str, mean: float) -> str:
    return f"Published, {table}: {name} on {task}: {compact(mean)}"


def _draw_suite(axes: Axes, suite: SuiteAverage, shapes: Mapping[str, str]) -> None:
    palette, names = style.colours(list(suite.estimates), suite.families), list(suite.estimates)
    over = f"{suite.title}, mean of {suite.tasks} tasks" if suite.tasks > 1 else suite.title
    for index, (name, ours) in enumerate(suite.estimates.items()):
        label = sentence(f"{name}, {over}", ours.mean, ours.interval, seeds=ours.values) if ours else ""
        _draw_columns(axes, [_Bar(index, ours, label)], 0.7, colour=palette[name], label="")
    for table, numbers in suite.published.items():
        if table in shapes:
            points = [(names.index(name), mean) for name, mean in numbers.items()]
            labels = [_printed_label(table, over, name, mean) for name, mean in numbers.items()]
            _draw_published(axes, points, labels, table, shapes[table])
    tilt: dict[str, Any] = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"} if len(names) > 3 else {}
    axes.set_xticks(range(len(names)), [style.shortened(name, 20) for name in names], fontsize=8, **tilt)
    axes.set(title=style.wrapped(suite.title, 34), xlim=(-0.6, len(names) - 0.4))
    axes.set_ylabel(style.wrapped(suite.score, 36), fontsize=8)
    if suite.score.endswith("(%)"):
        axes.set_ylim(0, 102)
    axes.grid(axis="x", visible=False)
    style.thousands(axes.yaxis)


def _draw_bar(axes: Axes, index: int, ours: Estimate, colour: str, label: str) -> None:
    explain(axes.barh(index, ours.mean, height=0.6, color=colour, alpha=0.55)[0], [label])
    if ours.interval:
        axes.plot([ours.interval.low, ours.interval.high], [index, index], color=INK, linewidth=1.4)
    axes.plot(ours.values, [index] * len(ours.values), "o", color=colour, markeredgecolor=INK, markersize=4, mew=0.6)


def _draw_columns(axes: Axes, bars: Sequence[_Bar], width: float, *, colour: str, label: str) -> None:
    """Draw one contender's bars, one for each task."""
    ran = [(bar.at, bar.ours, bar.label) for bar in bars if bar.ours]
    means = [ours.mean for _, ours, _ in ran]
    drawn = axes.bar([at for at, *_ in ran], means, width, color=colour, alpha=0.65, label=label or None)
    for patch, (at, ours, text) in zip(drawn, ran, strict=True):
        explain(patch, [text])
        if ours.interval:
            axes.plot([at, at], [ours.interval.low, ours.interval.high], color=INK, linewidth=1.1)
        dots: dict[str, Any] = {"color": colour, "markeredgecolor": INK, "markersize": 2.4, "mew": 0.4}
        axes.plot([at] * len(ours.values), ours.values, "o", **dots)
    absent = [bar.at for bar in bars if bar.ours is None]
    if absent:
        axes.plot(absent, [0.0] * len(absent), "x", color=colour, markersize=4, clip_on=False)


def _printed(analysis: SuiteAnalysis, table: PublishedTable, task: str) -> list[tuple[str, float]]:
    """Return what a paper printed for each contender whose number ours may be held against."""
    here = analysis.inputs.conditions_of(task)
    if not here.source:  # nothing of ours to stand beside
        return []
    found = [(name, table.numbers.get((task, name))) for name in analysis.contenders]
    return [(name, one.mean) for name, one in found if one and not table.why_not(task, name, here)]


def _draw_published(
    axes: Axes, points: Sequence[tuple[float, float]], labels: Sequence[str], table: str, marker: str
) -> None:
    if points:
        look: dict[str, Any] = {"color": "none", "markeredgecolor": INK, "markersize": 8, "mew": 1.4, "zorder": 4}
        x, y = zip(*points, strict=True)
        draw_points(axes, x, y, labels, marker=marker, label=style.legend_name(f"published: {table}", 72), **look)


def _stacked(task: str, source: str, score: str) -> str:
    """Return a task's name in lines short enough to stand below its bars."""
    short = style.shortened(task.removesuffix("-v2"), 44)
    head, _, tail = short.partition("-")
    is_split = " " not in short and len(short) > 8 and 4 <= len(head) <= 15  # hopper-medium, not key-to-door-1k
    lines = [head, *textwrap.wrap(tail, 14)] if is_split else textwrap.wrap(short, 15)
    return "\n".join([*lines, *(f"({name})" for name in [source] if name), *textwrap.wrap(score, 20)])
