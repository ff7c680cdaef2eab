"""The public names, and the snippet of the documentation as it is written."""

import builtins
import pydoc
from pathlib import Path
from typing import Any

import pytest

import dtbench
from dtbench.errors import LedgerError
from dtbench.registry import make_task

SNIPPET = """
import dtbench
task = dtbench.make_task("hopper-medium-v2")
dataset = task.load_dataset()
learner = dtbench.DecisionTransformer(context=20).learner(dataset, seed=0)
for _ in range(10_000):
    learner.update()
episodes = dtbench.evaluate(learner, task, target_returns=[3600], episodes=20)

dtbench.run_suite("key-to-door", preset="smoke", results="results")
scores = dtbench.load_scores("results")              # tidy DataFrame
"""
POLICY = """
policy = dtbench.load_policy("results", key)         # a finished trial's policy: reset(target_return), act(observation)
"""  # noqa: E501


def test_the_snippet_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    small = {"steps": 2000}
    monkeypatch.setattr(dtbench, "make_task", lambda name: make_task(name, small), raising=False)
    run_suite = dtbench.run_suite
    fewer = ("Random.train_steps=0", "evaluation.episodes=3")
    monkeypatch.setattr(dtbench, "run_suite", lambda *a, **k: run_suite(*a, **k, overrides=fewer), raising=False)
    names: dict[str, Any] = {"range": lambda count: builtins.range(min(count, 3))}
    exec(SNIPPET, names)
    assert names["episodes"].targets.tolist() == [3600.0] * 20
    scores = names["scores"]
    assert {"task", "contender", "seed", "step", "target", "score", "trial"} <= set(scores.columns)
    names["key"] = scores.loc[scores["contender"] == "DT", "trial"].iloc[0]
    exec(POLICY, names)
    env = make_task("key-to-door-1k").make_env(1)
    observations, _ = env.reset(seed=[1])
    names["policy"].reset(1.0)
    for _ in range(3):
        action = names["policy"].act(observations[0])
        assert env.single_action_space.contains(action)
        observations, *_ = env.step(action[None])
    next(Path("results").rglob(f"*{names['key']}*/checkpoint.pt")).write_bytes(b"damaged")
    with pytest.raises(LedgerError, match=r"cannot load .*checkpoint\.pt"):
        dtbench.load_policy("results", names["key"])


def test_each_public_name_exists_and_is_shown() -> None:
    assert 25 <= len(dtbench.__all__) <= 32
    assert set(dtbench.__all__) <= set(dir(dtbench))
    for name in dtbench.__all__:
        assert getattr(dtbench, name) is not None
    text = pydoc.render_doc(dtbench, renderer=pydoc.plaintext)
    for name in ("DecisionTransformer", "load_policy", "TrajectoryDataset"):
        assert name in text


def test_names_that_are_not_public_are_refused() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'GamesHeld'"):
        dtbench.GamesHeld  # type: ignore[attr-defined]  # noqa: B018
