"""Code of a plug-in that calls sys.exit must not end dtbench as if all were well."""

from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from dtbench.cli.run import app
from dtbench.errors import InvalidAlgorithm, InvalidValue

PLUG_IN = """
import sys
from dataclasses import dataclass
from baselines.uniform_random import UniformRandom
{on_import}

@dataclass(frozen=True)
class Leaving:
    def learner(self, dataset, *, seed, device):
        {on_learner}
        learner = UniformRandom().learner(dataset, seed=seed, device=device)
        learner.update = lambda: {on_update}
        return learner
"""
EXIT = "sys.exit(0)"


@pytest.fixture
def suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "mine.yaml"
    contender = {"algorithm": "leaving:Leaving", "train_steps": 2}
    evaluation = {"episodes": 2, "every": 2}
    path.write_text(
        yaml.safe_dump({"tasks": ["graph-0"], "seeds": [0], "evaluation": evaluation, "contenders": {"L": contender}})
    )
    return path


def plug_in(**lines: str) -> None:
    Path("leaving.py").write_text(
        PLUG_IN.format(**{"on_import": "", "on_learner": "", "on_update": "{'loss': 0.0}"} | lines)
    )


def test_a_plug_in_that_leaves_while_it_is_imported_is_an_error(suite: Path) -> None:
    plug_in(on_import=EXIT)
    outcome = CliRunner().invoke(app, ["run", "--suite", str(suite), "--local"])
    assert isinstance(outcome.exception, InvalidAlgorithm | InvalidValue)
    assert "SystemExit" in str(outcome.exception)
    assert "leaving.py, line 5" in str(outcome.exception)


@pytest.mark.parametrize("place", ["on_learner", "on_update"])
def test_a_learner_that_leaves_is_a_failed_trial(place: str, suite: Path) -> None:
    plug_in(**{place: EXIT})
    outcome = CliRunner().invoke(app, ["run", "--suite", str(suite), "--local"])
    assert outcome.exit_code == 1, outcome.output
    assert "SystemExit" in outcome.output
    (error,) = Path("results/runs").glob("*/*/error.txt")
    assert "leaving.py" in error.read_text()


def test_a_plug_in_that_stays_runs(suite: Path) -> None:
    plug_in()
    assert CliRunner().invoke(app, ["run", "--suite", str(suite), "--local"]).exit_code == 0
