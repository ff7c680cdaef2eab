"""How much a run has before it, and that nobody starts hours of work that they did not choose."""

import dataclasses
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import typer
import yaml
from typer.testing import CliRunner

from dtbench.cli import workload
from dtbench.cli.run import app
from dtbench.cli.workload import Workload, agree
from dtbench.ledger.store import Ledger
from dtbench.suite.loading import suite_names
from dtbench.suite.planning import load_suite
from tests.cli.test_plans import finish, spec

SCORES = Path(__file__).parents[2] / "results" / "scores"
LONG, SHORT = Workload(480, 7200.0, 0, 1), Workload(480, 7200.0, 0, 4)


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Workload], None]:
    """Asks for d4rl, as if it were this work."""

    def asked(work: Workload) -> None:
        monkeypatch.setattr(workload, "workload", lambda missing, ledger, name: work)
        monkeypatch.setattr(workload, "trial_specs", lambda suite, make_data: [])
        agree(load_suite("d4rl"), Ledger(tmp_path / "runs"))

    return asked


def answering(monkeypatch: pytest.MonkeyPatch, answer: bool) -> None:
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(typer, "confirm", lambda *_, **__: answer)


def test_long_work_that_nobody_chose_is_named_and_starts_where_nobody_can_answer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], ask: Callable[[Workload], None]
) -> None:
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False, raising=False)
    ask(SHORT)  # two hours, four at once
    assert not capsys.readouterr().err
    ask(LONG)
    assert "480 trials, about 2 h 00 min of trial time, 1 at once. Less is named by" in capsys.readouterr().err
    ask(Workload(120, 60.0, 100, 2))
    assert "100 of them of unknown length" in capsys.readouterr().err


def test_at_a_terminal_the_user_decides(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], ask: Callable[[Workload], None]
) -> None:
    answering(monkeypatch, True)
    ask(LONG)
    assert "d4rl with its default preset cpu is 480 trials" in capsys.readouterr().err
    answering(monkeypatch, False)
    with pytest.raises(typer.Exit):
        ask(LONG)


def test_times_are_of_finished_trials_else_of_archived_ones_of_the_contender(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "runs")
    finish(ledger, spec(train_steps=10), 30.0)
    again = spec(train_steps=10, seed=1)
    other = dataclasses.replace(again, contender="Nobody's", algorithm="cql")
    work = workload.workload([again, other], ledger, "d4rl")
    assert (work.trials, work.seconds, work.unknown) == (2, 30.0, 1)
    shutil.copytree(SCORES / "d4rl", tmp_path / "scores" / "d4rl")
    archived = workload.archived_seconds(tmp_path / "scores", "d4rl")
    iql = dataclasses.replace(again, contender="IQL", algorithm="iql")
    here, there = (dataclasses.replace(iql, task=task) for task in ("hopper-medium-v2", "elsewhere"))
    rate = archived["hopper-medium-v2", "IQL"]
    assert workload.workload([here], ledger, "d4rl").seconds == pytest.approx(10 * rate)
    assert 0 < workload.workload([there], ledger, "d4rl").seconds < 100 * rate


def test_a_run_asks_unless_it_was_chosen_or_began_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(workload, "agree", lambda suite, ledger: asked.append(suite.name))
    contender = {"algorithm": "random", "train_steps": 0, "action_mode": "sample"}
    document = {"tasks": ["graph-0"], "seeds": [0], "evaluation": {"episodes": 2}, "presets": {"cpu": None}}
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump({**document, "contenders": {"Random": contender}}))
    run = ["run", "-s", str(tmp_path / "toy.yaml"), "--local", "--results"]
    for results, *options in (["a", "--yes"], ["b", "--preset", "cpu"], ["c", "-t", "graph-*"], ["d"], ["d"]):
        done = CliRunner().invoke(app, [*run, str(tmp_path / results), *options])
        assert done.exit_code == 0, done.output
    assert asked == ["toy"]  # the first run into d


def test_nothing_is_generated_before_the_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DTBENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(workload.sys, "stdin", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr(typer, "confirm", lambda *_, **__: False)
    suite = load_suite("d4rl")
    with pytest.raises(typer.Exit):
        agree(suite, Ledger(tmp_path / "results" / "runs"))
    assert "480 trials, 480 of them of unknown length" in capsys.readouterr().err
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("name", suite_names())
def test_a_gpu_does_not_choose_the_full_protocol(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    assert load_suite(name).preset == "cpu"
