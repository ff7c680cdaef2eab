import gymnasium as gym
import numpy as np
import pytest
import torch

from dtbench import History, InvalidValue, WindowSampler, make_dataset
from dtbench.data import generator
from dtbench.decision_transformer import DecisionTransformer
from dtbench.decision_transformer.huggingface import weights_for_ours
from dtbench.decision_transformer.model import (
    CausalTransformer,
    TokenSelection,
    causal_visibility,
)
from dtbench.decision_transformer.network import DecisionTransformerNetwork
from dtbench.decision_transformer.returns import ReturnTokens, likely_high_return
from dtbench.nn import NatureEncoder
from dtbench.testing import check_algorithm, toy_dataset, toy_history
from tests.support.episodes import episodes, with_actions

CPU = torch.device("cpu")


def test_it_gives_the_outputs_of_transformers_with_its_weights() -> None:
    from transformers import DecisionTransformerConfig, DecisionTransformerModel

    torch.manual_seed(0)
    config = DecisionTransformerConfig(
        state_dim=4, act_dim=2, hidden_size=32, n_layer=3, n_head=2, max_ep_len=50, n_inner=128
    )
    theirs = DecisionTransformerModel(config).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))  # biases and norms too must be carried over
    data = toy_dataset(discrete_actions=False)
    ours = DecisionTransformerNetwork(
        observation_space=data.observation_space,
        action_space=data.action_space,
        transformer=CausalTransformer(hidden_size=32, num_layers=3, num_heads=2, dropout=0.1),
        hidden_size=32,
        max_timestep=50,
        returns=ReturnTokens(DecisionTransformer(), data),
    ).eval()
    ours.load_state_dict(weights_for_ours(theirs.state_dict()))
    batch, steps = 5, 7
    returns, states = torch.randn(batch, steps), torch.randn(batch, steps, 4)
    actions, timesteps = torch.randn(batch, steps, 2), torch.randint(0, 50, (batch, steps))
    mask = torch.ones(batch, steps, dtype=torch.bool)
    mask[0, :3] = mask[1, :5] = False
    with torch.no_grad():
        expected = theirs(
            states=states,
            actions=actions,
            rewards=None,
            returns_to_go=returns[..., None],
            timesteps=timesteps,
            attention_mask=mask.long(),
        ).action_preds
        got, _ = ours(returns, states, actions, timesteps, mask)
    assert (got - expected)[mask].abs().max() < 1e-5
    assert expected[mask].std() > 0.1  # an agreement about nothing would prove nothing


@pytest.mark.parametrize("returns", ["given", "none", "predicted"])
def test_windows_padded_on_the_right_need_no_mask(returns: str) -> None:
    data = toy_dataset(discrete_actions=True)
    algorithm = DecisionTransformer(context=9, hidden_size=16, num_heads=2, dropout=0.0, returns=returns)  # type: ignore[arg-type]
    learner = algorithm.learner(data, seed=0, device=CPU)
    sides = []
    for pad in ("left", "right"):
        sampler = WindowSampler(data, context=9, batch_size=32, rng=generator(5), device=CPU, pad=pad)  # type: ignore[arg-type]
        sides.append(sampler.sample())
    left, right = sides
    assert not left.mask.all()
    assert torch.equal(left.mask.sum(dim=1), right.mask.sum(dim=1))
    found = []
    for windows, mask in ((left, left.mask), (right, None)):
        tokens = learner.returns.tokens(windows.returns_to_go)
        outputs = learner.network(tokens, windows.observations, windows.actions, windows.timesteps, mask)
        found.append([output[windows.mask] for output in outputs if output is not None])
    for one, other in zip(*found, strict=True):
        assert torch.allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("masked", [False, True])
def test_the_last_block_gives_what_is_read_and_no_more(masked: bool) -> None:
    torch.manual_seed(1)
    transformer = CausalTransformer(hidden_size=16, num_layers=2, num_heads=4, dropout=0.0, init_std=0.3).eval()
    tokens = torch.randn(5, 12, 16)
    mask = torch.arange(12) >= torch.tensor([[0], [3], [6], [9], [0]]) if masked else None
    private = torch.arange(12) % 3 == 1
    for hidden in (None, private):
        whole = transformer(tokens, mask, hidden).view(5, 4, 3, 16)
        assert torch.allclose(
            transformer(tokens, mask, hidden, read=TokenSelection(3, 1, 2)), whole[:, :, 1], atol=1e-6
        )
        both = transformer(tokens, mask, hidden, read=TokenSelection(3, 0, 2)).view(5, 4, 2, 16)
        assert torch.allclose(both, whole[:, :, :2], atol=1e-6)


def test_bf16_learns_the_same_to_its_precision() -> None:
    data = toy_dataset(discrete_actions=False)
    losses = {}
    for precision in ("fp32", "bf16"):
        algorithm = DecisionTransformer(
            context=8, warmup_steps=0, dropout=0.0, learning_rate=1e-3, precision=precision
        )  # type: ignore[arg-type]
        learner = algorithm.learner(data, seed=0, device=CPU)
        losses[precision] = [float(learner.update()["action_loss"]) for _ in range(40)]
        assert all(p.dtype == torch.float32 for p in learner.network.parameters())
    assert losses["bf16"] != losses["fp32"]
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.1)
    assert losses["bf16"][-1] < 0.9 * losses["bf16"][0]


def test_no_token_sees_the_future_or_padding() -> None:
    visible = causal_visibility(torch.tensor([[False, True, True]]))[0, 0]
    assert visible.tolist() == [[True, False, False], [False, True, False], [False, True, True]]


def test_a_later_step_changes_no_earlier_prediction() -> None:
    data = toy_dataset(discrete_actions=True)
    learner = DecisionTransformer(hidden_size=16, context=6).learner(data, seed=0, device=CPU)
    network = learner.network.eval()
    sample = learner.sampler.sample()
    changed = sample.observations.clone()
    changed[:, -1] += 1
    arguments = (sample.actions, sample.timesteps, sample.mask)
    with torch.no_grad():
        before, _ = network(sample.returns_to_go, sample.observations, *arguments)
        after, _ = network(sample.returns_to_go, changed, *arguments)
    assert torch.equal(before[:, :-1], after[:, :-1])
    assert not torch.equal(before[:, -1], after[:, -1])


def test_padding_on_the_left_changes_no_action() -> None:
    data = toy_dataset(discrete_actions=False)
    learner = DecisionTransformer(hidden_size=16, context=8).learner(data, seed=0, device=CPU)
    history = toy_history(data, batch=3, context=8, steps=3)
    fields = ("observations", "actions", "returns_to_go", "timesteps", "mask")
    ragged = History(**{name: torch.cat([getattr(history, name)] * 2) for name in fields})
    ragged.mask[0, :] = True  # one row of full length keeps the padding of the others in the batch
    assert torch.allclose(learner.act(ragged)[3:], learner.act(history), atol=1e-6)


@pytest.mark.parametrize(("factor", "scale"), [(1.0, 2.0), (-0.001, 0.002), (1e6, 2e6), (0.0, 1.0)])
def test_returns_are_scaled_by_the_largest_of_the_data(factor: float, scale: float) -> None:
    data = episodes([2, 2], [factor, factor, factor, 0.0], [True, True])
    learner = DecisionTransformer(context=2, hidden_size=8, num_layers=1).learner(data, seed=0)
    assert learner.returns.scale == pytest.approx(scale)
    assert learner.returns.tokens(torch.tensor([2 * factor])).abs().max() <= 1
    fixed = DecisionTransformer(context=2, hidden_size=8, num_layers=1, return_scale=1000.0).learner(data, seed=0)
    assert fixed.returns.scale == 1000


def test_targets_change_what_it_does_once_it_has_learnt() -> None:
    """In every episode the action tells the return: 0 of action 0 and 1 of action 1."""
    lengths = [2] * 40
    data = episodes(lengths, [float(e % 2) for e in range(40) for _ in range(2)], [True] * 40)
    actions = np.repeat(np.arange(40) % 2, 2)
    data = with_actions(data, actions)
    data.observations[:] = 0
    algorithm = DecisionTransformer(
        context=2, hidden_size=16, num_layers=1, learning_rate=1e-2, warmup_steps=1, return_scale=1.0
    )
    learner = algorithm.learner(data, seed=0, device=CPU)
    for _ in range(150):
        learner.update()
    for target, action in ((0.0, 0), (2.0, 1)):
        history = History(
            observations=torch.zeros(1, 2, 1),
            actions=torch.zeros(1, 2),
            returns_to_go=torch.tensor([[0.0, target]]),
            timesteps=torch.zeros(1, 2, dtype=torch.long),
            mask=torch.tensor([[False, True]]),
        )
        assert learner.act(history).tolist() == [action]


def test_a_context_of_none_is_the_longest_episode() -> None:
    data = toy_dataset(discrete_actions=True)
    assert DecisionTransformer(context=None).learner(data, seed=0, device=CPU).context == data.lengths.max()


def test_images_go_through_the_convolutional_encoder() -> None:
    encoded = NatureEncoder(4, 32, activation=torch.nn.Tanh())(torch.rand(2, 4, 84, 84))
    assert encoded.shape == (2, 32)


def test_it_learns_and_acts_on_images() -> None:
    rng = generator(0)
    images = make_dataset(
        observations=rng.integers(256, size=(6, 4, 84, 84)).astype(np.uint8),
        actions=np.arange(6) % 3,
        rewards=np.ones(6, np.float32),
        terminals=np.array([False, False, True] * 2),
        lengths=np.array([3, 3]),
        observation_space=gym.spaces.Box(0, 255, (4, 84, 84), np.uint8),
        action_space=gym.spaces.Discrete(3),
    )
    check_algorithm(DecisionTransformer(context=2, hidden_size=8, num_layers=1, batch_size=4), images)


def test_normalisation_uses_all_data_even_where_only_the_best_is_kept() -> None:
    data = toy_dataset(discrete_actions=True)
    learner = DecisionTransformer(best_fraction=0.2).learner(data, seed=0, device=CPU)
    assert learner.mean.numpy() == pytest.approx(np.asarray(data.observations).mean(axis=0), abs=1e-6)
    assert learner.sampler.dataset.num_steps < data.num_steps


def test_impossible_sizes_are_refused_before_training() -> None:
    data = toy_dataset(discrete_actions=True)
    with pytest.raises(InvalidValue, match="num_heads"):
        DecisionTransformer(hidden_size=10, num_heads=3).learner(data, seed=0, device=CPU)
    with pytest.raises(InvalidValue, match="context"):
        WindowSampler(data, context=0, batch_size=1, rng=generator(0), device=CPU)


def test_generated_returns_need_few_distinct_values() -> None:
    lengths = [1] * 600
    many = episodes(lengths, list(np.linspace(0, 1, 600)), [True] * 600)
    with pytest.raises(InvalidValue, match="returns=given"):
        DecisionTransformer(returns="generated").learner(many, seed=0, device=CPU)


def test_the_prior_prefers_high_returns_unless_they_are_below_the_floor() -> None:
    values = torch.tensor([-11.0, -6.0, -1.0])
    logits = torch.tensor([[0.979, 0.02, 0.001], [0.9989, 0.001, 0.0001]]).log()
    # With the 10th power, -1 (prior 10) outweighs -6 (prior 5) by 1024: 0.001 of it is enough.
    assert likely_high_return(logits, values, power=10, floor=0.0).tolist() == [2, 2]
    assert likely_high_return(logits, values, power=10, floor=0.004).tolist() == [1, 0]
    assert likely_high_return(logits, values, power=0, floor=0.0).tolist() == [0, 0]
