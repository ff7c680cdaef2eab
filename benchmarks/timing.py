"""Timing of several implementations in alternating rounds on one machine, and the ratios of their times."""

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

Turn = Callable[[int], float]  # makes this number of calls and returns their seconds
Seconds = Mapping[str, Sequence[float]]  # implementation -> seconds of one call, round by round

ROUNDS, TURN_SECONDS = 7, 0.6
WARM_UP_TURNS = 2  # not counted
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
PACKAGES = ("dtbench", "torch", "numpy", "gymnasium")


@dataclass(frozen=True, slots=True)
class Pair:
    """A ratio to measure: how many times faster `ours` is than `peer`."""

    what: str
    ours: str
    peer: str
    goal: float | None = None


def calls(function: Callable[[], object], clock: str = "wall") -> Turn:
    """Return turns that call `function` and read `clock`, one of CLOCKS."""
    now = CLOCKS[clock]

    def turn(count: int) -> float:
        started = now()
        for _ in range(count):
            function()
        return now() - started

    return turn


def alternate(turns: Mapping[str, Turn], *, rounds: int, turn_seconds: float) -> dict[str, list[float]]:
    """Time every implementation once in each round; return seconds of a call, one number a round.

    A turn takes about `turn_seconds` and makes at least one call. Each round starts with another implementation, so
    that none always follows the same one. Other load on the machine lasts longer than a round and so slows all alike.
    """
    counts = {name: _calls_per_turn(turn_seconds, turn) for name, turn in turns.items()}
    names = list(turns)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            seconds[name].append(turns[name](counts[name]) / counts[name])
    return seconds


def ratios(pairs: Sequence[Pair], seconds: Seconds) -> list[dict[str, Any]]:
    """Return, as plain JSON, the ratio of every pair that was measured: median, least and most over the rounds."""
    rows = []
    for pair in pairs:
        if pair.ours in seconds and pair.peer in seconds:
            times = [peer / ours for ours, peer in zip(seconds[pair.ours], seconds[pair.peer], strict=True)]
            sides = {side: _milliseconds(seconds[name]) for side, name in (("ours", pair.ours), ("peer", pair.peer))}
            row = {"what": pair.what, "ours": pair.ours, "peer": pair.peer, "milliseconds": sides}
            rows.append({**row, "times_faster": _spread(times), "goal": pair.goal})
    return rows


def milliseconds(seconds: Seconds) -> dict[str, Any]:
    """Return milliseconds of a call of every implementation: the median and all rounds."""
    return {
        name: {"milliseconds": _milliseconds(rounds), "rounds": [round(1000 * value, 4) for value in rounds]}
        for name, rounds in seconds.items()
    }


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return ratios as a Markdown table."""
    head = ("what", "against", "ours, ms", "theirs, ms", "times faster", "least to most", "goal")
    lines = [head, ("---",) * len(head), *(_line(row) for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def surroundings() -> dict[str, Any]:
    """Return versions, processor, cores and threads as plain JSON."""
    return {
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "machine": {
            "platform": f"{platform.system()} {platform.machine()}",
            "processor": _processor(),
            "cpu_count": os.cpu_count(),
            "torch_threads": torch.get_num_threads(),
            "load_average": [round(load, 1) for load in os.getloadavg()],
        },
    }


def report(result: Mapping[str, Any], out: Path | None) -> None:
    """Print the ratios as a table on standard error and the result as JSON; write it to `out` where given."""
    log(table(result["ratios"]))
    text = json.dumps({**result, **surroundings()}, indent=1)
    print(text)
    if out:
        out.write_text(text + "\n")


def log(text: str) -> None:
    """Print to standard error; standard output is for JSON."""
    print(text, file=sys.stderr, flush=True)


def make_parser(about: str | None, *, rounds: int = ROUNDS, turn: float = TURN_SECONDS) -> argparse.ArgumentParser:
    """Return a parser with the options of all benchmarks; `parse` reads them."""
    parser = argparse.ArgumentParser(description=(about or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=rounds, help="turns of every implementation")
    parser.add_argument("--turn", type=float, default=turn, help="seconds of a turn, about")
    parser.add_argument(
        "--threads", type=int, default=min(2, os.cpu_count() or 1), help="threads of every implementation"
    )
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall", help="cpu: for one thread on a busy machine")
    parser.add_argument("--out", type=Path, help="file for the result")
    parser.add_argument("--quick", action="store_true", help="tiny sizes and one round: checks that it runs")
    return parser


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parse the command line and set the number of threads."""
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.turn, options.threads = 1, 0.0, 1
    torch.set_num_threads(options.threads)
    return options


def _calls_per_turn(turn_seconds: float, turn: Turn) -> int:
    fastest = min(turn(1) for _ in range(WARM_UP_TURNS))
    return max(1, round(turn_seconds / max(fastest, 1e-7)))


def _spread(times: Sequence[float]) -> dict[str, float]:
    least, median, most = (round(value, 3) for value in (min(times), statistics.median(times), max(times)))
    return {"median": median, "least": least, "most": most, "rounds": len(times)}


def _milliseconds(rounds: Sequence[float]) -> float:
    return round(1000 * statistics.median(rounds), 4)


def _line(row: Mapping[str, Any]) -> tuple[str, ...]:
    times, sides, goal = row["times_faster"], row["milliseconds"], row["goal"]
    return (
        row["what"],
        row["peer"],
        f"{sides['ours']:.3g}",
        f"{sides['peer']:.3g}",
        f"**{times['median']:.2f}**",
        f"{times['least']:.2f} to {times['most']:.2f}",
        "" if goal is None else f"{goal:g}" + ("" if times["median"] >= goal else " (missed)"),
    )


def _processor() -> str:
    """Return the processor's name; on Linux Python knows no more than its architecture."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
