"""Datasets written for Minari: the same episodes through Minari itself and through our own reader."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from typer.testing import CliRunner

minari = pytest.importorskip("minari")

from dtbench import TrajectoryDataset, registry  # noqa: E402  # after the check that it is installed
from dtbench.cli.run import app  # noqa: E402
from dtbench.data.d4rl_hdf5 import write_d4rl  # noqa: E402
from dtbench.data.minari import load_minari, make_environment  # noqa: E402
from dtbench.data.minari_export import write_minari  # noqa: E402
from dtbench.errors import DtbenchError, InvalidDataset, InvalidValue  # noqa: E402
from dtbench.testing import toy_dataset  # noqa: E402
from tests.support.toy_tasks import frames_dataset  # noqa: E402

ID = "mine/toy-v0"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    monkeypatch.setenv("DTBENCH_DATA", str(tmp_path / "data"))
    return tmp_path / "minari"


def with_finals(dataset: TrajectoryDataset) -> TrajectoryDataset:
    from dtbench import make_dataset

    names = ("observations", "actions", "rewards", "terminals", "lengths", "observation_space", "action_space")
    finals = np.asarray(dataset.observations)[dataset.offsets[:-1]]
    return make_dataset(**{name: getattr(dataset, name) for name in names}, final_observations=finals)


def assert_same(found: TrajectoryDataset, expected: TrajectoryDataset) -> None:
    for name in ("observations", "actions", "rewards", "terminals", "offsets"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)
    assert (found.observation_space, found.action_space) == (expected.observation_space, expected.action_space)
    assert found.digest == expected.digest


@pytest.mark.parametrize("discrete", [True, False], ids=["indices", "vectors"])
def test_our_reader_gives_the_dataset_back_to_the_digest(discrete: bool) -> None:
    data = toy_dataset(discrete_actions=discrete, discrete_observations=discrete)
    for written in (with_finals(data), data):
        write_minari(written, ID, force=True)
        found = load_minari(ID)
        assert_same(found, written)
        assert (found.final_observations is None) == (written is data)  # unknown ones stay so


def test_minari_itself_gives_the_same_episodes() -> None:
    data = with_finals(toy_dataset(discrete_actions=False))
    write_minari(data, ID)
    episodes = list(minari.load_dataset(ID).iterate_episodes())
    assert len(episodes) == data.num_episodes == 12
    assert data.final_observations is not None
    for number, episode in enumerate(episodes):
        steps = slice(data.offsets[number], data.offsets[number + 1])
        seen = np.concatenate([data.observations[steps], data.final_observations[number : number + 1]])
        np.testing.assert_array_equal(episode.observations, seen)
        np.testing.assert_array_equal(episode.actions, data.actions[steps])
        np.testing.assert_array_equal(episode.rewards, data.rewards[steps])
        ended = bool(data.terminals[steps][-1])
        assert (episode.terminations[-1], episode.truncations[-1]) == (ended, not ended)
        assert not episode.terminations[:-1].any()
        assert not episode.truncations[:-1].any()


def export(task: str, *arguments: str) -> str:
    done = CliRunner().invoke(app, ["data", "export", task, *arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_an_exported_task_is_a_task_of_minari() -> None:
    small = ("--steps", "1000", "--source", "generated")
    printed = export("hopper-medium-v2", "minari:mine/hopper-v0", *small)
    own = registry.make_task("hopper-medium-v2", {"steps": 1000}).open("generated")
    assert f"minari:mine/hopper-v0: {own.num_episodes} episodes, {own.num_steps} steps" in printed
    found = registry.make_task("minari:mine/hopper-v0").open()
    assert_same(found, own)
    np.testing.assert_array_equal(found.final_observations, own.final_observations)
    assert found.info["algorithm"] == "dtbench's source generated"
    with pytest.raises(InvalidDataset, match="the set names none"):  # D4RL's physics is no environment of gymnasium's
        make_environment("mine/hopper-v0")


def test_a_gymnasium_task_is_exported_with_its_environment() -> None:
    env = gym.make("Pendulum-v1")
    data = toy_dataset(discrete_actions=False)
    fitting: Any = {
        "observations": np.clip(np.asarray(data.observations)[:, :3], -1, 1),
        "actions": np.asarray(data.actions)[:, :1],
        "observation_space": env.observation_space,
        "action_space": env.action_space,
    }
    from dtbench import make_dataset

    names = ("rewards", "terminals", "lengths")
    write_d4rl(make_dataset(**{name: getattr(data, name) for name in names}, **fitting), Path("pendulum.hdf5"))
    export("gym:Pendulum-v1", "minari:mine/pendulum-v0", "file=pendulum.hdf5", "kwargs={g: 5.0}")
    made = make_environment("mine/pendulum-v0")
    assert made.spec is not None
    assert made.spec.id == "Pendulum-v1"
    assert made.unwrapped.g == 5.0  # type: ignore[attr-defined]


def test_a_set_that_exists_is_kept_unless_it_is_asked(folder: Path) -> None:
    data = toy_dataset(discrete_actions=True)
    write_minari(data, ID)
    with pytest.raises(InvalidValue, match=r"mine/toy-v0 exists.*--force"):
        write_minari(toy_dataset(discrete_actions=False), ID)
    assert load_minari(ID).digest == data.digest
    (folder / "mine" / "other-v0").mkdir()
    with pytest.raises(InvalidValue, match="mine/other-v0 exists"):
        write_minari(data, "mine/other-v0", force=True)  # a directory that is no set is never removed


@pytest.mark.parametrize(
    ("name", "printed"),
    [("mine", "has no version"), ("../mine-v0", "is not an id"), ("mine/toy", "minari:mine/toy-v0")],
)
def test_an_id_that_minari_refuses_is_one_error(folder: Path, name: str, printed: str) -> None:
    write_minari(toy_dataset(discrete_actions=True), ID)
    with pytest.raises(InvalidValue, match=printed):
        write_minari(toy_dataset(discrete_actions=True), name, force=True)
    assert (folder / ID).is_dir()


def test_what_cannot_be_written_leaves_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> Any:
        (folder / ID).mkdir(parents=True)
        raise OSError("no space left")

    monkeypatch.setattr(minari, "create_dataset_from_buffers", full)
    with pytest.raises(InvalidValue, match=r"cannot be written to .*no space left"):
        write_minari(toy_dataset(discrete_actions=True), ID)
    assert not (folder / ID).exists()


def test_stacked_frames_are_refused() -> None:
    with pytest.raises(DtbenchError, match="stacked frames"):
        write_minari(frames_dataset(), ID)
