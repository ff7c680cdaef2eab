"""The report: built from a small ledger that was made up here."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dtbench.analysis.report import final_rows, write_report
from dtbench.analysis.scores import SuiteResults, score_table
from dtbench.errors import NothingToReport
from dtbench.ledger import Ledger, write_frame, write_json, write_lines
from dtbench.spec import EvaluationSpec, TrialSpec

KEY_TO_DOOR = "key-to-door-1k"
GRAPH = "graph-0"
STEPS = (0, 50, 100)
CONDITIONED = ("DT",)

SUITE: dict[str, Any] = {
    "name": "made-up",
    "title": "Made up <b>& small</b>",
    "description": "A ledger invented for a test: 100 % of it.",
    "preset": "cpu",
    "overrides": ["contenders.DT.budget=100"],
    "tasks": [KEY_TO_DOOR, GRAPH],
    "seeds": [0, 1, 2],
    "contenders": {
        "DT": {"algorithm": "dt", "budget": 100, "description": "returns | as tokens"},
        "BC successful": {"algorithm": "bc", "budget": 100},
        "CQL": {"algorithm": "cql", "budget": 100},
    },
    "evaluation": {"episodes": 20, "every": 50, "targets": None},
    "published": [
        {
            "file": "decision_transformer.csv",
            "table": "6",
            "title": "Table 6",
            "datasets": {KEY_TO_DOOR: "1K random trajectories", "key-to-door-10k": "10K random trajectories"},
            "contenders": {"DT": "DT", "BC successful": "%BC", "CQL": "CQL"},
            "metric": "success_rate_pct",
        }
    ],
}


def spec_of(task: str, contender: str, seed: int) -> TrialSpec:
    targets = (1.0, 0.5, 0.0) if task == KEY_TO_DOOR else (-1.0,)
    return TrialSpec(
        suite="made-up",
        contender=contender,
        task=task,
        task_version=1,
        dataset_digest="0123456789abcdef" * 4,
        dataset_source="generated",
        algorithm=contender.split()[0].lower(),
        algorithm_version="1",
        hyperparameters={"rate": 1e-3, "model": {"layers": 2, "kind": contender}},
        seed=seed,
        budget=100,
        evaluation=EvaluationSpec(episodes=20, every=50, targets=targets, action_mode="argmax"),
    )


def episodes_of(spec: TrialSpec) -> pd.DataFrame:
    """A success for every target met: the better, the longer trained; contenders and seeds differ by a little."""
    skill = {"DT": 14, "BC successful": 13, "CQL": 3}[spec.contender] + spec.seed
    targets = spec.evaluation.targets if spec.contender in CONDITIONED else (np.nan,)
    rows = []
    for step in STEPS:
        for target in targets:
            for episode in range(20):
                asked = 1.0 if np.isnan(target) or spec.task == GRAPH else target
                won = episode < skill * asked * step / 100
                rows.append(one_episode(spec.task, won=won, step=step, target=target, episode=episode))
    return pd.DataFrame(rows)


def one_episode(task: str, *, won: bool, step: int, target: float, episode: int) -> dict[str, Any]:
    row = {"step": step, "target": target, "episode": episode, "seed": 10_000_000 + episode}
    if task == KEY_TO_DOOR:
        return {**row, "return": float(won), "length": 40, "score": 100.0 * won}
    length = 1 + episode % 3 if won else 10
    path = {"start": 4, "shortest": 1 + episode % 3, "reached": won, "path": "4-0", "novel": episode < 2}
    return {**row, "return": -float(length), "length": length, "score": 100.0 * won, **path}


def provenance_of(spec: TrialSpec) -> dict[str, Any]:
    info: dict[str, Any] = {"recipe": "walks_at_random", "seed": 0}
    if spec.task == GRAPH:
        info |= {"walk_steps_to_goal": {"1": 10, "5": 30, "inf": 60}, "shortest_steps": {"1": 5, "2": 5, "3": 2}}
    card = {"episodes": 1000, "steps": 40_000, "return_mean": 0.03, "return_max": 1.0, "length_mean": 40.0}
    return {
        "commit": "abc1234",
        "versions": {"python": "3.11.2", "torch": "2.9.0"},
        "device": "cpu",
        "dataset": {"source": "generated", "digest": spec.dataset_digest, "info": info, "card": card},
        "task": {
            "name": spec.task,
            "domain": "graph" if spec.task == GRAPH else "key_to_door",
            "description": f"What {spec.task} asks.",
            "score_name": "success rate (%)",
        },
    }


def finish(ledger: Ledger, spec: TrialSpec, provenance: Mapping[str, Any]) -> None:
    folder = ledger.begin(spec)
    write_frame(folder / "episodes.parquet", episodes_of(spec))
    write_lines(folder / "metrics.jsonl", [{"step": step, "loss": 1.0} for step in STEPS])
    write_json(folder / "provenance.json", provenance)
    result = {"status": "done", "action_mode": "argmax", "steps": 100, "parameters": 1234}
    write_json(folder / "result.json", result)


def results_of(root: Path, suite: Mapping[str, Any], *, missing: Sequence[tuple[str, str, int]] = ()) -> SuiteResults:
    ledger = Ledger(root)
    cells = [(t, c, s) for t in suite["tasks"] for c in suite["contenders"] for s in suite["seeds"]]
    specs = [spec_of(*cell) for cell in cells if cell not in missing]
    for spec in specs:
        finish(ledger, spec, provenance_of(spec))
    records = tuple(record for record in map(ledger.record, specs) if record)
    return SuiteResults(suite, records, tuple(spec_of(*cell) for cell in missing), score_table(records))


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> SuiteResults:
    return results_of(tmp_path_factory.mktemp("ledger"), SUITE)


@pytest.fixture(scope="module")
def report(whole: SuiteResults, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(whole, tmp_path_factory.mktemp("report")).parent
