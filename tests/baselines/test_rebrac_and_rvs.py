"""ReBRAC's losses by hand and its networks against plain layers; what RvS-R is conditioned on."""

from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import nn, tensor
from torch.nn import functional as F

from baselines.normalized import NormalizedCritics
from baselines.rebrac import ReBRAC, actor_loss, critic_target, squared_distance
from baselines.rvs import RvSR, mean_reward_to_go
from dtbench import make_dataset
from dtbench.algorithm import History
from dtbench.data import TransitionSampler, generator
from dtbench.testing import check_algorithm, toy_dataset

CPU = torch.device("cpu")


def test_the_penalty_is_taken_off_the_target_before_the_discount() -> None:
    values = tensor([[2.0, 5.0], [3.0, 4.0]])
    distance = squared_distance(tensor([[0.5, 0.0], [1.0, 1.0]]), tensor([[0.0, 0.5], [0.0, 0.0]]))
    assert distance.tolist() == [0.5, 2.0]
    target = critic_target(tensor([1.0, 10.0]), tensor([0.9, 0.0]), values, distance, penalty=2.0)
    assert target.tolist() == pytest.approx([1 + 0.9 * (2 - 2 * 0.5), 10.0])


def test_the_actors_loss_weighs_the_smaller_value_by_its_mean_size() -> None:
    values = tensor([[2.0, -5.0], [3.0, 4.0]], requires_grad=True)
    loss = actor_loss(values, tensor([0.5, 2.0]), penalty=0.1)
    assert loss.item() == pytest.approx(0.1 * 1.25 - (2 - 5) / 2 / 3.5)
    loss.backward()
    assert values.grad.tolist() == [[pytest.approx(-1 / 7), pytest.approx(-1 / 7)], [0, 0]]  # type: ignore[union-attr]


@pytest.mark.parametrize("layer_norm", [True, False])
def test_stacked_critics_are_two_plain_ones(layer_norm: bool) -> None:
    torch.manual_seed(0)
    critics = NormalizedCritics(5, hidden_size=8, num_layers=2, layer_norm=layer_norm)
    for parameter in critics.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape)
    observations, actions = torch.randn(7, 3), torch.randn(7, 2)
    for index in range(2):
        hidden = torch.cat([observations, actions], dim=-1)
        for layer in range(2):
            hidden = F.linear(hidden, critics.weights[layer][index].T, critics.biases[layer][index, 0]).relu()
            if layer_norm:
                norm = nn.LayerNorm(8, eps=1e-6)
                norm.weight.data, norm.bias.data = critics.gains[layer][index, 0], critics.shifts[layer][index, 0]
                hidden = norm(hidden)
        expected = F.linear(hidden, critics.weights[2][index].T, critics.biases[2][index, 0])[:, 0]
        torch.testing.assert_close(critics(observations, actions)[index], expected, rtol=1e-4, atol=1e-5)


def test_next_actions_are_those_of_the_data_and_unknown_where_an_episode_ends() -> None:
    data = toy_dataset(discrete_actions=False)
    sampler = TransitionSampler(data, batch_size=500, rng=generator(0), device=CPU, next_actions=True)
    batch = sampler.sample()
    assert batch.next_actions is not None
    assert batch.followed is not None
    rows = {tuple(row): index for index, row in enumerate(np.asarray(data.observations).tolist())}
    ends = set((data.offsets[1:] - 1).tolist())
    for row, following, followed in zip(batch.observations.tolist(), batch.next_actions, batch.followed, strict=True):
        index = rows[tuple(row)]
        assert bool(followed) == (index not in ends)
        expected = data.actions[index + 1] if followed else [0, 0]
        assert following.tolist() == pytest.approx(list(expected))


def test_where_the_next_action_is_unknown_nothing_is_penalised() -> None:
    data = replace(toy_dataset(discrete_actions=False))
    learner = ReBRAC(hidden_size=16, batch_size=64, critic_penalty=100.0).learner(data, seed=0, device=CPU)
    batch = learner.batches.next()
    ended = replace(batch, followed=torch.zeros(64))
    noise = torch.zeros_like(batch.actions)
    free = ReBRAC(hidden_size=16, batch_size=64, critic_penalty=0.0).learner(data, seed=0, device=CPU)
    assert learner.critic_loss(ended, noise).item() == pytest.approx(free.critic_loss(batch, noise).item())
    assert learner.critic_loss(batch, noise).item() > 2 * free.critic_loss(batch, noise).item()


def test_both_keep_the_contract() -> None:
    check_algorithm(ReBRAC(hidden_size=16, batch_size=32, ema_decay=0.9, normalize_rewards=True))
    check_algorithm(RvSR(hidden_size=16, batch_size=32, ema_decay=0.9, balance_returns=True))


def test_the_mean_reward_to_go_reaches_to_the_longest_episode() -> None:
    returns, timesteps = tensor([10.0, 9.0, 1.0]), tensor([0, 5, 10])
    assert mean_reward_to_go(returns, timesteps, 10).tolist() == pytest.approx([1.0, 9 / 5, 1.0])


def test_rvs_does_what_it_is_asked_for() -> None:
    """Single steps: the reward is the action, so that an action is what the return asks for."""
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1, 1, (2000, 1)).astype(np.float32)
    data = make_dataset(
        observations=rng.normal(size=(2000, 1)).astype(np.float32),
        actions=actions,
        rewards=actions[:, 0],
        terminals=np.ones(2000, bool),
        lengths=np.ones(2000, int),
        observation_space=gym.spaces.Box(-np.inf, np.inf, (1,)),
        action_space=gym.spaces.Box(-1, 1, (1,)),
    )
    learner = RvSR(hidden_size=32, batch_size=128, learning_rate=3e-3).learner(data, seed=0, device=CPU)
    for _ in range(400):
        learner.update()
    wanted = tensor([[-0.8], [0.0], [0.7]])
    history = History(
        observations=torch.zeros(3, 1, 1),
        actions=torch.zeros(3, 1, 1),
        returns_to_go=wanted,
        timesteps=torch.zeros(3, 1, dtype=torch.long),
        mask=torch.ones(3, 1, dtype=torch.bool),
    )
    assert learner.act(history)[:, 0].tolist() == pytest.approx(wanted[:, 0].tolist(), abs=0.1)
