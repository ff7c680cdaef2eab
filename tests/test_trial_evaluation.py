"""A trained learner that is asked something new is evaluated, not trained again; a running one can be watched."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from dtbench import trial
from dtbench.ledger.store import Ledger
from dtbench.ledger.trial_spec import TrialSpec
from dtbench.suite.planning import load_suite, trial_specs
from dtbench.trial import run_trial

SUITE = """
name: toy
tasks: [graph-0]
seeds: [0]
evaluation: {episodes: 3, every: 4, targets: [-5]}
contenders:
  DT: {algorithm: dt, train_steps: 8, hyperparameters: {hidden_size: 8, num_layers: 1, num_heads: 1, dropout: 0.1}}
"""


@pytest.fixture
def spec(tmp_path: Path) -> TrialSpec:
    (tmp_path / "toy.yaml").write_text(SUITE)
    (spec,) = trial_specs(load_suite("toy.yaml"))
    return spec


def asked(spec: TrialSpec, **changes: object) -> TrialSpec:
    return dataclasses.replace(spec, evaluation=dataclasses.replace(spec.evaluation, **changes))


def rows(ledger: Ledger, spec: TrialSpec, steps: tuple[int, ...]) -> pd.DataFrame:
    record = ledger.record(spec)
    assert record is not None
    found = record.episodes()
    return found[found["step"].isin(steps)].reset_index(drop=True)


CHANGES = ({"targets": (-5.0, -2.0)}, {"episodes": 5}, {"sweep": (-9.0, -1.0)})


@pytest.mark.parametrize("changes", CHANGES, ids=lambda changes: next(iter(changes)))
def test_another_evaluation_needs_no_training_and_gives_what_training_gives(
    changes: dict[str, object], spec: TrialSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh, ledger, other = Ledger(Path("fresh")), Ledger(Path("runs")), asked(spec, **changes)
    run_trial(other, fresh)
    run_trial(spec, ledger)
    trained = json.loads((ledger.folder(spec) / "metrics.jsonl").read_text().splitlines()[-1])

    updates = counted_updates(monkeypatch)
    assert run_trial(other, ledger) == "done"
    assert updates == []
    steps = (4, 8) if "sweep" in changes else (8,)  # a sweep is of the last step alone
    pd.testing.assert_frame_equal(rows(ledger, other, steps), rows(fresh, other, steps))
    record = ledger.record(other)
    assert record is not None
    assert record.result["evaluated_from"] == spec.key
    assert record.result["steps"] == 8
    assert len(record.episodes()) == len(rows(ledger, other, steps))
    assert json.loads((ledger.folder(other) / "metrics.jsonl").read_text().splitlines()[-1]) == trained


@pytest.mark.parametrize(
    "change",
    [
        lambda spec: asked(spec, every=2),
        lambda spec: dataclasses.replace(spec, seed=1),
        lambda spec: dataclasses.replace(spec, train_steps=9),
        lambda spec: dataclasses.replace(spec, hyperparameters={**spec.hyperparameters, "dropout": 0.0}),
        lambda spec: dataclasses.replace(spec, task_version=spec.task_version + 1),
    ],
)
def test_what_learns_otherwise_is_trained(
    change: Callable[[TrialSpec], TrialSpec], spec: TrialSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger(Path("runs"))
    run_trial(spec, ledger)
    updates = counted_updates(monkeypatch)
    run_trial(change(spec), ledger)
    assert updates


@pytest.mark.parametrize("damage", ["missing", "damaged", "earlier"])
def test_without_the_finished_checkpoint_the_learner_is_trained(
    damage: str, spec: TrialSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, other = Ledger(Path("runs")), asked(spec, episodes=5)
    run_trial(spec, ledger)
    if damage == "missing":
        (ledger.folder(spec) / "checkpoint.pt").unlink()
    elif damage == "damaged":
        (ledger.folder(spec) / "result.json").unlink()
    else:
        (ledger.folder(spec) / "spec.json").write_text("{")
    updates = counted_updates(monkeypatch)
    assert run_trial(other, ledger) == "done"
    assert len(updates) == 8


def counted_updates(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that grows with every gradient step."""
    updates: list[int] = []
    original = trial.open_trial

    def opened(*arguments: object, **options: object) -> trial.OpenTrial:
        found = original(*arguments, **options)  # type: ignore[arg-type]
        update = found.learner.update
        found.learner.update = lambda: (updates.append(1), update())[1]  # type: ignore[method-assign]
        return found

    monkeypatch.setattr(trial, "open_trial", opened)
    return updates


def test_losses_can_be_read_while_a_trial_runs(spec: TrialSpec) -> None:
    ledger, seen = Ledger(Path("runs")), []

    def look(folder: Path) -> None:
        if (folder / "metrics.jsonl").exists() and not (folder / "result.json").exists():
            seen.append(len((folder / "metrics.jsonl").read_text().splitlines()))

    run_trial(spec, ledger, on_saved=look)
    assert seen[0] == 4
    assert seen == sorted(seen)


def test_a_directory_that_is_removed_while_its_trial_runs_is_made_again(spec: TrialSpec) -> None:
    ledger = Ledger(Path("runs"))

    def remove(step: int, score: float | None) -> None:
        if step in (3, 6):
            shutil.rmtree(ledger.root)

    run_trial(spec, ledger, on_progress=remove)
    assert ledger.problems() == {}
    assert ledger.record(spec) is not None
