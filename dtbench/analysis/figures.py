"""The figures; the only module that imports matplotlib. Equal results give equal bytes, as SVG and as PNG."""

import hashlib
import io
import math
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dtbench import shipped
from dtbench.analysis.published import Circumstances, PublishedTable
from dtbench.analysis.scores import headline_rows
from dtbench.analysis.statistics import Estimate, Interval
from dtbench.analysis.tables import Estimates
from dtbench.analysis.targets import Achieved, TaskTargets

INK = "#1b1f24"  # as in report/dtbench.mplstyle
WALKS = "#b9bfc7"

# Okabe & Ito (2008) without black and yellow, then Tol's teal, olive and purple: told apart by the colour-blind,
# and visible on white and on black.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#44AA99", "#999933", "#AA4499")
_BY_NAME = {
    "DT": "#0072B2",
    "CQL": "#D55E00",
    "BC": "#CC79A7",
    "BC successful": "#009E73",
    "BC 10%": "#999933",
    "BC 25%": "#44AA99",
    "BC 40%": "#882255",
    "BC 100%": "#CC79A7",  # is BC
    "CQL history": "#AA4499",
    "IQL": "#E69F00",
    "TD3+BC": "#56B4E9",
    "Random": "#8a8f98",
}
_MARKERS = "osD^vPX<>"


@dataclass(frozen=True, slots=True)
class Drawing:
    """One figure, drawn."""

    name: str  # of its files
    caption: str
    alt: str  # what it shows, for those who cannot see it
    svg: bytes
    png: bytes
    figure: Figure = field(repr=False, compare=False)
    wide: bool = False  # takes the whole width of the page

    def pdf(self) -> bytes:
        """The same as a vector file for LaTeX."""
        with _style():
            content = io.BytesIO()
            self.figure.savefig(content, format="pdf", metadata=dict.fromkeys(("CreationDate", "Creator", "Producer")))
            return content.getvalue()


@dataclass(frozen=True, slots=True)
class Scene:
    """What every figure of a suite is drawn from."""

    contenders: Sequence[str]  # in table order
    scores: pd.DataFrame  # all checkpoints and targets, COLUMNS of scores.py
    finals: pd.DataFrame  # a row a trial: its last checkpoint at its headline target
    score_names: Mapping[str, str]  # by task
    circumstances: Mapping[str, Circumstances]  # by task
    smoke: bool = False

    def title(self, task: str) -> str:
        """The task, with where its data came from."""
        source = self.source(task)
        return f"{task} (data: {source})" if source else task

    def source(self, task: str) -> str:
        """Where the task's data came from; empty where no trial says."""
        return self.circumstances.get(task, Circumstances()).source


def colours(contenders: Sequence[str]) -> dict[str, str]:
    """A colour for each name: the same in every figure and suite, unless two names of a suite fall on one colour."""
    chosen: dict[str, str] = {}
    for name in contenders:
        if name in _BY_NAME and _BY_NAME[name] not in chosen.values():
            chosen[name] = _BY_NAME[name]
    for name in contenders:
        if name not in chosen:
            first = int(hashlib.sha256(name.encode()).hexdigest(), 16) % len(PALETTE)
            ring = [*PALETTE[first:], *PALETTE[:first]]
            chosen[name] = next((colour for colour in ring if colour not in chosen.values()), ring[0])
    return chosen


def draw_targets(scene: Scene, found: TaskTargets) -> Drawing:
    """Achieved against target return on one task."""
    with _figure(scene.smoke, 6.4, 4.4) as figure:
        axes = figure.subplots()
        _draw_achieved(axes, scene, found)
        axes.set(xlabel="target return", ylabel=_achieved_label(found.units), title=scene.title(found.task))
        _legend_below(figure, columns=3, first=scene.contenders)
        caption = (
            f"{scene.title(found.task)}: achieved against target return at the last checkpoint. {_TARGET_CAPTION}"
        )
        asked = len(found.achieved[0].targets)
        return _drawing(
            figure, f"targets-{found.task}", caption, f"Achieved return over {asked} targets, {found.task}."
        )


def draw_target_grid(scene: Scene, found: Sequence[TaskTargets]) -> Drawing | None:
    """The paper's Figure 4: a panel for each task; None for fewer than two tasks."""
    if len(found) < 2:
        return None
    with _panels(scene, [one.task for one in found], below="target return") as (figure, panels):
        units = {one.units for one in found}
        for axes, one in zip(panels, found, strict=True):
            _draw_achieved(axes, scene, one)
            if len(units) > 1:
                axes.set_ylabel(one.units, fontsize=8)
        figure.supylabel(_achieved_label(units.pop() if len(units) == 1 else ""), fontsize=9)
        _legend_below(figure, columns=5, first=scene.contenders)
        caption = f"Achieved against target return at the last checkpoint. {_TARGET_CAPTION}"
        return _drawing(
            figure, "targets", caption, f"Achieved against target return on {len(found)} tasks.", wide=True
        )


def draw_progress(scene: Scene, task: str) -> Drawing | None:
    """Score over training steps; None where no trial of the task has finished."""
    rows = headline_rows(scene.scores[scene.scores["task"] == task], scene.finals)
    if rows.empty:
        return None
    with _figure(scene.smoke, 6.4, 3.8) as figure:
        axes = figure.subplots()
        _draw_curves(axes, scene.contenders, rows)
        axes.set(xlabel="gradient steps", ylabel=scene.score_names.get(task, "score"), title=scene.title(task))
        _legend_below(figure)
        caption = f"{scene.title(task)}: score over training. {_PROGRESS_CAPTION}"
        return _drawing(
            figure, f"progress-{task}", caption, f"Score of every contender over gradient steps on {task}."
        )


def draw_progress_grid(scene: Scene, tasks: Sequence[str]) -> Drawing | None:
    """Score over training steps, a panel for each task; None where no trial has finished."""
    rows = headline_rows(scene.scores, scene.finals)
    ran = [task for task in tasks if task in set(rows["task"])]
    if not ran:
        return None
    with _panels(scene, ran, below="gradient steps") as (figure, panels):
        shared = _score_name(scene, ran)
        for axes, task in zip(panels, ran, strict=True):
            _draw_curves(axes, scene.contenders, rows[rows["task"] == task])
            if not shared:
                axes.set_ylabel(scene.score_names.get(task, "score"), fontsize=7)
        if shared:
            figure.supylabel(shared, fontsize=9)
        _legend_below(figure, columns=6)
        caption = f"Score over training. {_PROGRESS_CAPTION}"
        alt = f"Score of every contender over gradient steps on {len(ran)} tasks."
        return _drawing(figure, "progress", caption, alt, wide=True)


def draw_bars(scene: Scene, task: str, *, estimates: Estimates, published: Sequence[PublishedTable]) -> Drawing | None:
    """Final scores with intervals and seeds, published numbers as markers; None where nothing has finished."""
    if not any((task, name) in estimates for name in scene.contenders):
        return None
    palette = colours(scene.contenders)
    with _figure(scene.smoke, 6.4, 1.3 + 0.38 * len(scene.contenders)) as figure:
        axes = figure.subplots()
        for place, name in enumerate(scene.contenders):
            if (task, name) in estimates:
                _draw_bar(axes, place, estimates[task, name], palette[name])
            else:
                axes.text(0, place, " not run", va="center", fontstyle="italic")
        for table, marker in zip(published, _PUBLISHED_MARKERS, strict=False):
            places = dict(enumerate(_comparable(scene, table, task)))
            points = [(mean, place) for place, mean in places.items() if mean is not None]
            _draw_published(axes, points, table, marker)
        axes.set_yticks(range(len(scene.contenders)), scene.contenders)
        title, below = scene.title(task), len(scene.contenders) - 0.4
        axes.set(xlabel=scene.score_names.get(task, "score"), title=title, ylim=(below, -0.6))
        axes.grid(axis="y", visible=False)
        if axes.get_legend_handles_labels()[0]:
            _legend_below(figure)
        caption = f"{title}: final scores. Bars: means; lines: 95 % intervals over seeds; dots: seeds."
        return _drawing(
            figure, f"final-{task}", caption, f"Final score of every contender on {task}, as in the tables."
        )


def draw_grouped_bars(
    scene: Scene, tasks: Sequence[str], *, estimates: Estimates, published: Sequence[PublishedTable]
) -> Drawing | None:
    """Final scores of many tasks in one figure, means over tasks among them; None where nothing has finished."""
    if not any((task, name) in estimates for task in tasks for name in scene.contenders):
        return None
    count, palette = len(scene.contenders), colours(scene.contenders)
    width = 0.84 / count
    shifts = [(place - (count - 1) / 2) * width for place in range(count)]
    with _figure(scene.smoke, max(6.4, 1.0 + 1.05 * len(tasks)), 4.4) as figure:
        axes = figure.subplots()
        for name, shift in zip(scene.contenders, shifts, strict=True):
            found = [(group + shift, estimates.get((task, name))) for group, task in enumerate(tasks)]
            _draw_columns(axes, found, width, colour=palette[name], label=name)
        for table, marker in zip(published, _PUBLISHED_MARKERS, strict=False):
            printed = [
                (group, zip(shifts, _comparable(scene, table, task), strict=True)) for group, task in enumerate(tasks)
            ]
            points = [(group + shift, mean) for group, means in printed for shift, mean in means if mean is not None]
            _draw_published(axes, points, table, marker)
        shared = _score_name(scene, tasks)
        below = {task: "" if shared else scene.score_names.get(task, "") for task in tasks}
        names = [_stacked(task, scene.source(task), score) for task, score in below.items()]
        axes.set_xticks(range(len(tasks)), names, fontsize=8)
        axes.set(ylabel=shared or "score", xlim=(-0.55, len(tasks) - 0.45))
        axes.grid(axis="x", visible=False)
        _legend_below(figure, columns=8, first=scene.contenders)
        caption = (
            "Final scores. Bars: means; lines: 95 % intervals over seeds; dots: seeds; crosses: nothing ran. In "
            "brackets: where the data came from. Published numbers are drawn only where they are comparable."
        )
        alt = f"Final score of every contender on {len(tasks)} tasks and averages, as in the tables."
        return _drawing(figure, "final", caption, alt, wide=True)


def draw_steps_to_goal(
    scene: Scene, task: str, *, generated: Mapping[str, Mapping[str, int]], walks: Mapping[str, int],
    shortest: Mapping[str, int],
) -> Drawing | None:  # fmt: skip
    """The paper's appendix histogram, a panel for each contender; counts are by steps as text, "inf" not reached."""
    if not generated:
        return None
    seen = {steps for counts in (walks, shortest, *generated.values()) for steps in counts if steps != "inf"}
    bins = [*map(str, range(min(map(int, seen), default=1), max(map(int, seen), default=1) + 1)), "inf"]
    palette, columns = colours(scene.contenders), min(3, len(generated))
    rows = -(-len(generated) // columns)
    with _figure(scene.smoke, 2.2 + 2.5 * columns, 0.9 + 2.0 * rows) as figure:
        grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        for axes, (name, counts) in zip(grid.flat, generated.items(), strict=False):
            series = ((walks, WALKS, "random walks"), (counts, palette[name], None), (shortest, INK, "shortest paths"))
            _draw_histogram(axes, bins, series)
            axes.set_title(name)
        for axes in grid.flat[len(generated) :]:
            axes.set_axis_off()
        for axes in grid[-1, : len(generated) - columns * (rows - 1)]:
            axes.set_xlabel("steps to goal (∞: never)")
        figure.supylabel("paths (%)", fontsize=9)
        figure.suptitle(task, fontweight="bold", fontsize=10)
        _legend_below(figure)
        caption = (
            f"{task}: steps to the goal, in per cent of the random walks in the data (grey), of the paths generated "
            "by each contender (coloured, all seeds together) and of the shortest paths from the start nodes (dark)."
        )
        return _drawing(figure, f"steps-{task}", caption, f"Histograms of steps to the goal on {task}, by contender.")


_TARGET_CAPTION = (
    "Lines: means over seeds and episodes; bands: 95 % intervals, seeds and their episodes redrawn together; thin "
    "lines: contenders that take no target; triangles: targets set beforehand; grey: beyond the data's best."
)
_PROGRESS_CAPTION = (
    "Lines: means over seeds; bands: from the lowest to the highest seed; dashed lines: contenders with a single "
    "evaluation."
)
_PUBLISHED_MARKERS = "D*^vPX"
LONG_TITLE = 36  # characters that fit above one panel of a grid


@contextmanager
def _style() -> Iterator[None]:
    """The project's style, whatever the user's matplotlibrc says."""
    style = mpl.rc_params_from_file(shipped.find("report", "dtbench.mplstyle"), use_default_template=False)
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(style)
        yield


@contextmanager
def _figure(smoke: bool, width: float, height: float) -> Iterator[Figure]:
    with _style():
        figure = Figure(figsize=(width, height))
        if smoke:
            mark: dict[str, Any] = {"fontsize": 26, "color": "#c8102e", "alpha": 0.35, "weight": "bold"}
            figure.text(0.45, 0.5, "SMOKE: numbers\nmean nothing", ha="center", va="center", rotation=20, **mark)
        yield figure


@contextmanager
def _panels(scene: Scene, tasks: Sequence[str], *, below: str) -> Iterator[tuple[Figure, list[Axes]]]:
    """A figure with a titled panel for each task, and a label below the last panel of each column."""
    columns = min(len(tasks), 4 if len(tasks) in (4, 7, 8) or len(tasks) > 10 else 3)
    rows = math.ceil(len(tasks) / columns)
    with _figure(scene.smoke, 0.4 + 3.3 * columns, 1.0 + 2.4 * rows) as figure:
        grid = figure.subplots(rows, columns, squeeze=False).flat
        panels = [next(grid) for _ in tasks]
        for axes in grid:
            axes.set_axis_off()
        for axes, task in zip(panels, tasks, strict=True):
            source = scene.source(task)
            title = f"{task} ({source})" if source else task
            axes.set_title(title, fontsize=8 if len(title) <= LONG_TITLE else 6.5)
        for axes in panels[-columns:]:
            axes.set_xlabel(below)
        yield figure, panels


def _drawing(figure: Figure, name: str, caption: str, alt: str, *, wide: bool = False) -> Drawing:
    vector, raster = io.BytesIO(), io.BytesIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))  # dates and versions would change the bytes
    figure.savefig(vector, format="svg", metadata=nothing)
    figure.savefig(raster, format="png", metadata={"Software": None}, facecolor="white")
    plain = re.sub(r"[^\w.-]+", "-", name)  # tasks such as atari:pong; a file or an id may be without their marks
    return Drawing(plain, caption, alt, vector.getvalue(), raster.getvalue(), figure, wide)


def _by_contender(contenders: Sequence[str], rows: pd.DataFrame) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    palette = colours(contenders)
    for place, name in enumerate(contenders):
        own = rows[rows["contender"] == name]
        if not own.empty:
            marker = _MARKERS[place % len(_MARKERS)]
            # The first contender is drawn on top of the others.
            yield {"color": palette[name], "marker": marker, "label": name, "zorder": 3 - 0.01 * place}, own


def _draw_achieved(axes: Axes, scene: Scene, found: TaskTargets) -> None:
    asked = np.unique(np.concatenate([achieved.targets for achieved in found.achieved]))
    _draw_data_range(axes, found.data, float(asked[-1]))
    axes.plot(asked[[0, -1]], asked[[0, -1]], color=INK, linestyle=":", linewidth=1.2, label="achieved = target")
    palette = colours(scene.contenders)
    for name, level in found.levels.items():
        axes.axhline(level, color=palette[name], linestyle="-.", linewidth=1, label=name)
    for place, achieved in enumerate(found.achieved):
        _draw_band(axes, achieved, palette[achieved.contender], _MARKERS[place % len(_MARKERS)])
    mark: dict[str, Any] = {"color": INK, "clip_on": False, "markersize": 6, "zorder": 4}
    bottom = axes.get_xaxis_transform()
    axes.plot(found.fixed, [0.0] * len(found.fixed), "^", transform=bottom, label="fixed targets", **mark)
    axes.margins(x=0.02)


def _achieved_label(units: str) -> str:
    return f"achieved return ({units})" if units else "achieved return"


def _draw_data_range(axes: Axes, data: Interval | None, highest: float) -> None:
    """The best episode of the data as a line, what lies beyond it in grey."""
    if data is None:
        return
    axes.axhline(data.high, color=INK, linestyle="--", linewidth=1, label="best episode of the data")
    if highest > data.high:
        axes.axvspan(data.high, highest, color=WALKS, alpha=0.25, lw=0, label="beyond the data", zorder=0)


def _draw_band(axes: Axes, achieved: Achieved, colour: str, marker: str) -> None:
    low, high = achieved.band()
    axes.fill_between(achieved.targets, low, high, color=colour, alpha=0.2, lw=0)
    axes.plot(achieved.targets, achieved.curve, color=colour, marker=marker, label=achieved.contender, zorder=3)


def _draw_curves(axes: Axes, contenders: Sequence[str], rows: pd.DataFrame) -> None:
    for style, own in _by_contender(contenders, rows):
        by_step = own.groupby("step")["score"].agg(["mean", "min", "max"])
        if len(by_step) == 1:
            axes.axhline(by_step["mean"].iloc[0], **{**style, "marker": None}, linestyle="--")
            continue
        axes.plot(by_step.index, by_step["mean"], **style, markevery=max(1, len(by_step) // 10))
        axes.fill_between(by_step.index, by_step["min"], by_step["max"], color=style["color"], alpha=0.15, lw=0)


def _draw_bar(axes: Axes, place: int, ours: Estimate, colour: str) -> None:
    axes.barh(place, ours.mean, height=0.6, color=colour, alpha=0.55)
    if ours.interval:
        axes.plot([ours.interval.low, ours.interval.high], [place, place], color=INK, linewidth=1.4)
    axes.plot(ours.values, [place] * len(ours.values), "o", color=colour, markeredgecolor=INK, markersize=4, mew=0.6)


def _draw_columns(
    axes: Axes, found: Sequence[tuple[float, Estimate | None]], width: float, *, colour: str, label: str
) -> None:
    """One contender's bars, one for each task."""
    ran = [(at, ours) for at, ours in found if ours]
    axes.bar([at for at, _ in ran], [ours.mean for _, ours in ran], width, color=colour, alpha=0.65, label=label)
    for at, ours in ran:
        if ours.interval:
            axes.plot([at, at], [ours.interval.low, ours.interval.high], color=INK, linewidth=1.1)
        dots: dict[str, Any] = {"color": colour, "markeredgecolor": INK, "markersize": 2.4, "mew": 0.4}
        axes.plot([at] * len(ours.values), ours.values, "o", **dots)
    absent = [at for at, ours in found if ours is None]
    if absent:
        axes.plot(absent, [0.0] * len(absent), "x", color=colour, markersize=4, clip_on=False)


def _comparable(scene: Scene, table: PublishedTable, task: str) -> list[float | None]:
    """What a paper printed for each contender, None where it has no number that ours may be held against."""
    here = scene.circumstances.get(task, Circumstances())
    found = [table.numbers.get((task, name)) for name in scene.contenders]
    apart = [table.why_not(task, name, here) for name in scene.contenders]
    return [printed.mean if printed and not why else None for printed, why in zip(found, apart, strict=True)]


def _draw_published(axes: Axes, points: Sequence[tuple[float, float]], table: PublishedTable, marker: str) -> None:
    if points:
        look: dict[str, Any] = {"color": "none", "markeredgecolor": INK, "markersize": 8, "mew": 1.4, "zorder": 4}
        axes.plot(*zip(*points, strict=True), marker, label=f"published: {table.title}", **look)


def _score_name(scene: Scene, tasks: Sequence[str]) -> str:
    """The name of the score that all of these tasks share; empty where they have several."""
    names = {scene.score_names[task] for task in tasks if task in scene.score_names}
    return names.pop() if len(names) == 1 else ""


def _stacked(task: str, source: str, score: str) -> str:
    """A task's name in lines short enough to stand below its bars."""
    head, _, tail = task.removesuffix("-v2").partition("-")
    lines = textwrap.wrap(task, 16) if " " in task else [head, *textwrap.wrap(tail, 14)]
    return "\n".join([*lines, *(f"({name})" for name in [source] if name), *textwrap.wrap(score, 20)])


def _draw_histogram(
    axes: Axes, bins: Sequence[str], series: Sequence[tuple[Mapping[str, int], str, str | None]]
) -> None:
    width = 0.8 / len(series)
    for offset, (counts, colour, label) in enumerate(series):
        total = sum(counts.values())
        if total:
            heights = [100 * counts.get(steps, 0) / total for steps in bins]
            axes.bar(np.arange(len(bins)) + (offset - 1) * width, heights, width, color=colour, label=label)
    axes.set_xticks(range(len(bins)), [*bins[:-1], "∞"])
    axes.grid(axis="x", visible=False)


def _legend_below(figure: Figure, *, columns: int = 4, first: Sequence[str] = ()) -> None:
    """One legend below all axes, each label once; those of `first` lead, in their order."""
    found: dict[str, Artist] = {}
    for axes in figure.axes:
        handles, labels = axes.get_legend_handles_labels()
        found.update(zip(labels, handles, strict=True))
    labels = [*(label for label in first if label in found), *(label for label in found if label not in first)]
    figure.legend([found[label] for label in labels], labels, loc="outside lower center", ncols=columns)
