"""Trials as runs of trackers, read back with the trackers' own code where it is installed."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from dtbench.cli.run import app
from dtbench.errors import DtbenchError, InvalidValue, UnknownName
from dtbench.ledger.store import Ledger
from dtbench.tracking.runs import flat_config, run_of
from tests.support.tiny_ledger import SCORES, spec_of, tiny_ledger

FINAL = {  # of DT on the hill with seed 1: 71 at the first target, half of it at the others
    "training/loss": 1.0,
    "evaluation/score": 71.0,
    "evaluation/return": 710.0,
    "evaluation/length": 5.0,
    "evaluation/score/target_100": 71.0,
    "evaluation/return/target_100": 710.0,
    "evaluation/score/target_60": 35.5,
    "evaluation/score/target_200": 35.5,
}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    tiny_ledger(tmp_path / "results")
    return tmp_path / "results"


def export(tracker: str, *arguments: str) -> str:
    done = CliRunner().invoke(app, ["export", tracker, *arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_a_trial_is_a_run_with_losses_and_evaluations_by_step(results: Path) -> None:
    record = Ledger(results / "runs").record(spec_of("hill", "DT", 1))
    assert record is not None
    run = run_of(record)
    assert run.name == "DT/hill/seed1"
    assert [step for step, _ in run.points] == [10, 20]
    scalars = dict(run.points)[20]
    assert {name: scalars[name] for name in FINAL} == FINAL
    assert dict(run.points)[10]["evaluation/score"] == 35.5
    assert "evaluation/score/target_200" not in dict(run.points)[10]  # the sweep comes last


def test_a_contender_without_targets_has_one_score(results: Path) -> None:
    record = Ledger(results / "runs").record(spec_of("hill", "BC", 0))
    assert record is not None
    names = {name for _, scalars in run_of(record).points for name in scalars}
    assert names == {"training/loss", "evaluation/score", "evaluation/return", "evaluation/length"}


def test_tensorboard_reads_what_is_exported(results: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    printed = export("tensorboard", "--results", str(results), "--out", "events")
    assert printed.strip() == f"{Path('events').resolve()}: 12 runs"
    runs = sorted(
        path.parent.relative_to("events").as_posix() for path in Path("events").rglob("events.out.tfevents*")
    )
    assert runs == [
        f"{name}/{task}/seed{seed}" for name in ("BC", "DT") for task in ("hill", "valley") for seed in range(3)
    ]
    events = accumulator.EventAccumulator("events/DT/hill/seed1").Reload()
    for name, value in FINAL.items():
        assert [(event.step, event.value) for event in events.Scalars(name)][-1] == (20, pytest.approx(value))
    assert [event.step for event in events.Scalars("evaluation/score")] == [10, 20]
    data = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    plugin = pytest.importorskip("tensorboard.plugins.hparams.plugin_data_pb2")
    hparams = plugin.HParamsPluginData.FromString(data).session_start_info.hparams
    assert hparams["hyperparameters.hidden_size"].number_value == 8
    assert hparams["contender"].string_value == "DT"


def test_names_that_give_one_folder_are_kept_apart(tmp_path: Path) -> None:
    tiny_ledger(tmp_path / "results", {("hill", "D T"): (1.0,), ("hill", "D-T"): (2.0,)})
    export("tensorboard", "--results", str(tmp_path / "results"), "--out", "events")
    folders = sorted(path.name for path in Path("events/D-T/hill").iterdir())
    assert folders[0] == "seed0"
    assert folders[1].startswith("seed0-")


def wandb_records(path: Path) -> Iterator[Any]:
    """The records of an offline run: LevelDB's log format, whose records are split at blocks of 32 KiB."""
    from wandb.proto import wandb_internal_pb2

    content, place, whole = path.read_bytes(), 7, b""  # after the file's header
    while place + 7 <= len(content):
        if (left := 32768 - place % 32768) < 7:
            place += left
            continue
        length, kind = int.from_bytes(content[place + 4 : place + 6], "little"), content[place + 6]
        whole += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # the whole record, or the last of its parts
            yield wandb_internal_pb2.Record.FromString(whole)
            whole = b""


@pytest.mark.extended
@pytest.mark.timeout(120)
def test_wandb_reads_what_is_exported(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "online")  # which must not win
    assert export("wandb", "--results", str(results), "--suite", "tiny", "--out", "runs").endswith("runs: 12 runs\n")
    key = spec_of("hill", "DT", 1).key
    (file,) = Path("runs/wandb").glob(f"offline-run-*-{key}/run-{key}.wandb")
    records = list(wandb_records(file))
    (run,) = (record.run for record in records if record.HasField("run"))
    assert (run.display_name, run.run_group, run.project) == ("DT/hill/seed1", "tiny", "dtbench")
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert config["hyperparameters"] == {"hidden_size": 8}
    rows = [record.history for record in records if record.HasField("history")]
    last = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in rows[-1].item}
    assert {name: last[name] for name in FINAL} == FINAL
    assert last["_step"] == 20
    assert len(list(Path("runs/wandb").glob("offline-run-*"))) == 12


@pytest.mark.extended
@pytest.mark.timeout(120)
def test_mlflow_reads_what_is_exported(results: Path) -> None:
    pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    pytest.importorskip("alembic")
    export("mlflow", "--results", str(results), "--out", "runs")
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{Path('runs').resolve()}/mlflow.db")
    (experiment,) = client.search_experiments(filter_string="name = 'tiny'")
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert len(runs) == 12
    run = runs["DT/hill/seed1"]
    assert {name: run.data.metrics[name] for name in FINAL} == FINAL
    assert run.data.params["hyperparameters.hidden_size"] == "8"
    assert run.data.tags["trial"] == spec_of("hill", "DT", 1).key
    history = client.get_metric_history(run.info.run_id, "evaluation/score")
    assert [(one.step, one.value) for one in history] == [(10, 35.5), (20, 71.0)]


@pytest.mark.parametrize(("tracker", "package"), [("wandb", "wandb"), ("mlflow", "alembic")])
def test_a_missing_package_is_one_error_with_the_command(
    results: Path, monkeypatch: pytest.MonkeyPatch, tracker: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InvalidValue, match=rf"need {package}: pip install .*{package}"):
        export(tracker, "--results", str(results), "--out", "runs")
    assert not Path("runs").exists()


@pytest.mark.parametrize("tracker", ["tensorboard", "wandb", "mlflow"])
def test_mistakes_are_named_and_nothing_is_overwritten(results: Path, tracker: str) -> None:
    Path("mine").mkdir()
    Path("mine/file").write_text("mine")
    with pytest.raises(InvalidValue, match="is not an empty folder"):
        export(tracker, "--results", str(results), "--out", "mine")
    with pytest.raises(UnknownName, match="Did you mean 'tiny'"):
        export(tracker, "--results", str(results), "--suite", "tinny", "--out", "runs")
    with pytest.raises(DtbenchError, match="Run a suite first"):
        export(tracker, "--results", "nowhere", "--out", "runs")
    assert not Path("runs").exists()


def test_values_that_are_no_numbers_are_left_out(tmp_path: Path) -> None:
    tiny_ledger(tmp_path / "results", {**SCORES, ("hill", "BC"): (float("nan"),)})
    record = Ledger(tmp_path / "results" / "runs").record(spec_of("hill", "BC", 0))
    assert record is not None
    values = [value for _, scalars in run_of(record).points for value in scalars.values()]
    assert np.isfinite(values).all()
    assert all(isinstance(value, bool | int | float | str) for value in flat_config(record.spec).values())
