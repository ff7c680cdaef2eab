"""A ledger like that of the suite d4rl, made up from formulas: ten tasks, six contenders, a sweep of targets."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dtbench.analysis.results import SuiteResults, collect
from dtbench.ledger.store import Ledger, write_frame, write_json, write_lines
from dtbench.ledger.trial_spec import EvaluationSpec, TrialSpec

STEPS = (500, 1000, 1500, 2000)
EPISODES = 10
LOCOMOTION_ENVS = {"hopper": 3600.0, "halfcheetah": 6000.0, "walker2d": 5000.0}
KINDS = ("medium", "medium-replay", "medium-expert")
TASKS = [*(f"{robot}-{kind}-v2" for robot in LOCOMOTION_ENVS for kind in KINDS), "reacher2d-medium"]
SKILL = {"DT": 70.0, "BC": 50.0, "BC 10%": 62.0, "TD3+BC": 66.0, "IQL": 68.0, "CQL": 60.0}

PAPER: dict[str, Any] = {
    "file": "decision_transformer.csv",
    "table": "2",
    "title": "Chen et al. (2021), Table 2",
    "data": "d4rl",
    "physics": "d4rl",
    "datasets": {
        f"{robot}-{kind}-v2": {"dataset": [f"{kind}-v2", f"{kind}-v0"], "env": robot}
        for robot in LOCOMOTION_ENVS
        for kind in KINDS
    },
    "contenders": {"DT": "DT", "BC": "BC", "CQL": "CQL"},
    "averages": [
        {"name": "average without Reacher", "tasks": ["*-v2"], "dataset": "average w/o reacher", "env": "9 tasks"}
    ],
}

SUITE: dict[str, Any] = {
    "name": "d4rl",
    "title": "The Gym tasks",
    "description": "Made up.",
    "preset": "cpu",
    "overrides": [],
    "tasks": TASKS,
    "seeds": [0, 1, 2],
    "contenders": {name: {"algorithm": name.lower(), "train_steps": 2000} for name in SKILL},
    "evaluation": {"episodes": EPISODES, "every": 500, "action_mode": "greedy", "targets": None},
    "published": [PAPER],
}


def best_return(task: str) -> float:
    """Of the data's episodes."""
    return 0.8 * LOCOMOTION_ENVS.get(task.split("-")[0], 50.0)


def spec_of(task: str, contender: str, seed: int, *, source: str = "generated") -> TrialSpec:
    top = LOCOMOTION_ENVS.get(task.split("-")[0], 50.0)
    return TrialSpec(
        suite="d4rl",
        contender=contender,
        task=task,
        task_version=1,
        dataset_digest="0123456789abcdef" * 4,
        dataset_source=source,
        algorithm=contender.lower(),
        algorithm_version="1",
        hyperparameters={"hidden_size": 8},
        seed=seed,
        train_steps=2000,
        evaluation=EvaluationSpec(
            episodes=EPISODES,
            every=500,
            targets=(top, top / 2),
            action_mode="greedy",
            sweep=tuple(np.linspace(0, 1.5 * best_return(task), 14)) if contender == "DT" else (),
        ),
        task_options={"physics": "d4rl", "steps": 200000},
    )


def episodes_of(spec: TrialSpec) -> pd.DataFrame:
    """Returns close to the target inside the data and flat beyond it; the sweep at the last step alone."""
    rng = np.random.default_rng([TASKS.index(spec.task), list(SKILL).index(spec.contender), spec.seed])
    top, best = spec.evaluation.targets[0], best_return(spec.task)
    shift = rng.normal(0, 3)
    rows = []
    for step in STEPS:
        asked: tuple[float, ...] = (np.nan,)
        if spec.contender == "DT":
            asked = spec.evaluation.targets + (spec.evaluation.sweep if step == STEPS[-1] else ())
        for target in asked:
            grown = min(1.0, step / 900)  # as much by half of the steps as it will
            level = SKILL[spec.contender] + shift if np.isnan(target) else 100 * min(target, 0.95 * best) / top + shift
            for episode in range(EPISODES):
                score = grown * level + rng.normal(0, 4)
                row = {"step": step, "target": target, "episode": episode, "seed": 10_000_000 + episode}
                rows.append({**row, "return": top * score / 100, "length": 1000, "score": score})
    return pd.DataFrame(rows)


def provenance_of(spec: TrialSpec) -> dict[str, Any]:
    best = best_return(spec.task)
    card = {
        "episodes": 200,
        "steps": 200_000,
        "return_min": 0.02 * best,
        "return_mean": 0.5 * best,
        "return_max": best,
    }
    return {
        "commit": "abc1234",
        "versions": {"python": "3.11.2"},
        "device": "cpu",
        "dataset": {"source": spec.dataset_source, "digest": spec.dataset_digest, "info": {}, "card": card},
        "task": {"name": spec.task, "domain": "d4rl", "description": "Run.", "score_name": "D4RL-normalised score"},
    }


def finish(ledger: Ledger, spec: TrialSpec) -> None:
    folder = ledger.create(spec)
    write_frame(folder / "episodes.parquet", episodes_of(spec))
    write_lines(folder / "metrics.jsonl", [{"step": step, "loss": 1.0} for step in STEPS])
    write_json(folder / "provenance.json", provenance_of(spec))
    write_json(folder / "result.json", {"status": "done", "action_mode": "", "steps": 2000, "parameters": 1234})


def results_of(
    root: Path,
    *,
    suite: Mapping[str, Any] = SUITE,
    sources: Mapping[str, str] | None = None,
    missing: Sequence[tuple[str, str]] = (),
) -> SuiteResults:
    """The suite's trials but for the `missing` (task, contender), in a ledger that remembers the suite."""
    ledger = Ledger(root)
    cells = [(t, c, s) for t in suite["tasks"] for c in suite["contenders"] for s in suite["seeds"]]
    specs = [spec_of(t, c, s, source=(sources or {}).get(t, "generated")) for t, c, s in cells]
    for spec in specs:
        if (spec.task, spec.contender) not in missing:
            finish(ledger, spec)
    document = ledger.save_suite({**suite, "trials": [spec.to_json() for spec in specs]})
    return collect(document, ledger)
