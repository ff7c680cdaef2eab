"""The share of a return that backups reach, and Q beside the data's returns."""

import math
from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import Tensor

from baselines.iql import IQL
from baselines.qr_dqn import QRDQN
from baselines.td3_bc import TD3BC
from dtbench import TrajectoryDataset, make_dataset
from dtbench.algorithm import History
from dtbench.convergence import Backups, ValueProbe, backups_of, probe, return_profile
from dtbench.errors import InvalidAlgorithm
from dtbench.testing import toy_dataset

CPU = torch.device("cpu")


def chain(rewards: list[float], *, episodes: int = 1, terminal: bool = True) -> TrajectoryDataset:
    """Episodes with these rewards, whose observation is the number of steps so far."""
    length = len(rewards)
    ends = np.zeros((episodes, length), bool)
    ends[:, -1] = terminal
    return make_dataset(
        observations=np.tile(np.arange(length, dtype=np.float32), episodes)[:, None],
        actions=np.zeros((length * episodes, 1), np.float32),
        rewards=np.tile(np.array(rewards, np.float32), episodes),
        terminals=ends.reshape(-1),
        lengths=np.full(episodes, length),
        observation_space=gym.spaces.Box(-np.inf, np.inf, (1,)),
        action_space=gym.spaces.Box(-1, 1, (1,)),
    )


def test_the_share_of_an_endless_stream_of_rewards_is_that_of_the_closed_form() -> None:
    profile = return_profile(chain([1.0] * 4000, terminal=False), 0.99)
    for steps in (1000, 30_000, 100_000):
        backups = steps * 0.005
        expected = 1 - math.exp(-backups * (1 - 0.99))
        assert profile.share(backups) == pytest.approx(expected, abs=0.015)  # the last steps see less far
        assert profile.share(backups) == pytest.approx(1 - (1 - 0.005 * 0.01) ** steps, abs=0.015)


def test_a_reward_at_the_end_takes_as_many_backups_as_there_are_steps() -> None:
    late, even = chain([0.0] * 39 + [1.0]), chain([1.0] * 40)
    profile = return_profile(late, 1.0)
    assert profile.share(5) < 0.15 < 0.95 < profile.share(60)
    assert return_profile(even, 1.0).share(20) > profile.share(20)
    assert return_profile(chain([0.0] * 5), 0.9).share(1) == 1  # nothing to be known


def test_steps_for_a_share_are_the_fewest_that_reach_it() -> None:
    profile = return_profile(chain([1.0] * 1000, terminal=False), 0.99)
    steps = profile.steps_for(0.005, 0.9)
    assert profile.share(steps * 0.005) >= 0.9 > profile.share((steps - 1) * 0.005)
    assert steps == pytest.approx(math.log(0.1) / math.log(1 - 0.005 * 0.01), rel=0.1)


def test_steps_before_a_truncation_are_left_out_where_others_are_known() -> None:
    profile = return_profile(chain([1.0] * 1000, terminal=False), 0.99)
    assert profile.steps.max() < 1000 - 298
    assert profile.returns.min() > 95
    assert len(return_profile(chain([1.0] * 10, terminal=False), 0.99).steps) == 10


def test_rates_are_those_of_the_algorithms() -> None:
    assert backups_of(IQL(tau=0.02)) == Backups(0.02, 0.99)
    assert backups_of(TD3BC(tau=0.02, policy_every=4)) == Backups(0.005, 0.99)
    assert backups_of(QRDQN(target_every=500)) == Backups(0.002, 0.99)
    assert backups_of(object()) is None  # type: ignore[arg-type]


class Critic:
    """Knows the return of a chain of ten rewards of 1, times a factor."""

    context = 3

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def action_values(self, history: History, actions: Tensor) -> Tensor:
        assert history.observations.shape[1] == 3
        assert actions.shape == history.actions[:, -1].shape
        left = 10 - history.observations[:, -1, 0]
        return self.factor * (1 - 0.5**left) / 0.5


@pytest.mark.parametrize("factor", [1.0, 0.25])
def test_a_critic_is_held_against_the_datas_returns(factor: float) -> None:
    measured = ValueProbe(chain([1.0] * 10, episodes=3), Backups(0.1, 0.5), context=3, device=CPU).measure(
        Critic(factor), 50
    )
    assert measured["value_ratio"] == pytest.approx(factor, rel=1e-5)
    assert measured["value_correlation"] == pytest.approx(1)
    assert measured["value_share"] == pytest.approx(1 - math.exp(-5 * 0.5), abs=0.03)


def test_what_is_undefined_is_left_out() -> None:
    nothing = chain([0.0] * 10)
    measured = ValueProbe(nothing, Backups(0.1, 0.5), context=3, device=CPU).measure(Critic(1.0), 50)
    assert set(measured) == {"value_share", "value_mean"}


@pytest.mark.parametrize("name", ["iql", "td3_bc", "cql", "sac", "discrete_cql", "qr_dqn", "rem", "quantile_cql"])
def test_every_value_learner_is_measured_in_the_datas_rewards(name: str) -> None:
    from dtbench import make_algorithm

    discrete = name not in ("iql", "td3_bc", "cql", "sac")
    data = toy_dataset(discrete_actions=discrete)
    settings: dict[str, Any] = {"discount": 0.9}
    settings |= {"target_every": 5} if name in ("qr_dqn", "rem", "quantile_cql") else {"tau": 0.1}
    algorithm = make_algorithm(name, settings)
    learner = algorithm.learner(data, seed=0, device=CPU)
    found = probe(algorithm, learner, data, CPU)
    assert found is not None
    for _ in range(30):
        learner.update()
    measured = found.measure(learner, 30)  # type: ignore[arg-type]
    assert set(measured) == {"value_share", "value_mean", "value_ratio", "value_correlation"}
    assert all(map(math.isfinite, measured.values()))


def test_scaled_rewards_are_scaled_back() -> None:
    data = replace(toy_dataset(discrete_actions=False))
    plain, scaled = (
        IQL(normalize_rewards=normalize, discount=0.0, tau=1.0, learning_rate=1e-2, batch_size=64)
        for normalize in (False, True)
    )
    means = []
    for algorithm in (plain, scaled):
        learner = algorithm.learner(data, seed=0, device=CPU)
        for _ in range(400):
            learner.update()
        found = ValueProbe(data, Backups(1.0, 0.0), context=1, device=CPU)
        means.append(found.measure(learner, 400)["value_mean"])
    assert means[0] == pytest.approx(float(data.rewards.mean()), abs=0.15)
    assert means[1] == pytest.approx(means[0], abs=0.2)


def test_algorithms_that_do_not_bootstrap_have_no_probe() -> None:
    from dtbench import make_algorithm

    data = toy_dataset(discrete_actions=False)
    algorithm = make_algorithm("bc")
    assert probe(algorithm, algorithm.learner(data, seed=0, device=CPU), data, CPU) is None


def test_a_plug_in_whose_own_code_fails_is_one_clear_error() -> None:
    class Broken:
        @property
        def backups_per_step(self) -> float:
            raise ZeroDivisionError("no rate")

    with pytest.raises(InvalidAlgorithm, match=r"of Broken cannot be read: ZeroDivisionError: no rate .*Correct it"):
        backups_of(Broken())  # type: ignore[arg-type]
