"""Decision Transformer's Atari layout: tokens, positions, schedule and weight decay of the public code."""

from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import GPT2Config, GPT2Model

from dtbench import IncompatibleTask, TrajectoryDataset, make_dataset
from dtbench.algorithm import History
from dtbench.decision_transformer import AtariDecisionTransformer, DecisionTransformer
from dtbench.decision_transformer.atari import AtariLearner, AtariNetwork, decay_groups, learning_rate_share
from dtbench.testing import check_algorithm, toy_dataset, toy_history

CONTEXT = 3
SMALL = AtariDecisionTransformer(
    context=CONTEXT, hidden_size=16, num_layers=2, num_heads=2, batch_size=4, channels=(4, 4, 4)
)
CPU = torch.device("cpu")


def frames_dataset() -> TrajectoryDataset:
    rng = np.random.default_rng(0)
    lengths = np.array([5, 8, 4])
    terminals = np.zeros(17, bool)
    terminals[np.cumsum(lengths) - 1] = True
    return make_dataset(
        observations=rng.integers(0, 256, (17, 84, 84), np.uint8),
        actions=rng.integers(3, size=17),
        rewards=rng.integers(-1, 2, size=17).astype(np.float32),
        terminals=terminals,
        lengths=lengths,
        observation_space=gym.spaces.Box(0, 255, (4, 84, 84), np.uint8),
        action_space=gym.spaces.Discrete(3),
        frame_stack=4,
    )


def learner(algorithm: AtariDecisionTransformer = SMALL) -> AtariLearner:
    return algorithm.learner(frames_dataset(), seed=0, device=CPU)


def random_weights(network: AtariNetwork) -> None:
    """Hand-made weights: every number different, none near zero, so that a swapped token shows."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)


def gpt2_of(network: AtariNetwork, tokens: int) -> GPT2Model:
    """transformers' GPT-2 with the network's weights, its position embeddings being those of places."""
    config = GPT2Config(vocab_size=1, n_positions=tokens, n_embd=16, n_layer=2, n_head=2, activation_function="gelu")
    model = GPT2Model(config).eval()
    names = {"ln_1": "norm_1", "ln_2": "norm_2", "attn.c_attn": "attention.qkv", "attn.c_proj": "attention.out"}
    names |= {"mlp.c_fc": "mlp_in", "mlp.c_proj": "mlp_out"}
    ours = network.transformer.state_dict()
    state = {"wte.weight": torch.zeros(1, 16), "wpe.weight": network.embed_place.detach()[:tokens]}
    state |= {"ln_f.weight": ours["norm.weight"], "ln_f.bias": ours["norm.bias"]}
    for block in range(2):
        for theirs, name in names.items():
            weight = ours[f"blocks.{block}.{name}.weight"]
            state[f"h.{block}.{theirs}.weight"] = weight.T if ".c_" in theirs else weight
            state[f"h.{block}.{theirs}.bias"] = ours[f"blocks.{block}.{name}.bias"]
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected
    assert all(name.endswith(("attn.bias", "masked_bias")) for name in missing)
    return model


def encoded_by_hand(network: AtariNetwork, frames: Tensor) -> Tensor:
    """One stack of frames, [4, 84, 84], through the paper's convolutions, spelt out."""
    conv_1, _, conv_2, _, conv_3, _, _, linear, _ = network.embed_observation.encoder  # type: ignore[union-attr,misc]
    hidden = F.relu(F.conv2d(frames[None].float() / 255, conv_1.weight, conv_1.bias, stride=4))
    hidden = F.relu(F.conv2d(hidden, conv_2.weight, conv_2.bias, stride=2))
    hidden = F.relu(F.conv2d(hidden, conv_3.weight, conv_3.bias, stride=1))
    return torch.tanh(F.linear(hidden.reshape(1, -1), linear.weight, linear.bias))[0]


def inputs() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    returns = torch.tensor([[5.0, 4.0, 4.0], [-2.0, -3.0, -4.0]])
    observations = torch.randint(0, 256, (2, CONTEXT, 4, 84, 84), generator=generator, dtype=torch.uint8)
    actions = torch.tensor([[0, 2, 1], [1, 1, 0]])
    timesteps = torch.tensor([[2, 3, 4], [0, 1, 2]])
    return returns, observations, actions, timesteps


@pytest.mark.parametrize("training", [True, False])
def test_tokens_are_return_observation_action_as_in_the_public_code(training: bool) -> None:
    network = learner(replace(SMALL, dropout=0.0)).network
    random_weights(network)
    network.train(training)
    returns, observations, actions, timesteps = inputs()
    logits, _ = network(returns, observations, actions, timesteps, None)
    for row in range(2):
        tokens = []
        for step in range(CONTEXT):
            embed = network.embed_return[0]
            tokens.append(torch.tanh(returns[row, step] * embed.weight[:, 0] + embed.bias))
            tokens.append(encoded_by_hand(network, observations[row, step]))
            tokens.append(torch.tanh(network.embed_action[0].weight[actions[row, step]]))
        # All tokens of a window share one timestep: the first in training, the present one in acting.
        time = network.embed_timestep[timesteps[row, 0 if training else -1]]
        hidden = gpt2_of(network, 3 * CONTEXT)(inputs_embeds=(torch.stack(tokens) + time)[None]).last_hidden_state[0]
        expected = hidden[1::3] @ network.action_head.weight.T  # the action is read at the observation's token
        torch.testing.assert_close(logits[row], expected, atol=1e-5, rtol=1e-5)


def test_behaviour_cloning_has_no_return_tokens() -> None:
    network = learner(replace(SMALL, dropout=0.0, returns="none")).network
    random_weights(network)
    network.eval()
    returns, observations, actions, timesteps = inputs()
    logits, _ = network(returns, observations, actions, timesteps, None)
    tokens = []
    for step in range(CONTEXT):
        tokens += [encoded_by_hand(network, observations[0, step])]
        tokens += [torch.tanh(network.embed_action[0].weight[actions[0, step]])]
    stream = (torch.stack(tokens) + network.embed_timestep[timesteps[0, -1]])[None]
    hidden = gpt2_of(network, 2 * CONTEXT)(inputs_embeds=stream).last_hidden_state[0]
    torch.testing.assert_close(logits[0], hidden[::2] @ network.action_head.weight.T, atol=1e-5, rtol=1e-5)


def test_places_count_from_the_first_step_that_is_no_padding() -> None:
    network = learner(replace(SMALL, dropout=0.0)).network
    random_weights(network)
    network.eval()
    returns, observations, actions, timesteps = inputs()
    mask = torch.tensor([[False, True, True], [False, True, True]])
    padded, _ = network(returns, observations, actions, timesteps, mask)
    short, _ = network(returns[:, 1:], observations[:, 1:], actions[:, 1:], timesteps[:, 1:], None)
    torch.testing.assert_close(padded[:, 1:], short, atol=1e-5, rtol=1e-5)


def test_encodings_do_not_depend_on_how_many_episodes_are_active() -> None:
    ours = learner(replace(SMALL, channels=(16, 32, 32), hidden_size=64, num_heads=4))
    observations = torch.from_numpy(frames_dataset().observations_at(np.arange(11)))
    with torch.inference_mode():
        together = ours.rollout()._encoded(observations, torch.arange(11))
        for few in (1, 2, 3, 5, 7):
            assert torch.equal(ours.rollout()._encoded(observations, torch.arange(few))[:few], together[:few])


def toy_frames_history(ours: AtariLearner) -> History:
    dataset = frames_dataset()
    steps = np.array([[0, 1, 2], [5, 6, 7]])
    mask = torch.ones(2, CONTEXT, dtype=torch.bool)
    return History(
        observations=torch.from_numpy(dataset.observations_at(steps)),
        actions=torch.from_numpy(dataset.actions[steps]).float(),
        returns_to_go=torch.ones(2, CONTEXT),
        timesteps=torch.arange(CONTEXT).expand(2, -1),
        mask=mask,
    )


def test_the_contract_holds_on_frames_and_on_vectors() -> None:
    check_algorithm(SMALL)
    check_algorithm(replace(SMALL, returns="none"))
    check_algorithm(SMALL, frames_dataset())
    ours = learner()
    assert ours.act(toy_frames_history(ours)).shape == (2,)
    assert np.isfinite(float(ours.update()["action_loss"]))


def test_vectors_are_read_too() -> None:
    vectors = SMALL.learner(toy_dataset(discrete_actions=True), seed=0, device=CPU)
    assert vectors.act(toy_history(toy_dataset(discrete_actions=True), batch=2, context=CONTEXT, steps=2)).shape == (
        2,
    )


def test_the_paper_has_its_sizes() -> None:
    paper = AtariDecisionTransformer()
    assert (paper.num_layers, paper.num_heads, paper.hidden_size, paper.context) == (6, 8, 128, 30)
    assert (paper.learning_rate, paper.betas, paper.weight_decay) == (6e-4, (0.9, 0.95), 0.1)
    assert (paper.batch_size, paper.grad_clip, paper.dropout, paper.activation) == (128, 1.0, 0.1, "gelu")
    network = replace(paper, context=2).learner(frames_dataset(), seed=0, device=CPU).network
    assert [tuple(m.weight.shape) for m in network.modules() if isinstance(m, torch.nn.Conv2d)] == [
        (32, 4, 8, 8),
        (64, 32, 4, 4),
        (64, 64, 3, 3),
    ]


def test_the_learning_rate_rises_then_follows_a_cosine_down_to_a_tenth() -> None:
    assert learning_rate_share(5120, 10**6) == 0.5
    assert learning_rate_share(10240, 10**6) == 1.0
    half = 10240 + (10**6 - 10240) // 2
    assert learning_rate_share(half, 10**6) == pytest.approx(0.5)
    assert learning_rate_share(10**6, 10**6) == 0.1
    assert learning_rate_share(10**7, 10**6) == 0.1


def test_five_epochs_of_the_public_code_end_at_the_floor() -> None:
    # 5 epochs are 5 N / 128 updates of 128 x 30 tokens; the cosine is at 5/6, where it is below a tenth.
    steps, context, batch = 500_000, 30, 128
    tokens = 5 * steps // batch * batch * context
    assert learning_rate_share(tokens, 2 * (steps - 3 * context) * 3 * context) == 0.1
    assert learning_rate_share(tokens // 2, 2 * (steps - 3 * context) * 3 * context) > 0.5


def test_weights_decay_and_nothing_else_does() -> None:
    network = learner().network
    decayed, spared = decay_groups(network)
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    assert all(names[id(p)].endswith("weight") and p.dim() in (2, 4) for p in decayed)
    spared_names = {names[id(p)] for p in spared}
    assert {"embed_place", "embed_timestep", "embed_action.0.weight"} <= spared_names
    assert all(n.endswith("bias") or "norm" in n or n.startswith("embed_") for n in spared_names)
    assert len(decayed) + len(spared) == len(list(network.parameters()))


def test_continuous_actions_and_generated_returns_are_refused() -> None:
    with pytest.raises(IncompatibleTask, match="Try dt"):
        SMALL.learner(toy_dataset(discrete_actions=False), seed=0, device=CPU)
    with pytest.raises(IncompatibleTask, match="given or none"):
        replace(SMALL, returns="generated").learner(toy_dataset(discrete_actions=True), seed=0, device=CPU)


def test_the_gym_transformer_is_what_it_was() -> None:
    assert "betas" not in DecisionTransformer.__dataclass_fields__
