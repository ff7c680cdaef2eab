"""TD3+BC: TD3 whose actor also imitates (Fujimoto and Gu 2021, "A Minimalist Approach to Offline RL")."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.checkpoint import Checkpointed
from baselines.networks import (
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
class TD3BC:
    """TD3 with a behaviour-cloning term, the only change to TD3 besides normalised observations.

    The defaults are those of CORL and of the authors, who use the same on all of D4RL's Gym tasks.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"corl": {}, "official": {}}

    hidden_size: int = 256
    num_layers: int = 2
    batch_size: int = 256
    learning_rate: float = 3e-4
    discount: float = 0.99
    tau: float = 5e-3  # Polyak averaging of the target networks
    alpha: float = 2.5  # weight of the normalised Q-values against imitation, eq. 5
    policy_noise: float = 0.2  # standard deviation of the target policy's noise
    noise_clip: float = 0.5
    policy_every: int = 2  # critic steps for one step of the actor and the targets
    normalize_observations: bool = True

    def learner(self, dataset: TrajectoryDataset, *, seed: int, device: torch.device) -> "TD3BCLearner":
        """Build actor and critics; raise IncompatibleTask unless both spaces are flat Boxes, actions bounded."""
        require_flat_boxes("td3_bc", dataset)
        return TD3BCLearner(self, dataset, seed=seed, device=device)


def smoothed_actions(actions: Tensor, noise: Tensor, *, scale: float, clip: float) -> Tensor:
    """Target policy smoothing, Fujimoto et al. (2018), section 5.3: actions with clipped noise, in [-1, 1]."""
    return (actions + (noise * scale).clamp(-clip, clip)).clamp(-1, 1)


def actor_loss(values: Tensor, predicted: Tensor, actions: Tensor, *, alpha: float) -> Tensor:
    """- λ Q(s, π(s)) + (π(s) - a)², with λ = α / mean |Q|: Fujimoto and Gu (2021), eq. 3 and 5."""
    weight = alpha / values.detach().abs().mean()
    return F.mse_loss(predicted, actions) - weight * values.mean()


class TD3BCNetwork(nn.Module):
    """A deterministic actor and two critics."""

    def __init__(self, algorithm: TD3BC, observations: int, actions: int) -> None:
        super().__init__()
        hidden_size, num_layers = algorithm.hidden_size, algorithm.num_layers
        self.actor = MLP(observations, *[hidden_size] * num_layers, actions)
        self.critics = TwinCritics(observations, actions, hidden_size=hidden_size, num_layers=num_layers)

    def act(self, observations: Tensor) -> Tensor:
        """Return the policy's actions in [-1, 1]."""
        predicted: Tensor = self.actor(observations)
        return predicted.tanh()


class TD3BCLearner(Checkpointed):
    """An actor and critics with target networks and an optimizer each."""

    parts = ("network", "target", "actor_optimizer", "critic_optimizer", "steps")
    return_conditioned = False
    context = 1

    def __init__(self, algorithm: TD3BC, dataset: TrajectoryDataset, *, seed: int, device: torch.device) -> None:
        self.algorithm = algorithm
        self.sampler = TransitionSampler(
            dataset, batch_size=algorithm.batch_size, rng=generator(seed, 1), device=device
        )
        self.observation_scale = observation_scale(dataset, normalize=algorithm.normalize_observations, device=device)
        self.stream = TorchStream(seed, device)
        with self.stream.active():
            self.network = TD3BCNetwork(algorithm, *require_flat_boxes("td3_bc", dataset)).to(device)
        self.target = deepcopy(self.network).requires_grad_(False)
        self.actor_optimizer, self.critic_optimizer = (
            torch.optim.Adam(part.parameters(), lr=algorithm.learning_rate, fused=True)
            for part in (self.network.actor, self.network.critics)
        )
        self.steps = 0

    def update(self) -> Metrics:
        """Take one step of the critics, and every `policy_every` steps one of the actor and the targets."""
        batch = self.sampler.sample()
        observations = self.observation_scale(batch.observations)
        actions = batch.actions.float()
        self.steps += 1
        with self.stream.active():
            critic_loss = self.critic_loss(batch, observations, actions)
        descend(self.critic_optimizer, critic_loss)
        if self.steps % self.algorithm.policy_every:
            return {"critic_loss": critic_loss.detach()}
        policy_loss = self.actor_loss(observations, actions)
        descend(self.actor_optimizer, policy_loss)
        soft_update(self.target, self.network, self.algorithm.tau)
        return {"critic_loss": critic_loss.detach(), "actor_loss": policy_loss.detach()}

    def critic_loss(self, batch: Transitions, observations: Tensor, actions: Tensor) -> Tensor:
        """Return both critics' error against the smaller target value of a smoothed action (clipped double Q)."""
        a = self.algorithm
        with torch.no_grad():
            following = self.observation_scale(batch.next_observations)
            chosen = self.target.act(following)
            smoothed = smoothed_actions(chosen, torch.randn_like(chosen), scale=a.policy_noise, clip=a.noise_clip)
            value = self.target.critics(following, smoothed).amin(dim=0)
            target = bellman_target(batch.rewards, batch.terminals, value, a.discount)
        return bellman_error(self.network.critics(observations, actions), target)

    def actor_loss(self, observations: Tensor, actions: Tensor) -> Tensor:
        """Return the actor's loss under the first critic, as in TD3."""
        predicted = self.network.act(observations)
        values = self.network.critics(observations, predicted, frozen=True, critics=1)[0]
        return actor_loss(values, predicted, actions, alpha=self.algorithm.alpha)

    @torch.no_grad()
    def act(self, history: History) -> Tensor:
        """Return the policy's actions, [B, action]."""
        return self.network.act(self.observation_scale(history.observations[:, -1]))
