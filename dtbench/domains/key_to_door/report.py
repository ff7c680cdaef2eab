"""The report section of Key-to-Door: what a critic expects and what it looks at, Chen et al. (2021), Figure 5.

Drawn from what credit.py recorded of a trial.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from dtbench.analysis.figures import style
from dtbench.analysis.figures.style import INK, WALKS, Drawing
from dtbench.analysis.figures.tooltips import compact, draw_points, explain
from dtbench.analysis.page.section import SEVERAL, Section
from dtbench.analysis.suite_analysis import SuiteAnalysis

Inspection = Mapping[str, Any]
_LOOKS = {"no key": ("#8a8f98", "s"), "key, no door": ("#D55E00", "^"), "door": ("#0072B2", "o")}
_LABELS = {
    "no key": "did not pick up the key",
    "key, no door": "picked up the key, did not reach the door",
    "door": "reached the door with the key",
}
_ROOMS = ("key room", "empty room", "door room")
_EVENTS = {"key": "the step that takes the key", "door": "the step that reaches the door", "other": "any other step"}
_MOMENTS = {"empty_room": "predictions in the empty room", "last": "prediction of the last step"}
_BARS = {
    0.0: ("empty_room", "key"),
    1.0: ("empty_room", "other"),
    2.6: ("last", "key"),
    3.6: ("last", "door"),
    4.6: ("last", "other"),
}
_LAST = "#0072B2"


TEXT = (
    "The pair of figures that the paper's Figure 5 shows: a transformer that also predicts returns is shown random "
    "walks that it never learned from. Its running prediction is the probability of success; attention is what the "
    "last prediction of an episode looks back at."
)


def sections(analysis: SuiteAnalysis) -> Iterator[Section]:
    """Yield the section, where a trial of the suite was inspected."""
    pairs: list[tuple[Drawing, ...]] = []
    for task in analysis.tasks:
        own = [record.inspection() for record in analysis.results.records if record.spec.task == task]
        found = [inspection for inspection in own if inspection]
        both = draw_return_predictions(analysis, task, found), draw_attention(analysis, task, found)
        pairs.append(tuple(one for one in both if one))
    if shown := [pair for pair in pairs if pair]:
        first, *others = shown if len(shown) >= SEVERAL else [tuple(chain(*shown))]
        yield Section("Who sees the reward coming", (TEXT,), drawings=first, more=tuple(chain(*others)))


def draw_return_predictions(analysis: SuiteAnalysis, task: str, inspections: Sequence[Inspection]) -> Drawing | None:
    """Draw the predicted probability of success over an episode, by outcome; None where no trial was inspected."""
    found = _inspected(inspections)
    if not found:
        return None
    with style.figure(analysis.smoke, 6.4, 4.6) as sheet:
        axes = sheet.subplots()
        for index, name in enumerate(_LABELS):
            own = [inspection["predictions"][index] for inspection in found]
            if own[0]["mean"]:
                _draw_outcome(axes, name, own)
        axes.plot([], [], color=INK, linestyle=":", linewidth=1.2, label="exact probability given the true state")
        _draw_rooms(axes, found[0]["phases"])
        axes.set(xlabel="step of the episode", ylabel="predicted probability of success", ylim=(0, None))
        axes.set_title(style.wrapped(analysis.title(task), 60), pad=16)
        style.legend_below(sheet, columns=2)
        return style.drawing(
            sheet, f"returns-{task}", _predictions_caption(task, found), _predictions_alt(task, found)
        )


def draw_attention(analysis: SuiteAnalysis, task: str, inspections: Sequence[Inspection]) -> Drawing | None:
    """Draw attention over one successful episode, and over all of them by event; None where no trial recorded it.

    The episode is the first successful one that the first trial was shown.
    """
    found = [inspection for inspection in _inspected(inspections) if inspection.get("episode")]
    if not found:
        return None
    with style.figure(analysis.smoke, 7.4, 3.9) as sheet:
        left, right = sheet.subplots(1, 2, width_ratios=(2.1, 1))
        _draw_episode(left, found[0]["episode"], found[0]["phases"])
        _draw_events(right, [inspection["attention"] for inspection in found])
        sheet.suptitle(style.wrapped(analysis.title(task), 70), fontweight="bold", fontsize=10, x=0.01, ha="left")
        style.legend_below(sheet, columns=3)
        return style.drawing(sheet, f"attention-{task}", _attention_caption(task, found), _attention_alt(task, found))


def _inspected(inspections: Sequence[Inspection]) -> list[Inspection]:
    return [inspection for inspection in inspections if inspection.get("kind") == "credit"]


def _draw_outcome(axes: Axes, name: str, seeds: Sequence[Mapping[str, Any]]) -> None:
    """Draw means over seeds as a line, a band around all seeds' intervals, the exact probability dotted."""
    colour, marker = _LOOKS[name]
    mean, low, high = (_rows(seeds, key) for key in ("mean", "low", "high"))
    steps = np.arange(mean.shape[1])
    axes.fill_between(steps, low.min(axis=0), high.max(axis=0), color=colour, alpha=0.18, lw=0)
    axes.plot(steps, seeds[0]["exact"][: len(steps)], color=colour, linestyle=":", linewidth=1.2)
    average = mean.mean(axis=0)
    axes.plot(steps, average, color=colour, marker=marker, markevery=5, markersize=4, label=_LABELS[name])
    labels = [
        f"{_LABELS[name]}, step {step}: {compact(average[step])}, from {compact(low[:, step].min())} to "
        f"{compact(high[:, step].max())}; exactly {compact(seeds[0]['exact'][step])}; "
        f"n = {len(seeds)} seed{'s' if len(seeds) > 1 else ''} x {seeds[0]['steps'][step]} episodes"
        for step in steps
    ]
    draw_points(axes, steps, average, labels, marker=marker, color=colour, markersize=1.6)


def _rows(seeds: Sequence[Mapping[str, Any]], key: str) -> NDArray[np.float64]:
    """Return one row a seed, up to the step that all of them have."""
    length = min(len(seed[key]) for seed in seeds)
    return np.array([seed[key][:length] for seed in seeds])


def _draw_rooms(axes: Axes, phases: Sequence[int], *, last: int | None = None) -> None:
    """Draw the middle room as a band, and the names of all three above the axes."""
    ends = np.cumsum(phases)
    begins = ends - phases
    stop = ends[-1] if last is None else min(last + 1, ends[-1])
    axes.axvspan(begins[1] - 0.5, ends[1] - 0.5, color=WALKS, alpha=0.3, lw=0, zorder=0)
    for name, begin, end in zip(_ROOMS, begins, np.minimum(ends, stop), strict=True):
        middle = (begin + end - 1) / 2
        axes.text(middle, 1.01, name, transform=axes.get_xaxis_transform(), ha="center", va="bottom", fontsize=8)
    axes.set_xlim(-0.5, stop - 0.5)
    axes.grid(axis="x", visible=False)


def _draw_episode(axes: Axes, episode: Mapping[str, Any], phases: Sequence[int]) -> None:
    """Draw the last prediction's attention in front of that of all earlier ones."""
    for row in episode["superimposed"][1:-1]:
        axes.plot(range(len(row)), row, color="#8a8f98", linewidth=0.6, alpha=0.45)
    axes.plot([], [], color="#8a8f98", linewidth=0.8, label="predictions of earlier steps")
    steps, weights = np.arange(episode["length"]), np.array(episode["attention"])
    axes.plot(steps, weights, color=_LAST, zorder=3, label="prediction of the last step")
    labels = [f"attention of the last step's prediction to step {s}: {compact(w)}" for s, w in enumerate(weights)]
    draw_points(axes, steps, weights, labels, marker="o", color=_LAST, markersize=2.2, zorder=4)
    axes.axhline(1 / len(steps), color=INK, linestyle="--", linewidth=0.9, label="even attention")
    highest = max(max(row[1:], default=0.0) for row in [weights, *episode["superimposed"][2:]])
    axes.set_ylim(0, 1.22 * highest)
    for step, text in ((episode["key_step"], "key"), (episode["door_step"], "door")):
        axes.axvline(step, color=INK, linewidth=0.8, zorder=1)
        axes.text(step - 0.4, 1.2 * highest, text, ha="right", va="top", fontsize=8)
    _draw_rooms(axes, phases, last=int(steps[-1]))
    axes.set(xlabel="step that is looked at", ylabel="attention, mean over heads and layers")


def _draw_events(axes: Axes, seeds: Sequence[Mapping[str, Any]]) -> None:
    """Draw mean attention at the key, at the door and elsewhere: bars over seeds, dots for each."""
    for index, (moment, event) in _BARS.items():
        values = [seed[moment][event] for seed in seeds]
        mean, even = (float(np.mean([seed[moment][name] for seed in seeds])) for name in (event, "uniform"))
        (bar,) = axes.bar([index], [mean], 0.7, color=WALKS if event == "other" else _LAST, alpha=0.75)
        each = ", ".join(map(compact, values))
        explain(bar, [f"{_MOMENTS[moment]}, attention to {_EVENTS[event]}: {compact(mean)}; seeds: {each}"])
        axes.plot([index] * len(values), values, "o", color=INK, markersize=3)
        axes.plot([index - 0.45, index + 0.45], [even, even], color=INK, linestyle="--", linewidth=0.9)
    axes.set_xticks(list(_BARS), [event for _, event in _BARS.values()], fontsize=8)
    for moment, text in _MOMENTS.items():
        middle = float(np.mean([index for index, (own, _) in _BARS.items() if own == moment]))
        look: dict[str, Any] = {"ha": "center", "va": "top", "fontsize": 8, "linespacing": 1.1}
        axes.text(middle, -0.12, text.replace(" ", "\n", 1), transform=axes.get_xaxis_transform(), **look)
    axes.set_title("all successful episodes", fontsize=8, fontweight="normal", pad=4)
    axes.grid(axis="x", visible=False)


def _seeds(found: Sequence[Inspection]) -> str:
    return f"{len(found)} training seed{'s' if len(found) > 1 else ''}"


def _predictions_caption(task: str, found: Sequence[Inspection]) -> str:
    held_out = found[0]["held_out"]
    counts = ", ".join(f"{_LABELS[own['outcome']]} {own['episodes']}" for own in found[0]["predictions"])
    return (
        f"{task}: what the critic expects at each step of {held_out['walks']} random walks that it did not learn "
        f"from, by what came of them ({counts}). Lines: means over {_seeds(found)}; bands: from the lowest to the "
        "highest of the seeds' 95 % intervals over episodes; dotted: the exact probability for one who knows where "
        "player and key are. A line ends where fewer than ten episodes last."
    )


def _predictions_alt(task: str, found: Sequence[Inspection]) -> str:
    empty = int(found[0]["phases"][0])
    means = []
    for index, own in enumerate(found[0]["predictions"]):
        if len(own["mean"]) > empty:
            seeds = [inspection["predictions"][index]["mean"][empty] for inspection in found]
            means.append(f"{_LABELS[own['outcome']]}: {compact(float(np.mean(seeds)))}")
    begin = f"Predicted probability of success over an episode of {task}; in the empty room's first step "
    return begin + "; ".join(means) + "."


def _attention_caption(task: str, found: Sequence[Inspection]) -> str:
    number, walks = found[0]["episode"]["number"], found[0]["held_out"]["walks"]
    return (
        f"{task}: what the predicted return attends to. Left: the first successful one of {walks} held-out random "
        f"walks (number {number}), first training seed; observation and action of a step together, mean over heads "
        f"and layers. Right: mean attention over all {found[0]['attention']['episodes']} "
        f"successful walks; bars: means over {_seeds(found)}; dots: seeds; dashed: even attention."
    )


def _attention_alt(task: str, found: Sequence[Inspection]) -> str:
    texts = []
    for moment, event in _BARS.values():
        mean = float(np.mean([inspection["attention"][moment][event] for inspection in found]))
        texts.append(f"{_MOMENTS[moment]}, to {_EVENTS[event]}: {compact(mean)}")
    return f"Attention over a successful episode of {task}; over all of them on average {'; '.join(texts)}."
