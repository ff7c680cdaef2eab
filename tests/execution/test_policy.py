"""Policies of finished trials: loaded without their data, they act, are evaluated and are filmed."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import gymnasium as gym
import imageio.v2 as imageio
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image, ImageSequence

import dtbench
from dtbench.data import cache
from dtbench.data.stand_in import describe, stand_in
from dtbench.errors import IncompatibleTask, InvalidValue, LedgerError, UnknownName
from dtbench.evaluation import act_alike
from dtbench.execution.policy import Policy
from dtbench.ledger.store import Ledger
from dtbench.registry import make_algorithm, make_task
from dtbench.trial import POLICY
from tests.support.opengl import OPENGL

SMALL = ("train_steps=3", "Random.train_steps=0", "evaluation.episodes=6", "evaluation.every=3")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, data_folder: Path) -> Path:
    folder = tmp_path_factory.mktemp("results")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DTBENCH_DATA", str(data_folder))
        dtbench.run_suite("key-to-door", preset="smoke", results=folder, overrides=("tasks=[key-to-door-1k]", *SMALL))
    return folder


def key_of(results: Path, contender: str) -> str:
    scores = dtbench.load_scores(results)
    return str(scores.loc[scores.contender == contender, "trial"].iloc[0])


@pytest.fixture
def no_data(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> Any:
        raise AssertionError("the data were opened")

    monkeypatch.setattr(cache, "open_or_make", refused)


@pytest.mark.usefixtures("no_data")
@pytest.mark.parametrize("contender", ["DT", "DT predicting returns", "BC", "BC 10%", "CQL", "Random"])
def test_a_loaded_policy_repeats_the_ledgers_episodes_without_data(results: Path, contender: str) -> None:
    key = key_of(results, contender)
    policy = dtbench.load_policy(results, key)
    assert contender in repr(policy)
    played = policy.evaluate(episodes=6)
    recorded = pd.read_parquet(Ledger(results / "runs").folders()[key] / "episodes.parquet")
    recorded = recorded[recorded.step == recorded.step.max()].reset_index(drop=True)
    shared = ["episode", "seed", "return", "length", "score"]
    if contender != "Random":  # its stream goes on from where the trial ended
        pd.testing.assert_frame_equal(played[shared], recorded[shared], check_dtype=False)
    assert len(played) == 6 * (2 if contender.startswith("DT") else 1)


def test_acting_step_by_step_is_what_the_evaluator_does(results: Path) -> None:
    policy = dtbench.load_policy(results, key_of(results, "DT")[:8])
    table = policy.evaluate([0.5], episodes=3)
    env = make_task("key-to-door-1k").make_env(1)
    for row in table.itertuples():
        observations, _ = env.reset(seed=[row.seed])
        policy.reset(0.5)
        total, reward, steps, ended = 0.0, 0.0, 0, False
        while not ended:
            action = policy.act(observations[0], reward=reward)
            observations, rewards, terminated, truncated, _ = env.step(np.array([action]))
            reward, steps, ended = float(rewards[0]), steps + 1, bool(terminated[0] | truncated[0])
            total += reward
        assert (total, steps) == (row[4], row.length)


def test_several_targets_are_evaluated_in_one_table(results: Path) -> None:
    table = dtbench.load_policy(results, key_of(results, "DT")).evaluate([0.0, 0.5, 1.0], episodes=4)
    assert table.groupby("target").size().to_dict() == {0.0: 4, 0.5: 4, 1.0: 4}
    assert list(table) == ["target", "episode", "seed", "return", "length", "score"]


@pytest.mark.parametrize("name", ["film.gif", "film.mp4"])
def test_a_film_shows_every_step_of_an_evaluation_episode(results: Path, tmp_path: Path, name: str) -> None:
    policy = dtbench.load_policy(results, key_of(results, "DT"))
    film = policy.record(tmp_path / "films" / name, target_return=1.0)
    (row,) = policy.evaluate([1.0], episodes=1).itertuples()
    assert (film.target_return, film.episode_return, film.length) == (1.0, row[4], row.length)
    frames = imageio.mimread(film.path, memtest=False)
    assert frames[0].shape[:2] == (280, 440)
    if name.endswith(".mp4"):
        assert len(frames) == film.length + 1
    else:  # where nothing moves, one frame stands for several
        with Image.open(film.path) as image:
            shown = [frame.info["duration"] for frame in ImageSequence.Iterator(image)]
        assert sum(shown) == pytest.approx(200 * (film.length + 1))
    assert "target return 1, return" in str(film)
    assert ("<img" if name.endswith("gif") else "<video") in film._repr_html_()


def test_other_films_are_refused_before_anything_is_played(results: Path, tmp_path: Path) -> None:
    policy = dtbench.load_policy(results, key_of(results, "BC"))
    with pytest.raises(InvalidValue, match=r"suffix is one of \.mp4, \.gif"):
        policy.record(tmp_path / "film.avi")


def test_a_film_needs_pictures(results: Path, tmp_path: Path) -> None:
    class Blind(gym.vector.VectorWrapper):
        def render(self) -> Any:
            raise NotImplementedError

    policy = dtbench.load_policy(results, key_of(results, "BC"))
    task = dataclasses.replace(policy.task, make_env=lambda count: Blind(make_task("graph-0").make_env(count)))
    policy.task = task
    with pytest.raises(IncompatibleTask, match="Blind draws no pictures"):
        policy.record(tmp_path / "film.gif")
    assert not (tmp_path / "film.gif").exists()


@OPENGL
def test_a_robot_is_filmed_at_its_own_speed(tmp_path: Path) -> None:
    policy = hopper_policy()
    film = policy.record(tmp_path / "hopper.gif", target_return=3600.0, seed=5)
    frames = imageio.mimread(film.path, memtest=False)
    assert len(frames) == 1 + -(-film.length // 5)  # 125 steps a second: every fifth is drawn, and the last
    assert frames[0].std() > 1


def hopper_policy() -> Policy:
    from dtbench.execution.training import train

    return train(make_task("hopper-medium-v2", {"steps": 2000}), "dt", steps=2, progress=False)


def test_mistakes_are_named(results: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="unknown trial"):
        dtbench.load_policy(results, "zzz")
    key = key_of(results, "BC")
    copy = tmp_path / "results"
    shutil.copytree(results, copy)
    folder = Ledger(copy / "runs").folders()[key]
    (folder / POLICY).write_bytes(b"damaged")
    with pytest.raises(LedgerError, match=r"cannot load .*policy\.pt"):
        dtbench.load_policy(copy, key)
    (folder / POLICY).unlink()  # as a trial of an earlier version: its data are opened
    assert len(dtbench.load_policy(copy, key).evaluate(episodes=1)) == 1
    (folder / "checkpoint.pt").unlink()
    with pytest.raises(LedgerError, match="checkpoints stay where they were written"):
        dtbench.load_policy(copy, key)


CONTINUOUS = ("dt", "bc", "rvs_r", "iql", "cql", "td3_bc", "rebrac", "sac")


@pytest.mark.parametrize("name", CONTINUOUS)
def test_a_learner_is_rebuilt_from_what_is_described_of_its_data(name: str) -> None:
    dataset = make_task("hopper-medium-v2", {"steps": 2000}).load_dataset()
    small = {} if name == "dt" else {"hidden_size": 16, "batch_size": 16}
    if name not in ("dt", "rvs_r"):
        small["normalize_observations"] = True
    algorithm = make_algorithm(name, small)
    learner = algorithm.learner(dataset, seed=0, device=torch.device("cpu"))
    learner.update()
    description = describe(dataset)
    rebuilt = algorithm.learner(stand_in(description), seed=0, device=torch.device("cpu"))
    rebuilt.load_state_dict(learner.state_dict())
    assert act_alike(learner, rebuilt, dataset, torch.device("cpu"))
    other = algorithm.learner(dataset, seed=1, device=torch.device("cpu"))
    assert not act_alike(learner, other, dataset, torch.device("cpu"))


def test_generated_returns_are_rebuilt_too() -> None:
    dataset = make_task("graph-0").load_dataset()
    algorithm = make_algorithm("dt", {"returns": "generated", "context": None, "cut_off_return": -15.0})
    learner = algorithm.learner(dataset, seed=0, device=torch.device("cpu"))
    rebuilt = algorithm.learner(stand_in(describe(dataset)), seed=0, device=torch.device("cpu"))
    rebuilt.load_state_dict(learner.state_dict())
    assert act_alike(learner, rebuilt, dataset, torch.device("cpu"))


@pytest.mark.parametrize("name", ["dt_atari", "bc", "discrete_cql", "qr_dqn", "rem"])
def test_learners_of_frames_are_rebuilt_too(name: str) -> None:
    rng, lengths = np.random.default_rng(0), [7, 5]
    dataset = dtbench.make_dataset(
        observations=rng.integers(255, size=(12, 84, 84)).astype(np.uint8),
        actions=rng.integers(3, size=12),
        rewards=rng.integers(2, size=12).astype(np.float32),
        terminals=np.zeros(12, bool),
        lengths=np.array(lengths),
        observation_space=gym.spaces.Box(0, 255, (4, 84, 84), np.uint8),
        action_space=gym.spaces.Discrete(3),
        frame_stack=4,
    )
    small = {"dt_atari": {"context": 3, "hidden_size": 16, "num_layers": 1, "num_heads": 1}, "bc": {"hidden_size": 8}}
    algorithm = make_algorithm(name, {**small.get(name, {}), "batch_size": 4})
    learner = algorithm.learner(dataset, seed=0, device=torch.device("cpu"))
    rebuilt = algorithm.learner(stand_in(describe(dataset)), seed=0, device=torch.device("cpu"))
    rebuilt.load_state_dict(learner.state_dict())
    assert act_alike(learner, rebuilt, dataset, torch.device("cpu"))


def test_a_stand_in_has_the_datas_moments_spaces_and_extremes() -> None:
    dataset = make_task("hopper-medium-v2", {"steps": 2000}).load_dataset()
    other = stand_in(describe(dataset))
    for ours, theirs in zip(
        dtbench.data.observation_moments(dataset), dtbench.data.observation_moments(other), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    assert (other.observation_space, other.action_space) == (dataset.observation_space, dataset.action_space)
    assert other.lengths.max() == dataset.lengths.max()
    assert (other.returns.min(), other.returns.max()) == (dataset.returns.min(), dataset.returns.max())
    assert abs(other.returns_to_go).max() == abs(dataset.returns_to_go).max()
    assert not other.actions.any()
