"""Pipes, devices and links in a ledger or an archive: nothing hangs, and nothing is read or written through them."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dtbench.analysis.results_directory import keep_scores
from dtbench.cli.run import app
from dtbench.errors import DtbenchError, LedgerUnwritable
from dtbench.ledger.store import Ledger, read_suite
from tests.support.tiny_ledger import finish, spec_of, tiny_ledger

COMMANDS = (["status"], ["status", "--json"], ["compare", "results", "results"], ["export", "rliable", "--force"])

pytestmark = pytest.mark.timeout(90)


def pipe(path: Path) -> None:
    os.mkfifo(path)


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def elsewhere(path: Path) -> None:
    shutil.copy("/etc/hostname", path.parent.parent / "secret")
    path.symlink_to(path.parent.parent / "secret")


def outputs(monkeypatch: pytest.MonkeyPatch, directory: Path) -> list[str]:
    """What each command prints, its error included, which must be one of ours."""
    monkeypatch.chdir(directory)
    outcomes = [CliRunner().invoke(app, command) for command in COMMANDS]
    assert all(isinstance(one.exception, DtbenchError | SystemExit | None) for one in outcomes)
    return [f"{one.output}{one.exception}" for one in outcomes]


@pytest.mark.parametrize("make", [pipe, endless, elsewhere])
@pytest.mark.parametrize("file", ["spec.json", "result.json", "episodes.parquet", "metrics.jsonl", "provenance.json"])
def test_a_trials_file_that_is_none_hangs_no_command(
    file: str, make: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_ledger(tmp_path / "results")
    trial = sorted((tmp_path / "results" / "runs" / "hill").iterdir())[0]
    (trial / file).unlink(missing_ok=True)
    make(trial / file)
    assert any(trial.name in text for text in outputs(monkeypatch, tmp_path))


def test_a_failures_text_that_is_a_pipe_hangs_no_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = tmp_path / "results"
    tiny_ledger(results)
    folder = Ledger(results / "runs").record_failure(spec_of("hill", "DT", 7), cause="crash", text="x")
    for name in ("error.txt", "failure.json"):
        (folder / name).unlink()
        pipe(folder / name)
    assert any("not a regular file" in text for text in outputs(monkeypatch, tmp_path))


@pytest.mark.parametrize("file", ["trials.jsonl", "episodes.parquet", "suite.json"])
def test_an_archives_file_that_is_a_pipe_hangs_no_command(
    file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_ledger(tmp_path / "results")
    outputs(monkeypatch, tmp_path)
    ledger = Ledger(tmp_path / "results" / "runs")
    keep_scores(read_suite(next((ledger.root / "suites").glob("*.json"))), ledger, tmp_path / "results" / "scores")
    shutil.rmtree(tmp_path / "results" / "runs")
    path = tmp_path / "results" / "scores" / "tiny" / file
    path.unlink()
    pipe(path)
    assert any("not a regular file" in text for text in outputs(monkeypatch, tmp_path))


@pytest.mark.parametrize("linked", ["the trial", "its task"])
def test_no_trial_is_written_through_a_link(linked: str, tmp_path: Path) -> None:
    ledger, spec = Ledger(tmp_path / "runs"), spec_of("hill", "DT", 0)
    away = tmp_path / "away"
    away.mkdir()
    (away / ".mine.tmp").write_text("mine")
    path = ledger.folder(spec) if linked == "the trial" else ledger.folder(spec).parent
    path.parent.mkdir(parents=True)
    path.symlink_to(away)
    with pytest.raises(LedgerUnwritable, match="is a link"):
        finish(ledger, spec, 1.0)
    assert [entry.name for entry in away.iterdir()] == [".mine.tmp"]
