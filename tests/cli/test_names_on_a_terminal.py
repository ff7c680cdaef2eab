"""Names reach a terminal as they are: rich would read [small] as a style and :x: as a picture."""

from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from dtbench.cli.run import app
from dtbench.ledger.store import Ledger
from tests.support.tiny_ledger import spec_of

NAMES = ("DT [small]", "DT [large]", "[/nope]", "DT :rocket:", "[link=http://x]a[/link]")


def test_contenders_with_brackets_differ_in_every_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    contenders = {name: {"algorithm": "random", "train_steps": number} for number, name in enumerate(NAMES)}
    evaluation = {"episodes": 2, "every": 2}
    document = {"tasks": ["graph-0"], "seeds": [0], "evaluation": evaluation, "contenders": contenders}
    Path("mine.yaml").write_text(yaml.safe_dump(document))
    for arguments in (["run", "--dry-run"], ["run", "--local"]):
        outcome = CliRunner().invoke(app, [*arguments, "--suite", "mine.yaml"])
        assert outcome.exit_code == 0, outcome.output
        assert all(name in outcome.output for name in NAMES), outcome.output


@pytest.mark.parametrize("task", ["./mine:task", "../mine:task", ".hidden:task", "..", "-x"])
def test_a_tasks_directory_is_hidden_from_no_listing(task: str, tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    folder = ledger.create(spec_of(task, "DT", 0))
    assert folder.parent.parent == tmp_path
    assert not folder.parent.name.startswith((".", "-"))
    assert ledger.trial_folders() == [folder]


def test_an_error_cannot_act_on_the_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ledger = Ledger(tmp_path / "results" / "runs")
    spec = spec_of("graph-0", "DT", 0)
    ledger.record_failure(spec, cause="crash", text="ValueError: \x1b]0;title\x07 \x1b[2J \x9b31m \u202egnp")
    for arguments in (["status"], ["status", spec.key]):
        outcome = CliRunner().invoke(app, arguments)
        assert outcome.exit_code == 0, outcome.output
        assert "ValueError" in outcome.output
        assert not set(outcome.output) & set("\x1b\x07\x9b\u202e")
