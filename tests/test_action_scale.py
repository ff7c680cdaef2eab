"""One action scale for all learners: whatever the Box of a task, they see [-1, 1] and act in the Box."""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import h5py
import numpy as np
import pytest
import torch

from dtbench import History, Metrics, TrajectoryDataset, evaluate, load_policy, make_task, registry
from dtbench.data.actions import action_scale, is_unit, unit_actions
from dtbench.data.dataset import make_dataset
from dtbench.domains.gymnasium.env import GymnasiumVectorEnv
from dtbench.errors import IncompatibleTask
from dtbench.evaluation import Evaluator
from dtbench.execution.local import run_local
from dtbench.ledger.store import Ledger
from dtbench.suite.planning import check_fit, load_suite, trial_specs
from dtbench.testing import check_algorithm, toy_dataset
from dtbench.trial import ignore

CPU = torch.device("cpu")
LENGTH = 5
BOXES = {
    "shifted": gym.spaces.Box(5, 7, (2,)),
    "wide": gym.spaces.Box(-1000, 1000, (2,)),
    "one": gym.spaces.Box(0, 100, (1,)),
    "asymmetric": gym.spaces.Box(np.float32([-1, 0]), np.float32([3, 0.5])),
    "float64": gym.spaces.Box(-0.1, 0.1, (2,), np.float64),
    "whole": gym.spaces.Box(0, 20, (2,), np.int64),
    "bytes": gym.spaces.Box(0, 255, (1,), np.uint8),
    "signs": gym.spaces.Box(-1, 1, (1,), np.int8),
    "unit": gym.spaces.Box(-1, 1, (2,)),
    "unbounded": gym.spaces.Box(-np.inf, np.inf, (2,)),
    "half": gym.spaces.Box(0, np.inf, (1,)),
    "largest": gym.spaces.Box(np.finfo(np.float32).min, np.finfo(np.float32).max, (1,)),
}
LOW, HIGH = 3.0, 11.0  # of the data where the Box has no bound


class Dial(gym.Env[Any, Any]):
    """Set every number of a Box to 70 % of its range; actions outside the Box or of another type are an error."""

    def __init__(self, name: str = "one") -> None:
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (2,))
        self.action_space = BOXES[name]
        self.low, self.high = ends(self.action_space)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return self.np_random.normal(size=2).astype(np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert action.dtype == self.action_space.dtype
        assert self.action_space.contains(action)
        share = (action.astype(float) - self.low) / (self.high - self.low)
        return self.np_random.normal(size=2).astype(np.float32), 1 - float(abs(share - 0.7).mean()), False, False, {}


for _name in BOXES:
    gym.register(f"UnitTestDial-{_name}-v0", partial(Dial, _name), max_episode_steps=LENGTH)


def ends(space: gym.spaces.Box) -> tuple[Any, Any]:
    low, high = (np.asarray(bound, float) for bound in (space.low, space.high))
    return np.where(low < -1e9, LOW, low), np.where(high > 1e9, HIGH, high)


def recorded(space: gym.spaces.Box, *, episodes: int = 40) -> TrajectoryDataset:
    """Games whose actions are 70 % of the range; some are random, the first two at either end."""
    rng = np.random.default_rng(0)
    share = np.where(rng.random((episodes * LENGTH, 1)) < 0.2, rng.random((episodes * LENGTH, *space.shape)), 0.7)
    share[0], share[1] = 0, 1
    low, high = ends(space)
    actions = low + share * (high - low)
    whole = np.dtype(space.dtype).kind != "f"
    return make_dataset(
        observations=rng.normal(size=(len(share), 2)).astype(np.float32),
        actions=(np.rint(actions) if whole else actions).astype(space.dtype if whole else np.float32),
        rewards=(1 - abs(share - 0.7).mean(axis=1)).astype(np.float32),
        terminals=np.zeros(len(share), bool),
        lengths=np.full(episodes, LENGTH),
        observation_space=gym.spaces.Box(-np.inf, np.inf, (2,)),
        action_space=space,
    )


def continuous() -> list[str]:
    """The registered algorithms that take continuous actions; RLlib's need minutes, dt_pretrained a model."""
    names = []
    for name in registry.algorithm_names():
        if name.startswith(("rllib", "dt_pretrained")):
            continue
        try:
            small(name).learner(toy_dataset(discrete_actions=False), seed=0, device=CPU)
        except IncompatibleTask:
            continue
        names.append(name)
    return names


def small(name: str) -> Any:
    known = registry.all_hyperparameters(name, {})
    sizes = {"hidden_size": 32, "num_layers": 1, "batch_size": 32, "context": 2, "learning_rate": 3e-3, "dropout": 0.0}
    sizes |= {"warmup_steps": 0}
    return registry.make_algorithm(name, {key: value for key, value in sizes.items() if key in known})


@dataclass(frozen=True)
class ThirdParty:
    """An algorithm of somebody else: the mean of all actions, moved by a number that it learns."""

    def learner(self, dataset: TrajectoryDataset, *, seed: int, device: torch.device) -> "ThirdPartyLearner":
        if not isinstance(dataset.action_space, gym.spaces.Box):
            raise IncompatibleTask("ThirdParty needs a Box.")
        return ThirdPartyLearner(dataset, seed)


class ThirdPartyLearner:
    context, return_conditioned = 1, False

    def __init__(self, dataset: TrajectoryDataset, seed: int) -> None:
        assert (dataset.action_space.low == -1).all()
        assert (dataset.action_space.high == 1).all()
        assert np.abs(dataset.actions).max() <= 1
        self.mean = torch.from_numpy(np.asarray(dataset.actions)).float().mean(dim=0)
        self.shift, self.rate = torch.zeros(()), seed + 1

    def update(self) -> Metrics:
        self.shift = self.shift + 1e-4 * self.rate
        return {"shift": self.shift}

    def act(self, history: History) -> torch.Tensor:
        return (self.mean + self.shift).clamp(-1, 1).expand(len(history.mask), -1).clone()

    def state_dict(self) -> dict[str, Any]:
        return {"shift": self.shift}

    def load_state_dict(self, state: Any) -> None:
        self.shift = state["shift"]


class Watched:
    """A learner whose histories must hold actions of its own scale."""

    def __init__(self, learner: Any) -> None:
        self.learner, self.context = learner, learner.context
        self.return_conditioned = learner.return_conditioned

    def act(self, history: History) -> Any:
        assert history.actions.abs().max() <= 1
        return self.learner.act(history)


@pytest.mark.parametrize("name", continuous())
@pytest.mark.parametrize("box", BOXES)
def test_every_learner_acts_in_every_box(name: str, box: str) -> None:
    data = recorded(BOXES[box])
    learner = small(name).learner(unit_actions(data), seed=0, device=CPU)
    for _ in range(3):
        assert all(np.isfinite(float(value)) for value in learner.update().values())
    evaluator = Evaluator(
        make_env=partial(GymnasiumVectorEnv, partial(gym.make, f"UnitTestDial-{box}-v0", disable_env_checker=True)),
        seeds=[1, 2],
        action_scale=action_scale(data.action_space, data.actions),
    )
    assert evaluator.evaluate(Watched(learner), [4.0]).lengths.tolist() == [LENGTH, LENGTH]


@pytest.mark.parametrize("name", continuous())
def test_a_learner_cannot_tell_a_wider_box(name: str) -> None:
    """Twice [-1, 1] is exact in floating point: equal metrics and actions, bit for bit."""
    plain = recorded(BOXES["unit"])
    wide = replace(plain, actions=2 * plain.actions, action_space=gym.spaces.Box(-2, 2, (2,)))
    first, second = (small(name).learner(unit_actions(data), seed=0, device=CPU) for data in (plain, wide))
    for _ in range(3):
        ours, theirs = first.update(), second.update()
        assert {key: float(value) for key, value in ours.items()} == {k: float(v) for k, v in theirs.items()}


@pytest.mark.parametrize("box", BOXES)
def test_the_scale_goes_there_and_back(box: str) -> None:
    data = recorded(BOXES[box])
    scale = action_scale(data.action_space, data.actions)
    assert scale is not None
    unit = unit_actions(data)
    assert (unit.action_space.low == -1).all()
    assert (unit.actions.min(), unit.actions.max()) == (-1, 1)
    assert unit.actions.dtype == np.float32
    np.testing.assert_allclose(scale.to_box(unit.actions), data.actions, rtol=1e-5, atol=1e-5)
    beyond = scale.to_box(np.full((1, *data.action_space.shape), 9.0, np.float32))
    assert beyond.dtype == data.action_space.dtype
    np.testing.assert_allclose(beyond[0], ends(data.action_space)[1], rtol=1e-6)


def test_a_box_of_minus_one_to_one_is_left_alone_bit_for_bit() -> None:
    data = recorded(BOXES["unit"])
    assert unit_actions(data) is data
    scale = action_scale(data.action_space)
    assert scale is not None
    tiny = np.float32([[1e-20, -0.3333333]])
    assert scale.to_box(tiny).tobytes() == tiny.tobytes()
    assert unit_actions(toy_dataset(discrete_actions=True)).actions.dtype == np.int64
    assert not is_unit(BOXES["signs"])  # -1, 0 and 1 are whole numbers


def test_an_action_with_one_value_is_zero_to_learners() -> None:
    space = gym.spaces.Box(np.float32([2, -np.inf]), np.float32([2, np.inf]))
    actions = np.tile(np.float32([2, 5]), (3, 1))
    scale = action_scale(space, actions)
    assert scale is not None
    assert not scale.to_unit(actions).any()
    assert scale.to_box(np.float32([[0.9, -0.9]])).tolist() == [[2, 5]]


@pytest.mark.parametrize("box", BOXES)
def test_check_algorithm_holds_third_parties_to_the_scale(box: str) -> None:
    check_algorithm(ThirdParty(), recorded(BOXES[box], episodes=4))


@pytest.mark.parametrize("name", ["dt", "bc", "td3_bc"])
def test_a_learner_refuses_a_box_in_other_units(name: str) -> None:
    with pytest.raises(IncompatibleTask, match="unit_actions"):
        small(name).learner(recorded(BOXES["one"]), seed=0, device=CPU)


@pytest.mark.parametrize("name", ["dt", "bc", "iql"])
@pytest.mark.parametrize("box", ["one", "whole", "half"])
def test_the_dial_is_learned(name: str, box: str) -> None:
    data = recorded(BOXES[box])
    learner = small(name).learner(unit_actions(data), seed=0, device=CPU)
    for _ in range(300):
        learner.update()
    task = replace(make_task(f"gym:UnitTestDial-{box}-v0", {"file": __file__}), target_returns=(5.0,))
    assert evaluate(learner, task, episodes=3, dataset=data).returns.mean() > 0.9 * LENGTH


def write(path: Path, data: TrajectoryDataset) -> Path:
    timeouts = np.zeros(data.num_steps, bool)
    timeouts[data.offsets[1:] - 1] = True
    with h5py.File(path, "w") as file:
        for key in ("observations", "actions", "rewards", "terminals"):
            file[key] = getattr(data, key)
        file["timeouts"] = timeouts
    return path


@pytest.mark.parametrize("box", ["one", "whole", "unbounded", "float64"])
def test_a_suite_runs_in_any_box_and_its_policy_acts_there(
    box: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DTBENCH_DATA", str(tmp_path / "data"))
    path = write(tmp_path / "my.hdf5", recorded(BOXES[box]))
    overrides = [f"tasks=[gym:UnitTestDial-{box}-v0]", f"task_options.file={path}"]
    specs = trial_specs(load_suite("own-data", preset="smoke", overrides=overrides))
    check_fit(specs)
    assert {state.value for state in run_local(specs, tmp_path / "runs", ignore).values()} == {"done"}
    for spec in specs:
        action = load_policy(tmp_path, spec.key).act(np.zeros(2, np.float32))
        assert BOXES[box].contains(action.astype(BOXES[box].dtype))
    assert specs[0].action_scale == "unit"
    assert Ledger(tmp_path / "runs").spec(Ledger(tmp_path / "runs").folder(specs[0])) == specs[0]


def test_only_trials_of_another_box_have_another_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DTBENCH_DATA", str(tmp_path / "data"))
    path = write(tmp_path / "my.hdf5", recorded(BOXES["unit"]))
    overrides = ["tasks=[gym:UnitTestDial-unit-v0]", f"task_options.file={path}"]
    spec = trial_specs(load_suite("own-data", preset="smoke", overrides=overrides))[0]
    assert spec.action_scale == ""
    assert "action_scale" not in spec.to_json()
    assert replace(spec, action_scale="unit").key != spec.key


def test_boxes_without_bounds_need_the_data() -> None:
    with pytest.raises(IncompatibleTask, match="dataset="):
        action_scale(BOXES["unbounded"])
