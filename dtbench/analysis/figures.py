"""The figures; the only module that imports matplotlib. Equal results give equal bytes, as SVG and as PNG."""

import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dtbench import shipped
from dtbench.analysis.published import PublishedTable
from dtbench.analysis.statistics import Estimate
from dtbench.analysis.tables import Estimates

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


@dataclass(frozen=True, slots=True)
class Scene:
    """What every figure of a suite is drawn from."""

    contenders: Sequence[str]  # in table order
    scores: pd.DataFrame  # all checkpoints and targets, COLUMNS of scores.py
    finals: pd.DataFrame  # a row a trial: its last checkpoint at its headline target
    score_names: Mapping[str, str]  # by task
    smoke: bool = False


def colours(contenders: Sequence[str]) -> dict[str, str]:
    """A colour for each name: the same in every figure and suite, unless two unknown names fall on one colour."""
    chosen = {name: _BY_NAME[name] for name in contenders if name in _BY_NAME}
    for name in contenders:
        if name not in chosen:
            first = int(hashlib.sha256(name.encode()).hexdigest(), 16) % len(PALETTE)
            ring = [*PALETTE[first:], *PALETTE[:first]]
            chosen[name] = next((colour for colour in ring if colour not in chosen.values()), ring[0])
    return chosen


def draw_targets(scene: Scene, task: str, *, best_of_data: float | None) -> Drawing | None:
    """Achieved against target return; None where no contender was asked for two targets."""
    last = _last_checkpoints(scene.scores[scene.scores["task"] == task])
    asked = np.unique(last["target"].dropna())
    if len(asked) < 2:
        return None
    with _figure(scene.smoke, 6.4, 4.2) as figure:
        axes = figure.subplots()
        axes.plot(asked[[0, -1]], asked[[0, -1]], color=INK, linestyle=":", linewidth=1.2, label="achieved = target")
        if best_of_data is not None:
            axes.axhline(best_of_data, color=INK, linestyle="--", linewidth=1, label="best episode of the data")
        for style, rows in _by_contender(scene.contenders, last):
            _draw_achieved(axes, rows, style)
        axes.set(xlabel="target return", ylabel="achieved return", title=task)
        _legend_below(figure)
        caption = (
            f"{task}: achieved against target return at the last checkpoint. Lines: means over seeds; bands: from the "
            "lowest to the highest seed; dash-dotted lines: contenders that take no target."
        )
        return _drawing(figure, f"targets-{task}", caption, f"Achieved return over {len(asked)} targets on {task}.")


def draw_progress(scene: Scene, task: str) -> Drawing | None:
    """Score over training steps; None where no trial of the task has finished."""
    rows = _headline_only(scene, task)
    if rows.empty:
        return None
    with _figure(scene.smoke, 6.4, 3.8) as figure:
        axes = figure.subplots()
        for style, own in _by_contender(scene.contenders, rows):
            by_step = own.groupby("step")["score"].agg(["mean", "min", "max"])
            if len(by_step) == 1:
                axes.axhline(by_step["mean"].iloc[0], **{**style, "marker": None}, linestyle="--")
                continue
            axes.plot(by_step.index, by_step["mean"], **style, markevery=max(1, len(by_step) // 10))
            axes.fill_between(by_step.index, by_step["min"], by_step["max"], color=style["color"], alpha=0.15, lw=0)
        axes.set(xlabel="gradient steps", ylabel=scene.score_names.get(task, "score"), title=task)
        _legend_below(figure)
        caption = (
            f"{task}: score over training. Lines: means over seeds; bands: from the lowest to the highest seed; "
            "dashed lines: contenders with a single evaluation."
        )
        return _drawing(
            figure, f"progress-{task}", caption, f"Score of every contender over gradient steps on {task}."
        )


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
        for table, marker in zip(published, "D*^vPX", strict=False):
            _draw_published(axes, scene.contenders, table, task=task, marker=marker)
        axes.set_yticks(range(len(scene.contenders)), scene.contenders)
        axes.set(xlabel=scene.score_names.get(task, "score"), title=task, ylim=(len(scene.contenders) - 0.4, -0.6))
        axes.grid(axis="y", visible=False)
        if axes.get_legend_handles_labels()[0]:
            _legend_below(figure)
        caption = f"{task}: final scores. Bars: means; lines: 95 % intervals over seeds; dots: seeds."
        return _drawing(
            figure, f"final-{task}", caption, f"Final score of every contender on {task}, as in the tables."
        )


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


@contextmanager
def _figure(smoke: bool, width: float, height: float) -> Iterator[Figure]:
    """A figure in the project's style, whatever the user's matplotlibrc says."""
    style = mpl.rc_params_from_file(shipped.find("report", "dtbench.mplstyle"), use_default_template=False)
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(style)
        figure = Figure(figsize=(width, height))
        if smoke:
            mark: dict[str, Any] = {"fontsize": 26, "color": "#c8102e", "alpha": 0.35, "weight": "bold"}
            figure.text(0.45, 0.5, "SMOKE: numbers\nmean nothing", ha="center", va="center", rotation=20, **mark)
        yield figure


def _drawing(figure: Figure, name: str, caption: str, alt: str) -> Drawing:
    vector, raster = io.BytesIO(), io.BytesIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))  # dates and versions would change the bytes
    figure.savefig(vector, format="svg", metadata=nothing)
    figure.savefig(raster, format="png", metadata={"Software": None}, facecolor="white")
    return Drawing(name, caption, alt, vector.getvalue(), raster.getvalue())


def _by_contender(contenders: Sequence[str], rows: pd.DataFrame) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    palette = colours(contenders)
    for place, name in enumerate(contenders):
        own = rows[rows["contender"] == name]
        if not own.empty:
            marker = _MARKERS[place % len(_MARKERS)]
            # The first contender is drawn on top of the others.
            yield {"color": palette[name], "marker": marker, "label": name, "zorder": 3 - 0.01 * place}, own


def _last_checkpoints(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[rows["step"] == rows.groupby("trial")["step"].transform("max")]


def _headline_only(scene: Scene, task: str) -> pd.DataFrame:
    """All checkpoints of the task's trials, at the target that the tables use."""
    rows = scene.scores[scene.scores["task"] == task]
    headline = rows["trial"].map(scene.finals.set_index("trial")["target"])
    return rows[(rows["target"] == headline) | (rows["target"].isna() & headline.isna())]


def _draw_achieved(axes: Axes, rows: pd.DataFrame, style: Mapping[str, Any]) -> None:
    if rows["target"].isna().all():
        axes.axhline(rows["return_mean"].mean(), **{**style, "marker": None}, linestyle="-.")
        return
    by_target = rows.groupby("target")["return_mean"].agg(["mean", "min", "max"])
    axes.plot(by_target.index, by_target["mean"], **style)
    axes.fill_between(by_target.index, by_target["min"], by_target["max"], color=style["color"], alpha=0.15, lw=0)


def _draw_bar(axes: Axes, place: int, ours: Estimate, colour: str) -> None:
    axes.barh(place, ours.mean, height=0.6, color=colour, alpha=0.55)
    if ours.interval:
        axes.plot([ours.interval.low, ours.interval.high], [place, place], color=INK, linewidth=1.4)
    axes.plot(ours.values, [place] * len(ours.values), "o", color=colour, markeredgecolor=INK, markersize=4, mew=0.6)


def _draw_published(axes: Axes, contenders: Sequence[str], table: PublishedTable, *, task: str, marker: str) -> None:
    places = [place for place, name in enumerate(contenders) if (task, name) in table.numbers]
    means = [table.numbers[task, contenders[place]].mean for place in places]
    if places:
        look: dict[str, Any] = {"color": "none", "markeredgecolor": INK, "markersize": 8, "mew": 1.4}
        axes.plot(means, places, marker, label=f"published: {table.title}", **look)


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


def _legend_below(figure: Figure) -> None:
    """One legend below all axes, each label once."""
    found: dict[str, Artist] = {}
    for axes in figure.axes:
        handles, labels = axes.get_legend_handles_labels()
        found.update(zip(labels, handles, strict=True))
    figure.legend(list(found.values()), list(found), loc="outside lower center", ncols=4)
