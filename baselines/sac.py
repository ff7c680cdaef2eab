"""Soft actor-critic (Haarnoja et al. 2018, arXiv 1812.05905): its losses and networks, which CQL shares."""

import math
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.checkpoint import Checkpointed
from baselines.networks import (
    ObservationScale,
    TwinCritics,
    bellman_error,
    bellman_target,
    descend,
    observation_scale,
    require_flat_boxes,
    soft_update,
)
from dtbench import History, Metrics, TrajectoryDataset, TransitionSampler
from dtbench.data import TorchStream, Transitions, generator
from dtbench.nn import MLP


@dataclass(frozen=True)
class SAC:
    """Soft actor-critic with two critics and a learned temperature.

    The defaults are those of the paper (table 1). On a fixed dataset it is the off-policy baseline that Fu et al.
    (2020) call SAC: nothing keeps it near the data.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"official": {}}

    hidden_size: int = 256
    num_layers: int = 2
    actor_hidden_size: int | None = None  # None: as wide as the critics
    batch_size: int = 256
    learning_rate: float = 3e-4
    discount: float = 0.99
    tau: float = 5e-3  # Polyak averaging of the target critics
    normalize_observations: bool = False

    def learner(self, dataset: TrajectoryDataset, *, seed: int, device: torch.device) -> "SACLearner":
        """Build policy and critics; raise IncompatibleTask unless both spaces are flat Boxes, actions bounded."""
        sizes = require_flat_boxes("sac", dataset)
        return SACLearner(
            self,
            sizes,
            sampler=TransitionSampler(dataset, batch_size=self.batch_size, rng=generator(seed, 1), device=device),
            scale=observation_scale(dataset, normalize=self.normalize_observations, device=device),
            seed=seed,
            device=device,
        )


class Sampler(Protocol):
    """Batches of transitions from a fixed dataset or from a replay buffer."""

    rng: np.random.Generator

    def sample(self) -> Transitions:
        """Draw one batch."""
        ...


def policy_loss(values: Tensor, log_density: Tensor, entropy_weight: Tensor) -> Tensor:
    """α log π(a | s) - Q(s, a), Haarnoja et al. (2018), arXiv 1812.05905, eq. 9."""
    return (entropy_weight * log_density - values).mean()


def entropy_loss(log_weight: Tensor, log_density: Tensor, target_entropy: float) -> Tensor:
    """- log α (log π(a | s) + target entropy), Haarnoja et al. (2018), arXiv 1812.05905, eq. 18.

    The paper and d3rlpy have α where the authors of CQL and CORL have log α; the sign of the gradient is the same.
    """
    return -log_weight * (log_density.detach().mean() + target_entropy)


def log_tanh_derivative(raw: Tensor) -> Tensor:
    """Log of the derivative of tanh, log(1 - tanh(x)²), where it would underflow too."""
    return 2 * (math.log(2) - raw - F.softplus(-2 * raw))


def log_density(raw: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """Log π(tanh(raw) | s) of a Gaussian squashed by tanh, summed over the numbers of an action."""
    gaussian = -((raw - mean) / log_std.exp()).square() / 2 - log_std - math.log(2 * math.pi) / 2
    return (gaussian - log_tanh_derivative(raw)).sum(dim=-1)


@dataclass(frozen=True, slots=True)
class TanhNormal:
    """A Gaussian squashed by tanh into [-1, 1], for each of B observations."""

    mean: Tensor  # [B, action], before the squashing
    log_std: Tensor  # [B, action]

    def sample(self, count: int) -> tuple[Tensor, Tensor]:
        """Draw actions [B, count, action] that gradients pass through, and their log densities [B, count]."""
        mean, log_std = self.mean[:, None], self.log_std[:, None]
        noise = torch.randn(len(mean), count, mean.shape[-1], device=mean.device)
        raw = mean + log_std.exp() * noise
        return raw.tanh(), log_density(raw, mean, log_std)

    def log_density_of(self, actions: Tensor) -> Tensor:
        """Return log densities [B] of actions [B, action], which are moved off the border, where there is none."""
        return log_density(actions.clamp(-1 + 1e-6, 1 - 1e-6).atanh(), self.mean, self.log_std)

    def detached(self) -> "TanhNormal":
        """Return the same distribution without gradients."""
        return TanhNormal(self.mean.detach(), self.log_std.detach())


class SoftActorCritic(nn.Module):
    """A policy, two critics and the log of the entropy's weight: the network of SAC and of CQL."""

    def __init__(
        self,
        observations: int,
        actions: int,
        *,
        hidden_size: int,
        num_layers: int,
        actor_hidden_size: int | None = None,
        orthogonal: bool = False,
        initial_log_std: float = 0.0,
        minimum_log_std: float = -20.0,
    ) -> None:
        """Clamp log standard deviations, `initial_log_std` added, to [`minimum_log_std`, 2]."""
        super().__init__()
        self.initial_log_std, self.minimum_log_std = initial_log_std, minimum_log_std
        self.actor = MLP(observations, *[actor_hidden_size or hidden_size] * num_layers, 2 * actions)
        last = self.actor[-1]
        assert isinstance(last, nn.Linear)
        nn.init.xavier_uniform_(last.weight, gain=1e-2)
        nn.init.zeros_(last.bias)
        self.critics = TwinCritics(
            observations, actions, hidden_size=hidden_size, num_layers=num_layers, orthogonal=orthogonal
        )
        self.log_entropy_weight = nn.Parameter(torch.zeros(()))

    def policy(self, observations: Tensor) -> TanhNormal:
        """Return the policy at each observation."""
        mean, log_std = self.actor(observations).chunk(2, dim=-1)
        return TanhNormal(mean, (log_std + self.initial_log_std).clamp(self.minimum_log_std, 2.0))


class SoftActorCriticLearner(Checkpointed):
    """The base of SAC and CQL: acting, the step of all networks, and their state.

    The losses of policy, entropy and critics share no weight that either could move, so one backward pass and one
    step of Adam do what three would.
    """

    return_conditioned = False
    context = 1

    def __init__(
        self,
        network: SoftActorCritic,
        *,
        sampler: Sampler,
        scale: ObservationScale,
        stream: TorchStream,
        learning_rates: tuple[float, float],
        tau: float,
    ) -> None:
        """`learning_rates` are those of policy and entropy weight, and of the critics."""
        self.network, self.sampler, self.stream, self.tau = network, sampler, stream, tau
        self.observation_scale = scale
        self.target = deepcopy(network.critics).requires_grad_(False)
        parts = ([*network.actor.parameters(), network.log_entropy_weight], list(network.critics.parameters()))
        groups = [{"params": part, "lr": rate} for part, rate in zip(parts, learning_rates, strict=True)]
        self.optimizer = torch.optim.Adam(groups, fused=True)
        self.steps = 0

    @torch.no_grad()
    def act(self, history: History) -> Tensor:
        """Return the squashed mean of the policy, [B, action]."""
        policy = self.network.policy(self.observation_scale(history.observations[:, -1]))
        return policy.mean.tanh()

    def step(self, losses: Mapping[str, Tensor]) -> Metrics:
        """Move all networks by the gradients of the losses' sum, then the target critics."""
        descend(self.optimizer, torch.stack(list(losses.values())).sum())
        soft_update(self.target, self.network.critics, self.tau)
        self.steps += 1
        return {name: loss.detach() for name, loss in losses.items()}


class SACLearner(SoftActorCriticLearner):
    """A learner that takes SAC's steps on the batches of a sampler."""

    def __init__(
        self,
        algorithm: SAC,
        sizes: tuple[int, int],
        *,
        sampler: Sampler,
        scale: ObservationScale,
        seed: int,
        device: torch.device,
    ) -> None:
        """Build networks for `sizes` numbers of an observation and of an action."""
        self.algorithm, self.actions = algorithm, sizes[1]
        stream = TorchStream(seed, device)
        with stream.active():
            network = SoftActorCritic(
                *sizes,
                hidden_size=algorithm.hidden_size,
                num_layers=algorithm.num_layers,
                actor_hidden_size=algorithm.actor_hidden_size,
            )
        super().__init__(
            network.to(device),
            sampler=sampler,
            scale=scale,
            stream=stream,
            learning_rates=(algorithm.learning_rate, algorithm.learning_rate),
            tau=algorithm.tau,
        )

    def update(self) -> Metrics:
        """Take one step of policy, entropy and critics."""
        batch = self.sampler.sample()
        observations = self.observation_scale(batch.observations)
        actions = batch.actions.float()
        following = self.observation_scale(batch.next_observations)
        with self.stream.active():
            target = self.critic_target(batch, following)
            losses = {
                **self.policy_losses(observations),
                "td_loss": bellman_error(self.network.critics(observations, actions), target),
            }
        return self.step(losses)

    @torch.no_grad()
    def critic_target(self, batch: Transitions, following: Tensor) -> Tensor:
        """R + γ (min Q(s', a') - α log π(a' | s')), Haarnoja et al. (2018), arXiv 1812.05905, eq. 2 and 3, [B]."""
        actions, density = self.network.policy(following).sample(1)
        smaller = self.target(following, actions[:, 0]).amin(dim=0)
        soft = smaller - self.network.log_entropy_weight.exp() * density[:, 0]
        return bellman_target(batch.rewards, batch.terminals, soft, self.algorithm.discount)

    def policy_losses(self, observations: Tensor) -> dict[str, Tensor]:
        """Return the losses of policy and entropy weight; the target entropy is minus the size of an action."""
        chosen, density = (drawn[:, 0] for drawn in self.network.policy(observations).sample(1))
        values = self.network.critics(observations, chosen, frozen=True).amin(dim=0)
        log_weight = self.network.log_entropy_weight
        return {
            "policy_loss": policy_loss(values, density, log_weight.detach().exp()),
            "entropy_loss": entropy_loss(log_weight, density, -float(self.actions)),
        }
