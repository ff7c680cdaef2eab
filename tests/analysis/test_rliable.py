"""Our statistics are rliable's: equal point estimates, and intervals that differ by no more than two of its own do.

`make rliable` installs rliable into an environment of its own; see tools/rliable_oracle.py.
"""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dtbench.analysis import statistics
from dtbench.analysis.statistics import Array, Interval

RLIABLE = os.environ.get("DTBENCH_RLIABLE_PYTHON")
TOOL = Path(__file__).parents[2] / "tools" / "rliable_oracle.py"
GAMMA = 60.0  # in the midst of the scores
REPEATS, RESAMPLES = 10, 1000
ERRORS = 4.5  # standard errors: of some 200 comparisons the largest is near 3

pytestmark = pytest.mark.skipif(RLIABLE is None, reason="needs DTBENCH_RLIABLE_PYTHON: `make rliable`")


def rliable(tmp_path: Path, *cases: dict[str, Any]) -> list[Any]:
    """Its answers, one a case."""
    asked, answered = tmp_path / "asked.json", tmp_path / "answered.json"
    asked.write_text(json.dumps([{k: v.tolist() if hasattr(v, "tolist") else v for k, v in c.items()} for c in cases]))
    subprocess.run([str(RLIABLE), str(TOOL), str(asked), str(answered)], check=True, capture_output=True, text=True)
    answers: list[Any] = json.loads(answered.read_text())
    return answers


def scores_of(runs: int, tasks: int, *, seed: int = 0) -> Array:
    """Scores around 60 whose tasks differ in level and spread, with a heavy tail."""
    rng = np.random.default_rng([runs, tasks, seed])
    level, spread = rng.uniform(20, 100, tasks), rng.uniform(1, 30, tasks)
    return np.asarray(level + spread * rng.standard_t(3, (runs, tasks)))


def within_error(ours: Any, theirs: Any) -> bool:
    """Whether both repeat one number, along the first axis, as far as their own spread can tell."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    error = np.sqrt(ours.var(axis=0, ddof=1) / len(ours) + theirs.var(axis=0, ddof=1) / len(theirs))
    return bool((np.abs(ours.mean(axis=0) - theirs.mean(axis=0)) <= ERRORS * error + 1e-9).all())


def ends(interval: Interval | None) -> tuple[float, float]:
    assert interval is not None
    return interval.low, interval.high


SHAPES = [(2, 1), (3, 1), (7, 1), (5, 2), (3, 3), (4, 7), (10, 26), (6, 101), (25, 4), (101, 3)]


def test_the_aggregates_are_rliables(tmp_path: Path) -> None:
    matrices = [scores_of(*shape, seed=seed) for shape in SHAPES for seed in range(3)]
    found = rliable(tmp_path, *({"ask": "aggregates", "scores": scores, "gamma": GAMMA} for scores in matrices))
    for scores, theirs in zip(matrices, found, strict=True):
        ours = {name: float(statistic(scores)) for name, statistic in statistics.AGGREGATES.items()}
        ours["optimality_gap"] = float(statistics.optimality_gap(scores, gamma=GAMMA))
        assert ours == pytest.approx(theirs, abs=1e-6)


def test_the_intervals_of_the_aggregates_are_rliables(tmp_path: Path) -> None:
    matrices = [scores_of(*shape) for shape in [(3, 1), (5, 2), (5, 10), (4, 7), (10, 26), (25, 4)]]
    sizes = {"gamma": GAMMA, "reps": RESAMPLES, "repeats": REPEATS}
    found = rliable(tmp_path, *({"ask": "intervals", "scores": scores, **sizes} for scores in matrices))
    for scores, theirs in zip(matrices, found, strict=True):
        ours = [
            statistics.aggregate_intervals(scores, gamma=GAMMA, seed=seed, resamples=RESAMPLES)
            for seed in range(REPEATS)
        ]
        for name in statistics.AGGREGATES:
            assert within_error([ends(repeat[name]) for repeat in ours], theirs[name]), (scores.shape, name)


def test_the_performance_profiles_are_rliables(tmp_path: Path) -> None:
    matrices = [scores_of(*shape) for shape in [(5, 1), (5, 10), (10, 4)]]
    thresholds = np.linspace(0, 120, 13)
    sizes = {"thresholds": thresholds, "reps": RESAMPLES, "repeats": REPEATS}
    found = rliable(tmp_path, *({"ask": "profile", "scores": scores, **sizes} for scores in matrices))
    for scores, theirs in zip(matrices, found, strict=True):
        ours = [
            statistics.performance_profile(scores, thresholds, seed=seed, resamples=RESAMPLES)
            for seed in range(REPEATS)
        ]
        assert ours[0].share == pytest.approx(theirs["share"], abs=1e-6)
        assert within_error([profile.band for profile in ours], theirs["bands"])


def test_the_probability_of_improvement_is_rliables(tmp_path: Path) -> None:
    pairs = [(scores_of(5, 3), scores_of(4, 3, seed=1)), (scores_of(3, 1), scores_of(3, 1, seed=1))]
    tied = (np.array([[1.0, 5.0], [2.0, 5.0], [2.0, 7.0]]), np.array([[2.0, 5.0], [1.0, 5.0], [1.0, 7.0]]))
    pairs = [*pairs, tied]
    sizes = {"reps": 300, "repeats": REPEATS}
    found = rliable(tmp_path, *({"ask": "improvement", "ours": x, "theirs": y, **sizes} for x, y in pairs))
    chance = statistics.probability_of_improvement
    for pair, theirs in zip(pairs, found, strict=True):
        assert float(chance(*pair)) == pytest.approx(theirs["value"], abs=1e-6)
        ours = [statistics.bootstrap_interval(chance, *pair, seed=seed, resamples=300) for seed in range(REPEATS)]
        assert within_error([ends(repeat) for repeat in ours], theirs["intervals"])
