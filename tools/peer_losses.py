"""The losses of d3rlpy 2.8.1 on weights and batches that `tests/baselines/test_losses.py` wrote: IN.npz to OUT.json.

d3rlpy needs another gymnasium than dtbench, so this runs with an interpreter of its own and imports nothing of ours:

    python -m venv peers && peers/bin/pip install torch==2.13.0 d3rlpy==2.8.1
    DTBENCH_PEERS_PYTHON=peers/bin/python python -m pytest tests/baselines/test_losses.py

An entry CASE/settings of the archive is JSON; CASE/batch/NAME, CASE/noise/I and CASE/MODULE/I/weight (or /bias, of the
module's I-th linear layer) are arrays. What d3rlpy would draw at random, it takes from the noise, in order.
"""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import d3rlpy
import numpy as np
import torch
from d3rlpy.algos.qlearning.torch.dqn_impl import DQNImpl
from d3rlpy.models import MeanQFunctionFactory, QRQFunctionFactory, VectorEncoderFactory
from d3rlpy.torch_utility import TorchMiniBatch
from torch import Tensor, nn

NO_STEP = 1e-12  # a learning rate that changes nothing: d3rlpy computes the temperature's loss only while it learns it


def main(source: str, destination: str) -> None:
    """Compute every case of the archive."""
    archive = np.load(source)
    names = sorted({key.split("/")[0] for key in archive.files})
    losses = {}
    for name in names:
        arrays = {key[len(name) + 1 :]: archive[key] for key in archive.files if key.startswith(f"{name}/")}
        settings = json.loads(str(arrays.pop("settings")))
        case = {key: torch.from_numpy(array) for key, array in arrays.items()}
        losses[name] = LOSSES[settings.pop("algorithm")](case, **settings)
    Path(destination).write_text(json.dumps(losses))


def cql_losses(case: dict[str, Tensor], *, log_temperature: float, **config: Any) -> dict[str, float]:
    """Critic loss with and without the conservative term, actor loss, temperature loss."""
    impl = made(
        d3rlpy.algos.CQLConfig(
            initial_temperature=float(np.exp(log_temperature)),
            temp_learning_rate=NO_STEP,
            initial_alpha=1.0,
            alpha_learning_rate=0.0,  # no Lagrange multiplier
            alpha_threshold=0.0,
            **encoders(case, "actor", "critic"),
            **config,
        ),
        case,
    )
    modules, data = impl.modules, batch(case)
    load(modules.policy, case, "actor")
    load_twins(modules, case)
    with random_numbers(case):
        critic = impl.compute_critic_loss(data, impl.compute_target(data))
        actor = impl.compute_actor_loss(data, modules.policy(data.observations))
    return {
        "td_loss": float(critic.critic_loss - critic.conservative_loss),
        "penalty": float(critic.conservative_loss),
        "policy_loss": float(actor.actor_loss),
        "temperature_loss": float(actor.temp_loss),
    }


def iql_losses(case: dict[str, Tensor], **config: Any) -> dict[str, float]:
    """Critic, value and actor loss."""
    impl = made(d3rlpy.algos.IQLConfig(**encoders(case, "actor", "critic", "value"), **config), case)
    modules, data = impl.modules, batch(case)
    load(modules.policy, case, "actor")
    # Its log standard deviation is a sigmoid between -5 and 2.
    modules.policy._logstd.data.copy_(torch.logit((case["log_std"] + 5) / 7))
    load(modules.value_func, case, "value")
    load_twins(modules, case)
    critic = impl.compute_critic_loss(data, impl.compute_target(data))
    actor = impl.compute_actor_loss(data, modules.policy(data.observations))
    return {
        "critic_loss": float(critic.q_loss),
        "value_loss": float(critic.v_loss),
        "actor_loss": float(actor.actor_loss),
    }


def td3_bc_losses(case: dict[str, Tensor], **config: Any) -> dict[str, float]:
    """Critic and actor loss."""
    impl = made(d3rlpy.algos.TD3PlusBCConfig(**encoders(case, "actor", "critic"), **config), case)
    modules, data = impl.modules, batch(case)
    load(modules.policy, case, "actor")
    load(modules.targ_policy, case, "target_actor")
    load_twins(modules, case)
    with random_numbers(case):
        critic = impl.compute_critic_loss(data, impl.compute_target(data))
    actor = impl.compute_actor_loss(data, modules.policy(data.observations))
    return {"critic_loss": float(critic.critic_loss), "actor_loss": float(actor.actor_loss)}


def bc_losses(case: dict[str, Tensor]) -> dict[str, float]:
    """Squared error of a deterministic policy."""
    impl = made(d3rlpy.algos.BCConfig(encoder_factory=encoder(case, "actor")), case)
    load(impl.modules.imitator, case, "actor")
    return {"action_loss": float(impl.compute_loss(case["batch/observations"], case["batch/actions"]).loss)}


def dqn_losses(case: dict[str, Tensor], *, actions: int, quantiles: int | None) -> dict[str, float]:
    """Temporal loss of DQN, by quantiles or (None) by one Q-value."""
    impl = discrete(d3rlpy.algos.DQNConfig, case, actions=actions, quantiles=quantiles)
    data = batch(case)
    return {"td_loss": float(impl.compute_loss(data, impl.compute_target(data)).loss)}


def discrete_cql_losses(case: dict[str, Tensor], *, actions: int, quantiles: int | None) -> dict[str, float]:
    """Temporal loss and penalty; the target is DQN's, as its own is double Q-learning's."""
    impl = discrete(d3rlpy.algos.DiscreteCQLConfig, case, actions=actions, quantiles=quantiles)
    data = batch(case)
    losses = impl.compute_loss(data, DQNImpl.compute_target(impl, data))
    return {"td_loss": float(losses.td_loss), "penalty": float(losses.conservative_loss)}


LOSSES: dict[str, Callable[..., dict[str, float]]] = {
    "cql": cql_losses,
    "iql": iql_losses,
    "td3_bc": td3_bc_losses,
    "bc": bc_losses,
    "dqn": dqn_losses,
    "discrete_cql": discrete_cql_losses,
}


def made(config: Any, case: dict[str, Tensor], *, actions: int | None = None) -> Any:
    """Return the implementation behind a configuration, for the batch's sizes; `actions` counts discrete ones."""
    algorithm = config.create(device=False)
    algorithm.create_impl(case["batch/observations"].shape[1:], actions or case["batch/actions"].shape[1])
    return algorithm.impl


def discrete(kind: Any, case: dict[str, Tensor], *, actions: int, quantiles: int | None) -> Any:
    """Return the implementation of a learner of discrete actions with the case's network and target network."""
    q_function = QRQFunctionFactory(n_quantiles=quantiles) if quantiles else MeanQFunctionFactory()
    config = kind(encoder_factory=encoder(case, "network"), q_func_factory=q_function)
    impl = made(config, case, actions=actions)
    load(impl.modules.q_funcs[0], case, "network")
    load(impl.modules.targ_q_funcs[0], case, "target")
    return impl


def encoders(case: dict[str, Tensor], *networks: str) -> dict[str, VectorEncoderFactory]:
    """Return encoder factories of the sizes of these networks, as d3rlpy's configurations name them."""
    sources = {"critic": "critic_0"}
    return {f"{network}_encoder_factory": encoder(case, sources.get(network, network)) for network in networks}


def encoder(case: dict[str, Tensor], module: str) -> VectorEncoderFactory:
    """Hidden layers as wide as the module's; its last layer is d3rlpy's head."""
    biases = [tensor for key, tensor in sorted(case.items()) if key.startswith(f"{module}/") and key.endswith("/bias")]
    return VectorEncoderFactory([len(bias) for bias in biases[:-1]])


def load(network: nn.Module, case: dict[str, Tensor], module: str) -> None:
    """Set the network's linear layers, in order; a last layer for several heads is divided among them."""
    linears = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
    count = sum(key.startswith(f"{module}/") and key.endswith("/bias") for key in case)
    for kind in ("weight", "bias"):
        values = [case[f"{module}/{i}/{kind}"] for i in range(count)]
        heads = len(linears) - count + 1
        for layer, value in zip(linears, [*values[:-1], *values[-1].chunk(heads)], strict=True):
            getattr(layer, kind).data.copy_(value)


def load_twins(modules: Any, case: dict[str, Tensor]) -> None:
    """Set both critics and both target critics."""
    for i in range(2):
        load(modules.q_funcs[i], case, f"critic_{i}")
        load(modules.targ_q_funcs[i], case, f"target_critic_{i}")


def batch(case: dict[str, Tensor]) -> TorchMiniBatch:
    """Return the batch as d3rlpy has it, with columns."""
    columns = {name: case[f"batch/{name}"].float()[:, None] for name in ("rewards", "terminals")}
    return TorchMiniBatch(
        observations=case["batch/observations"],
        actions=case["batch/actions"],
        next_observations=case["batch/next_observations"],
        next_actions=torch.zeros_like(case["batch/actions"]),
        returns_to_go=torch.zeros_like(columns["rewards"]),
        intervals=torch.ones_like(columns["rewards"]),
        device="cpu",
        **columns,
    )


@contextmanager
def random_numbers(case: dict[str, Tensor]) -> Iterator[None]:
    """Make every draw, normal or uniform, the next noise of the case; all of it must be drawn."""
    noise = iter([case[f"noise/{i}"] for i in range(sum(key.startswith("noise/") for key in case))])

    def normal(shape: Any, *_: Any, **__: Any) -> Tensor:
        return next(noise).view(shape)

    def uniform(tensor: Tensor, *_: Any, **__: Any) -> Tensor:
        return tensor.copy_(next(noise).view(tensor.shape))

    with (
        patch("torch.distributions.normal._standard_normal", normal),
        patch("torch.randn", normal),
        patch("torch.Tensor.uniform_", uniform),
    ):
        yield
    assert next(noise, None) is None, "d3rlpy drew fewer random numbers than dtbench"


if __name__ == "__main__":
    main(*sys.argv[1:])
