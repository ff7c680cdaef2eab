"""Discrete spaces that do not begin at 0, with episodes shorter than the window."""

from dataclasses import replace

import gymnasium as gym
import pytest
import torch

from dtbench.data import TrajectoryDataset
from dtbench.registry import make_algorithm
from dtbench.testing import toy_dataset, toy_history

SMALL = {
    "dt": {"context": 20, "hidden_size": 8, "num_layers": 1, "num_heads": 1, "batch_size": 8},
    "bc": {"context": 20, "hidden_size": 8, "batch_size": 8},
    "rvs_r": {"hidden_size": 8, "batch_size": 8},
    "discrete_cql": {"context": 20, "hidden_size": 8, "num_layers": 1, "num_heads": 1, "batch_size": 8},
    "qr_dqn": {"hidden_size": 8, "batch_size": 8},
    "rem": {"hidden_size": 8, "batch_size": 8},
}


def moved(data: TrajectoryDataset, start: int) -> TrajectoryDataset:
    """Return the dataset with all actions and observations counted from `start`."""
    return replace(
        data,
        actions=data.actions + start,
        observations=data.observations + start,
        final_observations=None if data.final_observations is None else data.final_observations + start,
        action_space=gym.spaces.Discrete(3, start=start),
        observation_space=gym.spaces.Discrete(5, start=start),
    )


@pytest.mark.parametrize("start", [5, 1, -9])
@pytest.mark.parametrize("name", SMALL)
def test_training_and_acting_are_the_same_wherever_a_space_begins(name: str, start: int) -> None:
    data = toy_dataset(discrete_actions=True, discrete_observations=True)
    shifted = moved(data, start)
    algorithm = make_algorithm(name, SMALL[name])
    ours, theirs = (algorithm.learner(one, seed=0, device=torch.device("cpu")) for one in (data, shifted))
    for _ in range(3):
        expected, found = ours.update(), theirs.update()
        assert {metric: float(value) for metric, value in found.items()} == pytest.approx(
            {metric: float(value) for metric, value in expected.items()}, rel=1e-5
        )
    histories = (
        toy_history(one, batch=4, context=learner.context, steps=2)
        for one, learner in ((data, ours), (shifted, theirs))
    )
    actions, further = (learner.act(history) for learner, history in zip((ours, theirs), histories, strict=True))
    assert (actions + start).tolist() == further.tolist()
