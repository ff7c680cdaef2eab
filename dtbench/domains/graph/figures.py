"""Figures of tasks on graphs: the paths that contenders walk, and histograms of steps to the goal."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch
from matplotlib.transforms import offset_copy

from dtbench.analysis.figures import style
from dtbench.analysis.figures.style import INK, WALKS, Drawing
from dtbench.analysis.figures.tooltips import draw_points
from dtbench.analysis.suite_analysis import SuiteAnalysis

Edge = tuple[int, int]
Places = Mapping[int, tuple[float, float]]
GOAL = 0  # as in dtbench/domains/graph/env.py
_KINDS = {"shortest": "a shortest path", "longer": "a longer path", "failed": "a path that never arrived"}
_DASHES = {"shortest": "-", "longer": "--", "failed": ":"}
_BENDS = {"shortest": 0.12, "longer": 0.24, "failed": 0.36}
_GOAL_COLOUR = "#E69F00"
_RING: dict[str, Any] = {"markersize": 10, "zorder": 4}
_FAILED = "#c8102e"
_SWEEPS = 6  # over the columns, to untangle edges
_SHRINK = 6.0  # points between an arrow and the middle of its nodes


def draw_graph_paths(
    analysis: SuiteAnalysis, task: str, edges: Sequence[Sequence[int]], episodes: Mapping[str, pd.DataFrame]
) -> Drawing | None:
    """Draw every contender's paths from every start at its last checkpoint; None where there is nothing to draw.

    `edges` are [from, to] each, as the record of a trial has them; `episodes` are a contender's episodes of all seeds
    with the columns step, start, shortest, length, reached and path ("3-7-12").
    """
    arcs = [(a, b) for a, b in edges]
    places = layout(arcs) if arcs else {}
    known = {name: rows[[_within(path, places) for path in rows["path"]]] for name, rows in episodes.items()}
    shown = {name: rows for name, rows in known.items() if len(rows)}
    if not shown:
        return None
    columns = min(3, len(shown))
    rows = math.ceil(len(shown) / columns)
    palette = style.colours(analysis.contenders, analysis.families)
    with style.figure(analysis.smoke, 0.5 + 3.3 * columns, 1.1 + 2.5 * rows) as sheet:
        grid = sheet.subplots(rows, columns, squeeze=False).flat
        for (name, walked), axes in zip(shown.items(), grid, strict=False):
            _draw_graph(axes, arcs, places)
            _draw_paths(axes, name, walked[walked["step"] == walked["step"].max()], palette[name], places)
            axes.set_title(style.wrapped(name, 36))
        for axes in sheet.axes:
            axes.set_axis_off()
        for kind, text in _KINDS.items():
            sheet.axes[0].plot([], [], color=INK, linestyle=_DASHES[kind], label=text)
        sheet.axes[0].plot([], [], color=WALKS, linewidth=1, label="edge")
        sheet.suptitle(style.wrapped(task, 28 * columns), fontweight="bold", fontsize=10)
        style.legend_below(sheet)
        return style.drawing(sheet, f"paths-{task}", _caption(task), _alt(task, shown), wide=columns > 1)


def draw_steps_to_goal(
    analysis: SuiteAnalysis,
    title: str,
    *,
    generated: Mapping[str, Mapping[str, int]],
    walks: Mapping[str, int],
    shortest: Mapping[str, int],
) -> Drawing | None:
    """Draw the paper's appendix histogram, a panel for each contender; counts are by steps, "inf" for never.

    `title` names the graph, or the graphs whose counts are added up.
    """
    if not generated:
        return None
    seen = {steps for counts in (walks, shortest, *generated.values()) for steps in counts if steps != "inf"}
    bins = [*map(str, range(min(map(int, seen), default=1), max(map(int, seen), default=1) + 1)), "inf"]
    palette, columns = style.colours(analysis.contenders, analysis.families), min(3, len(generated))
    rows = -(-len(generated) // columns)
    with style.figure(analysis.smoke, 2.2 + 2.5 * columns, 0.9 + 2.0 * rows) as sheet:
        grid = sheet.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        for axes, (name, counts) in zip(grid.flat, generated.items(), strict=False):
            series = ((walks, WALKS, "random walks"), (counts, palette[name], None), (shortest, INK, "shortest paths"))
            _draw_histogram(axes, bins, series)
            axes.set_title(style.wrapped(name, 26))
        for axes in grid.flat[len(generated) :]:
            axes.set_axis_off()
        for axes in grid[-1, : len(generated) - columns * (rows - 1)]:
            axes.set_xlabel("steps to goal (∞: never)")
        sheet.supylabel("paths (%)", fontsize=9)
        sheet.suptitle(style.wrapped(title, 28 * columns), fontweight="bold", fontsize=10)
        style.legend_below(sheet)
        caption = (
            f"{title}: steps to the goal, in per cent of the random walks in the data (grey), of the paths generated "
            "by each contender (coloured, all seeds together) and of the shortest paths from the start nodes (dark)."
        )
        return style.drawing(
            sheet,
            f"steps-{title.replace(' ', '-')}",
            caption,
            f"Histograms of steps to the goal on {title}, by contender.",
        )


def layout(edges: Sequence[Edge]) -> dict[int, tuple[float, float]]:
    """Return a place for every node: columns by steps to the goal, the goal on the right, unreachable nodes left.

    Within a column nodes stand in the order of their neighbours' mean height, so that edges cross less.
    """
    steps = steps_to_goal(edges)
    finite = [n for n in steps.values() if n is not None]
    never = max(finite) + 1
    columns: dict[int, list[int]] = {}
    for node, count in sorted(steps.items()):
        columns.setdefault(never if count is None else count, []).append(node)
    heights = {node: _height(place, len(column)) for column in columns.values() for place, node in enumerate(column)}
    for _ in range(_SWEEPS):
        for column in columns.values():
            column.sort(key=lambda node: (_mean_height(node, edges, heights), node))
            heights.update({node: _height(place, len(column)) for place, node in enumerate(column)})
    return {node: (float(-column), heights[node]) for column, nodes in columns.items() for node in nodes}


def steps_to_goal(edges: Sequence[Edge]) -> dict[int, int | None]:
    """Return the length of the shortest path from every node of an edge to GOAL; None where there is none."""
    steps: dict[int, int | None] = dict.fromkeys(sorted({node for edge in edges for node in edge} | {GOAL}))
    steps[GOAL], reached, count = 0, {GOAL}, 0
    while reached:
        count += 1
        reached = {a for a, b in edges if b in reached and steps[a] is None}
        steps.update(dict.fromkeys(reached, count))
    return steps


def kind_of(row: Mapping[Any, Any]) -> str:
    """Return whether an episode walked a shortest path, a longer one, or failed."""
    if not row["reached"]:
        return "failed"
    return "shortest" if row["length"] == row["shortest"] else "longer"


def _height(place: int, count: int) -> float:
    return (place + 0.5) / count


def _mean_height(node: int, edges: Sequence[Edge], heights: Mapping[int, float]) -> float:
    near = [heights[b if a == node else a] for a, b in edges if node in (a, b)]
    return round(float(np.mean(near)), 9) if near else 0.5


def _draw_graph(axes: Axes, edges: Sequence[Edge], places: Places) -> None:
    """Draw all edges in grey, all nodes with their numbers, the goal as a star."""
    for edge in edges:
        _draw_arrow(axes, edge, places, color=WALKS, linewidth=0.7, bend=0.12, zorder=1)
    goal = places[GOAL]
    axes.plot(*goal, "*", color=_GOAL_COLOUR, markersize=17, markeredgecolor=INK, markeredgewidth=0.6, zorder=4)
    for node, (x, y) in places.items():
        if node != GOAL:
            axes.plot(x, y, "o", color="white", markersize=10, markeredgecolor=WALKS, markeredgewidth=0.8, zorder=3)
        axes.text(x, y, str(node), ha="center", va="center", fontsize=6, color="#1b1f25", zorder=6)
    wide, high = ([place[axis] for place in places.values()] for axis in (0, 1))
    axes.set(xlim=(min(wide) - 0.5, max(wide) + 0.5), ylim=(min(high) - 0.08, max(high) + 0.08))


def _draw_paths(axes: Axes, name: str, rows: pd.DataFrame, colour: str, places: Places) -> None:
    """Draw arrows, the wider the more often walked, and a ring around every start, full where all are shortest."""
    kinds = [kind_of(row) for row in rows.to_dict("records")]
    walked = [_arcs(path) for path in rows["path"]]
    for kind in _KINDS:
        counts = Counter(arc for arcs, own in zip(walked, kinds, strict=True) if own == kind for arc in arcs)
        for arc, count in sorted(counts.items()):
            width = 0.9 + 1.6 * min(1.0, count / len(rows) * 4)
            look: dict[str, Any] = {"color": colour, "linewidth": width, "linestyle": _DASHES[kind], "zorder": 2}
            _draw_arrow(axes, arc, places, bend=_BENDS[kind], **look)
    _draw_starts(axes, name, rows.assign(kind=kinds), colour, places)


def _draw_starts(axes: Axes, name: str, rows: pd.DataFrame, colour: str, places: Places) -> None:
    """Draw a ring around every start, full where all of its paths are shortest, a cross beside it where one failed."""
    starts = sorted(set(rows["start"]))
    labels = []
    for node in starts:
        own = rows[rows["start"] == node]
        x, y = places[node]
        axes.plot(x, y, "o", color=colour if set(own["kind"]) == {"shortest"} else "white", alpha=0.45, **_RING)
        if "failed" in set(own["kind"]):
            beside = offset_copy(axes.transData, axes.get_figure(root=True), x=6, y=6, units="points")
            axes.plot(x, y, "x", color=_FAILED, markersize=5, mew=1.6, transform=beside, zorder=7)
        labels.append(_sentence(name, node, own))
    across, up = zip(*(places[node] for node in starts), strict=True)
    look = {**_RING, "marker": "o", "color": "none", "markeredgecolor": colour, "mew": 1.3, "zorder": 5}
    draw_points(axes, across, up, labels, **look)


def _within(path: str, places: Places) -> bool:
    """Return whether all nodes of a path are nodes of the graph."""
    return all(int(node) in places for node in path.split("-"))


def _arcs(path: str) -> set[Edge]:
    """Return the edges of a path; where the walker stood still there is none."""
    nodes = [int(node) for node in path.split("-")]
    return {(a, b) for a, b in pairwise(nodes) if a != b}


def _draw_arrow(axes: Axes, edge: Edge, places: Places, *, bend: float, **look: Any) -> None:
    curve = f"arc3,rad={bend}"
    ends: dict[str, Any] = {"shrinkA": _SHRINK, "shrinkB": _SHRINK, "mutation_scale": 6, "arrowstyle": "->"}
    axes.add_patch(FancyArrowPatch(places[edge[0]], places[edge[1]], connectionstyle=curve, **ends, **look))


def _sentence(name: str, node: int, rows: pd.DataFrame) -> str:
    counts = Counter(rows["kind"])
    outcomes = ", ".join(f"{counts[kind]} {text}" for kind, text in _KINDS.items() if counts[kind])
    paths = "; ".join(f"{path} ({n})" if n > 1 else path for path, n in sorted(Counter(rows["path"]).items()))
    best = int(rows["shortest"].iloc[0])
    plural = "s" if best != 1 else ""
    return f"{name} from node {node}, {best} step{plural} at best, {len(rows)} walked: {outcomes}: {paths}"


def _caption(task: str) -> str:
    return (
        f"{task}: the paths from every start at the last checkpoint, all seeds, on the graph's edges (grey). The star "
        "is the goal; columns are steps to it, the leftmost those nodes that never reach it where there are any. "
        "Solid: on a shortest path; dashed: on a longer one; dotted: on one that never arrived; the wider, the more "
        "often. Filled starts: shortest each time; crosses: some time never arrived."
    )


def _alt(task: str, shown: Mapping[str, pd.DataFrame]) -> str:
    parts = []
    for name, rows in shown.items():
        last = rows[rows["step"] == rows["step"].max()]
        counts = Counter(kind_of(row) for row in last.to_dict("records"))
        parts.append(f"{name}: {counts['shortest']} shortest, {counts['longer']} longer, {counts['failed']} failed")
    return f"Paths walked on {task}, of each contender: {'; '.join(parts)}."


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
