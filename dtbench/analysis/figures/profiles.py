"""What lies behind a mean over tasks: performance profiles, and the chance that one contender beats another."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from dtbench.analysis import statistics
from dtbench.analysis.figures import style
from dtbench.analysis.figures.style import INK, Drawing
from dtbench.analysis.figures.tooltips import compact, draw_points, sentence
from dtbench.analysis.statistics import Array
from dtbench.analysis.suite_analysis import SuiteAnalysis

Matrices = Mapping[str, Array]  # by contender, seeds x tasks, nan where a trial is missing

_THRESHOLDS, _MARKED = 121, 12  # of a profile's curve: where it is drawn, and every how many there is a marker


def draw_profiles(analysis: SuiteAnalysis, matrices: Matrices, *, tasks: Sequence[str] = ()) -> Drawing | None:
    """Draw the share of runs above each score, by contender; None where no contender ran on every task."""
    ran = {name: scores for name, scores in matrices.items() if statistics.complete(scores)}
    if not ran:
        return None
    everything = np.concatenate([scores.ravel() for scores in ran.values()])
    low, high = float(np.nanmin(everything)), float(np.nanmax(everything))
    margin = 0.04 * (high - low) or 1.0
    thresholds = np.linspace(low - margin, high + margin, _THRESHOLDS)
    with style.figure(analysis.smoke, 6.4, 4.0) as sheet:
        axes = sheet.subplots()
        for index, (name, scores) in enumerate(ran.items()):
            _draw_profile(axes, analysis, name, statistics.performance_profile(scores, thresholds), index)
        score = _score(analysis, tasks)
        axes.set(
            xlabel=f"{style.wrapped(score, 60)}, threshold", ylabel="runs above the threshold (%)", ylim=(-2, 104)
        )
        style.thousands(axes.xaxis)
        style.legend_below(sheet, first=analysis.contenders)
        caption = (
            "Performance profiles (Agarwal et al., 2021): the share of runs that score more than a threshold, "
            f"averaged over {_number_of_tasks(ran)}; bands: pointwise 95 % intervals, seeds redrawn within each task."
            f"{_left_out(matrices, ran)}"
        )
        alt = f"Share of runs above each score for {len(ran)} contenders."
        return style.drawing(sheet, "profiles", caption, alt)


def draw_improvement(
    analysis: SuiteAnalysis, matrices: Matrices, first: str, *, tasks: Sequence[str] = ()
) -> Drawing | None:
    """Draw the chance that a run of `first` beats one of each rival; None where no pair ran on every task."""
    ran = {name: scores for name, scores in matrices.items() if statistics.complete(scores)}
    rivals = [name for name in ran if name != first]
    if first not in ran or not rivals:
        return None
    palette, shapes = style.colours(analysis.contenders, analysis.families), style.markers(analysis.contenders)
    with style.figure(analysis.smoke, 6.4, 1.1 + 0.36 * len(rivals)) as sheet:
        axes = sheet.subplots()
        axes.axvline(0.5, color=INK, linestyle="--", linewidth=1)
        for index, rival in enumerate(rivals):
            chance = float(statistics.probability_of_improvement(ran[first], ran[rival]))
            interval = statistics.bootstrap_interval(statistics.probability_of_improvement, ran[first], ran[rival])
            look: dict[str, Any] = {"color": palette[rival], "marker": shapes[rival], "markersize": 8}
            if interval:
                axes.plot([interval.low, interval.high], [index, index], color=palette[rival], linewidth=3, alpha=0.7)
            subject = f"Chance that a run of {first} scores more than one of {rival}"
            draw_points(axes, [chance], [index], [sentence(subject, chance, interval)], **look)
        axes.set_yticks(range(len(rivals)), [f"over {style.shortened(rival, 26)}" for rival in rivals])
        axes.set(xlim=(-0.02, 1.02), ylim=(len(rivals) - 0.5, -0.5))
        axes.set_xlabel(f"chance that a run of {style.shortened(first, 26)} scores more")
        axes.grid(axis="y", visible=False)
        scope = f" ({_score(analysis, tasks)})" if tasks else ""
        caption = (
            f"Probability of improvement (Agarwal et al., 2021) of {first}: the chance that one of its runs scores "
            f"more than a rival's on the same task, ties counting half, averaged over {_number_of_tasks(ran)}"
            f"{scope}; lines: 95 % intervals, seeds redrawn within each task; dashed: no difference."
            f"{_left_out(matrices, ran)}"
        )
        alt = f"Chance that {first} beats each of {len(rivals)} rivals, with intervals."
        return style.drawing(sheet, "improvement", caption, alt)


def _draw_profile(axes: Axes, analysis: SuiteAnalysis, name: str, profile: statistics.Profile, index: int) -> None:
    look: dict[str, Any] = {
        "color": style.colours(analysis.contenders, analysis.families)[name],
        "zorder": 3 - 0.01 * index,
    }
    look["marker"] = style.markers(analysis.contenders)[name]
    share = 100 * profile.share
    if profile.band is not None:
        low, high = (100 * end for end in profile.band)
        axes.fill_between(profile.thresholds, low, high, step="post", color=look["color"], alpha=0.15, lw=0)
    axes.plot(profile.thresholds, share, drawstyle="steps-post", label=style.legend_name(name), markevery=[], **look)
    shown = range(index % _MARKED, len(share), _MARKED)
    labels = [_profile_label(name, profile, at) for at in shown]
    draw_points(axes, profile.thresholds[list(shown)], share[list(shown)], labels, **look)


def _profile_label(name: str, profile: statistics.Profile, at: int) -> str:
    text = f"{name}: {compact(100 * profile.share[at])} % of runs score more than {compact(profile.thresholds[at])}"
    if profile.band is None:
        return text
    low, high = (compact(100 * end[at]) for end in profile.band)
    return f"{text} [{low}, {high}], 95 %"


def _number_of_tasks(ran: Matrices) -> str:
    count = next(iter(ran.values())).shape[1]
    return f"{count} tasks" if count > 1 else "one task"


def _score(analysis: SuiteAnalysis, tasks: Sequence[str]) -> str:
    return analysis.shared_score(tasks or list(analysis.score_names)) or "score"


def _left_out(matrices: Matrices, ran: Matrices) -> str:
    missing = [name for name in matrices if name not in ran]
    return f" Left out, because some task has no run: {', '.join(missing)}." if missing else ""
