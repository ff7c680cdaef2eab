"""TD3+BC: TD3 whose actor also imitates (Fujimoto and Gu 2021, "A Minimalist Approach to Offline RL")."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, ClassVar, SupportsFloat

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.averages import WeightAverage
from baselines.batches import TDBatch, td_batches
from baselines.checkpoint import Checkpointed
from baselines.cuda_graphs import GraphedUpdate
from baselines.flat import FlatActorCritic
from baselines.layers import TANH_BACKWARD, Pass, Scratch
from baselines.networks import (
    Deferred,
    TwinCritics,
    bellman_error,
    observation_scale,
    require_flat_boxes,
    reward_scale,
)
from dtbench import History, Metrics, TrajectoryDataset
from dtbench.data import TorchStream
from dtbench.nn import MLP


@dataclass(frozen=True)
class TD3BC:
    """TD3 with a behaviour-cloning term, the only change to TD3 besides normalised observations.

    The defaults are those of CORL and of the authors, who use the same on all of D4RL's Gym tasks.
    """

    version: ClassVar[int] = 2  # 2: more hyperparameters
    family: ClassVar[str] = "td"

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"corl": {}, "official": {}}

    hidden_size: int = 256  # units of a hidden layer
    num_layers: int = 2  # hidden layers of each network
    batch_size: int = 256  # transitions in a batch
    learning_rate: float = 3e-4  # step size of Adam, for actor and critics
    discount: float = 0.99  # factor of a reward one step later, in [0, 1]
    tau: float = 5e-3  # share of the network that the target takes over at each of its updates (Polyak), in (0, 1]
    alpha: float = 2.5  # weight of the normalised Q-values against imitation, eq. 5; 0: imitation alone
    policy_noise: float = 0.2  # standard deviation of the noise on the target policy's actions, which lie in [-1, 1]
    noise_clip: float = 0.5  # largest absolute value of that noise
    policy_every: int = 2  # critic steps for one step of the actor and the targets (Fujimoto et al. 2018: 2)
    # subtract the mean of the data's observations and divide by their standard deviation
    normalize_observations: bool = True
    # scale rewards so that best and worst episode are 1000 apart (Kostrikov et al. 2021)
    normalize_rewards: bool = False
    balance_returns: bool = False  # draw transitions evenly over returns, see `dtbench.data.balanced_weights`
    # share that the average of the weights used for acting keeps at each step, in [0, 1); 0: no average
    ema_decay: float = 0.0

    @property
    def backups_per_step(self) -> float:
        """Bellman backups that a gradient step brings to the target critics."""
        return self.tau / self.policy_every

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
        self.observation_scale = observation_scale(dataset, normalize=algorithm.normalize_observations, device=device)
        self.reward_scale = reward_scale(dataset, normalize=algorithm.normalize_rewards)
        self.batches = td_batches(
            algorithm, dataset, self.observation_scale, reward_scale=self.reward_scale, seed=seed, device=device
        )
        self.stream = TorchStream(seed, device)
        with self.stream.active():
            self.network = TD3BCNetwork(algorithm, *require_flat_boxes("td3_bc", dataset)).to(device)
        self.target = deepcopy(self.network).requires_grad_(False)
        self._lay_out()
        self.acting = WeightAverage(self.network.actor, algorithm.ema_decay)
        self.steps = 0

    def _lay_out(self) -> None:
        network, target = self.network, self.target
        laid = FlatActorCritic.of(network, target, learning_rate=self.algorithm.learning_rate)
        self.averaged = laid.averaged
        self.actor_optimizer, self.critic_optimizer = laid.actor_optimizer, laid.critic_optimizer
        scratch = Scratch()
        self.critics = Pass([network.critics, target.critics], scratch)
        self.judge, self.target_actor = Pass(network.critics, scratch, members=1), Pass(target.actor, scratch)
        self.actor = Pass(network.actor)  # whose way back follows the judge's
        self.graphed: GraphedUpdate[TDBatch] = GraphedUpdate(self._descend, laid.flat.values.device)

    @torch.inference_mode()
    def update(self) -> Metrics:
        """Take one step of the critics, and every `policy_every` steps one of the actor and the targets.

        The steps are those along the gradients of `critic_loss` and `actor_loss`, which are written out.
        """
        batch = self.batches.next()
        self.steps += 1
        improving = self.steps % self.algorithm.policy_every == 0
        with self.stream.active():
            metrics = self.graphed(batch, improving)
        if improving:
            self.acting.update()
        return metrics

    def _descend(self, batch: TDBatch, improving: bool) -> Metrics:
        noise = torch.randn_like(batch.actions)
        both = self.critics.forward(batch.pairs, self._following(batch, noise))[..., 0]
        values, following = both[:2], both[2:].amin(dim=0)
        target = torch.addcmul(batch.rewards, batch.discounts, following)
        self.critics.backward((values - target).mul_(2 / target.shape[0])[..., None])
        self.critic_optimizer.descend()
        metrics: dict[str, SupportsFloat] = {"critic_loss": Deferred(lambda: bellman_error(values, target))}
        if improving:
            metrics["actor_loss"] = self._improve(batch)
            for slow, fast in self.averaged:
                slow.lerp_(fast, self.algorithm.tau)
        return metrics

    def _following(self, batch: TDBatch, noise: Tensor) -> Tensor:
        """Return the next observations with the target policy's smoothed actions, [B, observation + action]."""
        a = self.algorithm
        chosen = self.target_actor.forward(batch.following)[0].tanh_()
        smoothed = smoothed_actions(chosen, noise, scale=a.policy_noise, clip=a.noise_clip)
        return torch.cat([batch.following, smoothed], dim=-1)

    def _improve(self, batch: TDBatch) -> SupportsFloat:
        """Take a step of the actor; return its loss."""
        alpha, rows = self.algorithm.alpha, batch.actions.shape[0]
        predicted = self.actor.forward(batch.observations)[0].tanh_()
        values = self.judge.forward(torch.cat([batch.observations, predicted], dim=-1))
        of_values = (-alpha / rows / values.abs().mean()).expand_as(values)
        of_pairs = self.judge.backward(of_values, weights=False, rows=True)
        assert of_pairs is not None
        gradient = (predicted - batch.actions).mul_(2 / predicted.numel())
        gradient += of_pairs[:, batch.observations.shape[1] :]
        self.actor.backward(TANH_BACKWARD(gradient, predicted)[None])
        self.actor_optimizer.descend()
        return Deferred(lambda: actor_loss(values, predicted, batch.actions, alpha=alpha))

    def critic_loss(self, batch: TDBatch, noise: Tensor) -> Tensor:
        """Return both critics' error, for autograd."""
        with torch.no_grad():
            following = self.target.critics.evaluate(self._following(batch, noise)).amin(dim=0)[:, 0]
            target = batch.rewards + batch.discounts * following
        return bellman_error(self.network.critics(batch.observations, batch.actions), target)

    def actor_loss(self, batch: TDBatch) -> Tensor:
        """Return the actor's loss under the first critic, as in TD3, for autograd."""
        predicted = self.network.act(batch.observations)
        values = self.network.critics(batch.observations, predicted, frozen=True, critics=1)[0]
        return actor_loss(values, predicted, batch.actions, alpha=self.algorithm.alpha)

    @torch.no_grad()
    def act(self, history: History) -> Tensor:
        """Return the policy's actions, [B, action]."""
        predicted: Tensor = self.acting.network(self.observation_scale(history.observations[:, -1]))
        return predicted.tanh()

    @torch.no_grad()
    def action_values(self, history: History, actions: Tensor) -> Tensor:
        """Return the mean of both critics' values of these actions of the present, [B], in the data's rewards."""
        observations = self.observation_scale(history.observations[:, -1])
        values: Tensor = self.network.critics(observations, actions.float()).mean(dim=0)
        return values / self.reward_scale
