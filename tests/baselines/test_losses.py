"""Our losses against numbers worked by hand, and against d3rlpy's on equal weights, batch and noise."""

import json
import math
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn, tensor

from baselines import cql, iql, networks, sac, td3_bc
from baselines.bc import BehaviorCloning
from baselines.networks import TwinCritics, bellman_error, bellman_target, soft_update
from baselines.qr_dqn import QRDQN
from baselines.quantile_cql import QuantileCQL
from baselines.rem import REM
from dtbench.data import Transitions, Windows
from dtbench.testing import toy_dataset

CPU = torch.device("cpu")
PEERS = os.environ.get("DTBENCH_PEERS_PYTHON")
TOOL = Path(__file__).parents[2] / "tools" / "peer_losses.py"
SIZES: dict[str, Any] = {"hidden_size": 16, "num_layers": 2}
Arrays = dict[str, Any]


def test_a_target_is_the_reward_and_the_discounted_future_unless_nothing_follows() -> None:
    target = bellman_target(tensor([1.0, 2.0]), tensor([False, True]), tensor([10.0, torch.inf]), 0.5)
    assert target.tolist() == [6.0, 2.0]


def test_the_bellman_error_is_summed_over_critics_and_averaged_over_the_batch() -> None:
    assert bellman_error(tensor([[1.0, 2.0], [0.0, 0.0]]), tensor([1.0, 0.0])).item() == 4 / 2 + 1 / 2


def test_the_expectile_loss_weighs_errors_by_their_sign() -> None:
    assert iql.expectile_loss(tensor([1.0, -2.0]), 0.7).item() == pytest.approx((0.7 * 1 + 0.3 * 4) / 2)
    assert iql.expectile_loss(tensor([3.0, -1.0]), 0.5).item() == pytest.approx((9 + 1) / 2 / 2)


def test_advantages_weigh_exponentially_up_to_a_maximum() -> None:
    weights = iql.advantage_weight(tensor([0.0, 1.0, 9.0]), 3.0, 100.0)
    assert weights.tolist() == pytest.approx([1.0, math.exp(3), 100.0])


def test_the_negative_log_likelihood_is_that_of_a_diagonal_gaussian() -> None:
    mean, log_std, actions = tensor([[0.0, 1.0]]), tensor([0.0, math.log(2)]), tensor([[1.0, 1.0]])
    expected = 1 / 2 + math.log(2) + math.log(2 * math.pi)
    assert iql.negative_log_likelihood(mean, log_std, actions).item() == pytest.approx(expected)
    assert iql.squared_error(mean, actions).item() == 1.0


def test_the_cosine_falls_from_one_to_zero_and_stays_there() -> None:
    assert [networks.cosine(step, 100) for step in (0, 50, 100, 150)] == pytest.approx([1, 0.5, 0, 0])
    assert networks.cosine(10**9, None) == 1.0


def test_td3_bcs_actor_loss_normalises_the_values() -> None:
    values = tensor([2.0, -4.0], requires_grad=True)
    loss = td3_bc.actor_loss(values, tensor([[0.0], [1.0]]), tensor([[0.0], [0.0]]), alpha=3.0)
    assert loss.item() == pytest.approx(0.5 - 3 / 3 * -1)
    loss.backward()
    assert values.grad is not None
    assert values.grad.tolist() == [-0.5, -0.5]  # the normaliser is no part of the gradient


def test_target_smoothing_clips_the_noise_and_the_action() -> None:
    smoothed = td3_bc.smoothed_actions(tensor([0.0, 0.0, 0.9]), tensor([1.0, -9.0, 2.0]), scale=0.2, clip=0.5)
    assert smoothed.tolist() == pytest.approx([0.2, -0.5, 1.0])


def test_the_conservative_penalty_weighs_actions_by_their_density() -> None:
    """One observation, critics that say 0 and 1 of both sampled actions: log(e^0 / 1 + e^0 / 0.5) = log 3."""
    values = tensor([[[0.0, 0.0]], [[1.0, 1.0]]])
    penalty = cql.conservative_penalty(values, tensor([[0.0, math.log(0.5)]]), tensor([[0.0], [2.0]]))
    assert penalty.item() == pytest.approx(math.log(3) + (math.log(3) + 1 - 2))


def test_sacs_losses_are_those_of_the_paper() -> None:
    density = tensor([-1.0, 3.0])
    assert sac.policy_loss(tensor([1.0, 2.0]), density, tensor(0.5)).item() == pytest.approx((-1.5 - 0.5) / 2)
    assert sac.entropy_loss(tensor(2.0), density, -2.0).item() == pytest.approx(-2 * (1 - 2))


def test_a_squashed_gaussians_density_integrates_to_one() -> None:
    policy = sac.TanhNormal(tensor([[0.3]]), tensor([[-0.5]]))
    actions = torch.linspace(-1 + 1e-4, 1 - 1e-4, 20_001)[:, None]
    density = policy.log_density_of(actions).exp()
    assert torch.trapezoid(density, actions[:, 0]).item() == pytest.approx(1, abs=1e-3)


def test_a_sample_has_the_stated_density() -> None:
    policy = sac.TanhNormal(tensor([[0.3, -0.2]]), tensor([[-0.5, 0.1]]))
    actions, density = policy.sample(1)
    assert policy.log_density_of(actions[:, 0]).item() == pytest.approx(density.item(), abs=1e-4)


def test_twin_critics_are_two_mlps() -> None:
    critics = TwinCritics(3, 2, hidden_size=8, num_layers=2)
    observations, actions = torch.randn(5, 3), torch.randn(5, 4, 2)
    inputs = torch.cat([observations[:, None].expand(-1, 4, -1), actions], dim=-1)
    values = critics(observations, actions)
    for i, layers in enumerate(linear_layers(critics)):
        hidden = inputs
        for weight, bias in layers[:-1]:
            hidden = torch.relu(hidden @ weight.T + bias)
        weight, bias = layers[-1]
        torch.testing.assert_close(values[i], (hidden @ weight.T + bias).squeeze(-1))
    torch.testing.assert_close(critics(observations, actions[:, 0]), values[..., 0])


def test_frozen_critics_pass_gradients_to_actions_only() -> None:
    critics = TwinCritics(3, 2, hidden_size=8, num_layers=1)
    actions = torch.randn(5, 2, requires_grad=True)
    critics(torch.randn(5, 3), actions, frozen=True).sum().backward()
    assert actions.grad is not None
    assert all(p.grad is None for p in critics.parameters())


def test_targets_follow_slowly() -> None:
    target, network = nn.Linear(1, 1), nn.Linear(1, 1)
    nn.init.zeros_(target.weight)
    nn.init.ones_(network.weight)
    soft_update(target, network, 0.25)
    assert target.weight.item() == 0.25


@pytest.fixture(scope="module")
def cases() -> dict[str, tuple[Arrays, dict[str, float]]]:
    """Of each case what d3rlpy is to compute with, and our own losses."""
    return {
        "cql_soft": cql_case("soft", soft_q_backup=True),
        "cql_mean": cql_case("mean", soft_q_backup=False),
        # d3rlpy has no backup by a sampled action without its entropy, so there the entropy weighs nothing.
        "cql_sampled": cql_case("sampled", soft_q_backup=True, log_temperature=-40.0),
        "iql": iql_case(),
        "td3_bc": td3_bc_case(),
        "bc": bc_case(),
        "qr_dqn": value_case(QRDQN(**SIZES, quantiles=5), "dqn", quantiles=5),
        # d3rlpy's discrete CQL is double Q-learning, ours and the authors' is not: the tool gives it DQN's target.
        "quantile_cql": value_case(QuantileCQL(**SIZES, quantiles=5), "discrete_cql", quantiles=5),
        # d3rlpy has no REM; with one head there is nothing to mix, and it is DQN.
        "rem": value_case(REM(**SIZES, num_heads=1), "dqn", quantiles=None),
    }


@pytest.fixture(scope="module")
def peer_losses(
    cases: dict[str, tuple[Arrays, dict[str, float]]], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, float]]:
    if not PEERS:
        pytest.skip("DTBENCH_PEERS_PYTHON names no interpreter that has d3rlpy: see tools/peer_losses.py")
    folder = tmp_path_factory.mktemp("peers")
    arrays = {f"{name}/{key}": value for name, (case, _) in cases.items() for key, value in case.items()}
    np.savez(folder / "cases.npz", **arrays)
    command = [PEERS, str(TOOL), str(folder / "cases.npz"), str(folder / "losses.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    losses: dict[str, dict[str, float]] = json.loads((folder / "losses.json").read_text())
    return losses


@pytest.mark.parametrize(
    "name", ["cql_soft", "cql_mean", "cql_sampled", "iql", "td3_bc", "bc", "qr_dqn", "quantile_cql", "rem"]
)
def test_losses_equal_those_of_d3rlpy(
    name: str, cases: dict[str, tuple[Arrays, dict[str, float]]], peer_losses: dict[str, dict[str, float]]
) -> None:
    theirs = peer_losses[name]
    ours = {loss: value for loss, value in cases[name][1].items() if loss in theirs}
    assert ours == pytest.approx(theirs, abs=1e-4)


def cql_case(
    backup: cql.Backup, *, soft_q_backup: bool, log_temperature: float = -0.7
) -> tuple[Arrays, dict[str, float]]:
    algorithm = cql.CQL(
        **SIZES, backup=backup, alpha=5.0, sampled_actions=3, initial_log_std=0.0, normalize_observations=False
    )
    learner = algorithm.learner(toy_dataset(discrete_actions=False), seed=0, device=CPU)
    loosen(learner.network, learner.target)
    nn.init.constant_(learner.network.log_entropy_weight, log_temperature)
    batch = fixed_batch(learner)
    case = {
        "settings": json.dumps(
            {
                "algorithm": "cql",
                "log_temperature": log_temperature,
                "soft_q_backup": soft_q_backup,
                "conservative_weight": 5.0,
                "n_action_samples": 3,
            }
        ),
        **batch_arrays(batch),
        **layer_arrays("actor", learner.network.actor),
        **twin_arrays(learner.network.critics, learner.target),
    }
    # Ours looks at the policy's actions here where nothing follows.
    case["batch/next_observations"] = np.where(batch.terminals[:, None], batch.observations, batch.next_observations)
    with pytest.MonkeyPatch.context() as patch:
        normal, uniform = recorded(patch, "randn"), recorded(patch, "rand")
        losses = {name: float(loss) for name, loss in learner.update().items()}
    *following, chosen, here, there = normal
    # d3rlpy draws the policy's action last, and many actions of one observation along the first axis.
    noise = [*following, here.transpose(0, 1), there.transpose(0, 1), uniform[0] * 2 - 1, chosen]
    case.update({f"noise/{i}": np.ascontiguousarray(array) for i, array in enumerate(noise)})
    # Its loss of the temperature has alpha where ours has log alpha.
    losses["temperature_loss"] = losses.pop("entropy_loss") / log_temperature * math.exp(log_temperature)
    return case, losses


def iql_case() -> tuple[Arrays, dict[str, float]]:
    algorithm = iql.IQL(**SIZES, expectile=0.8, temperature=4.0, maximum_weight=0.5, normalize_observations=False)
    learner = algorithm.learner(toy_dataset(discrete_actions=False), seed=0, device=CPU)
    loosen(learner.network, learner.target)
    assert learner.network.log_std is not None
    learner.network.log_std.data = tensor([-0.3, 0.2])
    case = {
        "settings": json.dumps({"algorithm": "iql", "expectile": 0.8, "weight_temp": 4.0, "max_weight": 0.5}),
        **batch_arrays(fixed_batch(learner)),
        **layer_arrays("actor", learner.network.actor),
        **layer_arrays("value", learner.network.value),
        **twin_arrays(learner.network.critics, learner.target),
        "log_std": np.array([-0.3, 0.2], np.float32),
    }
    return case, {name: float(loss) for name, loss in learner.update().items()}


def td3_bc_case() -> tuple[Arrays, dict[str, float]]:
    learner = td3_bc.TD3BC(**SIZES, policy_noise=0.5, normalize_observations=False).learner(
        toy_dataset(discrete_actions=False), seed=0, device=CPU
    )
    loosen(learner.network, learner.target)
    batch = fixed_batch(learner)
    case = {
        "settings": json.dumps({"algorithm": "td3_bc", "alpha": 2.5, "target_smoothing_sigma": 0.5}),
        **batch_arrays(batch),
        **layer_arrays("actor", learner.network.actor),
        **layer_arrays("target_actor", learner.target.actor),
        **twin_arrays(learner.network.critics, learner.target.critics),
    }
    losses = {"actor_loss": learner.actor_loss(learner.batches.prepare(batch)).item()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "randn_like", lambda like: torch.randn(like.shape))
        normal = recorded(patch, "randn")
        losses["critic_loss"] = float(learner.update()["critic_loss"])
    case["noise/0"] = normal[0].numpy()
    return case, losses


def bc_case() -> tuple[Arrays, dict[str, float]]:
    learner = BehaviorCloning(hidden_size=16, num_layers=2, dropout=0.0).learner(
        toy_dataset(discrete_actions=False), seed=0, device=CPU
    )
    loosen(learner.network)
    windows: Windows = learner.sampler.sample()
    learner.sampler.sample = lambda *_: windows  # type: ignore[method-assign]
    case = {
        "settings": json.dumps({"algorithm": "bc"}),
        "batch/observations": windows.observations[:, -1].numpy(),
        "batch/actions": windows.actions[:, -1].numpy(),
        **layer_arrays("actor", learner.network),
    }
    return case, {"action_loss": float(learner.update()["action_loss"])}


def value_case(algorithm: QRDQN | REM, theirs: str, *, quantiles: int | None) -> tuple[Arrays, dict[str, float]]:
    """Quantile midpoints, the sum over predicted and the mean over target quantiles are d3rlpy's too."""
    learner = algorithm.learner(toy_dataset(discrete_actions=True), seed=0, device=CPU)
    loosen(learner.network, learner.target)
    batch = fixed_batch(learner)
    case = {
        "settings": json.dumps({"algorithm": theirs, "actions": 3, "quantiles": quantiles}),
        **batch_arrays(batch),
        **layer_arrays("network", learner.network),
        **layer_arrays("target", learner.target),
    }
    case["batch/actions"] = batch.actions[:, None].numpy()
    return case, {name: float(loss) for name, loss in learner.update().items()}


def loosen(*networks: nn.Module) -> None:
    """Move every weight, so that no two networks agree and no layer is near zero."""
    torch.manual_seed(0)
    for network in networks:
        for parameter in network.parameters():
            parameter.data += 0.2 * torch.randn(parameter.shape)


def fixed_batch(learner: Any) -> Transitions:
    """The batch of 64 that the learner will draw whenever it draws, with some terminal steps."""
    learner.batches.sampler.batch_size = 64
    batch: Transitions = learner.batches.sampler.sample()
    assert 0 < batch.terminals.sum() < 64
    learner.batches.sampler.sample = lambda *_: batch
    return batch


def recorded(patch: pytest.MonkeyPatch, name: str) -> list[Tensor]:
    """What torch's function of this name will have given."""
    draws: list[Tensor] = []
    original = getattr(torch, name)

    def recording(*arguments: Any, **keywords: Any) -> Tensor:
        draws.append(original(*arguments, **keywords))
        return draws[-1]

    patch.setattr(torch, name, recording)
    return draws


def batch_arrays(batch: Transitions) -> Arrays:
    names = ("observations", "actions", "rewards", "next_observations", "terminals")
    return {f"batch/{name}": getattr(batch, name).numpy() for name in names}


def layer_arrays(module: str, network: nn.Module) -> Arrays:
    linears = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
    kinds = {f"{i}/{kind}": getattr(layer, kind) for i, layer in enumerate(linears) for kind in ("weight", "bias")}
    return {f"{module}/{key}": value.detach().numpy().copy() for key, value in kinds.items()}


def twin_arrays(critics: TwinCritics, target: TwinCritics) -> Arrays:
    arrays = {}
    for prefix, network in (("critic", critics), ("target_critic", target)):
        for i, layers in enumerate(linear_layers(network)):
            for j, (weight, bias) in enumerate(layers):
                arrays[f"{prefix}_{i}/{j}/weight"] = weight.detach().numpy().copy()
                arrays[f"{prefix}_{i}/{j}/bias"] = bias.detach().numpy().copy()
    return arrays


def linear_layers(critics: TwinCritics) -> list[list[tuple[Tensor, Tensor]]]:
    """Of each critic the layers' weights [out, in] and biases [out]."""
    pairs = list(zip(critics.weights, critics.biases, strict=True))
    return [[(weight[i].T, bias[i, 0]) for weight, bias in pairs] for i in range(2)]
