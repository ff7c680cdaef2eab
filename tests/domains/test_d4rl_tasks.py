from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from dtbench import TrajectoryDataset, make_dataset, registry
from dtbench.data.d4rl_hdf5 import write_d4rl
from dtbench.domains.d4rl import files, generation, tasks
from dtbench.domains.d4rl.env_specs import LOCOMOTION_ENVS
from dtbench.domains.d4rl.generation import BehaviorPolicy
from dtbench.errors import InvalidValue, MissingDataset, UnknownName
from dtbench.evaluation import Episodes
from dtbench.suite.planning import load_suite, resolved_hyperparameters


@pytest.fixture(autouse=True)
def _no_files_and_no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def offline(name: str) -> None:
        raise MissingDataset(f"{name}: no network in tests")

    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DTBENCH_DATA", str(tmp_path / "store"))
    monkeypatch.setenv("D4RL_DATASET_DIR", str(tmp_path / "d4rl"))
    monkeypatch.setattr(files, "fetch", offline)


@pytest.fixture
def small_policies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Behaviour policies of every robot that do nothing but tremble."""
    for robot in LOCOMOTION_ENVS.values():
        still = BehaviorPolicy(
            mean=np.zeros(robot.observation_size, np.float32),
            scale=np.ones(robot.observation_size, np.float32),
            weights=[np.zeros((robot.observation_size, robot.action_size), np.float32)],
            biases=[np.zeros(robot.action_size, np.float32)],
            activation="tanh",
            squash=False,
            log_std=np.full(robot.action_size, -2.0, np.float32),
        )
        still.save(tmp_path / "policies" / "ppo" / robot.name / "still.npz")
        manifest = '{"medium": "still.npz", "expert": "still.npz", "replay": ["still.npz", "still.npz"]}'
        (tmp_path / "policies" / "ppo" / robot.name / "manifest.json").write_text(manifest)
    monkeypatch.setattr(generation, "POLICIES", tmp_path / "policies")


def hopper_data(source: str = "d4rl") -> TrajectoryDataset:
    """Two episodes of Hopper's shapes: three steps with a fall, two that were cut off."""
    rng = np.random.default_rng(0)
    return make_dataset(
        observations=rng.normal(size=(5, 11)).astype(np.float32),
        actions=rng.uniform(-1, 1, (5, 3)).astype(np.float32),
        rewards=np.float32([1, 2, 3, 4, 5]),
        terminals=np.array([False, False, True, False, False]),
        lengths=np.array([3, 2]),
        observation_space=LOCOMOTION_ENVS["hopper"].observation_space,
        action_space=LOCOMOTION_ENVS["hopper"].action_space,
        info={"source": source},
    )


def episodes(returns: list[float]) -> Episodes:
    count = len(returns)
    return Episodes(
        targets=np.full(count, np.nan),
        episodes=np.arange(count),
        seeds=np.arange(count),
        returns=np.array(returns),
        lengths=np.ones(count, np.int64),
    )


def test_tasks_have_d4rls_names_and_reacher_has_no_version() -> None:
    names = registry.tasks_by_domain()["d4rl"]
    assert len(names) == 4 * 5 * 2
    assert {name for name in names if not name.startswith("reacher2d") and "delayed" not in name} == set(files.names())
    for name in ("hopper-medium-replay-v2", "walker2d-medium-expert-delayed-v2", "reacher2d-medium-replay"):
        assert registry.make_task(name).name == name


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"physic": "v4"}, UnknownName, "Did you mean 'physics'"),
        ({"physics": "d4r"}, UnknownName, "Did you mean 'd4rl'"),
        ({"physics": "v6"}, UnknownName, "Known: d4rl, v4, v5"),
        ({"steps": 999}, InvalidValue, "at least 1000 steps"),
        ({"steps": "many"}, InvalidValue, "'many'"),
        ({"steps": 1e6}, InvalidValue, "whole number"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        registry.make_task("hopper-medium-v2", options)


def test_options_decide_physics_of_the_games_and_size_of_the_data(small_policies: None) -> None:
    task = registry.make_task("hopper-medium-v2", {"physics": "v4", "steps": 1500})
    assert task.score_name == "normalised score (physics v4)"
    made = task.open("generated")
    assert (made.info["physics"], made.info["asked_steps"]) == ("v4", 1500)
    games = {name: registry.make_task("hopper-medium-v2", {"physics": name}).make_env(1) for name in ("d4rl", "v4")}
    seen = {name: env.reset(seed=0)[0] for name, env in games.items()}
    np.testing.assert_array_equal(seen["d4rl"], seen["v4"])
    after = {name: env.step(np.ones((1, 3), np.float32))[0] for name, env in games.items()}
    assert not np.array_equal(after["d4rl"], after["v4"])


def test_data_of_other_options_are_other_data(small_policies: None) -> None:
    options: list[dict[str, object]] = [{"steps": 100}, {"steps": 200}, {"steps": 100, "physics": "v4"}]
    made = [registry.make_task("reacher2d-medium", option).open() for option in options]
    assert len({dataset.digest for dataset in made}) == 3


def test_sources_are_d4rls_file_minaris_set_and_data_made_here_and_reacher_has_only_the_last() -> None:
    assert [source.name for source in registry.make_task("hopper-medium-v2").sources] == [
        "d4rl",
        "re-recorded",
        "minari",
        "generated",
    ]
    assert [source.name for source in registry.make_task("hopper-medium-replay-v2").sources] == ["d4rl", "generated"]
    assert [source.name for source in registry.make_task("reacher2d-medium").sources] == ["generated"]
    with pytest.raises(UnknownName, match="Did you mean 'generated'"):
        registry.make_task("hopper-medium-v2").open("generate")
    with pytest.raises(UnknownName, match="auto, generated"):
        registry.make_task("reacher2d-medium").open("d4rl")


def test_without_file_and_network_the_data_is_made_here(small_policies: None) -> None:
    task = registry.make_task("hopper-medium-v2", {"steps": 1000})
    assert task.resolve(fetch=True) == "generated"
    assert not task.sources[-1].available()
    made = task.open()
    assert made.info["source"] == "generated"
    assert task.sources[-1].available()
    assert task.load_dataset().digest == made.digest  # the same, from the store


def test_asking_for_d4rls_file_where_there_is_none_says_what_to_do() -> None:
    with pytest.raises(MissingDataset, match="D4RL_DATASET_DIR"):
        registry.make_task("hopper-medium-v2").open("d4rl")


def test_d4rls_file_is_taken_before_all_else(tmp_path: Path, small_policies: None) -> None:
    task = registry.make_task("hopper-medium-v2", {"steps": 1000})
    task.open("generated")
    write_d4rl(hopper_data(), tmp_path / "d4rl" / "hopper_medium-v2.hdf5")
    opened = task.open()
    assert task.resolve(fetch=False) == "d4rl"
    assert opened.digest == hopper_data().digest
    assert opened.info["source"] == "d4rl-excerpt"  # two episodes
    assert registry.make_task("hopper-medium-replay-v2").resolve(fetch=False) == "generated"  # another file


def test_an_exported_file_does_not_pass_for_d4rls(tmp_path: Path) -> None:
    write_d4rl(hopper_data("generated"), tmp_path / "d4rl" / "hopper_medium-v2.hdf5")
    task = registry.make_task("hopper-medium-v2")
    assert task.resolve() == "d4rl"
    assert task.open().info["source"] == "generated"


def test_a_file_of_ones_own_takes_the_place_of_d4rls(tmp_path: Path) -> None:
    write_d4rl(hopper_data(), tmp_path / "mine.hdf5")
    assert registry.make_task("hopper-medium-v2", {"file": "mine.hdf5"}).open().digest == hopper_data().digest
    with pytest.raises(MissingDataset, match=r"there is no file .*other\.hdf5"):
        registry.make_task("hopper-medium-v2", {"file": "other.hdf5"}).open()


def test_minaris_set_is_used_only_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    task = registry.make_task("hopper-medium-v2")
    changed = [replace(source, available=partial(str.__eq__, source.name, "minari")) for source in task.sources]
    assert replace(task, sources=tuple(changed)).resolve(fetch=False) == "generated"


def test_what_can_be_downloaded_comes_before_what_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def fetch(name: str) -> None:
        asked.append(name)
        write_d4rl(hopper_data(), tmp_path / "store" / "downloads" / files.file_name(name))

    monkeypatch.setattr(files, "fetch", fetch)
    task = registry.make_task("hopper-medium-v2")
    assert task.resolve(fetch=False) == "generated"
    assert asked == []
    assert task.open().info["source"] == "d4rl-excerpt"
    assert asked == ["hopper-medium-v2"]


def test_delayed_data_has_each_episodes_return_at_its_last_step(tmp_path: Path) -> None:
    write_d4rl(hopper_data(), tmp_path / "d4rl" / "hopper_medium-v2.hdf5")
    late = registry.make_task("hopper-medium-delayed-v2").open()
    assert np.asarray(late.rewards).tolist() == [0, 0, 6, 0, 9]
    assert late.info["delayed"]
    prompt = registry.make_task("hopper-medium-v2").open()
    assert late.digest != prompt.digest
    np.testing.assert_array_equal(late.observations, prompt.observations)


def test_delayed_tasks_play_delayed_games_and_score_alike() -> None:
    task = registry.make_task("hopper-medium-delayed-v2")
    assert task.make_env(1).delayed  # type: ignore[attr-defined]
    assert not registry.make_task("hopper-medium-v2").make_env(1).delayed  # type: ignore[attr-defined]
    assert task.target_returns == registry.make_task("hopper-medium-v2").target_returns


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("halfcheetah-medium-v2", -280.178953, 12135.0),
        ("hopper-expert-v2", -20.272305, 3234.3),
        ("walker2d-random-v2", 1.629008, 4592.3),
        ("hopper-medium-delayed-v2", -20.272305, 3234.3),
        ("reacher2d-medium", 0.0, 100.0),
    ],
)
def test_reference_returns_score_0_and_100(name: str, low: float, high: float) -> None:
    scores = registry.make_task(name).score(episodes([low, high, (low + high) / 2]))
    np.testing.assert_allclose(scores, [0, 100, 50], atol=1e-9)


@pytest.mark.parametrize(
    ("task", "targets", "scale", "context"),
    [
        ("halfcheetah-medium-v2", {6000, 12000}, 1000, 20),
        ("hopper-medium-v2", {3600, 1800}, 1000, 20),
        ("walker2d-medium-v2", {5000, 2500}, 1000, 20),
        ("reacher2d-medium", {50, 76, 40}, 10, 5),
    ],
)
def test_targets_scale_and_context_are_the_papers(task: str, targets: set[int], scale: int, context: int) -> None:
    dt = load_suite("d4rl", preset="paper").contenders["DT"]
    chosen = resolved_hyperparameters(dt, task)
    assert set(registry.make_task(task).target_returns) == targets
    assert (chosen["return_scale"], chosen["context"]) == (scale, context)


@pytest.mark.parametrize("make", tasks.TASKS.values(), ids=tasks.TASKS)
def test_every_task_can_be_made_without_its_data(make: Callable[[], object]) -> None:
    make()
    assert not generation.store.root().exists()
