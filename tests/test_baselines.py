from typing import Any

import numpy as np
import pytest
import torch
from torch import tensor

from baselines.bc import BehaviorCloning
from baselines.discrete_cql import DiscreteCQL, conservative_penalty, usable_steps
from baselines.uniform_random import UniformRandom
from dtbench import IncompatibleTask, TrajectoryDataset, Windows, registry
from dtbench.decision_transformer import DecisionTransformer
from dtbench.testing import check_algorithm, toy_dataset, toy_history
from tests.episodes import episodes, with_actions

CPU = torch.device("cpu")

ALGORITHMS = [
    DecisionTransformer(width=16, layers=1),
    DecisionTransformer(width=16, layers=1, context=None, returns="none", average_decay=0.9, anchor="inside"),
    DecisionTransformer(width=16, layers=1, returns="generated", cut_off_return=-99.0, relative_timesteps=True),
    BehaviorCloning(width=16),
    BehaviorCloning(width=16, context=4, best_fraction=0.5),
    DiscreteCQL(width=16),
    DiscreteCQL(width=16, context=None, dropout=0.1),
    UniformRandom(),
]


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=repr)
def test_our_algorithms_keep_the_contract(algorithm: Any) -> None:
    check_algorithm(algorithm)


@pytest.mark.parametrize("name", registry.algorithm_names())
def test_every_registered_algorithm_keeps_the_contract_with_its_defaults(name: str) -> None:
    check_algorithm(name)


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=repr)
def test_our_algorithms_take_indices_as_observations(algorithm: Any) -> None:
    check_algorithm(algorithm, toy_dataset(discrete_actions=True, discrete_observations=True))


def test_the_conservative_penalty_is_that_of_the_paper() -> None:
    values = tensor([[0.0, 0.0], [1.0, 3.0]])
    expected = np.mean([np.log(2), np.log(np.exp(1) + np.exp(3)) - 3])
    assert conservative_penalty(values, tensor([0.0, 3.0])).item() == pytest.approx(expected, rel=1e-6)


def test_a_cut_off_step_has_no_backup() -> None:
    mask = tensor([[False, True, True], [True, True, True]])
    terminals = tensor([[False, False, True], [False, False, False]])
    nothing = torch.zeros(2, 3)
    windows = Windows(nothing, nothing, nothing, terminals, nothing, nothing, mask)
    assert usable_steps(windows).tolist() == [[False, True, True], [True, True, False]]


@pytest.mark.parametrize("context", [1, None])
def test_q_values_of_a_chain_are_its_discounted_rewards(context: int | None) -> None:
    """Three steps, a reward of 1 at the end: without a penalty Q is 0.25, 0.5 and 1 at a discount of 0.5."""
    chain = episodes([3] * 8, [0, 0, 1] * 8, [True] * 8)
    same = np.tile(np.arange(3, dtype=np.float32), 8)[:, None]
    data = with_actions(chain, np.zeros(24, np.int64))
    data.observations[:] = same
    algorithm = DiscreteCQL(context=context, width=32, penalty=0.0, discount=0.5, learning_rate=3e-3, target_rate=0.05)
    learner = algorithm.learner(data, seed=0, device=CPU)
    for _ in range(600):
        learner.update()
    observations = tensor([[[0.0], [1.0], [2.0]]])
    actions = torch.zeros(1, 3, dtype=torch.long)
    mask = torch.ones(1, 3, dtype=torch.bool)
    with torch.no_grad():
        values = learner.network.eval()(observations, actions, torch.arange(3)[None], mask)
    assert values[0, :, 0].numpy() == pytest.approx([0.25, 0.5, 1.0], abs=0.05)


def signs() -> TrajectoryDataset:
    """Observations are -1 or 1; the data take action 1 where they are positive, else 0. No reward anywhere."""
    data = episodes([4] * 10, [0.0] * 40, [True] * 10)
    data.observations[:, 0] = np.where(np.arange(40) % 3 == 0, 1.0, -1.0)
    return with_actions(data, (data.observations[:, 0] > 0).astype(np.int64))


def test_the_penalty_prefers_actions_of_the_data() -> None:
    learner = DiscreteCQL(width=32, penalty=1.0, learning_rate=3e-3).learner(signs(), seed=0, device=CPU)
    for _ in range(200):
        learner.update()
    history = toy_history(signs(), batch=40, context=1, steps=1)
    assert (learner.act(history) == (history.observations[:, 0, 0] > 0)).all()


def test_discrete_cql_refuses_continuous_actions() -> None:
    with pytest.raises(IncompatibleTask, match="discrete"):
        DiscreteCQL().learner(toy_dataset(discrete_actions=False), seed=0, device=CPU)


def test_cloning_learns_what_the_data_do() -> None:
    learner = BehaviorCloning(width=64, learning_rate=1e-2, dropout=0.0).learner(signs(), seed=0, device=CPU)
    losses = [float(learner.update()["action_loss"]) for _ in range(200)]
    assert losses[0] > 1
    assert losses[-1] < 0.05
