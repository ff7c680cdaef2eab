"""What rliable 1.2.0 says of matrices of scores, and how long it takes: IN.json to OUT.json.

rliable needs an older pandas than dtbench, so this runs with an interpreter of its own and imports nothing of ours:

    python -m venv oracle && oracle/bin/pip install rliable==1.2.0 'pandas<3' 'arch<8'
    DTBENCH_RLIABLE_PYTHON=oracle/bin/python python -m pytest tests/analysis/test_rliable.py

IN.json is a list of cases: what to compute (`ask`: a key of ANSWERS) and its arguments; OUT.json the list of answers.
rliable draws from numpy's global generator whatever `random_state` it is given; so that one is seeded here.
"""

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rliable import library, metrics

Matrix = Sequence[Sequence[float]]


def main(source: str, destination: str) -> None:
    """Answer every case."""
    cases = json.loads(Path(source).read_text())
    Path(destination).write_text(json.dumps([ANSWERS[case.pop("ask")](**case) for case in cases]))


def aggregates(scores: Matrix, *, gamma: float) -> dict[str, float]:
    """Return the point estimates."""
    return {name: float(found(np.array(scores))) for name, found in functions(gamma).items()}


def intervals(scores: Matrix, *, gamma: float, reps: int, repeats: int) -> dict[str, Any]:
    """Both ends of each aggregate's interval, `repeats` times over."""
    found = functions(gamma)
    ends = [np.asarray(interval(np.array(scores), of_all(found), reps=reps, seed=seed)) for seed in range(repeats)]
    return {name: [end[:, place].tolist() for end in ends] for place, name in enumerate(found)}


def profile(scores: Matrix, *, thresholds: Sequence[float], reps: int, repeats: int) -> dict[str, Any]:
    """Share of runs above each threshold, and both ends of its band, `repeats` times over."""
    bands = []
    for seed in range(repeats):
        np.random.seed(seed)  # noqa: NPY002 (rliable draws from this one)
        shares, ends = library.create_performance_profile({"": np.array(scores)}, np.array(thresholds), reps=reps)
        bands.append(ends[""].tolist())
    return {"share": shares[""].tolist(), "bands": bands}


def improvement(ours: Matrix, theirs: Matrix, *, reps: int, repeats: int) -> dict[str, Any]:
    """Probability of improvement, and both ends of its interval, `repeats` times over."""
    pair = [np.array(ours), np.array(theirs)]
    chance = metrics.probability_of_improvement
    found = [interval(pair, lambda x, y: np.array([chance(x, y)]), reps=reps, seed=seed) for seed in range(repeats)]
    return {"value": float(chance(*pair)), "intervals": [np.ravel(ends).tolist() for ends in found]}


def seconds(scores: Matrix, *, gamma: float, reps: int) -> dict[str, dict[str, float]]:
    """Wall and processor time of each aggregate's interval, and of all by one set of resamples."""
    found = functions(gamma)
    asked = {name: (lambda x, one=one: np.array([one(x)])) for name, one in found.items()} | {"all": of_all(found)}
    return {name: taken(lambda f=f: interval(np.array(scores), f, reps=reps, seed=0)) for name, f in asked.items()}


ANSWERS: dict[str, Callable[..., Any]] = {
    "aggregates": aggregates,
    "intervals": intervals,
    "profile": profile,
    "improvement": improvement,
    "seconds": seconds,
}


def functions(gamma: float) -> dict[str, Callable[[Any], Any]]:
    """Return the aggregates by dtbench's names."""
    return {
        "mean": metrics.aggregate_mean,
        "median": metrics.aggregate_median,
        "iqm": metrics.aggregate_iqm,
        "optimality_gap": lambda scores: metrics.aggregate_optimality_gap(scores, gamma),
    }


def of_all(found: dict[str, Callable[[Any], Any]]) -> Callable[[Any], Any]:
    """One function that gives every aggregate."""
    return lambda scores: np.array([one(scores) for one in found.values()])


def interval(scores: Any, function: Callable[..., Any], *, reps: int, seed: int) -> Any:
    """Its 95 % interval: [2, values of the function]."""
    np.random.seed(seed)  # noqa: NPY002 (rliable draws from this one)
    return library.get_interval_estimates({"": scores}, function, reps=reps)[1][""]


def taken(run: Callable[[], Any]) -> dict[str, float]:
    """Seconds of one call."""
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}


if __name__ == "__main__":
    main(*sys.argv[1:])
