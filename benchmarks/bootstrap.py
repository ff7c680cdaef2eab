"""How fast intervals of the aggregates are bootstrapped, against rliable in an environment of its own.

    make rliable
    DTBENCH_RLIABLE_PYTHON=.venv-rliable/bin/python python benchmarks/bootstrap.py --out bootstrap.json

Both take turns, so that a busy machine slows both; the fastest round of each counts. Each aggregate is timed alone,
and all four of one set of resamples. Ratios are of processor time, which a busy machine changes least.
"""

import argparse
import json
import os
import resource
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from machine import report, surroundings

from dtbench.analysis.statistics import AGGREGATES, GAMMA, Array, aggregate_intervals

TOOL = Path(__file__).parents[1] / "tools" / "rliable_oracle.py"
Seconds = dict[str, dict[str, float]]  # by aggregate, wall and cpu


def main() -> None:
    """Measure, and print both times and their ratio as JSON."""
    arguments = _arguments()
    scores = np.random.default_rng(0).normal(50, 30, (arguments.runs, arguments.tasks))
    ours, theirs = [], []
    for _ in range(arguments.rounds):
        ours.append(own_seconds(scores, arguments.resamples))
        if arguments.rliable:
            theirs.append(rliable_seconds(arguments.rliable, scores, arguments.resamples))
    result: dict[str, Any] = {
        "sizes": {name: getattr(arguments, name) for name in ("runs", "tasks", "resamples", "rounds")},
        "dtbench_seconds": fastest(ours),
        "peak_resident_megabytes": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }
    if theirs:
        result["rliable_seconds"] = fastest(theirs)
        result["times_faster"] = ratios(result["rliable_seconds"], result["dtbench_seconds"])
    report({**result, **surroundings()}, arguments.out)


def own_seconds(scores: Array, resamples: int) -> Seconds:
    """Of each aggregate alone and of all."""
    asked = {**{name: [name] for name in AGGREGATES}, "all": list(AGGREGATES)}
    found = {}
    for name, which in asked.items():
        wall, cpu = time.perf_counter(), time.process_time()
        aggregate_intervals(scores, which=which, resamples=resamples)
        found[name] = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    return found


def rliable_seconds(interpreter: str, scores: Array, resamples: int) -> Seconds:
    """The same of rliable, timed inside its own process."""
    with tempfile.TemporaryDirectory() as folder:
        asked, answered = Path(folder, "asked.json"), Path(folder, "answered.json")
        asked.write_text(
            json.dumps([{"ask": "seconds", "scores": scores.tolist(), "gamma": GAMMA, "reps": resamples}])
        )
        one_thread = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        subprocess.run([interpreter, str(TOOL), str(asked), str(answered)], check=True, env=one_thread)
        seconds: Seconds = json.loads(answered.read_text())[0]
    return seconds


def fastest(rounds: list[Seconds]) -> Seconds:
    """Of each clock its own fastest round."""
    return {
        name: {clock: round(min(found[name][clock] for found in rounds), 4) for clock in ("wall", "cpu")}
        for name in rounds[0]
    }


def ratios(theirs: Mapping[str, Mapping[str, float]], ours: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """How many times faster ours are, by processor time."""
    return {name: round(theirs[name]["cpu"] / ours[name]["cpu"], 1) for name in ours}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--tasks", type=int, default=100)
    parser.add_argument("--resamples", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rliable", default=os.environ.get("DTBENCH_RLIABLE_PYTHON"), help="interpreter that has it")
    parser.add_argument("--out", type=Path, help="file for the result")
    return parser.parse_args()


if __name__ == "__main__":
    main()
