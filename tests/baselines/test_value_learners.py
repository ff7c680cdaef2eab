"""QR-DQN, its conservative form and REM: numbers worked by hand, the target network, the contract."""

from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import Tensor, tensor

from baselines.qr_dqn import QRDQN, quantile_huber_loss
from baselines.quantile_cql import QuantileCQL
from baselines.rem import REM, random_mixture
from dtbench import IncompatibleTask, InvalidValue, TrajectoryDataset, make_dataset, registry
from dtbench.data import Transitions, generator
from dtbench.testing import check_algorithm, toy_dataset, toy_history

CPU = torch.device("cpu")
NAMES = ["qr_dqn", "quantile_cql", "rem"]
SMALL: dict[str, Any] = {"channels": (4, 4, 4), "hidden": 8, "hidden_size": 16, "batch_size": 4}
TABLE: dict[str, Any] = {"num_layers": 0, "discount": 0.5}  # on indices: one weight an estimate
ALGORITHMS = [
    QRDQN(**SMALL, quantiles=3, target_every=2),
    QuantileCQL(**SMALL, quantiles=3, target_every=2),
    REM(**SMALL, num_heads=3, target_every=2),
]


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda a: type(a).__name__)
@pytest.mark.parametrize("indices", [False, True])
def test_they_keep_the_contract_on_vectors_and_indices(algorithm: Any, indices: bool) -> None:
    check_algorithm(algorithm, toy_dataset(discrete_actions=True, discrete_observations=indices))


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda a: type(a).__name__)
def test_they_keep_the_contract_on_images(algorithm: Any) -> None:
    check_algorithm(algorithm, stacked(frames()))
    check_algorithm(algorithm, frames())


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda a: type(a).__name__)
def test_frames_kept_once_teach_what_their_stacks_teach(algorithm: Any) -> None:
    once, whole = (algorithm.learner(data, seed=0, device=CPU) for data in (frames(), stacked(frames())))
    for _ in range(5):
        assert once.update() == whole.update()


@pytest.mark.parametrize("name", NAMES)
def test_the_defaults_are_those_of_the_official_configurations(name: str) -> None:
    plain = registry.all_hyperparameters(name, {})
    expected = {"learning_rate": 5e-5, "adam_epsilon": 3.125e-4, "batch_size": 32, "discount": 0.99}
    assert {key: plain[key] for key in expected} == pytest.approx(expected)
    assert plain["target_every"] == 8000 / 4
    assert plain["num_heads" if name == "rem" else "quantiles"] == 200
    assert plain.get("alpha") == (4.0 if name == "quantile_cql" else None)


def test_the_nature_network_has_the_papers_weights() -> None:
    learner = QRDQN(quantiles=2).learner(frames(), seed=0, device=CPU)
    shapes = [tuple(weight.shape) for weight in learner.network.parameters() if weight.dim() > 1]
    assert shapes == [(32, 4, 8, 8), (64, 32, 4, 4), (64, 64, 3, 3), (512, 64 * 7 * 7), (3 * 2, 512)]


def test_bytes_become_numbers_between_0_and_1() -> None:
    learner = QRDQN(**SMALL, quantiles=2).learner(frames(), seed=0, device=CPU)
    seen = []
    learner.network.stack.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    learner.network(torch.full((1, 4, 84, 84), 51, dtype=torch.uint8))
    assert seen[0].unique().tolist() == pytest.approx([0.2])


def test_the_quantile_huber_loss_of_two_quantiles() -> None:
    """Levels 1/4 and 3/4.

    First state, predicted 0 and 1, target 0.5 and 3. From 0: u = 0.5 and 3, L = 0.125 and 2.5, both weigh 1/4,
    mean 0.328125. From 1: u = -0.5 and 2, L = 0.125 and 1.5, weights 1/4 and 3/4, mean 0.578125. Sum 0.90625.
    Second state, predicted 2 and 2, target 0 and 2. u = -2 and 0, L = 1.5 and 0; -2 weighs 3/4 at the first level
    and 1/4 at the second: means 0.5625 and 0.1875, sum 0.75.
    """
    loss = quantile_huber_loss(tensor([[0.0, 1.0], [2.0, 2.0]]), tensor([[0.5, 3.0], [0.0, 2.0]]))
    assert loss.item() == pytest.approx((0.90625 + 0.75) / 2)


def test_the_quantile_huber_loss_of_three_quantiles() -> None:
    """Levels 1/6, 1/2, 5/6; predicted 0, 1, 2, target 1: u = 1, 0, -1, L = 1/2, 0, 1/2, both weigh 1/6."""
    loss = quantile_huber_loss(tensor([[0.0, 1.0, 2.0]]), tensor([[1.0, 1.0]]))
    assert loss.item() == pytest.approx(1 / 6)


def test_quantile_regression_finds_the_quantiles_of_a_sample() -> None:
    predicted = torch.zeros(1, 4, requires_grad=True)
    sample = torch.arange(0.0, 800.0, 10.0)[None]  # Huber's rounding at 0 is small against this spread
    optimizer = torch.optim.Adam([predicted], lr=5.0)
    for _ in range(600):
        optimizer.zero_grad()
        quantile_huber_loss(predicted, sample).backward()
        optimizer.step()
    assert predicted[0].tolist() == pytest.approx([100, 300, 500, 700], abs=15)


def test_the_target_network_chooses_the_action_that_follows() -> None:
    """Its means in state 1 are 2 and 3, so action 1, whatever the network says: 1 + 0.5 * (3, 3)."""
    learner = QRDQN(**TABLE, quantiles=2).learner(two_states(), seed=0, device=CPU)
    set_table(learner.network, [[[0, 0], [0, 0]], [[9, 9], [0, 0]]])
    set_table(learner.target, [[[8, 8], [8, 8]], [[0, 4], [3, 3]]])
    assert learner.target_quantiles(two_transitions()).tolist() == [[2.5, 2.5], [2, 2]]


def test_a_terminal_step_bootstraps_nothing() -> None:
    for algorithm in (QRDQN(**TABLE, quantiles=2), QuantileCQL(**TABLE, quantiles=2), REM(**TABLE, num_heads=2)):
        losses = []
        for following in (0.0, 100.0):
            learner = algorithm.learner(two_states(), seed=0, device=CPU)
            set_table(learner.target, np.full((2, 2, 2), following))
            losses.append(float(learner.loss(at(two_transitions(), [1]))[1]["td_loss"]))
        assert losses[0] == losses[1]


def test_the_conservative_loss_adds_the_weighed_penalty() -> None:
    """State 0: means 1 and 3, the data takes 1: log(e + e^3) - 3 = log(1 + e^-2). State 1: 0 and 0, log 2."""
    settings = {**TABLE, "quantiles": 2}
    plain, conservative = (
        made.learner(two_states(), seed=0, device=CPU) for made in (QRDQN(**settings), QuantileCQL(**settings))
    )
    for learner in (plain, conservative):
        set_table(learner.network, [[[0, 2], [2, 4]], [[-1, 1], [0, 0]]])
        set_table(learner.target, [[[0, 0], [0, 0]], [[1, 1], [0, 0]]])
    batch = replace(two_transitions(), actions=tensor([1, 0]))
    loss, metrics = conservative.loss(batch)
    penalty = (np.log1p(np.exp(-2)) + np.log(2)) / 2
    assert float(metrics["penalty"]) == pytest.approx(penalty)
    assert loss.item() == pytest.approx(plain.loss(batch)[0].item() + 4.0 * penalty)


def test_the_mixture_loss_is_that_of_the_mixed_q_functions() -> None:
    """The mixture 1/4, 3/4 and a discount of 0.5.

    First transition: heads 1 and 3 mix to 2.5. In state 1 the target's (4, 0) mixes to 1, (0, 2) to 1.5, which is the
    maximum (that of each head first would be 2.5); target 1 + 0.75, error 0.75, Huber 0.28125. Second: heads 8 and 4
    mix to 5; it is terminal, target 2, error 3, Huber 2.5.
    """
    learner = REM(**TABLE, num_heads=2).learner(two_states(), seed=0, device=CPU)
    set_table(learner.network, [[[1, 3], [0, 0]], [[0, 0], [8, 4]]])
    set_table(learner.target, [[[0, 0], [0, 0]], [[4, 0], [0, 2]]])
    loss = learner.mixture_loss(two_transitions(), tensor([0.25, 0.75]))
    assert loss.item() == pytest.approx((0.28125 + 2.5) / 2)


def test_every_minibatch_has_a_convex_combination_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []

    def remembered(heads: int, device: torch.device) -> Tensor:
        drawn.append(random_mixture(heads, device))
        return drawn[-1]

    monkeypatch.setattr("baselines.rem.random_mixture", remembered)
    learner = REM(**SMALL, num_heads=5).learner(two_states(), seed=0, device=CPU)
    outside = torch.get_rng_state()
    for _ in range(3):
        learner.update()
    assert torch.equal(torch.get_rng_state(), outside)
    assert all(mixture.shape == (5,) and (mixture >= 0).all() for mixture in drawn)
    assert [mixture.sum().item() for mixture in drawn] == pytest.approx([1, 1, 1])
    assert not torch.equal(drawn[0], drawn[1])


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda a: type(a).__name__)
def test_actions_are_worth_the_mean_of_their_estimates(algorithm: Any) -> None:
    learner = replace(algorithm, num_layers=0).learner(two_states(), seed=0, device=CPU)
    set_table(learner.network, [[[0, 0, 6], [1, 1, 1]], [[0, 0, 6], [9, 0, 0]]])
    history = toy_history(two_states(), batch=2, context=1, steps=1)
    history = replace(history, observations=tensor([[0], [1]]))
    assert learner.action_logits(history).tolist() == [[2, 1], [2, 3]]
    assert learner.act(history).tolist() == [0, 1]


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda a: type(a).__name__)
def test_actions_are_counted_from_where_their_space_begins(algorithm: Any) -> None:
    data = two_states()
    shifted = replace(data, actions=data.actions + 5, action_space=gym.spaces.Discrete(2, start=5))
    shifted = replace(shifted, observations=data.observations + 3, observation_space=gym.spaces.Discrete(2, start=3))
    ours, theirs = (algorithm.learner(one, seed=0, device=CPU) for one in (data, shifted))
    for _ in range(5):
        assert ours.update() == theirs.update()
    histories = (toy_history(one, batch=4, context=1, steps=1) for one in (data, shifted))
    actions, moved = (learner.act(history) for learner, history in zip((ours, theirs), histories, strict=True))
    assert (actions + 5).tolist() == moved.tolist()


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda a: type(a).__name__)
def test_the_target_network_is_copied_exactly_every_so_many_steps(algorithm: Any) -> None:
    learner = replace(algorithm, target_every=3).learner(two_states(), seed=0, device=CPU)
    expected = weights(learner.network)
    for step in range(1, 8):
        learner.update()
        if step in (3, 6):
            expected = weights(learner.network)
        assert not torch.equal(expected, weights(learner.network)) or step in (3, 6)
        assert torch.equal(expected, weights(learner.target))


@pytest.mark.parametrize(
    "algorithm",
    [
        QRDQN(hidden_size=32, quantiles=8, learning_rate=3e-3, target_every=20, discount=0.9),
        QuantileCQL(hidden_size=32, quantiles=8, learning_rate=3e-3, target_every=20, discount=0.9, alpha=0.01),
        REM(hidden_size=32, num_heads=8, learning_rate=3e-3, target_every=20, discount=0.9),
    ],
    ids=lambda a: type(a).__name__,
)
def test_waiting_for_the_larger_reward_is_learnt_from_random_play(algorithm: Any) -> None:
    """Action 0 of state 0 pays 0.5 and ends; 1 leads to state 1, where 1 pays 1: worth 0.9 at this discount."""
    learner = algorithm.learner(two_states(), seed=0, device=CPU)
    for _ in range(300):
        learner.update()
    history = replace(toy_history(two_states(), batch=2, context=1, steps=1), observations=tensor([[0], [1]]))
    assert learner.act(history).tolist() == [1, 1]
    assert learner.action_logits(history).flatten().tolist() == pytest.approx([0.5, 0.9, 0, 1], abs=0.1)


@pytest.mark.parametrize("name", NAMES)
def test_continuous_actions_are_refused(name: str) -> None:
    with pytest.raises(IncompatibleTask, match=f"{name} needs discrete actions"):
        registry.make_algorithm(name, {}).learner(toy_dataset(discrete_actions=False), seed=0, device=CPU)


def test_a_target_that_is_never_copied_is_refused() -> None:
    with pytest.raises(InvalidValue, match="target_every 0 must be 1 or more"):
        QRDQN(target_every=0).learner(two_states(), seed=0, device=CPU)


def frames() -> TrajectoryDataset:
    """Eight random frames in two episodes, each kept once."""
    rng = generator(0)
    return make_dataset(
        observations=rng.integers(256, size=(8, 84, 84)).astype(np.uint8),
        actions=np.arange(8) % 3,
        rewards=np.ones(8, np.float32),
        terminals=np.arange(8) == 4,
        lengths=np.array([5, 3]),
        observation_space=gym.spaces.Box(0, 255, (4, 84, 84), np.uint8),
        action_space=gym.spaces.Discrete(3),
        frame_stack=4,
    )


def stacked(data: TrajectoryDataset) -> TrajectoryDataset:
    """The same data, its observations put together."""
    return replace(data, observations=data.observations_at(np.arange(data.num_steps)), frame_stack=1)


def two_states() -> TrajectoryDataset:
    """Random play: action 0 ends the episode, with a reward of 0.5 in state 0; from there 1 leads to state 1.

    There action 1 ends it with a reward of 1. A cut-off step, which is no transition, would pay 99.
    """
    first, second = ([0], [0], [0.5], True), ([0, 1], [1, 1], [0.0, 1.0], True)
    kinds = [first, second, ([0, 1], [1, 0], [0.0, 0.0], True), ([0], [0], [99.0], False)]
    played = [kinds[i % 4] for i in range(40)]
    return make_dataset(
        observations=np.concatenate([observations for observations, *_ in played]),
        actions=np.concatenate([actions for _, actions, *_ in played]),
        rewards=np.concatenate([rewards for *_, rewards, _ in played]).astype(np.float32),
        terminals=np.concatenate([[False] * (len(rewards) - 1) + [ended] for *_, rewards, ended in played]),
        lengths=np.array([len(rewards) for *_, rewards, _ in played]),
        observation_space=gym.spaces.Discrete(2),
        action_space=gym.spaces.Discrete(2),
    )


def two_transitions() -> Transitions:
    """From state 0 by action 0 to state 1 for a reward of 1; from state 1 by action 1 to the end for 2."""
    return Transitions(
        observations=tensor([0, 1]),
        actions=tensor([0, 1]),
        rewards=tensor([1.0, 2.0]),
        next_observations=tensor([1, 0]),
        terminals=tensor([False, True]),
    )


def at(batch: Transitions, rows: list[int]) -> Transitions:
    columns = (getattr(batch, name) for name in Transitions.__slots__)
    return Transitions(*(column[rows] for column in columns if column is not None))


def set_table(network: Any, values: Any) -> None:
    """Make a network without hidden layers say `values`, [states, actions, estimates]."""
    (linear,) = network.stack
    table = torch.as_tensor(np.asarray(values, np.float32)).flatten(1)
    linear.weight.data.copy_(table.T)
    linear.bias.data.zero_()


def weights(network: torch.nn.Module) -> Tensor:
    return torch.cat([weight.detach().flatten().clone() for weight in network.parameters()])
