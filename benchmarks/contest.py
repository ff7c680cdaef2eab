"""Contestants that take turns on one machine, and the ratios of their times."""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

Turn = Callable[[int], float]  # makes so many calls, and gives the seconds that they took
Seconds = Mapping[str, Sequence[float]]  # contestant -> of one call, round by round

ROUNDS, TURN = 7, 0.6
WARM_UP = 2  # turns that are not counted
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


@dataclass(frozen=True, slots=True)
class Pair:
    """A ratio that is asked for: how many times faster `ours` is than `peer`."""

    what: str
    ours: str
    peer: str
    goal: float | None = None  # what the project has set itself


def calls(function: Callable[[], object], clock: str = "wall") -> Turn:
    """Turns of a function in this process; `clock` is one of CLOCKS."""
    now = CLOCKS[clock]

    def turn(count: int) -> float:
        began = now()
        for _ in range(count):
            function()
        return now() - began

    return turn


def in_turn(contestants: Mapping[str, Turn], *, rounds: int, turn: float) -> dict[str, list[float]]:
    """Seconds of a call of each contestant, one number a round.

    In a round everybody has one turn of about `turn` seconds, at least one call; each round begins with another
    contestant, so that nobody always follows the same one. What a busy machine does lasts longer than a round, and so
    meets all of them; the warm-up tells how many calls a turn holds, and is not counted.
    """
    counts = {name: _calls_in(turn, run) for name, run in contestants.items()}
    names = list(contestants)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            seconds[name].append(contestants[name](counts[name]) / counts[name])
    return seconds


def compared(pairs: Sequence[Pair], seconds: Seconds) -> list[dict[str, Any]]:
    """The ratio of every pair whose both sides were measured, as plain JSON: median, least and most of all rounds."""
    rows = []
    for pair in pairs:
        if pair.ours in seconds and pair.peer in seconds:
            ratios = [peer / own for own, peer in zip(seconds[pair.ours], seconds[pair.peer], strict=True)]
            sides = {side: _milliseconds(seconds[name]) for side, name in (("ours", pair.ours), ("peer", pair.peer))}
            row = {"what": pair.what, "ours": pair.ours, "peer": pair.peer, "milliseconds": sides}
            rows.append({**row, "times_faster": spread(ratios), "goal": pair.goal})
    return rows


def spread(ratios: Sequence[float]) -> dict[str, float]:
    """Median, least and most."""
    return {
        "median": round(statistics.median(ratios), 3),
        "least": round(min(ratios), 3),
        "most": round(max(ratios), 3),
        "rounds": len(ratios),
    }


def measured(seconds: Seconds) -> dict[str, Any]:
    """Milliseconds of a call, of every contestant: the median and all rounds."""
    return {
        name: {"milliseconds": _milliseconds(rounds), "rounds": [round(1000 * value, 4) for value in rounds]}
        for name, rounds in seconds.items()
    }


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Ratios in words: how many times faster, from the least to the most of all rounds, and the goal."""
    head = ("what", "against", "ours ms", "theirs ms", "times faster", "spread", "goal")
    lines = [head, *(_line(row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def options(about: str | None, *, rounds: int = ROUNDS, turn: float = TURN) -> argparse.ArgumentParser:
    """The options that all scripts take; `ready` acts on them."""
    parser = argparse.ArgumentParser(description=(about or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=rounds, help="how often everybody has a turn")
    parser.add_argument("--turn", type=float, default=turn, help="seconds of a turn, about")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1), help="of every contestant")
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall", help="cpu: for one thread on a busy machine")
    parser.add_argument("--out", type=Path, help="file for the result")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, one round: says whether it runs at all")
    return parser


def ready(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The options as given; sets the threads."""
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.rounds, chosen.turn, chosen.threads = 1, 0.0, 1
    torch.set_num_threads(chosen.threads)
    return chosen


def say(text: str) -> None:
    """Tell the person who waits; standard output is for JSON."""
    print(text, file=sys.stderr, flush=True)


def _calls_in(turn: float, run: Turn) -> int:
    slowest = min(run(1) for _ in range(WARM_UP))
    return max(1, round(turn / max(slowest, 1e-7)))


def _milliseconds(rounds: Sequence[float]) -> float:
    return round(1000 * statistics.median(rounds), 4)


def _line(row: Mapping[str, Any]) -> tuple[str, ...]:
    times, milliseconds, goal = row["times_faster"], row["milliseconds"], row["goal"]
    reached = "" if goal is None else f"{goal:g}" + ("" if times["median"] >= goal else " (missed)")
    speeds = tuple(f"{milliseconds[side]:.3g}" for side in ("ours", "peer"))
    return (
        row["what"],
        row["peer"],
        *speeds,
        f"{times['median']:.2f}",
        f"{times['least']:.2f} to {times['most']:.2f}",
        reached,
    )
