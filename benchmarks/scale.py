"""What dtbench costs as things grow: episodes, targets, windows, data, trials; seconds and memory.

    python benchmarks/scale.py --out results/performance/scale.json

Every point is measured in a process of its own, on one thread by default, and tells the seconds of one piece of work
and by how much the peak of its resident memory rose above what the imports took. The exponent of a curve is the slope
of its logarithms, fitted to all points and between the last two: 1 is proportional, 0 is no growth.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from contest import options, ready, say
from machine import peak_resident, report, surroundings
from made_data import hopper_shaped

from dtbench import Evaluator, TransitionSampler, WindowSampler, generator
from dtbench.data import cache
from dtbench.registry import make_algorithm, make_task
from dtbench.suite.planning import contender_on, load_suite

ROOT = Path(__file__).parents[1]
CPU = torch.device("cpu")
SIZES: dict[str, tuple[int, ...]] = {
    "episodes": (10, 30, 100, 300, 1000),
    "targets": (1, 2, 4, 8, 16),
    "context": (5, 10, 20, 40, 80, 160),
    "dataset": (10_000, 100_000, 1_000_000, 5_000_000),
    "trials": (12, 32, 100, 300, 1000),
}
QUICK: dict[str, tuple[int, ...]] = {
    "episodes": (1, 2),
    "targets": (1, 2),
    "context": (2, 4),
    "dataset": (2000, 4000),
    "trials": (4, 8),
}
WORK = {  # what a point of each curve times
    "episodes": {"evaluation": "an evaluation of DT on Key-to-Door, one target"},
    "targets": {"evaluation": "an evaluation of DT on Key-to-Door, 20 episodes a target"},
    "context": {"step": "a training step of DT, Hopper's sizes, 64 windows of so many steps"},
    "dataset": {
        "open": "opening the stored data and preparing both samplers",
        "transitions": "drawing 256 transitions",
        "windows": "drawing 64 windows of 20 steps",
    },
    "trials": {
        "plan": "finding out which of the planned trials are done",
        "collect": "reading the ledger",
        "archive": "writing the archive and reading it back",
        "report": "tables, figures and the page",
    },
}
TARGET_EPISODES = 20
DRAWS = 200


def main() -> None:
    """Measure every point, and print the curves with their exponents as JSON."""
    chosen = arguments()
    if chosen.point:
        print(json.dumps(point(*chosen.point, quick=chosen.quick)))
        return
    curves = []
    for axis in chosen.axes:
        with tempfile.TemporaryDirectory() as folder:
            points = [measure(axis, size, Path(folder), chosen) for size in (QUICK if chosen.quick else SIZES)[axis]]
        curves += curves_of(axis, points)
        for curve in curves[-len(WORK[axis]) :]:
            say(f"{curve['what']}: {curve['exponent']:.2f} overall, {curve['last_exponent']:.2f} at the end")
    report({"curves": curves, **surroundings()}, chosen.out)


def measure(axis: str, size: int, folder: Path, chosen: argparse.Namespace) -> dict[str, Any]:
    """The median of `rounds` processes that measure one point: its size, seconds by work, and megabytes."""
    if axis == "dataset":
        cache.save(hopper_shaped(size), folder / str(size))
    found = []
    for _ in range(chosen.rounds):
        quick = ["--quick"] if chosen.quick else []
        command = [sys.executable, __file__, "--point", axis, str(size), str(folder), *quick]
        command += ["--threads", str(chosen.threads)]
        said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        found.append(json.loads(said.splitlines()[-1]))
    seconds = {work: statistics.median(one["seconds"][work] for one in found) for work in WORK[axis]}
    return {"size": size, "seconds": seconds, "megabytes": statistics.median(one["megabytes"] for one in found)}


def curves_of(axis: str, points: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One curve for each piece of work, and what its logarithms say."""
    sizes = [point["size"] for point in points]
    curves = []
    for work, what in WORK[axis].items():
        seconds = [point["seconds"][work] for point in points]
        curves.append(
            {
                "axis": axis,
                "work": work,
                "what": what,
                "points": [
                    {"size": size, "seconds": round(took, 7), "megabytes": round(point["megabytes"], 1)}
                    for size, took, point in zip(sizes, seconds, points, strict=True)
                ],
                "exponent": round(exponent(sizes, seconds), 2),
                "last_exponent": round(exponent(sizes[-2:], seconds[-2:]), 2),
            }
        )
    return curves


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """The slope of log cost over log size, by least squares."""
    return float(np.polyfit(np.log(sizes), np.log(costs), 1)[0])


def point(axis: str, size: str, folder: str, *, quick: bool) -> dict[str, Any]:
    """Seconds of each piece of work at this size in this process, and megabytes above what was there before."""
    before = peak_resident()
    made: dict[str, Callable[[int, Path, bool], dict[str, float]]] = {
        "episodes": lambda size, folder, quick: evaluation(episodes=size, targets=1),
        "targets": lambda size, folder, quick: evaluation(episodes=2 if quick else TARGET_EPISODES, targets=size),
        "context": training_step,
        "dataset": draws,
        "trials": trials,
    }
    seconds = made[axis](int(size), Path(folder), quick)
    return {"seconds": seconds, "megabytes": (peak_resident() - before) / 1e6}


def evaluation(*, episodes: int, targets: int) -> dict[str, float]:
    """Episodes x targets games of Key-to-Door, 46 steps each, played by an untrained DT of the suite's sizes."""
    name = "key-to-door-1k"
    task = make_task(name)
    settled = contender_on(load_suite("key-to-door", preset="cpu").contenders["DT"], name)
    learner = make_algorithm(settled.algorithm, settled.hyperparameters).learner(task.open(), seed=0, device=CPU)
    evaluator = Evaluator(task.make_env, task.evaluation_seeds(episodes))
    asked = np.linspace(0, 1, targets).tolist()
    replace(evaluator, seeds=evaluator.seeds[:1]).evaluate(learner, asked[:1])
    return {"evaluation": clocked(lambda: evaluator.evaluate(learner, asked))}


def training_step(context: int, folder: Path, quick: bool) -> dict[str, float]:
    """A whole update, the drawing of its windows included."""
    sizes = {"width": 16, "batch_size": 4} if quick else {}
    algorithm = make_algorithm("dt", {**sizes, "context": context})
    learner = algorithm.learner(hopper_shaped(2000 if quick else 20_000), seed=0, device=CPU)
    return {"step": median_of(learner.update, 2 if quick else 5)}


def draws(size: int, folder: Path, quick: bool) -> dict[str, float]:
    """Both samplers on stored, mapped data."""

    def opened() -> tuple[TransitionSampler, WindowSampler]:
        data = cache.load(folder / str(size))
        return (
            TransitionSampler(data, batch_size=256, rng=generator(0), device=CPU),
            WindowSampler(data, context=20, batch_size=64, rng=generator(0), device=CPU),
        )

    began = time.perf_counter()
    transitions, windows = opened()
    opening = time.perf_counter() - began
    count = 3 if quick else DRAWS
    return {
        "open": opening,
        "transitions": median_of(transitions.sample, count),
        "windows": median_of(windows.sample, count),
    }


def trials(count: int, folder: Path, quick: bool) -> dict[str, float]:
    """A ledger of so many finished trials, two tasks and two contenders, all others seeds."""
    sys.path.insert(0, str(ROOT))
    from dtbench.analysis.archive import read_archive, write_archive
    from dtbench.analysis.page.build import write_report
    from dtbench.analysis.results import collect
    from dtbench.ledger.store import Ledger
    from dtbench.ledger.trial_spec import TrialSpec
    from tests.support.tiny_ledger import SCORES, tiny_ledger

    home = folder / str(count)
    rng = np.random.default_rng(0)
    scores = {cell: tuple(rng.normal(50, 10, max(1, count // len(SCORES))).tolist()) for cell in SCORES}
    tiny_ledger(home, scores)
    ledger = Ledger(home / "runs")
    document = ledger.remembered_suites()["tiny"]
    specs = [TrialSpec.from_json(spec) for spec in document["trials"]]
    seconds = {"plan": clocked(lambda: [ledger.state(spec) for spec in specs])}
    seconds["collect"] = clocked(lambda: collect(document, ledger))
    results = collect(document, ledger)

    def archive() -> None:
        write_archive(results, home / "scores")
        read_archive(home / "scores", "tiny")

    seconds["archive"] = clocked(archive)
    archived = read_archive(home / "scores", "tiny")
    seconds["report"] = clocked(lambda: write_report([archived], home / "report"))
    return seconds


def clocked(work: Callable[[], object]) -> float:
    """Seconds of doing it once."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def median_of(work: Callable[[], object], count: int) -> float:
    """Seconds of doing it, the median of `count` after one that is not counted."""
    work()
    return statistics.median(clocked(work) for _ in range(count))


def arguments() -> argparse.Namespace:
    """As given; small where asked to be quick."""
    parser = options(__doc__, rounds=3)
    parser.set_defaults(threads=1)
    parser.add_argument("--axes", nargs="+", choices=list(SIZES), default=list(SIZES))
    parser.add_argument("--point", nargs=3, metavar=("AXIS", "SIZE", "FOLDER"), help=argparse.SUPPRESS)
    return ready(parser)


if __name__ == "__main__":
    main()
