"""Event files that are written while trials train: complete, each scalar once, here and in Ray's workers."""

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from dtbench.cli.run import app
from dtbench.errors import UnknownName
from dtbench.execution.local import run_local
from dtbench.ledger.remote import Remote
from dtbench.ledger.store import Ledger
from dtbench.ledger.trial_spec import TrialSpec
from dtbench.suite.planning import load_suite, trial_specs
from dtbench.tracking.live import tracked
from dtbench.tracking.runs import run_of
from dtbench.trial import ignore, run_trial

accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")

SUITE = """
name: choices
title: Choices
tasks: ["tests.support.toy_tasks:choices"]
contenders:
  BC: {algorithm: bc, train_steps: 6, hyperparameters: {hidden_size: 8, batch_size: 8}}
  Random: {algorithm: random, train_steps: 0, action_mode: sample}
seeds: [0]
evaluation: {episodes: 3, every: 4}
"""


@pytest.fixture
def specs() -> list[TrialSpec]:
    Path("choices.yaml").write_text(SUITE)
    return trial_specs(load_suite("choices.yaml"))


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows of a trial's directory."""
    events = accumulator.EventAccumulator(str(folder)).Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def assert_complete(folder: Path, spec: TrialSpec, ledger: Ledger) -> None:
    """TensorBoard shows the ledger's scalars, each once."""
    record = ledger.record(spec)
    assert record is not None
    expected: dict[str, list[Any]] = {}
    for step, values in run_of(record).points:
        for name, value in values.items():
            expected.setdefault(name, []).append((step, pytest.approx(value, rel=1e-6)))
    assert scalars(folder) == expected
    assert "evaluation/score" in expected


def run(*arguments: str) -> None:
    done = CliRunner().invoke(app, ["run", "-s", "choices.yaml", *arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output


def test_a_followed_run_has_an_event_file_beside_each_trial(specs: list[TrialSpec]) -> None:
    run("--local", "--track", "tensorboard")
    ledger = Ledger(Path("results/runs"))
    for spec in specs:  # Random, too, which trains no step
        assert_complete(ledger.folder(spec), spec, ledger)
    assert [step for step, _ in scalars(ledger.folder(specs[0]))["training/action_loss"]] == [1, 2, 3, 4, 5, 6]


def test_without_a_tracker_no_event_file_is_written(specs: list[TrialSpec]) -> None:
    run("--local")
    assert not list(Path("results").rglob("*tfevents*"))


def test_scalars_are_on_disk_while_the_trial_trains(specs: list[TrialSpec], tmp_path: Path) -> None:
    ledger, seen = Ledger(tmp_path / "runs"), []

    def look(step: int, score: float | None) -> None:
        seen.append(len(scalars(ledger.folder(specs[0]))["training/action_loss"]))

    with tracked("tensorboard", specs[0], ledger, ignore) as on_logged:
        run_trial(specs[0], ledger, on_logged=on_logged, on_progress=look)
    assert seen == [1, 2, 3, 4, 5, 6]


def test_a_trial_that_goes_on_from_its_checkpoint_shows_each_scalar_once(
    specs: list[TrialSpec], tmp_path: Path
) -> None:
    spec, ledger = specs[0], Ledger(tmp_path / "runs")

    def killed(step: int, score: float | None) -> None:
        if step == 5:  # the checkpoint is of step 4
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), tracked("tensorboard", spec, ledger, ignore) as on_logged:
        run_trial(spec, ledger, on_logged=on_logged, on_progress=killed)
    saved: list[Path] = []
    with tracked("tensorboard", spec, ledger, saved.append) as on_logged:
        run_trial(spec, ledger, on_logged=on_logged)
    assert saved == [ledger.folder(spec)]
    assert len(list(ledger.folder(spec).glob("events.out.tfevents.*"))) == 2
    assert_complete(ledger.folder(spec), spec, ledger)


def test_event_files_reach_an_address(specs: list[TrialSpec], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DTBENCH_DATA", str(tmp_path / "data"))  # with the working copies
    there = tmp_path / "there"
    there.mkdir()
    run_local(specs, tmp_path / "mirror" / "runs", ignore, remote=Remote(there.as_uri()), tracker="tensorboard")
    for spec in specs:
        assert_complete(Ledger(there / "runs").folder(spec), spec, Ledger(there / "runs"))


@pytest.mark.ray
@pytest.mark.timeout(600)
def test_rays_workers_write_event_files_too(specs: list[TrialSpec]) -> None:
    run("--track", "tensorboard")
    ledger = Ledger(Path("results/runs"))
    for spec in specs:
        assert_complete(ledger.folder(spec), spec, ledger)


def test_an_unknown_tracker_is_named_before_anything_runs(specs: list[TrialSpec]) -> None:
    with pytest.raises(UnknownName, match=r"unknown tracker 'wandb'.*Known: tensorboard.*dtbench export"):
        run("--local", "--track", "wandb")
    assert not Path("results").exists()
