"""`dtbench data`, in this process."""

import re
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import pytest

from dtbench.cli import main
from dtbench.data.hdf5 import read_d4rl
from dtbench.domains.d4rl import files
from dtbench.domains.d4rl.robots import ROBOTS

DATA = Callable[..., str]
NAME = "hopper-random-v2"
SMALL = ["--steps", "2000"]


@pytest.fixture
def data(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, data_folder: Path
) -> DATA:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    monkeypatch.delenv("D4RL_DATASET_DIR", raising=False)

    def run(*arguments: str, code: int = 0) -> str:
        monkeypatch.setattr(sys, "argv", ["dtbench", "data", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        said = capsys.readouterr()
        assert end.value.code == code, said.out + said.err
        assert code != 2 or len(said.err.strip().splitlines()) == 1
        return said.out + said.err

    return run


@pytest.fixture
def exported(data: DATA, tmp_path: Path) -> Path:
    path = tmp_path / "x" / "hopper.hdf5"
    data("export", NAME, str(path), "--source", "generated", *SMALL)
    return path


def as_d4rl(exported: Path, folder: Path) -> Path:
    """The same file as if D4RL had written it."""
    path = folder / files.file_name(NAME)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(exported.read_bytes())
    with h5py.File(path, "a") as file:
        del file["metadata"]
    return path


def digest_in(text: str) -> str:
    found = re.search(r"[0-9a-f]{64}", text)
    assert found
    return found.group()


def test_listing_makes_nothing(data: DATA, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DTBENCH_DATA", str(tmp_path / "empty"))
    said = data("ls", "hopper-*", "key-to-door-1k")
    assert re.search(r"hopper-medium-v2 .*d4rl .*can be downloaded", said)
    assert re.search(r"hopper-medium-v2 .*generated .*can be generated", said)
    assert re.search(r"key-to-door-1k .*generated .*can be generated", said)
    assert not (tmp_path / "empty").exists()


def test_what_is_generated_is_listed_shown_and_verified(data: DATA, tmp_path: Path) -> None:
    digest = digest_in(data("generate", "key-to-door-1k"))
    assert re.search(rf"key-to-door-1k .*on disk .*1000 .*{digest[:12]}", data("ls", "key-to-door-1k"))
    card = data("show", "key-to-door-1k", "--out", str(tmp_path / "cards"))
    assert digest in card
    assert "episodes  1000, of which 0 were cut off" in card
    assert "score     mean 2.7, highest 100.0: success rate (%)" in card
    assert "█" in card
    assert {path.name for path in (tmp_path / "cards").iterdir()} == {"key-to-door-1k.svg", "key-to-door-1k.png"}
    drawn = (tmp_path / "cards" / "key-to-door-1k.svg").read_bytes()
    data("show", "key-to-door-1k", "--out", str(tmp_path / "cards"))
    assert (tmp_path / "cards" / "key-to-door-1k.svg").read_bytes() == drawn
    assert "FAIL" not in data("verify", "key-to-door-1k")


def test_generated_data_of_a_robot_says_that_it_is_not_d4rls(data: DATA) -> None:
    data("generate", NAME, *SMALL)
    said = data("verify", NAME, "--source", "generated", "--remake", *SMALL)
    assert "this is NOT D4RL's data" in said
    assert "made again" in said
    assert "FAIL" not in said


def test_an_export_is_read_back_with_its_digest(data: DATA, exported: Path) -> None:
    hopper = ROBOTS["hopper"]
    spaces = {"observation_space": hopper.observation_space, "action_space": hopper.action_space}
    found = read_d4rl(exported, **spaces, horizon=hopper.horizon)
    assert found.digest in data("show", NAME, "--source", "generated", *SMALL)
    assert "say --force" in data("export", NAME, str(exported), "--source", "generated", *SMALL, code=2)
    data("export", NAME, str(exported), "--source", "generated", *SMALL, "--force")


def test_a_file_on_disk_is_preferred_and_held_against_public_logs(
    data: DATA, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("D4RL_DATASET_DIR", str(tmp_path / "d4rl"))
    path = as_d4rl(exported, tmp_path / "d4rl")
    assert re.search(rf"{NAME} .*d4rl .*on disk, not read yet", data("ls", NAME))
    assert digest_in(data("get", NAME))
    assert re.search(rf"{NAME} .*d4rl .*on disk  ", data("ls", NAME))
    said = data("verify", NAME, code=1)
    assert re.search(r"ok   file .*sha256", said)
    assert re.search(r"FAIL mean return: .* here, 18\.398905 in public logs", said)
    path.unlink()
    exported.rename(path)
    assert re.search(r"source +generated", data("show", NAME))  # under D4RL's name it does not pass for D4RL's


def test_the_public_numbers_themselves_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np

    from dtbench.domains.d4rl import verification
    from tests.episodes import episodes

    returns = np.array([1.0, 2.0, 6.0])
    found = episodes([1, 1, 1], returns.tolist(), [True] * 3).with_info({"dataset": NAME})
    known = files.KnownStatistics(3, 3.00001, float(returns.std()), 1.0, 6.0)
    monkeypatch.setattr(files, "known_statistics", lambda _: known)
    assert [finding.passed for finding in verification._statistics(found)] == [True] * 5


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["get", "key-to-door-1k"], "nothing to download. Make it: dtbench data generate key-to-door-1k"),
        (["get", "hopper-medium-v2", "--source", "minarri"], "unknown downloadable source"),
        (["get", "hoper-medium-v2"], "'hopper-medium-v2'"),
        (["show", "minari:nothing-v0"], "minari:nothing-v0 could not be downloaded"),
        (["show", "hopper-medium-v2", "--source", "d4rl"], "no file hopper_medium-v2.hdf5"),
        (["show", "key-to-door-1k", "--source", "d4rl"], "unknown source"),
        (["generate", "key-to-door-1k", "--steps", "10"], "unknown option of task key-to-door-1k 'steps'"),
        (["generate", "hopper-medium-v2", "--steps", "10"], "at least 1000 steps"),
        (["ls", "nothing*"], "unknown task"),
        (["train-behavior", "hoper", "--algorithm", "ppo", "--steps", "9", "--out", "x"], "'hopper'"),
        (["train-behavior", "hopper", "--algorithm", "ppp", "--steps", "9", "--out", "x"], "'ppo'"),
    ],
)
def test_a_mistake_is_one_line(data: DATA, arguments: list[str], said: str) -> None:
    assert said in data(*arguments, code=2)


def test_no_network_is_one_line(data: DATA, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DTBENCH_DATA", str(tmp_path / "empty"))
    monkeypatch.setattr(files, "URL", "http://127.0.0.1:9/")
    said = data("get", "hopper-medium-v2", code=2)
    assert "http://127.0.0.1:9/hopper_medium-v2.hdf5 could not be downloaded" in said


def test_training_without_stable_baselines_says_what_to_install(data: DATA, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "stable_baselines3", None)
    monkeypatch.delitem(sys.modules, "dtbench.domains.d4rl.training", raising=False)
    arguments = ["train-behavior", "hopper", "--algorithm", "ppo", "--steps", "9", "--out", "x"]
    assert "pip install 'dtbench[behavior]'" in data(*arguments, code=2)


@pytest.mark.parametrize("command", ["ls", "get", "generate", "show", "verify", "export", "train-behavior"])
def test_every_command_explains_itself(data: DATA, command: str) -> None:
    assert "Usage" in data(command, "--help")
