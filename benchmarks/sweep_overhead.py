"""What Ray adds to a sweep: how well trials fill the cores, and what each costs beyond its own work.

    python benchmarks/sweep_overhead.py --out sweep_overhead.json

Real trials of Decision Transformer on Key-to-Door are run one after another, in as many processes at once as there
are cores to fill, and by `run_with_ray` on these cores. Processes share caches and memory, so that trials beside each
other may take longer than alone: both ratios are printed. Half of the trials alone come first and half last, so that a
machine that changes its speed does so on both sides. Ray's start is a run of one trial without work on every core.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from machine import report, surroundings

from dtbench.execution.cluster import ray_started
from dtbench.execution.ray_driver import run_with_ray
from dtbench.ledger.trial_spec import TrialSpec
from dtbench.suite.planning import load_suite, trial_specs
from dtbench.trial import run_trial

SUITE, TASK, WORK, IDLE = "key-to-door", "key-to-door-1k", "DT", "Random"
FIRST_SEED = 1000  # far from those of anybody's results
EPISODES = 20


@dataclass(frozen=True, slots=True)
class Measured:
    """Seconds of every way of running the same trials."""

    alone: list[float]  # of each trial, nothing beside it
    together: list[list[float]]  # by process, of each trial
    up_and_down: float  # Ray without a trial
    start: float  # Ray with one idle trial on every core
    with_ray: float
    idle_with_ray: float  # `idle` trials more than in `start`
    idle: list[float]  # of each idle trial in a process that has run one before


def main() -> None:
    """Measure, and print all as JSON, then in one line on standard error."""
    arguments = _arguments()
    if arguments.inline:
        print(json.dumps(seconds_inline(*arguments.inline)))
        return
    os.environ["OMP_NUM_THREADS"] = "1"
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.cores])
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), arguments)
    result = summary(found, arguments.cores)
    sizes = {name: getattr(arguments, name) for name in ("trials", "budget", "cores", "idle")}
    report({"task": TASK, "contender": WORK, "sizes": sizes, **result, **surroundings()}, arguments.out)
    print(in_words(result, arguments), file=sys.stderr)


def measure(folder: Path, sizes: argparse.Namespace) -> Measured:
    """Run everything, the trials alone first and last."""
    work = specs(WORK, sizes.trials, sizes.budget)
    idle = specs(IDLE, sizes.cores + sizes.idle, 0)
    half, cores = len(work) // 2, sizes.cores
    (before,) = at_once([work[:half]], folder / "before")
    together = at_once([work[core::cores] for core in range(cores)], folder / "together")
    began = time.perf_counter()
    with ray_started():
        pass
    up_and_down = time.perf_counter() - began
    start = seconds_with_ray(idle[:cores], folder / "start")
    with_ray = seconds_with_ray(work, folder / "with-ray")
    idle_with_ray = seconds_with_ray(idle, folder / "idle-with-ray")
    (after,) = at_once([work[half:]], folder / "after")
    (own,) = at_once([idle[cores:]], folder / "idle")
    return Measured([*before, *after], together, up_and_down, start, with_ray, idle_with_ray, own)


def summary(found: Measured, cores: int) -> dict[str, Any]:
    """Ratios of what Ray took, its start taken off, to what the trials take without it; and overheads."""
    share, beside = sum(found.alone) / cores, max(map(sum, found.together))
    further = (found.idle_with_ray - found.start) / len(found.idle)
    return {
        "seconds": {
            "a_trial_alone": round(sum(found.alone) / len(found.alone), 2),
            "a_trial_beside_others": round(sum(map(sum, found.together)) / len(found.alone), 2),
            "ray_up_and_down": round(found.up_and_down, 2),
            "ray_start": round(found.start, 2),
            "with_ray": round(found.with_ray, 2),
        },
        "ratio_to_alone": round((found.with_ray - found.start) / share, 3),
        "ratio_to_processes_at_once": round((found.with_ray - found.start) / beside, 3),
        "ratio_with_start_of_workers": round((found.with_ray - found.up_and_down) / share, 3),
        "overhead_seconds": {
            "a_further_trial": round(further, 3),  # on the clock
            "a_further_trial_of_its_worker": round(cores * further - sum(found.idle) / len(found.idle), 3),
        },
    }


def in_words(result: dict[str, Any], sizes: argparse.Namespace) -> str:
    """The ratio and the overhead in one line."""
    overhead = result["overhead_seconds"]["a_further_trial_of_its_worker"]
    return (
        f"{sizes.trials} trials on {sizes.cores} cores took {result['ratio_to_alone']:.3f} x (their time alone) / "
        f"{sizes.cores} beyond Ray's start of {result['seconds']['ray_start']:.1f} s, and "
        f"{result['ratio_to_processes_at_once']:.3f} x as long as in {sizes.cores} plain processes at once; "
        f"each further trial costs its worker {overhead:.2f} s."
    )


def specs(contender: str, count: int, budget: int) -> list[TrialSpec]:
    """So many trials of a contender that differ in their seed, evaluated at the end."""
    suite = load_suite(SUITE, overrides=[f"tasks=[{TASK}]"])
    one = next(spec for spec in trial_specs(suite) if spec.contender == contender)
    evaluation = replace(one.evaluation, episodes=EPISODES, every=max(budget, 1))
    return [replace(one, seed=FIRST_SEED + n, budget=budget, evaluation=evaluation) for n in range(count)]


def at_once(shares: Sequence[Sequence[TrialSpec]], folder: Path) -> list[list[float]]:
    """Seconds of every trial, each share being run one after another in a process of its own."""
    folder.mkdir()
    running = []
    for number, share in enumerate(shares):
        listed = folder / f"{number}.json"
        listed.write_text(json.dumps([spec.to_json() for spec in share]))
        command = [sys.executable, __file__, "--inline", str(listed), str(folder / str(number))]
        running.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
    return [json.loads(process.communicate()[0]) for process in running]


def seconds_inline(listed: str, root: str) -> list[float]:
    """Seconds of each trial in this process, after one that loads libraries and data."""
    trials = [TrialSpec.from_json(text) for text in json.loads(Path(listed).read_text())]
    run_trial(replace(trials[0], seed=0, budget=min(trials[0].budget, 1)), Path(root))
    found = []
    for spec in trials:
        began = time.perf_counter()
        assert run_trial(spec, Path(root)) == "done"
        found.append(time.perf_counter() - began)
    return found


def seconds_with_ray(trials: Sequence[TrialSpec], root: Path) -> float:
    """From before Ray's start to after its end."""
    began = time.perf_counter()
    states = run_with_ray(trials, root, lambda spec, state, step, score: None)
    assert set(states.values()) == {"done"}, states
    return time.perf_counter() - began


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--budget", type=int, default=400, help="gradient steps of a trial")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--idle", type=int, default=20, help="trials without work, of which the overhead is told")
    parser.add_argument("--out", type=Path, help="file for the result")
    parser.add_argument("--inline", nargs=2, metavar=("SPECS", "ROOT"), help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
