"""The page on speed, from what lies in results/performance: tables of ratios, of memory, of curves, and their figure.

    python tools/docs_speed.py

writes docs/scale.svg anew, which `make bench` does after it has measured; tables are made when the pages are built.
"""

import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results" / "performance"
FIGURE = ROOT / "docs" / "scale.svg"
STYLE = ROOT / "dtbench" / "analysis" / "figures" / "dtbench.mplstyle"
NOT_MEASURED = "*Not measured yet: `make bench` does.*"
NAMES = {
    "training_step": "Training step",
    "td_update": "TD learners and draws",
    "rollout": "Rollout",
    "key_to_door": "A whole suite",
    "gpu": "On a GPU",
}
AXES = {
    "episodes": "episodes of an evaluation",
    "targets": "target returns of an evaluation",
    "context": "steps of a window",
    "dataset": "transitions of the dataset",
    "trials": "finished trials",
}
WHY = {  # of an exponent that is not about 1; what the curve's own numbers must bear out
    "open": "the file is mapped, not read; what grows are the index of transitions and two numbers a step",
    "transitions": "a draw reads 256 rows, however many there are; beyond the caches they come from memory",
    "windows": "likewise, and the search for an episode's end grows with the logarithm of their number",
    "step": "linear maps grow with the window, attention with its square",
    "evaluation": "games play in lock step: a step of few games costs hardly less than one of many",
    "report": "most of it is drawing figures, whose number depends on tasks and contenders",
    "archive": "four files are written whatever is in them",
}


def ratios() -> str:
    """Every measured ratio: what, against whom, both times, how many times faster with its spread, the goal."""
    rows = [
        (NAMES.get(name, name), row["what"].replace("--", ""), _against(row["peer"]), *_numbers(row))
        for name, result in results().items()
        for row in result.get("ratios", ())
    ]
    head = ("", "what", "against", "ours, ms", "theirs, ms", "times faster", "least to most", "goal")
    return _table(head, rows) if rows else NOT_MEASURED


def _against(peer: str) -> str:
    """A contestant's name without the task it stands before: "hopper: transformers", but "d3rlpy: CQL"."""
    before, _, name = peer.partition(": ")
    return name if name and before != "d3rlpy" else before


def memory() -> str:
    """Peaks of resident memory and their goals."""
    rows = [
        (figure["what"], f"{figure['value']:.2f} {figure['unit']}", f"< {figure['goal']:g}")
        for result in results().values()
        for figure in result.get("figures", ())
    ]
    return _table(("what", "measured", "goal"), rows) if rows else NOT_MEASURED


def scale() -> str:
    """Every curve: its ends, its exponents, and why where it is not proportional."""
    rows = [_curve(curve) for curve in _curves()]
    head = ("grows", "work", "seconds", "memory, MB", "exponent", "at the end", "why")
    return _table(head, rows) if rows else NOT_MEASURED


def figure() -> str:
    """The figure of all curves."""
    return f"![Seconds and memory over what grows]({FIGURE.name})" if FIGURE.exists() else NOT_MEASURED


def machine() -> str:
    """What it was measured on."""
    found = {
        f"{result['machine']['cpu_count']} cores of {result['machine']['processor']}, "
        f"Python {result['versions']['python']}, torch {result['versions']['torch']}"
        for result in results().values()
    }
    return f"Measured on {'; '.join(sorted(found))}." if found else NOT_MEASURED


def sweep() -> str:
    """What Ray adds to trials, in a sentence."""
    result = results().get("sweep_overhead")
    if result is None:
        return NOT_MEASURED
    seconds = result["overhead_seconds"]["a_further_trial_of_its_worker"]
    trials, cores = result["sizes"]["trials"], result["sizes"]["cores"]
    return (
        f"With Ray, {trials} trials on {cores} cores took {result['ratio_to_processes_at_once']:.3f} times as long as "
        f"in {cores} plain processes at once, and {result['ratio_to_alone']:.3f} times their time one after another "
        f"divided by {cores}, Ray's start of {result['seconds']['ray_start']:.1f} s taken off; each further trial "
        f"costs its worker {seconds:.2f} s."
    )


def streaming() -> str:
    """Returns of exact and of streaming games, row by row."""
    result = results().get("streaming")
    if result is None:
        return "*Not measured yet: `python benchmarks/streaming_agreement.py` does.*"
    rows = [
        (
            f"{row['task']}, {row['case']}",
            "its own" if row["target"] is None else f"{row['target']:g}",
            f"{row['context']} of {row['longest_episode']}",
            f"{row['exact']:.4g} ({row['interval'][0]:.4g} to {row['interval'][1]:.4g})",
            f"{row['streaming']:.4g}",
            f"{row['difference_interval'][0]:.3g} to {row['difference_interval'][1]:.3g}",
            "yes" if row["agree"] else "no",
        )
        for row in result["rows"]
    ]
    head = ("task", "target", "context of longest", "exact (95 %)", "streaming", "difference (95 %)", "agree")
    return _table(head, rows)


GENERATED = {
    "speed-ratios": ratios,
    "speed-memory": memory,
    "speed-scale": scale,
    "speed-figure": figure,
    "speed-sweep": sweep,
    "speed-machine": machine,
    "speed-streaming": streaming,
}


def results() -> dict[str, Any]:
    """What was measured, by name."""
    found = {path.stem: json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))}
    return {name: found[name] for name in sorted(found, key=lambda name: [*NAMES, *found].index(name))}


def draw(curves: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Seconds of every kind of work, and memory, over what grows: one panel each, both axes logarithmic."""
    import matplotlib.pyplot as plt

    axes = [axis for axis in AXES if any(curve["axis"] == axis for curve in curves)]
    with plt.style.context(STYLE):
        figure, panels = plt.subplots(2, len(axes), figsize=(3.1 * len(axes), 5.4), sharex="col", squeeze=False)
        for column, axis in enumerate(axes):
            of_axis = [curve for curve in curves if curve["axis"] == axis]
            _fill(panels[0][column], panels[1][column], of_axis)
            panels[1][column].set_xlabel(AXES[axis])
        panels[0][0].set_ylabel("seconds")
        panels[1][0].set_ylabel("memory, MB")
        figure.savefig(path, format="svg", metadata={"Date": None})
        plt.close(figure)


def _fill(seconds: Any, memory: Any, curves: Sequence[Mapping[str, Any]]) -> None:
    from matplotlib.ticker import FuncFormatter, NullFormatter

    for curve in curves:
        sizes = [point["size"] for point in curve["points"]]
        seconds.plot(sizes, [point["seconds"] for point in curve["points"]], marker="o", label=curve["work"])
    first = curves[0]["points"]
    sizes = [point["size"] for point in first]
    memory.plot(sizes, [max(point["megabytes"], 0.1) for point in first], marker="o", color="0.4")
    # What is proportional runs along this line, whatever the units.
    top = max(point["seconds"] for curve in curves for point in curve["points"])
    seconds.plot(sizes, [top * size / sizes[-1] for size in sizes], color="0.6", linewidth=0.8, linestyle=":")
    for panel in (seconds, memory):
        panel.set_xscale("log")
        panel.set_yscale("log")
        for axis in (panel.xaxis, panel.yaxis):
            # The report's style prints text as it is, so that a power of ten would show its markup.
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}" if value < 1e4 else f"{value:.0e}"))
            axis.set_minor_formatter(NullFormatter())
    low, high = memory.get_ylim()
    memory.set_ylim(10 ** math.floor(math.log10(low)), 10 ** math.ceil(math.log10(high)))
    seconds.legend()


def _curves() -> list[dict[str, Any]]:
    curves: list[dict[str, Any]] = results().get("scale", {}).get("curves", [])
    return curves


def _curve(curve: Mapping[str, Any]) -> tuple[str, ...]:
    first, last = curve["points"][0], curve["points"][-1]
    return (
        f"{AXES[curve['axis']]}: {first['size']:,} to {last['size']:,}",
        curve["what"],
        f"{first['seconds']:.3g} to {last['seconds']:.3g}",
        f"{first['megabytes']:.0f} to {last['megabytes']:.0f}",
        f"{curve['exponent']:.2f}",
        f"{curve['last_exponent']:.2f}",
        WHY.get(curve["work"], "") if abs(curve["exponent"] - 1) > 0.1 else "",
    )


def _numbers(row: Mapping[str, Any]) -> tuple[str, ...]:
    times, milliseconds = row["times_faster"], row["milliseconds"]
    return (
        f"{milliseconds['ours']:.3g}",
        f"{milliseconds['peer']:.3g}",
        f"**{times['median']:.2f}**",
        f"{times['least']:.2f} to {times['most']:.2f}",
        "" if row["goal"] is None else f"{row['goal']:g}",
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


if __name__ == "__main__":
    if not _curves():
        sys.exit("results/performance/scale.json is not there: run `python benchmarks/scale.py` first.")
    draw(_curves(), FIGURE)
