"""Decision Transformer learns what the paper says, on the real tasks, with the shipped hyperparameters."""

from pathlib import Path

import pytest

from dtbench.ledger.store import Ledger
from dtbench.suite.planning import load_suite, narrow, trial_specs
from dtbench.trial import run_trial

pytestmark = pytest.mark.slow


def final_score(folder: Path, suite: str, task: str, contender: str, *overrides: str) -> float:
    whole = load_suite(suite, seeds="0", overrides=overrides)
    (spec,) = trial_specs(narrow(whole, tasks=[task], contenders=[contender]))
    assert run_trial(spec, Ledger(folder)) == "done"
    episodes = Ledger(folder).record(spec).episodes()  # type: ignore[union-attr]
    first_target = episodes.target.isna() | (episodes.target == spec.evaluation.targets[0])
    return float(episodes[(episodes.step == episodes.step.max()) & first_target].score.mean())


def test_key_to_door_is_solved_by_asking_for_a_return_of_one(tmp_path: Path) -> None:
    short = ("train_steps=200", "DT.decay_steps=200", "evaluation.episodes=200", "evaluation.every=1000")
    assert final_score(tmp_path, "key-to-door", "key-to-door-1k", "DT", *short) > 55
    assert final_score(tmp_path, "key-to-door", "key-to-door-1k", "BC", *short) < 10


def test_a_random_policy_opens_the_door_as_often_as_the_paper_says(tmp_path: Path) -> None:
    score = final_score(tmp_path, "key-to-door", "key-to-door-1k", "Random", "evaluation.episodes=5000")
    assert 2.3 < score < 3.7


def test_shortest_paths_are_found_from_random_walks(tmp_path: Path) -> None:
    short = ("DT.train_steps=1000", "DT.decay_steps=1000")
    assert final_score(tmp_path, "graph", "graph-0", "DT", *short) > 70
