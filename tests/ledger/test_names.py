"""Settings were renamed; trial keys were not."""

import dataclasses
import hashlib
import json
from pathlib import Path

import pytest

from dtbench import registry
from dtbench.errors import InvalidValue
from dtbench.ledger.names import HYPERPARAMETERS
from dtbench.ledger.trial_spec import TrialSpec
from dtbench.suite.planning import load_suite, trial_specs
from dtbench.task import Task
from dtbench.testing import toy_dataset

ROOT = Path(__file__).parents[2]
PLANNED = json.loads(Path(__file__).with_name("planned_keys.json").read_text())  # of "suite preset": a digest


@pytest.mark.parametrize("path", sorted(ROOT.glob("results/scores/*/trials.jsonl")), ids=lambda path: path.parent.name)
def test_archived_trials_keep_their_keys(path: Path) -> None:
    for line in path.read_text().splitlines():
        archived = json.loads(line)["spec"]
        spec = TrialSpec.from_json(archived)
        assert spec.key == archived["key"]
        assert TrialSpec.from_json(spec.to_json()) == spec
        assert "budget" not in spec.to_json()


@pytest.mark.parametrize("name", sorted(PLANNED))
def test_shipped_suites_plan_the_trials_that_they_planned(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    toy = toy_dataset(discrete_actions=True)
    data = dataclasses.replace(toy, rewards=1000 * toy.rewards)  # returns as large as those of the papers' data
    monkeypatch.setattr(Task, "open", lambda task, source="auto": dataclasses.replace(data, digest=task.name))
    monkeypatch.setattr(Task, "resolve", lambda task, source="auto", fetch=True: source)
    suite, preset = name.split()
    keys = sorted(spec.key for spec in trial_specs(load_suite(suite, preset=None if preset == "None" else preset)))
    assert hashlib.sha256(" ".join(keys).encode()).hexdigest()[:16] == PLANNED[name]


def test_every_renamed_hyperparameter_exists_under_its_current_name_alone() -> None:
    for algorithm, names in HYPERPARAMETERS.items():
        known = registry.all_hyperparameters(algorithm, {}).keys()
        assert names.keys() <= known
        assert not set(names.values()) & known


@pytest.mark.parametrize(
    ("override", "current"),
    [
        ("DT.width=8", "hidden_size"),
        ("DT.budget=8", "train_steps"),
        ("budget=8", "train_steps"),
        ("DT.evaluate_every=8", "eval_interval"),
        ("CQL.penalty=1", "alpha"),
        ("evaluation.action_mode=argmax", "greedy"),
    ],
)
def test_an_earlier_name_is_answered_with_the_current_one(override: str, current: str) -> None:
    with pytest.raises(InvalidValue, match=f"is now called {current}"):
        load_suite("key-to-door", overrides=[override])
