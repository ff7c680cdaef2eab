"""Tasks of the form gym:ID: anybody's file in D4RL's layout, in any environment of gymnasium."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import h5py
import numpy as np
import pytest

from dtbench import registry
from dtbench.data import cache
from dtbench.domains.gymnasium.env import GymnasiumVectorEnv
from dtbench.domains.gymnasium.tasks import best_and_median, task_from_id
from dtbench.errors import InvalidDataset, InvalidSuite, InvalidValue, MissingDataset, UnknownName
from dtbench.execution.local import run_local
from dtbench.ledger.store import Ledger
from dtbench.suite.planning import check_fit, load_suite, narrow, trial_specs
from dtbench.task import Task
from tests.support.episodes import episodes

CART = "gym:CartPole-v1"
SWING = "gym:Pendulum-v1"


@pytest.fixture(autouse=True)
def _own_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DTBENCH_DATA", str(tmp_path / "data"))


def record(path: Path, env_id: str, *, episodes: int, **changes: Any) -> Path:
    """Play an environment with its first policy that comes to mind; `changes` replace columns, None leaves one out."""
    env = gym.make(env_id)
    env.action_space.seed(0)
    rows: dict[str, list[Any]] = {key: [] for key in ("observations", "actions", "rewards", "terminals", "timeouts")}
    for episode in range(episodes):
        observation, _ = env.reset(seed=episode)
        over = False
        while not over:
            action = int(observation[2] > 0) if "Cart" in env_id else env.action_space.sample()
            following, reward, terminated, truncated, _ = env.step(action)
            for key, value in zip(rows, (observation, action, reward, terminated, truncated), strict=True):
                rows[key].append(value)
            observation, over = following, terminated or truncated
    columns = {key: np.array(values) for key, values in rows.items()} | changes
    with h5py.File(path, "w") as file:
        for key, values in columns.items():
            if values is not None:
                file[key] = values
    return path


def cart(tmp_path: Path, **changes: Any) -> Task:
    return task_from_id(CART, file=str(record(tmp_path / "cart.hdf5", "CartPole-v1", episodes=5, **changes)))


def specs_of(suite: str, file: Path, *overrides: str) -> list[Any]:
    chosen = load_suite(suite, preset="smoke", overrides=[f"task_options.file={file}", *overrides])
    return trial_specs(narrow(chosen, contenders=["DT"]))


def test_the_spaces_are_the_environments_in_single_precision(tmp_path: Path) -> None:
    found = cart(tmp_path).open()
    assert found.num_episodes == 5
    assert found.observations.dtype == np.float32
    assert found.action_space == gym.spaces.Discrete(2)
    assert found.info["source"] == "file"


@pytest.mark.parametrize(
    ("returns", "wanted"),
    [
        ([-0.02, -0.016, -0.0051], (-0.0051, -0.016)),
        ([10000.2, 10000.4, 10000.7], (10000.7, 10000.4)),
        ([7, 7, 7], (7.0,)),
    ],
)
def test_targets_have_the_digits_of_the_returns_range(returns: list[float], wanted: tuple[float, ...]) -> None:
    data = episodes([1, 1, 1], [0, 0, 0], [True] * 3)
    assert best_and_median(replace(data, rewards=np.array(returns))) == wanted


def test_targets_are_the_best_and_the_median_return(tmp_path: Path) -> None:
    task = cart(tmp_path)
    returns = task.open().returns
    assert task.targets(task.open()) == (returns.max(), np.median(returns))


def test_a_target_is_not_repeated(tmp_path: Path) -> None:
    task = cart(tmp_path)
    assert len(task.targets(task.open().select([0]))) == 1


def test_scores_are_raw_returns_unless_references_are_given(tmp_path: Path) -> None:
    file = record(tmp_path / "cart.hdf5", "CartPole-v1", episodes=2)
    plain = task_from_id(CART, file=str(file))
    assert plain.score_name.startswith("raw return")
    scaled = registry.make_task(CART, {"file": str(file), "reference_min": 0, "reference_max": 200})
    episodes = type("Episodes", (), {"returns": np.array([0.0, 50.0, 200.0])})
    assert scaled.score(episodes).tolist() == [0, 25, 100]  # type: ignore[arg-type]
    assert plain.score(episodes).tolist() == [0, 50, 200]  # type: ignore[arg-type]


@pytest.mark.parametrize("given", [{"reference_min": 1.0}, {"reference_min": 2.0, "reference_max": 2.0}])
def test_references_come_in_pairs_and_in_order(tmp_path: Path, given: dict[str, float]) -> None:
    file = record(tmp_path / "cart.hdf5", "CartPole-v1", episodes=1)
    with pytest.raises(InvalidValue, match="reference_min"):
        task_from_id(CART, file=str(file), **given)


def test_the_file_must_be_named() -> None:
    with pytest.raises(InvalidValue, match=r"task_options\.file=my\.hdf5"):
        registry.make_task(CART)


def test_the_file_must_be_there() -> None:
    with pytest.raises(MissingDataset, match=r"there is no file .*nowhere\.hdf5"):
        registry.make_task(CART, {"file": "nowhere.hdf5"})


def test_the_environment_must_be_registered(tmp_path: Path) -> None:
    file = record(tmp_path / "cart.hdf5", "CartPole-v1", episodes=1)
    with pytest.raises(InvalidValue, match=r"gym:CartPol-v1: .*Did you mean: `CartPole`"):
        registry.make_task("gym:CartPol-v1", {"file": str(file)})
    with pytest.raises(InvalidValue, match="No module named 'no_such_module'"):
        registry.make_task("gym:no_such_module:My-v0", {"file": str(file)})


def test_other_options_are_unknown(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="'fil'"):
        registry.make_task(CART, {"fil": "my.hdf5"})


def test_observations_of_another_shape_are_named_with_the_environments(tmp_path: Path) -> None:
    task = cart(
        tmp_path,
        observations=np.zeros((7, 3)),
        actions=np.zeros(7, int),
        rewards=np.zeros(7),
        terminals=np.arange(7) == 6,
        timeouts=np.zeros(7, bool),
    )
    with pytest.raises(InvalidDataset, match=r"Box\(.*rows of shape \(3,\), the task's have \(4,\)"):
        task.open()


def test_actions_of_another_kind_are_named_with_the_environments(tmp_path: Path) -> None:
    rows = len(cart(tmp_path).open().rewards)
    with pytest.raises(InvalidDataset, match=r"'actions' holds 0.5 in row 0, the task has integers: Discrete\(2\)"):
        cart(tmp_path, actions=np.full(rows, 0.5)).open()
    with pytest.raises(InvalidDataset, match=r"not integers of Discrete\(2\)"):
        cart(tmp_path, actions=np.full(rows, 5)).open()


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidDataset, match="no key 'rewards'"):
        cart(tmp_path, rewards=None).open()


def test_a_file_that_is_not_hdf5_is_reported(tmp_path: Path) -> None:
    (tmp_path / "my.hdf5").write_text("observations, actions")
    with pytest.raises(InvalidDataset, match="cannot be read as HDF5"):
        task_from_id(CART, file=str(tmp_path / "my.hdf5")).open()


def test_without_timeouts_the_length_of_episodes_is_asked_for(tmp_path: Path) -> None:
    file = record(tmp_path / "swing.hdf5", "Pendulum-v1", episodes=3, timeouts=None)
    with pytest.raises(InvalidDataset, match=r"no key 'timeouts'.*next_observations.*episode_length=N"):
        task_from_id(SWING, file=str(file)).open()
    assert task_from_id(SWING, file=str(file), episode_length=200).open().lengths.tolist() == [200, 200, 200]
    assert task_from_id(SWING, file=str(file), horizon=100).open().num_episodes == 6


ENVIRONMENT = """
import gymnasium as gym
import numpy as np

class Counting(gym.Env):
    observation_space = gym.spaces.Box(-1.0, 100.0, (1,))
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        self.count = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.count += 1
        return np.full(1, self.count, np.float32), float(action), False, False, {}

gym.register("Counting-v0", Counting)
"""


def test_an_environment_of_ones_own_is_found_beside_the_suite(tmp_path: Path) -> None:
    (tmp_path / "my_counting.py").write_text(ENVIRONMENT)
    with h5py.File(tmp_path / "my.hdf5", "w") as file:
        file["observations"], file["actions"] = np.zeros((6, 1), np.float32), np.ones(6, int)
        file["rewards"], file["terminals"] = np.ones(6), np.zeros(6, bool)
    with pytest.raises(InvalidValue, match=r"no time limit.*task_options\.horizon=1000"):
        registry.make_task("gym:my_counting:Counting-v0", {"file": "my.hdf5"})
    task = registry.make_task("gym:my_counting:Counting-v0", {"file": "my.hdf5", "horizon": 3})
    assert task.open().returns.tolist() == [3, 3]


def test_a_finished_game_stands_still() -> None:
    games = GymnasiumVectorEnv(lambda: gym.make("CartPole-v1"), 2)
    games.reset(seed=[1, 2])
    total = np.zeros(2)
    for _ in range(30):
        observations, rewards, terminated, _, _ = games.step(np.array([1, 1]))
        total += rewards
    assert terminated.all()
    assert (total < 15).all()
    assert (games.step(np.array([0, 0]))[0] == observations).all()


def test_games_are_those_of_the_seeds() -> None:
    games = GymnasiumVectorEnv(lambda: gym.make("Pendulum-v1"), 3)
    alone = gym.make("Pendulum-v1").reset(seed=6)[0]
    assert games.reset(seed=5)[0][1].tolist() == games.reset(seed=[4, 6, 6])[0][2].tolist() == alone.tolist()


def test_a_suite_runs_and_runs_once(tmp_path: Path) -> None:
    file = record(tmp_path / "swing.hdf5", "Pendulum-v1", episodes=3)
    specs = trial_specs(load_suite("own-data", preset="smoke", overrides=[f"task_options.file={file}"]))
    check_fit(specs)
    root = tmp_path / "runs"
    assert set(run_local(specs, root, lambda *_: None).values()) == {"done"}
    ledger = Ledger(root)
    again = trial_specs(load_suite("own-data", preset="smoke", overrides=[f"task_options.file={file}"]))
    assert {ledger.state(spec) for spec in again} == {"done"}


def test_the_discrete_suite_runs(tmp_path: Path) -> None:
    file = record(tmp_path / "cart.hdf5", "CartPole-v1", episodes=6)
    specs = trial_specs(load_suite("own-data-discrete", preset="smoke", overrides=[f"task_options.file={file}"]))
    check_fit(specs)
    assert set(run_local(specs, tmp_path / "runs", lambda *_: None).values()) == {"done"}


def test_a_learner_of_other_actions_is_refused_before_anything_runs(tmp_path: Path) -> None:
    file = record(tmp_path / "cart.hdf5", "CartPole-v1", episodes=6)
    suite = load_suite("own-data", preset="smoke", overrides=[f"tasks=[{CART}]", f"task_options.file={file}"])
    with pytest.raises(Exception, match=r"CQL on gym:CartPole-v1: .*Try discrete_cql"):
        check_fit(trial_specs(suite))


def test_the_sweep_goes_from_the_datas_worst_return_to_beyond_its_best(tmp_path: Path) -> None:
    file = record(tmp_path / "swing.hdf5", "Pendulum-v1", episodes=3)
    returns = task_from_id(SWING, file=str(file)).open().returns
    (spec,) = specs_of("own-data", file)
    assert spec.evaluation.sweep[0] == pytest.approx(returns.min(), abs=0.1)
    assert spec.evaluation.sweep[-1] > returns.max()


def test_other_content_is_another_trial(tmp_path: Path) -> None:
    file = record(tmp_path / "swing.hdf5", "Pendulum-v1", episodes=3)
    (before,) = specs_of("own-data", file)
    record(file, "Pendulum-v1", episodes=4)
    (after,) = specs_of("own-data", file)
    assert before.key != after.key


def test_a_file_that_moved_gives_the_same_trial(tmp_path: Path) -> None:
    file = record(tmp_path / "swing.hdf5", "Pendulum-v1", episodes=3)
    (before,) = specs_of("own-data", file)
    (after,) = specs_of("own-data", file.rename(tmp_path / "moved.hdf5"))
    assert before.dataset_digest == after.dataset_digest
    assert before.key == after.key


def test_the_store_is_read_again_only_when_the_file_changed(tmp_path: Path) -> None:
    task = cart(tmp_path)
    digest = task.open().digest
    with cache.reading_only():
        assert task.open().digest == digest


def test_a_suite_without_a_file_says_so() -> None:
    with pytest.raises((InvalidValue, InvalidSuite), match=r"task_options\.file"):
        trial_specs(load_suite("own-data", preset="smoke"))
