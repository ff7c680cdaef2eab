"""Differences with their intervals, task by task: the answer to the page's question in one picture."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes

from dtbench.analysis.answer import LATE, Comparison, learner_of
from dtbench.analysis.figures import style
from dtbench.analysis.figures.style import INK, WALKS, Drawing
from dtbench.analysis.figures.tooltips import compact, draw_points
from dtbench.analysis.statistics import MARGIN

LOOKS: dict[str, dict[str, Any]] = {  # by verdict: decided ones are filled
    "better": {"color": "#0072B2", "marker": "o"},
    "match": {"color": "#5A5A66", "marker": "s"},
    "worse": {"color": "#D55E00", "marker": "D"},
    "undecided": {"color": WALKS, "marker": "o", "markerfacecolor": "none", "markeredgecolor": "#6b737d"},
    LATE: {"color": WALKS, "marker": "X", "markerfacecolor": "none", "markeredgecolor": "#6b737d"},
}
_ROW, _WIDTH, _LABEL = 0.225, 4.3, 31  # inches, inches, characters of a task's name
_LEAST, _MOST = 15.0, 60.0  # points either side of 0 between which the axis ends


def draw_forest(found: Sequence[Comparison], family: str) -> Drawing | None:
    """Draw Decision Transformer less the best of a family on tasks scored in points; None where there are none."""
    shown = [one for one in found if not one.raw]
    if not shown:
        return None
    reach = min(_MOST, max(_LEAST, 1.25 * max(abs(one.difference.mean) for one in shown)))
    smoke = all(one.analysis.smoke for one in shown)
    with style.figure(smoke, _WIDTH, 1.15 + _ROW * len(shown)) as sheet:
        axes = sheet.subplots()
        axes.axvspan(-MARGIN, MARGIN, color=WALKS, alpha=0.25, lw=0, zorder=0)
        axes.axvline(0, color=INK, linewidth=0.8)
        for word, look in LOOKS.items():
            own = [(row, one) for row, one in enumerate(shown) if one.word == word]
            if own:
                _draw_rows(axes, own, reach, word, look)
        _label(axes, shown, reach, family)
        style.legend_below(sheet, columns=3)
        caption = (
            f"Decision Transformer less the best {learner_of(family)} of each task, in points of the task's "
            f"score, with 95 % intervals. Grey: differences below {MARGIN:g} points. Filled: decided. Arrows: the "
            "interval goes on."
        )
        alt = f"{caption.partition(',')[0]} on {len(shown)} tasks: {_counted(shown)}."
        return style.drawing(sheet, f"answer-{family}", caption, alt, tight=True)


def _draw_rows(
    axes: Axes, own: Sequence[tuple[int, Comparison]], reach: float, word: str, look: dict[str, Any]
) -> None:
    line = look.get("markeredgecolor", look["color"])
    for row, one in own:
        ends = one.difference.interval
        if ends and abs(one.difference.mean) < reach:
            low, high = max(-reach, ends.low), min(reach, ends.high)
            axes.plot([low, high], [row, row], color=line, linewidth=1.3, zorder=2)
            beyond = {"<": ends.low < -reach, ">": ends.high > reach}
            for marker in (marker for marker, there in beyond.items() if there):
                at = reach if marker == ">" else -reach
                axes.plot([at], [row], marker, color=line, markersize=5, clip_on=False, zorder=3)
    means = [min(reach, max(-reach, one.difference.mean)) for _, one in own]
    labels = [_sentence(one) for _, one in own]
    draw_points(
        axes, means, [row for row, _ in own], labels, label=word, markersize=6, zorder=4, clip_on=False, **look
    )


def _label(axes: Axes, shown: Sequence[Comparison], reach: float, family: str) -> None:
    names = [style.shortened(one.task.removesuffix("-v2"), _LABEL) for one in shown]
    axes.set_yticks(range(len(shown)), names, fontsize=7.5)
    axes.set(xlim=(-1.03 * reach, 1.03 * reach), ylim=(len(shown) - 0.4, -0.6))
    axes.set_xlabel("worse \N{LEFTWARDS ARROW}  difference in points  \N{RIGHTWARDS ARROW} better", fontsize=8)
    axes.set_title(f"DT \N{MINUS SIGN} best {learner_of(family)}", fontsize=9)
    axes.grid(axis="y", visible=False)
    for row, one in enumerate(shown):
        rival = style.shortened(one.names[1], 14)
        axes.text(1.02, row, rival, transform=axes.get_yaxis_transform(), fontsize=7, va="center")


def _sentence(one: Comparison) -> str:
    ends = one.difference.interval
    interval = f" [{compact(ends.low)}, {compact(ends.high)}], 95 %" if ends else ""
    why = f" ({one.verdict.why})" if one.verdict.why else ""
    ours, theirs = one.names
    return (
        f"{one.task}: {ours} less {theirs}: {compact(one.difference.mean)}{interval}; {one.seeds[0]} and "
        f"{one.seeds[1]} seeds. {one.word.capitalize()}{why}."
    )


def _counted(shown: Sequence[Comparison]) -> str:
    words = [one.word for one in shown]
    return ", ".join(f"{words.count(word)} {word}" for word in LOOKS if word in words)
