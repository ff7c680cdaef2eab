"""Our scores over published ones, task by task."""

from dtbench.analysis.figures import style
from dtbench.analysis.figures.style import INK, Drawing
from dtbench.analysis.figures.tooltips import compact, draw_points
from dtbench.analysis.published import PublishedTable
from dtbench.analysis.rank_agreement import FEWEST, ranked_pairs
from dtbench.analysis.suite_analysis import SuiteAnalysis


def draw_rank_agreement(analysis: SuiteAnalysis) -> Drawing | None:
    """Draw ours over the published scores of the table with the most cells; None where none has enough."""
    found = [(table, ranked_pairs(table, analysis.inputs)) for table in analysis.published if table.value == "score"]
    table, pairs = max(found, key=lambda one: len(one[1]), default=(None, []))
    if not isinstance(table, PublishedTable) or len(pairs) < FEWEST:
        return None
    palette, shapes = style.colours(analysis.contenders, analysis.families), style.markers(analysis.contenders)
    numbers = [number for pair in pairs for number in (pair.ours, pair.theirs)]
    low, high = min(numbers), max(numbers)
    room = 0.04 * (high - low) or 1.0
    with style.figure(analysis.smoke, 6.4, 5.2) as sheet:
        axes = sheet.subplots()
        axes.axline((low, low), (low + 1, low + 1), color=INK, linestyle="--", linewidth=1)
        axes.set(xlim=(low - room, high + room), ylim=(low - room, high + room), ylabel="ours")
        axes.set_xlabel(style.wrapped(f"published: {table.title}", 60))
        for name in dict.fromkeys(pair.contender for pair in pairs):
            own = [pair for pair in pairs if pair.contender == name]
            labels = [
                f"{name} on {pair.task}: ours {compact(pair.ours)}, published {compact(pair.theirs)}" for pair in own
            ]
            x, y = [pair.theirs for pair in own], [pair.ours for pair in own]
            draw_points(axes, x, y, labels, color=palette[name], marker=shapes[name], label=style.legend_name(name))
        style.legend_below(sheet, first=analysis.contenders)
        caption = f"Ours beside {table.title}, a point for each task and contender; on the dashed line both are equal."
        return style.drawing(sheet, "rank-agreement", caption, f"Our scores over published ones, {len(pairs)} cells.")
