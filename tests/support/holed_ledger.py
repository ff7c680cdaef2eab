"""A ledger with everything that goes wrong: holes, failures, single seeds, NaN, hostile names; of any size."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dtbench.analysis.results import SuiteResults, collect
from dtbench.ledger.store import Ledger, write_bytes, write_frame, write_json, write_lines
from dtbench.ledger.trial_spec import EvaluationSpec, TrialSpec

HOSTILE = "<script>alert(1)</script> & $x_{$ 50% | é\n#`"
STEPS = (50, 100)
TARGETS = (100.0, 50.0)
SWEEP = (0.0, 25.0, 75.0)


def spec_of(task: str, contender: str, seed: int, *, episodes: int) -> TrialSpec:
    conditioned = contender.startswith("DT")
    return TrialSpec(
        suite="holed",
        contender=contender,
        task=task,
        task_version=1,
        dataset_digest="0123456789abcdef" * 4,
        dataset_source="generated",
        algorithm="dt" if conditioned else "bc",
        algorithm_version="1",
        hyperparameters={"hidden_size": 8, "contender": contender},
        seed=seed,
        train_steps=STEPS[-1],
        evaluation=EvaluationSpec(
            episodes=episodes, every=50, targets=TARGETS, action_mode="greedy", sweep=SWEEP if conditioned else ()
        ),
    )


def state_of(task: int, contender: int, seed: int) -> str:
    """What becomes of a trial; the last task is run by nobody."""
    if (contender, seed) == (1, 1):
        return "failed"
    if contender == 2 and seed > 0:
        return "missing"  # one seed only
    if contender == 3 and seed == 0:
        return "nan"
    if contender == 4 and task == 0:
        return "nan"  # nothing but NaN in this cell
    return "missing" if (task, contender, seed) == (0, 0, 2) else "done"


def fill(root: Path, *, tasks: int, contenders: int, seeds: int, episodes: int) -> dict[str, Any]:
    """Write the trials and give the suite's document, which plans one task more."""
    ledger = Ledger(root)
    names = [f"task-{number}" for number in range(tasks)]
    players = ["DT", *(f"rival {number}" for number in range(1, contenders))]
    if contenders > 5:
        players[5] = HOSTILE
    specs = []
    for task, contender, seed in _places(tasks, contenders, seeds):
        spec = spec_of(names[task], players[contender], seed, episodes=episodes)
        specs.append(spec)
        state = state_of(task, contender, seed)
        if state == "failed":
            write_bytes(ledger.create(spec) / "error.txt", b"Traceback\n</script><b>ValueError: it broke</b>\n")
        elif state != "missing":
            _finish(ledger, spec, number=contender, broken=state == "nan")
    absent = [spec_of("nobody-ran-this", name, seed, episodes=episodes) for name in players for seed in range(seeds)]
    document = {
        "name": "holed",
        "title": "Everything that goes wrong",
        "preset": "cpu",
        "overrides": [],
        "tasks": [*names, "nobody-ran-this"],
        "seeds": list(range(seeds)),
        "contenders": {name: {"algorithm": "bc"} for name in players},
        "evaluation": {"episodes": episodes, "every": 50, "action_mode": "greedy", "targets": None},
        "published": [],
        "trials": [spec.to_json() for spec in (*specs, *absent)],
    }
    return dict(ledger.save_suite(document))


def results_of(root: Path, **sizes: int) -> SuiteResults:
    return collect(fill(root, **sizes), Ledger(root))


def _places(tasks: int, contenders: int, seeds: int) -> Iterator[tuple[int, int, int]]:
    return ((t, c, s) for t in range(tasks) for c in range(contenders) for s in range(seeds))


def _finish(ledger: Ledger, spec: TrialSpec, *, number: int, broken: bool) -> None:
    folder = ledger.create(spec)
    rng = np.random.default_rng([number, spec.seed, len(spec.task)])
    write_frame(folder / "episodes.parquet", _episodes(spec, 60.0 - 5 * number + rng.normal(0, 3), rng, broken=broken))
    write_lines(folder / "metrics.jsonl", [{"step": step, "loss": 1.0 / step} for step in STEPS])
    write_json(folder / "provenance.json", _provenance(spec))
    result = {"status": "done", "action_mode": "", "steps": STEPS[-1], "parameters": 10, "seconds": 1.0}
    write_json(folder / "result.json", {**result, "return_conditioned": spec.algorithm == "dt"})


def _episodes(spec: TrialSpec, level: float, rng: np.random.Generator, *, broken: bool) -> pd.DataFrame:
    count, parts = spec.evaluation.episodes, []
    for step in STEPS:
        asked = spec.evaluation.last_targets if spec.algorithm == "dt" else (np.nan,)
        for target in asked if step == STEPS[-1] else asked[:1]:
            reached = level if np.isnan(target) else min(level, target)
            score = np.full(count, np.nan) if broken else reached + rng.normal(0, 4, count)
            columns = {"step": step, "target": target, "episode": np.arange(count), "seed": 10**7 + np.arange(count)}
            parts.append(pd.DataFrame({**columns, "return": score, "length": 10, "score": score}))
    return pd.concat(parts, ignore_index=True)


def _provenance(spec: TrialSpec) -> dict[str, Any]:
    histogram = {"counts": [1, 5, 3, 1], "edges": [0.0, 25.0, 50.0, 75.0, 100.0]}
    card = {"episodes": 10, "steps": 100, "return_min": 0.0, "return_mean": 40.0, "return_max": 100.0}
    return {
        "commit": "abc1234",
        "versions": {"python": "3.11.2"},
        "device": "cpu",
        "started": "2026-01-01T00:00:00+00:00",
        "finished": f"2026-01-01T00:00:{spec.seed % 60:02d}+00:00",
        "dataset": {
            "source": "generated",
            "digest": spec.dataset_digest,
            "info": {},
            "card": {**card, "length_mean": 10.0, "return_histogram": histogram},
        },
        "task": {"name": spec.task, "domain": "x", "description": HOSTILE, "score_name": "normalised score"},
    }
