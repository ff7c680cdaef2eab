"""`dtbench data`, in this process."""

import dataclasses
import re
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from dtbench import registry
from dtbench.cli.run import main
from dtbench.data.d4rl_hdf5 import read_d4rl
from dtbench.domains.d4rl import files
from dtbench.domains.d4rl.env_specs import LOCOMOTION_ENVS

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
        printed = capsys.readouterr()
        assert end.value.code == code, printed.out + printed.err
        assert code != 2 or len(printed.err.strip().splitlines()) == 1
        return printed.out + printed.err

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
    printed = data("ls", "hopper-*", "key-to-door-1k")
    assert re.search(r"hopper-medium-v2 .*d4rl .*can be downloaded", printed)
    assert re.search(r"hopper-medium-v2 .*generated .*can be generated", printed)
    assert re.search(r"key-to-door-1k .*generated .*can be generated", printed)
    assert not (tmp_path / "empty").exists()


def test_what_is_generated_is_listed_shown_and_verified(data: DATA, tmp_path: Path) -> None:
    digest = digest_in(data("generate", "key-to-door-1k"))
    assert re.search(rf"key-to-door-1k .*on disk .*1000 .*{digest[:12]}", data("ls", "key-to-door-1k"))
    card = data("show", "key-to-door-1k", "--out", str(tmp_path / "cards"))
    assert digest in card
    assert "episodes  1000, 0 of them truncated" in card
    assert "score     mean 2.7, highest 100.0: success rate (%)" in card
    assert "█" in card
    assert {path.name for path in (tmp_path / "cards").iterdir()} == {"key-to-door-1k.svg", "key-to-door-1k.png"}
    drawn = (tmp_path / "cards" / "key-to-door-1k.svg").read_bytes()
    data("show", "key-to-door-1k", "--out", str(tmp_path / "cards"))
    assert (tmp_path / "cards" / "key-to-door-1k.svg").read_bytes() == drawn
    assert "FAIL" not in data("verify", "key-to-door-1k")


def test_generated_data_of_a_robot_says_that_it_is_not_d4rls(data: DATA) -> None:
    data("generate", NAME, *SMALL)
    printed = data("verify", NAME, "--source", "generated", "--remake", *SMALL)
    assert "this is NOT D4RL's data" in printed
    assert "made again" in printed
    assert "FAIL" not in printed


def test_an_export_is_read_back_with_its_digest(data: DATA, exported: Path) -> None:
    hopper = LOCOMOTION_ENVS["hopper"]
    spaces = {"observation_space": hopper.observation_space, "action_space": hopper.action_space}
    found = read_d4rl(exported, **spaces, horizon=hopper.horizon)
    assert found.digest in data("show", NAME, "--source", "generated", *SMALL)
    assert "use --force" in data("export", NAME, str(exported), "--source", "generated", *SMALL, code=2)
    data("export", NAME, str(exported), "--source", "generated", *SMALL, "--force")


def test_a_file_on_disk_is_preferred_and_held_against_public_logs(
    data: DATA, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("D4RL_DATASET_DIR", str(tmp_path / "d4rl"))
    path = as_d4rl(exported, tmp_path / "d4rl")
    assert re.search(rf"{NAME} .*d4rl .*on disk, not read yet", data("ls", NAME))
    assert digest_in(data("get", NAME))
    assert re.search(rf"{NAME} .*d4rl .*on disk  ", data("ls", NAME))
    printed = data("verify", NAME, code=1)
    assert re.search(r"ok   file .*sha256", printed)
    assert re.search(r"FAIL AN EXCERPT: \d+ of about 45240 episodes of hopper-random-v2", printed)
    assert "recorded with physics d4rl" in printed
    monkeypatch.setattr(files, "_EXCERPT_SHARE", 0.0)
    path.touch()  # read again
    printed = data("verify", NAME, code=1)
    assert re.search(r"FAIL mean return: .* here, 18\.398905 in public logs", printed)
    path.unlink()
    exported.rename(path)
    assert re.search(r"source +generated", data("show", NAME))  # under D4RL's name it does not pass for D4RL's


def test_the_public_numbers_themselves_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np

    from dtbench.domains.d4rl import verification
    from tests.support.episodes import episodes

    returns = np.array([1.0, 2.0, 6.0])
    found = episodes([1, 1, 1], returns.tolist(), [True] * 3).with_info({"dataset": NAME})
    known = files.KnownStatistics(3, 3.00001, float(returns.std()), 1.0, 6.0)
    monkeypatch.setattr(files, "known_statistics", lambda _: known)
    assert [finding.passed for finding in verification._statistics(found)] == [True] * 5


FRAMES = "frames_file:task"
FRAMES_FILE = """
import gymnasium as gym
import numpy as np

from dtbench import Task, make_dataset
from dtbench.data import cache as store

LENGTHS = np.array([3, 12, 5])


def make():
    steps = int(LENGTHS.sum())
    frames = np.zeros((steps, 84, 84), np.uint8)
    frames[:, :, :2] = 200
    frames[np.arange(steps), 40 + np.arange(steps), 60] = 90
    raw = np.full(steps, 7, np.float32)
    return make_dataset(
        observations=frames,
        actions=np.arange(steps) % 4,
        rewards=raw.clip(-1, 1),
        terminals=np.zeros(steps, bool),
        lengths=LENGTHS,
        observation_space=gym.spaces.Box(0, 255, (4, 84, 84), np.uint8),
        action_space=gym.spaces.Discrete(4),
        info={"source": "generated"},
        frame_stack=4,
        extras={"raw_rewards": raw},
    )


task = Task(
    name="frames",
    domain="mine",
    load_dataset=lambda: store.open_or_make("frames", make),
    make_env=None,
    score=lambda episodes: episodes.returns,
    score_name="raw return",
    target_returns=(1.0,),
)
"""


@pytest.fixture
def frames(data: DATA, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> DATA:
    """A task of frames in a file, and a store for it alone."""
    monkeypatch.setenv("DTBENCH_DATA", str(tmp_path / "store"))
    Path("frames_file.py").write_text(FRAMES_FILE)
    return data


def test_frames_are_described_and_drawn(frames: DATA, tmp_path: Path) -> None:
    card = frames("show", FRAMES, "--out", str(tmp_path / "cards"))
    assert "frames    84 x 84 of uint8, 4 an observation" in card
    assert "return    mean 6.667, std 3.859" in card
    assert "of rewards before clipping: mean 46.67, highest 84" in card
    assert "score     mean 46.7, highest 84.0: raw return" in card
    drawn = (tmp_path / "cards" / "frames_file-task.svg").read_bytes()
    frames("show", FRAMES, "--out", str(tmp_path / "cards"))
    assert (tmp_path / "cards" / "frames_file-task.svg").read_bytes() == drawn
    assert drawn.count(b"<image") == 8
    assert b"return of an episode, rewards clipped" in drawn


def test_frames_are_hashed_and_made_again(frames: DATA, tmp_path: Path) -> None:
    printed = frames("verify", FRAMES, "--remake")
    assert "FAIL" not in printed
    assert digest_in(printed.partition("generated again")[2]) == digest_in(frames("show", FRAMES))
    (kept,) = (tmp_path / "store").iterdir()  # and nothing is left behind
    with (kept / "observations.npy").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"x")
    assert "FAIL digest" in frames("verify", FRAMES, code=1)


def test_frames_are_not_exported(frames: DATA, tmp_path: Path) -> None:
    printed = frames("export", FRAMES, str(tmp_path / "x.hdf5"), code=2)
    assert f"{FRAMES} holds stacked frames, which D4RL's layout does not support" in printed
    assert not (tmp_path / "x.hdf5").exists()


def test_what_is_generated_elsewhere_than_for_robots_is_made_again_too(data: DATA) -> None:
    assert "ok   generated again" in data("verify", "key-to-door-1k", "--remake")


def test_a_task_with_three_sources_has_three_rows(data: DATA, monkeypatch: pytest.MonkeyPatch) -> None:
    from dtbench.domains.minari import tasks as minari
    from dtbench.errors import MissingDataset
    from dtbench.task import DataSource
    from tests.support.episodes import episodes

    def missing() -> None:
        raise MissingDataset("none")

    made = dataclasses.replace(
        registry.make_task("key-to-door-1k"),
        sources=(
            DataSource("dqn-replay", load=missing, available=lambda: False),
            DataSource("minari", load=missing, available=lambda: False, fetch=missing),
            DataSource("generated", load=lambda: episodes([2], [1, 2], [True]), available=lambda: True),
        ),
    )
    monkeypatch.setattr(registry, "task_names", lambda: ["a", "a"])
    monkeypatch.setattr(registry, "make_task", lambda name: made)
    monkeypatch.setattr(minari, "local_names", lambda: ["minari:b"])
    printed = data("ls", "a")
    assert len(re.findall(r"\ba\b", printed)) == 3
    assert re.search(r"dqn-replay .*not on disk", printed)
    assert re.search(r"minari .*can be downloaded", printed)
    assert re.search(r"generated .*on disk +│ +1 │ +2", printed)


@pytest.mark.parametrize(
    ("arguments", "printed"),
    [
        (["get", "key-to-door-1k"], "nothing to download. Generate it: dtbench data generate key-to-door-1k"),
        (["get", "hopper-medium-v2", "--source", "minarri"], "unknown downloadable source"),
        (["get", "hoper-medium-v2"], "'hopper-medium-v2'"),
        (["show", "minari:nothing-v0"], "minari:nothing-v0 could not be downloaded"),
        (["show", "hopper-medium-v2", "--source", "d4rl"], "no file hopper_medium-v2.hdf5"),
        (["show", "key-to-door-1k", "--source", "d4rl"], "unknown source"),
        (["generate", "key-to-door-1k", "--steps", "10"], "unknown option of task key-to-door-1k 'steps'"),
        (["generate", "hopper-medium-v2", "--steps", "10"], "at least 1000 steps"),
        (["ls", "nothing*"], "unknown task"),
    ],
)
def test_a_mistake_is_one_line(data: DATA, arguments: list[str], printed: str) -> None:
    assert printed in data(*arguments, code=2)


def test_no_network_is_one_line(data: DATA, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DTBENCH_DATA", str(tmp_path / "empty"))
    monkeypatch.setattr(files, "URL", "http://127.0.0.1:9/")
    printed = data("get", "hopper-medium-v2", code=2)
    assert "http://127.0.0.1:9/hopper_medium-v2.hdf5 could not be downloaded" in printed


@pytest.mark.parametrize("command", ["ls", "get", "generate", "show", "verify", "export"])
def test_every_command_explains_itself(data: DATA, command: str) -> None:
    assert "Usage" in data(command, "--help")


def test_a_file_of_ones_own_is_shown_before_a_run(data: DATA, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    with h5py.File(tmp_path / "mine.hdf5", "w") as file:
        file["observations"] = np.c_[rng.normal(size=(100, 2)), np.full(100, 0.5)].astype(np.float32)
        file["actions"] = rng.uniform(-2, 2, 100)
        file["rewards"], file["terminals"] = np.full(100, -1.0), np.zeros(100)
    own = f"file={tmp_path / 'mine.hdf5'}"
    assert "episode_length=N" in data("show", "gym:Pendulum-v1", own, code=2)
    assert "is not an option of a task" in data("show", "gym:Pendulum-v1", "mine.hdf5", code=2)
    for prefix in ("", "task_options."):
        card = data("show", "gym:Pendulum-v1", prefix + own, "episode_length=50")
        assert "episodes  2, 2 of them truncated" in card
        assert "100: 50 to 50 an episode" in card
        assert "return    mean -50" in card
        assert "constant  observations [2]" in card
        assert "[-2.0] to [2.0], by the Box: [-1, 1] to learners" in card
