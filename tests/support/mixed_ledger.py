"""A ledger of tasks from several domains, made up from formulas: the same three contenders on all."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dtbench.analysis.results import SuiteResults, collect
from dtbench.ledger.store import Ledger, write_frame, write_json, write_lines
from dtbench.ledger.trial_spec import EvaluationSpec, TrialSpec

KEY_TO_DOOR, HOPPER, PONG, BREAKOUT = "key-to-door-1k", "hopper-medium-replay-v2", "atari:pong", "atari:breakout"
STEPS = (10, 20)
EPISODES = 4
POINTS = 5.0  # what a clipped reward of 1 is in the points that an Atari environment pays

SCORES = {
    KEY_TO_DOOR: "success rate (%)",
    HOPPER: "normalised score (physics d4rl)",
    PONG: "gamer-normalised score (protocol official-dt)",
    BREAKOUT: "gamer-normalised score (protocol official-dt)",
}
TARGETS = {
    KEY_TO_DOOR: (1.0, 0.5, 0.0),
    HOPPER: (3600.0, 1800.0, 900.0),
    PONG: (20.0, 10.0, 5.0),
    BREAKOUT: (90.0, 45.0, 9.0),
}
SUITE: dict[str, Any] = {
    "name": "demo",
    "title": "Three domains",
    "description": "Made up.",
    "preset": "cpu",
    "overrides": [],
    "tasks": [KEY_TO_DOOR, HOPPER, PONG],
    "seeds": [0, 1],
    "contenders": {name: {"algorithm": name.lower(), "train_steps": 20} for name in ("DT", "BC", "CQL")},
    "evaluation": {"episodes": EPISODES, "every": 10, "targets": None},
}
TABLE_1: dict[str, Any] = {
    "file": "decision_transformer.csv",
    "table": "1",
    "title": "Chen et al. (2021), Table 1",
    "data": "dqn-replay",
    "protocol": {"DT": "official-dt", "BC": "official-dt", "CQL": "dopamine"},
    "datasets": {PONG: {"dataset": "1% DQN-replay", "env": "Pong"}},
    "contenders": {"DT": "DT", "BC": "BC", "CQL": "CQL"},
}


def spec_of(
    task: str, contender: str, seed: int, *, source: str = "generated", options: Mapping[str, Any] | None = None
) -> TrialSpec:
    return TrialSpec(
        suite="demo",
        contender=contender,
        task=task,
        task_version=1,
        dataset_digest="0123456789abcdef" * 4,
        dataset_source=source,
        algorithm=contender.lower(),
        algorithm_version="1",
        hyperparameters={"hidden_size": 8},
        seed=seed,
        train_steps=20,
        evaluation=EvaluationSpec(episodes=EPISODES, every=10, targets=TARGETS[task], action_mode="greedy"),
        task_options=options or {},
    )


def episodes_of(spec: TrialSpec) -> pd.DataFrame:
    """DT achieves nine tenths of its target; Atari pays POINTS for each clipped reward, and scores these points."""
    best = TARGETS[spec.task][0]
    rows = []
    for step in STEPS:
        for target in TARGETS[spec.task] if spec.contender == "DT" else (np.nan,):
            for episode in range(EPISODES):
                share = 0.5 if np.isnan(target) else 0.9 * target / best
                achieved = best * (share + 0.01 * spec.seed + 0.001 * episode) * step / STEPS[-1]
                row = {"step": step, "target": target, "episode": episode, "seed": episode, "length": 10}
                if spec.task.startswith("atari"):
                    rows.append({**row, "return": POINTS * achieved, "score": POINTS * achieved, "achieved": achieved})
                else:
                    rows.append({**row, "return": achieved, "score": 100 * achieved / best})
    return pd.DataFrame(rows)


def provenance_of(spec: TrialSpec) -> dict[str, Any]:
    best = TARGETS[spec.task][0]
    card = {"episodes": 200, "steps": 2000, "return_min": 0.0, "return_mean": 0.5 * best, "return_max": best}
    protocol = str(spec.task_options.get("protocol", "official-dt"))
    score_name = SCORES[spec.task].replace("official-dt", protocol)
    units = {"target_units": "clipped rewards"} if spec.task.startswith("atari") else {}
    return {
        "commit": "abc1234",
        "versions": {"python": "3.11.2"},
        "device": "cpu",
        "dataset": {"source": spec.dataset_source, "digest": spec.dataset_digest, "info": {}, "card": card},
        "task": {"name": spec.task, "description": "Play.", "score_name": score_name, **units},
    }


def results_of(
    root: Path,
    *,
    suite: Mapping[str, Any] = SUITE,
    sources: Mapping[str, str] | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    modes: Mapping[str, str] | None = None,
    missing: Sequence[str] = (),
) -> SuiteResults:
    """The suite's trials but for the `missing` tasks'; sources and options by task, action modes by contender."""
    ledger = Ledger(root)
    cells = [(t, c, s) for t in suite["tasks"] for c in suite["contenders"] for s in suite["seeds"]]
    specs = [
        spec_of(t, c, s, source=(sources or {}).get(t, "generated"), options=(options or {}).get(t))
        for t, c, s in cells
    ]
    for spec in specs:
        if spec.task in missing:
            continue
        folder = ledger.create(spec)
        write_frame(folder / "episodes.parquet", episodes_of(spec))
        write_lines(folder / "metrics.jsonl", [{"step": step, "loss": 1.0} for step in STEPS])
        write_json(folder / "provenance.json", provenance_of(spec))
        mode = (modes or {}).get(spec.contender, "greedy")
        write_json(folder / "result.json", {"status": "done", "action_mode": mode, "steps": 20, "parameters": 1234})
    return collect(ledger.save_suite({**suite, "trials": [spec.to_json() for spec in specs]}), ledger)
