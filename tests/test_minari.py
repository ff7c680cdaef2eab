"""Minari's datasets, made here from buffers."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

minari = pytest.importorskip("minari")
from minari.data_collector.episode_buffer import EpisodeBuffer  # noqa: E402  # after the check that it is installed

from dtbench import registry  # noqa: E402
from dtbench.data import store  # noqa: E402
from dtbench.data.minari_sets import describe, fetch_minari, load_minari, local_sets  # noqa: E402
from dtbench.domains.d4rl.robots import ROBOTS  # noqa: E402
from dtbench.domains.minari.tasks import MinariGames, load_minari_for, task_from_id  # noqa: E402
from dtbench.errors import InvalidDataset, MissingDataset  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:minari")

HOPPER = "mujoco/hopper/medium-v0"
SEEING = spaces.Box(-1, 1, (2,), np.float64)
DISCRETE = spaces.Discrete(3, start=1)


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
    robot = ROBOTS["hopper"]
    seeing = spaces.Box(-np.inf, np.inf, (11,), np.float64)
    episodes = [
        episode(n, ended=True, reward=r, seeing=seeing, acting=robot.action_space) for n, r in ((3, 1), (5, 2))
    ]
    spaces_of = {"observation_space": seeing, "action_space": robot.action_space}
    create(HOPPER, episodes, env="Hopper-v5", algorithm_name="SAC", **spaces_of, **options)


def test_the_observation_after_the_last_step_is_left_out() -> None:
    create("toy-v0", [episode(2, ended=True), episode(3, ended=False)])
    found = load_minari("toy-v0")
    assert found.lengths.tolist() == [2, 3]
    assert found.observations[:, 0].tolist() == pytest.approx([0, 0.01, 0, 0.01, 0.02])
    assert found.terminals.tolist() == [False, True, False, False, False]
    assert found.observations.dtype == found.observation_space.dtype == np.float32
    assert found.action_space == DISCRETE
    assert found.info["source"] == "minari"


def test_a_set_is_read_once_and_anew_when_it_grew() -> None:
    create("toy-v0", [episode(2, ended=True)])
    digest = load_minari("toy-v0").digest
    with store.reading_only():
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


def test_a_missing_set_is_said_within_seconds_and_with_what_is_here() -> None:
    create("toy-v0", [episode(1, ended=True)])
    with pytest.raises(MissingDataset, match="dtbench data get minari:mujoco/hopper/medium-v0"):
        describe(HOPPER)
    began = time.monotonic()
    with pytest.raises(MissingDataset, match=r"could not be downloaded: .*Here: toy-v0"):
        fetch_minari(HOPPER)
    assert time.monotonic() - began < 5


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
    games = MinariGames(HOPPER, 2)
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
    hopper = ROBOTS["hopper"]
    found = load_minari_for(hopper, HOPPER)
    assert found.observation_space == hopper.observation_space
    assert found.info["normalisation"].startswith("none")
    with pytest.raises(InvalidDataset, match="walker2d has"):
        load_minari_for(ROBOTS["walker2d"], HOPPER)


def test_a_set_without_an_environment_cannot_be_played() -> None:
    create("toy-v0", [episode(1, ended=True)])
    with pytest.raises(InvalidDataset, match="minari:toy-v0: its environment cannot be made"):
        task_from_id("minari:toy-v0").make_env(1)
