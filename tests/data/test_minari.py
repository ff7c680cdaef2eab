"""Minari's datasets, made here from buffers."""

import time
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from gymnasium import spaces

minari = pytest.importorskip("minari")
from minari.data_collector.episode_buffer import EpisodeBuffer  # noqa: E402  # after the check that it is installed

from dtbench import registry  # noqa: E402
from dtbench.data import cache  # noqa: E402
from dtbench.data.minari import (  # noqa: E402
    describe,
    fetch_minari,
    load_minari,
    load_minari_frames,
    local_sets,
    make_environment,
)
from dtbench.domains.d4rl.env_specs import LOCOMOTION_ENVS  # noqa: E402
from dtbench.domains.d4rl.files import load_minari_for  # noqa: E402
from dtbench.domains.gymnasium.env import GymnasiumVectorEnv  # noqa: E402
from dtbench.domains.minari.tasks import local_names, task_from_id  # noqa: E402
from dtbench.errors import InvalidDataset, MissingDataset  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:minari")

HOPPER = "mujoco/hopper/medium-v0"
SEEING = spaces.Box(-1, 1, (2,), np.float64)
DISCRETE = spaces.Discrete(3, start=1)
BREAKOUT = "atari/breakout/expert-v0"
BUTTONS = spaces.Discrete(4)
SCREEN = (210, 160, 3)


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    monkeypatch.setenv("DTBENCH_DATA", str(tmp_path / "data"))


def episode(steps: int, *, ended: bool, reward: float = 1.0, seeing: Any = SEEING, acting: Any = DISCRETE) -> Any:
    """An episode whose t-th observation is all t/100; Minari keeps the one after the last step too."""
    rows = np.ones((steps + 1, *seeing.shape), seeing.dtype)
    flags = np.zeros(steps, bool)
    return EpisodeBuffer(
        observations=(np.arange(steps + 1).reshape(-1, *[1] * len(seeing.shape)) * rows / 100).astype(seeing.dtype),
        actions=np.full((steps, *acting.shape), 1, acting.dtype),
        rewards=np.full(steps, reward),
        terminations=np.append(flags[1:], ended),
        truncations=np.append(flags[1:], not ended),
        infos={},
    )


def create(dataset_id: str, episodes: list[Any], **options: Any) -> None:
    options = {"observation_space": SEEING, "action_space": DISCRETE, **options}
    minari.create_dataset_from_buffers(dataset_id, episodes, data_format="hdf5", **options)


def create_hopper(**options: Any) -> None:
    robot = LOCOMOTION_ENVS["hopper"]
    seeing = spaces.Box(-np.inf, np.inf, (11,), np.float64)
    episodes = [
        episode(n, ended=True, reward=r, seeing=seeing, acting=robot.action_space) for n, r in ((3, 1), (5, 2))
    ]
    spaces_of = {"observation_space": seeing, "action_space": robot.action_space}
    create(HOPPER, episodes, env="Hopper-v5", algorithm_name="SAC", **spaces_of, **options)


def pictures(*shape: int) -> Any:
    return spaces.Box(0, 255, shape, np.uint8)


def numbered(steps: int, first: int = 1) -> Any:
    """Frames [steps + 1, 84, 84] in which every pixel counts: all `first`, all `first` + 1, ..."""
    return np.arange(first, first + steps + 1, dtype=np.uint8)[:, None, None] * np.ones((84, 84), np.uint8)


def stacked(frames: Any, depth: int) -> Any:
    """Stacks [steps + 1, depth, 84, 84] of these frames, with zeros before the first."""
    before = np.concatenate([np.zeros((depth - 1, *frames.shape[1:]), np.uint8), frames])
    return np.stack([before[i : i + depth] for i in range(len(frames))])


def game(observations: Any, *, reward: float = 1.0) -> Any:
    """An episode of these observations, the one after the last step included."""
    steps = len(observations) - 1
    return EpisodeBuffer(
        observations=observations,
        actions=np.arange(steps) % 4,
        rewards=np.full(steps, reward),
        terminations=np.arange(steps) == steps - 1,
        truncations=np.zeros(steps, bool),
        infos={},
    )


def create_game(*observations: Any, actions: Any = BUTTONS, jpeg: bool = False, reward: float = 1.0) -> None:
    """A set of a game's episodes: what Minari itself makes of pictures is lossy by default."""
    seeing = pictures(*observations[0].shape[1:])
    episodes = [game(of_one, reward=reward) for of_one in observations]
    create(BREAKOUT, episodes, observation_space=seeing, action_space=actions, jpeg_encoding=jpeg)


def grey(screens: Any) -> Any:
    """A stand-in for what a game's task does to its screens."""
    return screens[:, :84, :84].max(axis=3)


def twice(screens: Any) -> Any:
    return grey(screens) * np.uint8(2)


def test_the_observation_after_the_last_step_is_left_out() -> None:
    create("toy-v0", [episode(2, ended=True), episode(3, ended=False)])
    found = load_minari("toy-v0")
    assert found.lengths.tolist() == [2, 3]
    assert found.observations[:, 0].tolist() == pytest.approx([0, 0.01, 0, 0.01, 0.02])
    assert found.terminals.tolist() == [False, True, False, False, False]
    assert found.observations.dtype == found.observation_space.dtype == np.float32
    assert found.action_space == DISCRETE
    assert found.info["source"] == "minari"


def test_a_set_is_read_once_and_again_when_it_grew() -> None:
    create("toy-v0", [episode(2, ended=True)])
    digest = load_minari("toy-v0").digest
    with cache.reading_only():
        assert load_minari("toy-v0").digest == digest
    minari.load_dataset("toy-v0").update_dataset_from_buffer([episode(4, ended=False)])
    assert load_minari("toy-v0").lengths.tolist() == [2, 4]


def test_sets_on_this_machine_are_listed(tmp_path: Path) -> None:
    assert local_sets() == []
    create("toy-v0", [episode(1, ended=True)])
    assert local_sets() == ["toy-v0"]


@pytest.mark.parametrize(
    "space", [spaces.Box(0, 1, (2, 2)), spaces.Dict(a=spaces.Discrete(2)), spaces.MultiBinary(3)], ids=str
)
def test_spaces_that_are_no_vectors_are_refused(space: Any) -> None:
    create("toy-v0", [], observation_space=space)
    with pytest.raises(InvalidDataset, match=r"minari:toy-v0: its observations are .*: dtbench reads vectors"):
        load_minari("toy-v0")


def test_an_empty_set_is_refused() -> None:
    create("toy-v0", [])
    with pytest.raises(InvalidDataset, match="minari:toy-v0: it holds no episode"):
        load_minari("toy-v0")


def test_a_damaged_set_is_refused(tmp_path: Path) -> None:
    create("toy-v0", [episode(2, ended=True)])
    (tmp_path / "minari" / "toy-v0" / "data" / "main_data.hdf5").write_bytes(b"no")
    with pytest.raises(InvalidDataset, match="minari:toy-v0"):
        load_minari("toy-v0")


@pytest.mark.parametrize("link", ["external", "soft", "virtual", "declared"])
def test_a_set_that_reads_other_files_is_refused(link: str, tmp_path: Path) -> None:
    create("toy-v0", [episode(2, ended=True)])
    with h5py.File(tmp_path / "secret.hdf5", "w") as secret:
        secret["rewards"] = np.ones(2)
    with h5py.File(tmp_path / "minari" / "toy-v0" / "data" / "main_data.hdf5", "r+") as file:
        del file["episode_0/rewards"]
        if link == "external":
            file["episode_0/rewards"] = h5py.ExternalLink(str(tmp_path / "secret.hdf5"), "rewards")
        elif link == "soft":
            file["episode_0/rewards"] = h5py.SoftLink("/episode_0/actions")
        elif link == "virtual":
            layout = h5py.VirtualLayout((2,), "f8")
            layout[:] = h5py.VirtualSource(str(tmp_path / "secret.hdf5"), "rewards", (2,))
            file.create_virtual_dataset("episode_0/rewards", layout)
        else:
            file.create_dataset("episode_0/rewards", (10**12,), "f8", chunks=(1000,))
    with pytest.raises(InvalidDataset, match=r"minari:toy-v0 cannot be read: .*episode_0/rewards"):
        load_minari("toy-v0")


def test_a_missing_set_is_reported_within_seconds_with_the_local_sets() -> None:
    create("toy-v0", [episode(1, ended=True)])
    with pytest.raises(MissingDataset, match="dtbench data get minari:mujoco/hopper/medium-v0"):
        describe(HOPPER)
    began = time.monotonic()
    with pytest.raises(MissingDataset, match=r"could not be downloaded: .*Here: toy-v0"):
        fetch_minari(HOPPER)
    assert time.monotonic() - began < 15


def test_without_references_scores_are_raw_returns_in_the_sets_own_environment() -> None:
    create_hopper()
    task = registry.make_task(f"minari:{HOPPER}")
    assert task.name == "minari:mujoco/hopper/medium-v0"
    assert task.score_name == "raw return"
    assert task.target_returns == (10.0,)
    assert task.open().returns.tolist() == [3.0, 10.0]
    assert task.open("minari").info["environment"] == "Hopper-v5"


def test_with_references_scores_are_minaris_own() -> None:
    from dtbench.evaluation import Episodes

    create_hopper(ref_min_score=10.0, ref_max_score=30.0)
    task = task_from_id(HOPPER)
    assert task.score_name == "normalised return (Minari's own normalisation)"
    none = np.zeros(2)
    episodes = Episodes(none, none.astype(int), none.astype(int), np.array([10.0, 20.0]), none.astype(int))
    assert task.score(episodes).tolist() == [0.0, 50.0]
    assert task.open().info["reference"] == [10.0, 30.0]


def test_its_games_are_gymnasiums_and_stand_still_after_their_end() -> None:
    import gymnasium as gym

    create_hopper()
    games = GymnasiumVectorEnv(partial(make_environment, HOPPER), 2)
    observations, _ = games.reset(seed=[7, 8])
    own = gym.make("Hopper-v5")
    first, _ = own.reset(seed=8)
    assert observations.dtype == np.float32
    np.testing.assert_array_equal(observations[1], first.astype(np.float32))
    actions = np.array([[1, 1, 1], [-1, -1, -1]], np.float32)
    ended_at: dict[int, Any] = {}
    for _ in range(200):
        observations, rewards, terminated, truncated, _ = games.step(actions)
        for game in np.flatnonzero(terminated | truncated):
            if game in ended_at:
                assert rewards[game] == 0
                np.testing.assert_array_equal(observations[game], ended_at[game])
            ended_at.setdefault(int(game), observations[game])
        if len(ended_at) == 2:
            break
    games.step(actions)
    assert set(ended_at) == {0, 1}
    games.close()


def test_a_learner_can_be_judged_on_it() -> None:
    from dtbench.evaluation import Evaluator

    create_hopper()
    task = task_from_id(HOPPER)
    algorithm = registry.make_algorithm("bc", {})
    import torch

    learner = algorithm.learner(task.open(), seed=0, device=torch.device("cpu"))
    episodes = Evaluator(task.make_env, seeds=[1, 2, 3]).evaluate(learner)
    assert (episodes.lengths > 0).all()
    assert task.score(episodes).shape == (3,)


def test_a_robot_can_take_minaris_data() -> None:
    create_hopper()
    hopper = LOCOMOTION_ENVS["hopper"]
    found = load_minari_for(hopper, HOPPER)
    assert found.observation_space == hopper.observation_space
    assert found.info["normalisation"].startswith("none")
    with pytest.raises(InvalidDataset, match="walker2d has"):
        load_minari_for(LOCOMOTION_ENVS["walker2d"], HOPPER)


def test_a_set_without_an_environment_cannot_be_played() -> None:
    create("toy-v0", [episode(1, ended=True)])
    with pytest.raises(InvalidDataset, match="minari:toy-v0: its environment cannot be made"):
        task_from_id("minari:toy-v0").make_env(1)


@pytest.mark.parametrize("layout", ["84x84", "1x84x84", "84x84x1", "4x84x84", "84x84x4", "2x84x84"])
def test_a_games_frames_are_kept_once(layout: str) -> None:
    two = [numbered(5), numbered(3, first=100)]
    ways = {
        "84x84": lambda frames: frames,
        "1x84x84": lambda frames: frames[:, None],
        "84x84x1": lambda frames: frames[..., None],
        "4x84x84": lambda frames: stacked(frames, 4),
        "84x84x4": lambda frames: np.moveaxis(stacked(frames, 4), 1, -1),
        "2x84x84": lambda frames: stacked(frames, 2),
    }
    create_game(*map(ways[layout], two))
    found = load_minari_frames(BREAKOUT, actions=4)
    assert found.lengths.tolist() == [5, 3]
    assert found.observations[:, 7, 7].tolist() == [1, 2, 3, 4, 5, 100, 101, 102]
    assert found.observation_space == pictures(4, 84, 84)
    assert found.action_space == BUTTONS
    assert found.observations_at(np.array([4, 6]))[..., 7, 7].tolist() == [[2, 3, 4, 5], [0, 0, 100, 101]]
    assert np.flatnonzero(found.terminals).tolist() == [4, 7]


def test_stacks_that_do_not_follow_one_another_are_refused() -> None:
    create_game(stacked(numbered(4), 4)[:, ::-1])
    with pytest.raises(InvalidDataset, match=r"step 1 .* does not follow .* the oldest first"):
        load_minari_frames(BREAKOUT, actions=4)


def test_screens_become_frames_as_the_caller_says() -> None:
    screens = np.zeros((301, *SCREEN), np.uint8)
    screens[:, :84, :84, 1] = np.arange(301)[:, None, None] % 100
    create_game(screens)
    found = load_minari_frames(BREAKOUT, actions=4, to_frame=grey)
    assert found.observations[:, 7, 7].tolist() == [i % 100 for i in range(300)]
    assert found.info["observed"] == str(pictures(*SCREEN))
    assert found.info["compression"] == "none"
    doubled = load_minari_frames(BREAKOUT, actions=4, to_frame=twice)
    assert doubled.observations[50, 7, 7] == 100
    with pytest.raises(InvalidDataset, match=r"neither frames of 84 x 84 bytes nor stacks"):
        load_minari_frames(BREAKOUT, actions=4)
    with pytest.raises(InvalidDataset, match=r"256 observations made frames \(256, 84\)|made frames \(300, 84\)"):
        load_minari_frames(BREAKOUT, actions=4, to_frame=lambda batch: batch[:, :84, 0, 0])


def test_minaris_compression_is_recorded() -> None:
    create_game(np.full((3, *SCREEN), 90, np.uint8), jpeg=True)
    found = load_minari_frames(BREAKOUT, actions=4, to_frame=grey)
    assert found.info["compression"] == "JPEG, lossy"
    assert abs(found.observations.astype(int) - 90).max() < 3


def test_rewards_are_clipped_and_kept_as_they_were() -> None:
    create_game(numbered(3), reward=-7.0)
    found = load_minari_frames(BREAKOUT, actions=4)
    assert found.rewards.tolist() == [-1, -1, -1]
    assert found.extras["raw_rewards"].tolist() == [-7, -7, -7]


def test_a_set_of_other_actions_is_refused() -> None:
    create_game(numbered(3), actions=spaces.Discrete(18))
    with pytest.raises(InvalidDataset, match=r"its actions are Discrete\(18\), the game's are Discrete\(4\)"):
        load_minari_frames(BREAKOUT, actions=4)


def test_a_games_frames_are_read_once_and_leave_nothing_behind(tmp_path: Path) -> None:
    create_game(numbered(3))
    with cache.reading_only(), pytest.raises(MissingDataset):
        load_minari_frames(BREAKOUT, actions=4)
    assert not (tmp_path / "data").exists()
    digest = load_minari_frames(BREAKOUT, actions=4).digest
    (kept,) = (tmp_path / "data").iterdir()
    assert cache.load(kept, verify=True).digest == digest
    with cache.reading_only():
        assert load_minari_frames(BREAKOUT, actions=4).digest == digest


def test_a_set_of_a_game_is_a_source_and_no_task() -> None:
    create_game(numbered(3))
    create("toy-v0", [episode(1, ended=True)])
    assert local_names() == ["minari:toy-v0"]
    with pytest.raises(InvalidDataset, match="dtbench data get atari:breakout --source minari"):
        registry.make_task(f"minari:{BREAKOUT}")
