"""RLlib's algorithms as contenders: the export of data, the count of steps, what is refused, and RLlib itself."""

import io
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pandas as pd
import pytest
import torch

from baselines.rllib import RLlibBC, RLlibCQL, RLlibIQL, RLlibLearner, RLlibMARWIL
from baselines.rllib import export as rllib_export
from baselines.rllib import learner as rllib
from baselines.rllib import process as rllib_process
from baselines.rllib.process import RLlibProcess
from dtbench import DtbenchError, IncompatibleTask, InvalidValue, TrajectoryDataset, make_dataset
from dtbench.data.actions import unit_actions
from dtbench.execution import cluster
from dtbench.testing import toy_dataset, toy_history

CPU = torch.device("cpu")
MISSING = [module for module in rllib.REQUIRED if find_spec(module) is None]
with_rllib = pytest.mark.skipif(bool(MISSING), reason=f"ray[rllib] is not installed: {', '.join(MISSING)}")
SMALL: dict[str, Any] = {"train_batch_size_per_learner": 32, "fcnet_hiddens": (16,), "steps_per_iteration": 2}


def rows(folder: Path) -> pd.DataFrame:
    return pd.concat([pd.read_parquet(part) for part in sorted(folder.rglob("*.parquet"))], ignore_index=True)


def in_order(written: pd.DataFrame, first: np.ndarray) -> pd.DataFrame:
    """The rows in the order of the data, whose first observed numbers are all different."""
    places = {float(number): place for place, number in enumerate(first)}
    return written.sort_values("obs", key=lambda column: column.map(lambda seen: places[float(seen[0])]))


def test_the_export_holds_every_step_of_the_dataset() -> None:
    dataset = toy_dataset(discrete_actions=False)
    written = in_order(rows(rllib_export.export(dataset)), dataset.observations[:, 0])
    assert np.array_equal(np.stack(written["obs"]), dataset.observations)
    assert np.array_equal(np.stack(written["actions"]), dataset.actions)
    assert np.array_equal(written["rewards"], dataset.rewards)
    assert np.array_equal(written["terminateds"], dataset.terminals)
    assert written.groupby("eps_id").size().tolist() == dataset.lengths.tolist()


def test_each_step_leads_to_the_next_and_an_episode_ends_either_by_the_environment_or_cut_off() -> None:
    dataset = toy_dataset(discrete_actions=True)
    columns = rllib_export.transitions(dataset)
    last = dataset.offsets[1:] - 1
    inner = np.setdiff1d(np.arange(dataset.num_steps), last)
    assert np.array_equal(columns["new_obs"][inner], dataset.observations[inner + 1])
    assert np.array_equal(columns["new_obs"][last], dataset.observations[last])
    assert (columns["terminateds"][last] ^ columns["truncateds"][last]).all()
    assert not columns["truncateds"][inner].any()


def test_steps_whose_successor_nobody_knows_lie_apart() -> None:
    folder = rllib_export.export(toy_dataset(discrete_actions=True))
    assert not rows(folder / rllib_export.FOLLOWED)["truncateds"].any()
    assert rows(folder / rllib_export.CUT_OFF)["truncateds"].all()


def test_indices_become_one_hot_and_actions_begin_at_0() -> None:
    dataset = make_dataset(
        observations=np.array([2, 4, 3]),
        actions=np.array([1, 3, 2]),
        rewards=np.zeros(3, np.float32),
        terminals=np.array([False, False, True]),
        lengths=np.array([3]),
        observation_space=gym.spaces.Discrete(3, start=2),
        action_space=gym.spaces.Discrete(3, start=1),
    )
    columns = rllib_export.transitions(dataset)
    assert columns["obs"].tolist() == [[1, 0, 0], [0, 0, 1], [0, 1, 0]]
    assert columns["actions"].tolist() == [0, 2, 1]


def test_actions_are_exported_as_a_learner_gets_them_between_minus_one_and_one() -> None:
    dataset = make_dataset(
        observations=np.zeros((3, 1), np.float32),
        actions=np.array([[0.0], [2.0], [4.0]], np.float32),
        rewards=np.zeros(3, np.float32),
        terminals=np.array([False, False, True]),
        lengths=np.array([3]),
        observation_space=gym.spaces.Box(-1, 1, (1,)),
        action_space=gym.spaces.Box(0, 4, (1,)),
    )
    assert rllib_export.transitions(unit_actions(dataset))["actions"].tolist() == [[-1], [0], [1]]


def test_trials_that_export_at_once_leave_one_whole_folder() -> None:
    dataset = toy_dataset(discrete_actions=False, seed=7)
    threads = [threading.Thread(target=rllib_export.export, args=[dataset]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    folder = rllib_export.export(dataset)
    assert len(rows(folder)) == dataset.num_steps
    assert not list(folder.parent.glob(f".{folder.name}.*"))


@pytest.mark.parametrize("algorithm", [RLlibCQL(), RLlibIQL()])
def test_cql_and_iql_refuse_discrete_actions(algorithm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rllib, "REQUIRED", ())
    with pytest.raises(IncompatibleTask, match=f"rllib_{algorithm.name} needs a flat Box of actions"):
        algorithm.learner(toy_dataset(discrete_actions=True), seed=0, device=CPU)


def test_cql_refuses_single_steps_for_which_rllib_has_a_key_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rllib, "REQUIRED", ())
    with pytest.raises(InvalidValue, match="steps_per_iteration must be 2 or more"):
        RLlibCQL(steps_per_iteration=1).learner(toy_dataset(discrete_actions=False), seed=0, device=CPU)


def test_without_the_extra_one_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rllib, "find_spec", lambda name: None if name == "tree" else object())
    with pytest.raises(
        DtbenchError, match=r"^rllib_bc needs RLlib, and tree is missing: pip install 'dtbench\[rllib\]'\.$"
    ):
        RLlibBC().learner(toy_dataset(discrete_actions=True), seed=0, device=CPU)


def test_importing_the_contenders_loads_no_ray() -> None:
    code = "import sys, baselines.rllib; print('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


class Recorder:
    """In RLlib's place: k steps at each `train`, and what was asked."""

    def __init__(self, steps: int) -> None:
        self.asked: list[str] = []
        self.steps, self.trained = steps, 0

    def request(self, what: str, **details: Any) -> dict[str, Any]:
        self.asked.append(what)
        self.trained += self.steps * (what == "train")
        if what == "act":
            return {"actions": torch.zeros(len(details["features"]), dtype=torch.long)}
        return {"metrics": {"total_loss": float(self.trained)}, "steps": self.trained}


def recorded(monkeypatch: pytest.MonkeyPatch, *, k: int, trains: int) -> tuple[RLlibLearner, Recorder]:
    recorder = Recorder(trains)
    monkeypatch.setattr(rllib, "REQUIRED", ())
    monkeypatch.setattr(rllib, "RLlibProcess", lambda settings: recorder)
    return RLlibBC(steps_per_iteration=k).learner(toy_dataset(discrete_actions=True), seed=0, device=CPU), recorder


def test_every_kth_update_trains_k_steps_and_the_others_only_count(monkeypatch: pytest.MonkeyPatch) -> None:
    learner, recorder = recorded(monkeypatch, k=3, trains=3)
    metrics = [dict(learner.update()) for _ in range(7)]
    assert recorder.asked == ["train", "train"]
    assert metrics == [{}, {}, *[{"total_loss": 3.0}] * 3, *[{"total_loss": 6.0}] * 2]


def test_acting_between_iterations_is_refused_and_after_one_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    learner, recorder = recorded(monkeypatch, k=2, trains=2)
    history = toy_history(learner.dataset, batch=3, context=1, steps=1)
    learner.update()
    with pytest.raises(InvalidValue, match="step 1 is not a multiple of steps_per_iteration 2"):
        learner.act(history)
    learner.update()
    assert learner.act(history).tolist() == [0, 0, 0]
    assert recorder.trained == 2


def test_an_iteration_of_another_length_than_was_counted_fails_the_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    learner, _ = recorded(monkeypatch, k=2, trains=14)
    learner.update()
    with pytest.raises(RuntimeError, match="RLlib took 14 gradient steps, not 2"):
        learner.update()


def test_a_ray_that_does_not_start_fails_the_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses() -> None:
        raise DtbenchError("Ray did not start")

    monkeypatch.setattr(cluster, "ray_started", refuses)
    ours, theirs = Pipe()
    rllib_process.serve(theirs)
    assert "Ray did not start" in rllib_process._unpacked(ours.recv_bytes())["error"]


Begin = Callable[[Any, TrajectoryDataset], RLlibLearner]


@pytest.fixture(scope="module")
def begin(data_folder: Path) -> Iterator[Begin]:
    """Learners that share one process, since it takes ten seconds to start."""
    started: list[RLlibProcess] = []

    def begun(algorithm: Any, dataset: TrajectoryDataset) -> RLlibLearner:
        learner: RLlibLearner = algorithm.learner(dataset, seed=0, device=CPU)
        settings = learner._settings()
        if started:
            started[0].request("begin", **settings)
        else:
            started.append(RLlibProcess(settings))
        learner._process = started[0]
        return learner

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DTBENCH_DATA", str(data_folder))
        yield begun
        for process in started:
            process.close()
            assert process.process.poll() == 0


@with_rllib
@pytest.mark.cluster
def test_bc_learns_an_action_for_each_observation(begin: Begin) -> None:
    dataset = toy_dataset(discrete_actions=True, discrete_observations=True)
    simple = make_dataset(
        observations=dataset.observations,
        actions=dataset.observations % 3,
        rewards=dataset.rewards,
        terminals=dataset.terminals,
        lengths=dataset.lengths,
        observation_space=dataset.observation_space,
        action_space=dataset.action_space,
    )
    learner = begin(RLlibBC(**{**SMALL, "steps_per_iteration": 100, "lr": 0.03}), simple)
    for _ in range(100):
        learner.update()
    history = toy_history(simple, batch=20, context=1, steps=1)
    assert learner.act(history).tolist() == (history.observations[:, -1] % 3).tolist()


@with_rllib
@pytest.mark.cluster
@pytest.mark.parametrize("algorithm", [RLlibMARWIL(**SMALL), RLlibCQL(**SMALL), RLlibIQL(**SMALL)])
def test_rllib_trains_the_steps_that_were_counted_and_acts_within_bounds(algorithm: Any, begin: Begin) -> None:
    learner = begin(algorithm, toy_dataset(discrete_actions=False))
    before = learner.state_dict()["weights"]
    for _ in range(4):
        metrics = learner.update()
    assert np.isfinite(list(metrics.values())).all()
    actions = learner.act(toy_history(learner.dataset, batch=5, context=1, steps=3))
    assert actions.shape == (5, 2)
    assert (actions.abs() <= 1).all()
    buffer = io.BytesIO()
    torch.save(learner.state_dict(), buffer)
    buffer.seek(0)
    state = torch.load(buffer, weights_only=True)
    assert state["steps"] == 4
    assert any(not torch.equal(value, before[name]) for name, value in state["weights"].items())
    learner.load_state_dict(state)
    assert torch.equal(learner.act(toy_history(learner.dataset, batch=5, context=1, steps=3)), actions)
    assert sum(parameter.numel() for parameter in learner.network.parameters()) > 100


@with_rllib
@pytest.mark.cluster
def test_a_suite_runs_rllib_in_a_trial_of_ray_tune(tmp_path: Path) -> None:
    main = "from dtbench.cli.run import main; main()"
    suite = ["--suite", "rllib-key-to-door", "--preset", "smoke", "-c", "RLlib BC"]
    done = subprocess.run(
        [sys.executable, "-c", main, "run", *suite, "--results", str(tmp_path / "results")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list(tmp_path.glob("results/runs/key-to-door-1k/*/result.json"))) == 1
