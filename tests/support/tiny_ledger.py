"""A ledger whose final scores are what a test says: two episodes a trial, one checkpoint before the last."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from dtbench.analysis.results import SuiteResults, collect
from dtbench.ledger.store import Ledger, write_frame, write_json, write_lines
from dtbench.ledger.trial_spec import EvaluationSpec, TrialSpec

Scores = Mapping[tuple[str, str], Sequence[float | None]]  # (task, contender) -> one a seed, None: has not finished

TASKS = ("valley", "hill")
SCORES: Scores = {
    ("valley", "DT"): (50.0, 51.0, 52.0),
    ("valley", "BC"): (40.0, 41.0, 42.0),
    ("hill", "DT"): (70.0, 71.0, 72.0),
    ("hill", "BC"): (30.0, 31.0, 32.0),
}
TARGETS = (100.0, 60.0)


def spec_of(
    task: str,
    contender: str,
    seed: int,
    *,
    suite: str = "tiny",
    digest: str = "a" * 64,
    hidden_size: int = 8,
    every: int = 10,
) -> TrialSpec:
    return TrialSpec(
        suite=suite,
        contender=contender,
        task=task,
        task_version=1,
        dataset_digest=digest,
        dataset_source="generated",
        algorithm=contender.lower(),
        algorithm_version="1",
        hyperparameters={"hidden_size": hidden_size},
        seed=seed,
        train_steps=20,
        evaluation=EvaluationSpec(
            episodes=2,
            every=every,
            targets=TARGETS if contender == "DT" else (),
            action_mode="greedy",
            sweep=(200.0,) if contender == "DT" else (),
        ),
    )


def episodes_of(spec: TrialSpec, score: float) -> pd.DataFrame:
    """Final scores of `score` at the first target, half of it at the others and at the checkpoint before."""
    asked: dict[int, tuple[float, ...]] = {10: (float("nan"),), 20: (float("nan"),)}
    if spec.evaluation.targets:
        asked = {10: spec.evaluation.targets, 20: spec.evaluation.last_targets}
    rows = []
    for step, targets in asked.items():
        for place, target in enumerate(targets):
            level = score if step == 20 and place == 0 else score / 2
            for episode, shift in enumerate((-1.0, 1.0)):
                row = {"step": step, "target": target, "episode": episode, "seed": 1000 + episode}
                rows.append({**row, "return": 10 * (level + shift), "length": 5, "score": level + shift})
    return pd.DataFrame(rows)


def finish(ledger: Ledger, spec: TrialSpec, score: float) -> None:
    folder = ledger.create(spec)
    data = {"source": spec.dataset_source, "digest": spec.dataset_digest, "info": {}, "card": {}}
    task = {"name": spec.task, "domain": "made up", "description": "Walk.", "score_name": "score"}
    provenance: dict[str, Any] = {"commit": "abc1234", "versions": {"python": "3.11.2"}, "device": "cpu"}
    write_frame(folder / "episodes.parquet", episodes_of(spec, score))
    write_lines(folder / "metrics.jsonl", [{"step": step, "loss": 1.0} for step in (10, 20)])
    write_json(folder / "provenance.json", {**provenance, "dataset": data, "task": task})
    write_json(folder / "result.json", {"status": "done", "action_mode": "greedy", "steps": 20, "parameters": 12})


def tiny_ledger(
    results: Path, scores: Scores = SCORES, *, suite: str = "tiny", preset: str = "cpu", **protocol: Any
) -> SuiteResults:
    """A results folder with the ledger of one suite; what is in it. `protocol` goes to `spec_of`."""
    ledger = Ledger(results / "runs")
    specs = []
    for (task, contender), values in scores.items():
        for seed, score in enumerate(values):
            spec = spec_of(task, contender, seed, suite=suite, **protocol)
            specs.append(spec)
            if score is not None:
                finish(ledger, spec, score)
    contenders = dict.fromkeys(contender for _, contender in scores)
    document = {
        "name": suite,
        "title": "Tiny",
        "description": "Made up.",
        "preset": preset,
        "overrides": [],
        "tasks": list(dict.fromkeys(task for task, _ in scores)),
        "seeds": [0, 1, 2],
        "contenders": {name: {"algorithm": name.lower(), "train_steps": 20} for name in contenders},
        "evaluation": {"episodes": 2, "every": 10, "action_mode": "greedy", "targets": None},
        "trials": [spec.to_json() for spec in specs],
    }
    return collect(ledger.save_suite(document), ledger)
