"""`dtbench play` prints what a trained policy achieves, and films it."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import dtbench
from dtbench.cli.run import app
from dtbench.errors import DtbenchError, InvalidValue, UnknownName

SMALL = ("tasks=[key-to-door-1k]", "train_steps=2", "Random.train_steps=0", "evaluation.episodes=3")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, data_folder: Path) -> Path:
    folder = tmp_path_factory.mktemp("results")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DTBENCH_DATA", str(data_folder))
        dtbench.run_suite("key-to-door", preset="smoke", results=folder, overrides=SMALL)
    return folder


def play(results: Path, contender: str, *arguments: str) -> Result:
    scores = dtbench.load_scores(results)
    key = scores.loc[scores.contender == contender, "trial"].iloc[0]
    done = CliRunner().invoke(app, ["play", key[:10], "--results", str(results), *arguments])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done


def test_a_row_a_target_and_a_film_of_each(results: Path, tmp_path: Path) -> None:
    done = play(results, "DT", "--target", "1", "--target", "0", "--episodes", "2", "--gif", "door.gif", "--seed", "4")
    first, header, *rows = done.stdout.splitlines()
    assert first.startswith("Policy(DT, seed 0, trial ")
    assert header.split() == ["target", "episodes", "mean", "return", "range", "success", "rate", "(%)", "steps"]
    assert [row.split()[:2] for row in rows[:2]] == [["1", "2"], ["0", "2"]]
    assert [row.partition(":")[0] for row in rows[2:]] == ["door-1.gif", "door-0.gif"]
    assert (tmp_path / "door-0.gif").read_bytes().startswith(b"GIF89a")


def test_a_policy_without_target_is_filmed_too(results: Path, tmp_path: Path) -> None:
    done = play(results, "BC", "--video", "door.mp4", "--json")
    found = json.loads(done.stdout)
    assert found["films"] == ["door.mp4"]
    assert found["targets"][0]["target"] is None
    assert found["targets"][0]["episodes"] == 10
    assert (tmp_path / "door.mp4").read_bytes()[4:8] == b"ftyp"


def test_mistakes_are_named_before_anything_is_played(results: Path) -> None:
    with pytest.raises(DtbenchError, match=r"its suffix is \.mp4"):
        play(results, "DT", "--video", "door.gif")
    with pytest.raises(InvalidValue, match=r"suffix is one of"):
        play(results, "DT", "--gif", "door.png")
    with pytest.raises(UnknownName, match="unknown trial"):
        CliRunner().invoke(app, ["play", "zzz", "--results", str(results)], catch_exceptions=False)
