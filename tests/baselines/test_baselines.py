from copy import deepcopy
from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import Tensor, tensor

from baselines.bc import BehaviorCloning
from baselines.cql import CQL
from baselines.discrete_cql import DiscreteCQL, conservative_penalty, usable_steps
from baselines.iql import IQL
from baselines.networks import observation_scale, reward_scale
from baselines.td3_bc import TD3BC
from baselines.uniform_random import UniformRandom
from dtbench import IncompatibleTask, TrajectoryDataset, make_dataset, registry
from dtbench.data import Windows
from dtbench.decision_transformer import DecisionTransformer
from dtbench.testing import check_algorithm, toy_dataset, toy_history
from tests.support.episodes import episodes, with_actions

CPU = torch.device("cpu")

ALGORITHMS = [
    DecisionTransformer(hidden_size=16, num_layers=1),
    DecisionTransformer(hidden_size=16, num_layers=1, context=None, returns="none", ema_decay=0.9, anchor="inside"),
    DecisionTransformer(
        hidden_size=16, num_layers=1, returns="generated", cut_off_return=-99.0, relative_timesteps=True
    ),
    BehaviorCloning(hidden_size=16),
    BehaviorCloning(hidden_size=16, context=4, best_fraction=0.5),
    DiscreteCQL(hidden_size=16),
    DiscreteCQL(hidden_size=16, context=None, dropout=0.1, decay_steps=9),
    UniformRandom(),
]
CONTINUOUS = [
    CQL(hidden_size=16, sampled_actions=2),
    CQL(hidden_size=16, num_layers=1, sampled_actions=2, backup="soft", cloning_steps=2, initialization="rlkit"),
    IQL(hidden_size=16),
    IQL(hidden_size=16, deterministic=True, decay_steps=4, normalize_rewards=True),
    TD3BC(hidden_size=16),
    TD3BC(hidden_size=16, policy_every=3, normalize_observations=False),
]
# RLlib's have test_rllib.py, and dt_pretrained, which has no default path, test_pretrained.py.
OURS = [name for name in registry.algorithm_names() if not name.startswith(("rllib_", "dt_pretrained"))]
MORE = [
    BehaviorCloning(hidden_size=16, context=3, best_fraction=0.5, normalize_observations=True, warmup_steps=2),
]


@pytest.mark.parametrize("algorithm", [*ALGORITHMS, *MORE, *CONTINUOUS], ids=repr)
def test_our_algorithms_keep_the_contract(algorithm: Any) -> None:
    check_algorithm(algorithm)


@pytest.mark.parametrize("name", OURS)
def test_every_registered_algorithm_keeps_the_contract_with_its_defaults(name: str) -> None:
    """But for the number of windows or transitions in a batch, which only costs time here."""
    algorithm = registry.make_algorithm(name, {})
    check_algorithm(replace(algorithm, batch_size=8) if hasattr(algorithm, "batch_size") else algorithm)


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
    algorithm = DiscreteCQL(context=context, hidden_size=32, alpha=0.0, discount=0.5, learning_rate=3e-3, tau=0.05)
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
    learner = DiscreteCQL(hidden_size=32, alpha=1.0, learning_rate=3e-3).learner(signs(), seed=0, device=CPU)
    for _ in range(200):
        learner.update()
    history = toy_history(signs(), batch=40, context=1, steps=1)
    assert (learner.act(history) == (history.observations[:, 0, 0] > 0)).all()


def test_discrete_cql_stands_still_once_its_learning_rate_has_fallen() -> None:
    algorithm = DiscreteCQL(hidden_size=8, alpha=1.0, learning_rate=1e-2, decay_steps=20)
    learner = algorithm.learner(signs(), seed=0, device=CPU)
    moves = []
    for _ in range(22):
        before = deepcopy(learner.network.state_dict())
        learner.update()
        after = learner.network.state_dict()
        moves.append(max(float((before[name] - after[name]).abs().max()) for name in before))
    assert moves[0] == pytest.approx(1e-2, rel=0.01)  # Adam's first step is as long as its rate
    assert 0 < moves[19] < 1e-3
    assert moves[20:] == [0.0, 0.0]


def test_discrete_cql_refuses_continuous_actions() -> None:
    with pytest.raises(IncompatibleTask, match="discrete"):
        DiscreteCQL().learner(toy_dataset(discrete_actions=False), seed=0, device=CPU)


def test_cloning_learns_what_the_data_do() -> None:
    learner = BehaviorCloning(hidden_size=64, learning_rate=1e-2, dropout=0.0).learner(signs(), seed=0, device=CPU)
    losses = [float(learner.update()["action_loss"]) for _ in range(200)]
    assert losses[0] > 1
    assert losses[-1] < 0.05


@pytest.mark.parametrize("algorithm", CONTINUOUS, ids=repr)
def test_learners_of_continuous_actions_take_any_bounded_box(algorithm: Any) -> None:
    check_algorithm(algorithm, in_box(toy_dataset(discrete_actions=False), low=[0, -4], high=[1, 4]))


@pytest.mark.parametrize("algorithm", [CQL(), IQL(), TD3BC()], ids=lambda a: type(a).__name__)
def test_learners_of_continuous_actions_refuse_other_spaces(algorithm: Any) -> None:
    unbounded = in_box(toy_dataset(discrete_actions=False), low=[-1, -np.inf], high=[1, np.inf])
    indices = replace(toy_dataset(discrete_actions=False), observation_space=gym.spaces.Discrete(5))
    for dataset in (toy_dataset(discrete_actions=True), unbounded, indices):
        with pytest.raises(IncompatibleTask, match=r"flat|\[-1, 1\]"):
            algorithm.learner(dataset, seed=0, device=CPU)


@pytest.mark.parametrize("name", OURS)
def test_presets_are_hyperparameters(name: str) -> None:
    for preset in getattr(registry.algorithm_class(name), "presets", {}).values():
        preset = {key: 7 if value == "train_steps" else value for key, value in preset.items()}
        made = registry.make_algorithm(name, preset)
        assert all(getattr(made, key) == value for key, value in preset.items())


def test_observations_are_normalised_by_all_the_data() -> None:
    data = episodes([2, 2], [0, 0, 1, 1], [True, True])  # observations 0, 1, 2, 3
    learner = BehaviorCloning(best_fraction=0.5, normalize_observations=True).learner(data, seed=0, device=CPU)
    expected = (3 - 1.5) / (np.sqrt(1.25) + 1e-3)
    assert learner.scale(tensor([3.0])).item() == pytest.approx(expected)
    assert observation_scale(data, normalize=False, device=CPU)(tensor([3.0])).item() == 3


def test_padding_is_zeros_after_normalising() -> None:
    data = episodes([2, 2], [0, 0, 1, 1], [True, True])
    learner = BehaviorCloning(context=2, normalize_observations=True).learner(data, seed=0, device=CPU)
    history = toy_history(data, batch=1, context=2, steps=1)
    assert learner._input(history)[0, 0] == 0


def test_a_warm_up_raises_the_learning_rate() -> None:
    learner = BehaviorCloning(learning_rate=1.0, warmup_steps=4).learner(signs(), seed=0, device=CPU)
    rates = []
    for _ in range(6):
        learner.update()
        rates.append(learner.optimizer.param_groups[0]["lr"])
    assert rates == [0.25, 0.5, 0.75, 1, 1, 1]


def test_rewards_are_scaled_by_the_span_of_returns() -> None:
    data = episodes([1, 2], [1, 2, 4], [True, True])
    assert reward_scale(data, normalize=True) == 1000 / (6 - 1)
    assert reward_scale(data, normalize=False) == 1


LEARNERS = [
    CQL(hidden_size=32, num_layers=2, batch_size=64, policy_learning_rate=3e-3, critic_learning_rate=3e-3, alpha=0.1),
    IQL(hidden_size=32, batch_size=64, learning_rate=3e-3, temperature=10.0),
    TD3BC(hidden_size=32, batch_size=64, learning_rate=3e-3, alpha=20.0),
]


def targets() -> TrajectoryDataset:
    """Single steps: the observation is -1 or 1, the action anything, the best one half of the observation."""
    rng = np.random.default_rng(0)
    observations = rng.choice([-1.0, 1.0], size=(1000, 1)).astype(np.float32)
    actions = rng.uniform(-1, 1, size=(1000, 1)).astype(np.float32)
    return make_dataset(
        observations=observations,
        actions=actions,
        rewards=-((actions - observations / 2) ** 2)[:, 0],
        terminals=np.ones(1000, bool),
        lengths=np.ones(1000, int),
        observation_space=gym.spaces.Box(-np.inf, np.inf, (1,)),
        action_space=gym.spaces.Box(-1, 1, (1,)),
    )


def greedy_actions(learner: Any) -> Tensor:
    """What the learner does at -1 and at 1."""
    history = toy_history(targets(), batch=2, context=1, steps=1)
    actions: Tensor = learner.act(replace(history, observations=tensor([[[-1.0]], [[1.0]]])))
    return actions[:, 0]


@pytest.mark.parametrize("algorithm", LEARNERS, ids=lambda a: type(a).__name__)
def test_the_best_action_of_random_data_is_found(algorithm: Any) -> None:
    learner = algorithm.learner(targets(), seed=0, device=CPU)
    for _ in range(1600):  # after 800 TD3+BC is halfway there with the rounding of some processors
        learner.update()
    assert greedy_actions(learner).tolist() == pytest.approx([-0.5, 0.5], abs=0.2)


def test_cloning_random_data_finds_their_mean() -> None:
    learner = BehaviorCloning(hidden_size=32, learning_rate=3e-3, dropout=0.0).learner(targets(), seed=0, device=CPU)
    for _ in range(400):
        learner.update()
    assert greedy_actions(learner).tolist() == pytest.approx([0, 0], abs=0.2)


@pytest.mark.parametrize("algorithm", LEARNERS, ids=lambda a: type(a).__name__)
def test_critics_of_a_chain_say_its_discounted_rewards(algorithm: Any) -> None:
    """Three steps, a reward of 1 at the end: 0.25, 0.5 and 1 at a discount of 0.5; a cut-off end teaches nothing."""
    chain = episodes([3] * 16, [0, 0, 1] * 8 + [0, 0, 9] * 8, [True] * 8 + [False] * 8)
    chain.observations[:, 0] = np.tile(np.arange(3), 16)
    actions = np.random.default_rng(0).uniform(-1, 1, (48, 1)).astype(np.float32)
    data = in_box(replace(chain, actions=actions), low=[-1], high=[1])
    patient = {"discount": 0.5, "tau": 0.05, "normalize_observations": False}
    if isinstance(algorithm, CQL):
        patient["alpha"] = 0.0
    learner = replace(algorithm, **patient).learner(data, seed=0, device=CPU)
    for _ in range(500):
        learner.update()
    with torch.no_grad():
        values = learner.network.critics(tensor([[0.0], [1.0], [2.0]]), torch.zeros(3, 1))
    for critic in values.tolist():
        assert critic == pytest.approx([0.25, 0.5, 1.0], abs=0.1)


def in_box(dataset: TrajectoryDataset, *, low: list[float], high: list[float]) -> TrajectoryDataset:
    """The same data, its actions declared to lie in this Box, and stretched to fill it where it is bounded."""
    bounds = gym.spaces.Box(np.array(low, np.float32), np.array(high, np.float32))
    if not (bounds.is_bounded() and np.issubdtype(dataset.actions.dtype, np.floating)):
        return replace(dataset, action_space=bounds)
    actions = bounds.low + (dataset.actions + 1) / 2 * (bounds.high - bounds.low)
    return replace(dataset, actions=actions, action_space=bounds)
