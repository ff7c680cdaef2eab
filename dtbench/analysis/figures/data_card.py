"""Histograms of the returns in the data."""

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import MaxNLocator

from dtbench.analysis.figures import style
from dtbench.analysis.figures.style import INK, WALKS, Drawing
from dtbench.analysis.figures.tooltips import compact, explain
from dtbench.analysis.suite_analysis import SuiteAnalysis
from dtbench.data.dataset import TrajectoryDataset, histogram

Card = Mapping[str, Any]  # statistics_card of dtbench/data/dataset.py
_MEAN, _BEST = "#D55E00", "#009E73"


def draw_data_cards(
    analysis: SuiteAnalysis, cards: Mapping[str, Card], *, targets: Mapping[str, Sequence[float]] | None = None
) -> Drawing | None:
    """Draw the returns of each task's data as histograms; None where no card has one.

    `targets` are those set beforehand, by task.
    """
    shown = {task: card for task, card in cards.items() if (card.get("return_histogram") or {}).get("counts")}
    if not shown:
        return None
    with style.panels(analysis, list(shown), below="return of an episode") as (sheet, grid):
        for axes, (task, card) in zip(grid, shown.items(), strict=True):
            _draw_card(axes, task, card, (targets or {}).get(task, ()))
        sheet.supylabel("episodes", fontsize=9)
        style.legend_below(sheet)
        caption = "Returns of the episodes in the data."
        if targets:
            caption += " Triangles: target returns set beforehand."
        alt = f"Histograms of the data's episode returns on {len(shown)} tasks."
        return style.drawing(sheet, "data", caption, alt, wide=len(shown) > 1)


def _draw_card(axes: Axes, task: str, card: Card, targets: Sequence[float]) -> None:
    counts, edges = (np.asarray(card["return_histogram"][part], np.float64) for part in ("counts", "edges"))
    bars = axes.bar(edges[:-1], counts, np.diff(edges), align="edge", color=WALKS, edgecolor=INK, linewidth=0.3)
    for bar, count, low, high in zip(bars, counts, edges[:-1], edges[1:], strict=True):
        episodes = "1 episode returns" if count == 1 else f"{compact(count)} episodes return"
        explain(bar, [f"{task}: {episodes} {compact(low)} to {compact(high)}"])
    for name, key, colour, dashes in (("mean", "return_mean", _MEAN, "-"), ("best", "return_max", _BEST, ":")):
        if card.get(key) is not None and math.isfinite(card[key]):
            line = axes.axvline(card[key], color=colour, linestyle=dashes, linewidth=1.4, label=f"{name} return")
            explain(line, [f"{task}: {name} return {compact(card[key])}"])
    if targets:
        style.mark_targets(axes, targets)
    axes.yaxis.set_major_locator(MaxNLocator("auto", integer=True))
    axes.grid(axis="x", visible=False)
    style.thousands(axes.xaxis, axes.yaxis)


BINS = 40
STRIP = 8  # frames of the best episode


def write_card(dataset: TrajectoryDataset, name: str, directory: Path) -> list[Path]:
    """Write <name>.svg and <name>.png into the directory; equal data give equal bytes."""
    directory.mkdir(parents=True, exist_ok=True)
    stem = "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in name)
    with style.style():
        figure = _drawn(dataset, name)
        paths = []
        for kind, nothing in (
            ("svg", dict.fromkeys(("Date", "Creator", "Format", "Type"))),
            ("png", {"Software": None}),
        ):
            content = io.BytesIO()
            figure.savefig(content, format=kind, metadata=nothing, facecolor="white")
            path = directory / f"{stem}.{kind}"
            path.write_bytes(content.getvalue())
            paths.append(path)
    return paths


def _drawn(dataset: TrajectoryDataset, name: str) -> Figure:
    if dataset.frame_stack > 1 and dataset.observations.ndim == 3:
        figure = Figure(figsize=(7.2, 4.3))
        grid = figure.add_gridspec(2, 1, height_ratios=(1.3, 3.0))
        _draw_strip(dataset, figure.add_subfigure(grid[0]))
        left, right = figure.add_subfigure(grid[1]).subplots(1, 2)
    else:
        figure = Figure(figsize=(7.2, 3.0))
        left, right = figure.subplots(1, 2)
    source = dataset.info.get("source", "unknown")
    returns = dataset.returns
    left.stairs(*histogram(returns, BINS), fill=True, color="#0072B2")
    left.axvline(float(returns.mean()), color="#D55E00", label=f"mean {returns.mean():.4g}")
    left.axvline(float(returns.max()), color="#009E73", linestyle=":", label=f"best {returns.max():.4g}")
    clipped = ", rewards clipped" if "raw_rewards" in dataset.extras else ""
    left.set(xlabel=f"return of an episode{clipped}", ylabel="episodes", title=f"{dataset.num_episodes} episodes")
    left.legend(fontsize=8)
    lengths = dataset.lengths
    terminal = np.asarray(dataset.terminals)[dataset.offsets[1:] - 1]
    right.hist([lengths[terminal], lengths[~terminal]], bins=BINS, stacked=True, label=["ended", "cut off"])
    right.set(xlabel="steps of an episode", ylabel="episodes", title=f"{dataset.num_steps} steps")
    right.legend(fontsize=8)
    figure.suptitle(f"{name}, data: {source}")
    figure.supxlabel(f"sha256 {dataset.digest}", fontsize=6)
    return figure


def _draw_strip(dataset: TrajectoryDataset, figure: SubFigure) -> None:
    """Draw frames of the best episode, evenly spread over its steps."""
    best = int(dataset.returns.argmax())
    begin, end = dataset.offsets[best : best + 2]
    steps = np.linspace(begin, end, STRIP + 2)[1:-1].astype(int)
    for axes, step in zip(figure.subplots(1, STRIP), steps, strict=True):
        axes.imshow(dataset.observations[step], cmap="gray", vmin=0, vmax=255)
        axes.set_axis_off()
        axes.set_title(f"step {step - begin}", fontsize=6, fontweight="normal", loc="center")
