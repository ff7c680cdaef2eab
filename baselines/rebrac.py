"""ReBRAC: TD3+BC with normalised critics that imitate too (Tarasov et al. 2023, arXiv 2305.09836)."""

import math
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, ClassVar, SupportsFloat

import torch
from torch import Tensor, nn

from baselines.averages import WeightAverage
from baselines.batches import Batches, rows_ahead, transition_sampler
from baselines.checkpoint import Checkpointed
from baselines.cuda_graphs import GraphedUpdate
from baselines.flat import FlatActorCritic
from baselines.layers import TANH_BACKWARD, Pass
from baselines.networks import Deferred, bellman_error, observation_scale, require_flat_boxes, reward_scale
from baselines.normalized import NormalizedCritics, NormalizedPass
from baselines.td3_bc import smoothed_actions
from dtbench import History, Metrics, TrajectoryDataset
from dtbench.data import TorchStream, Transitions
from dtbench.nn import MLP


@dataclass(frozen=True)
class ReBRAC:
    """TD3 whose actor and whose critics' targets are penalised for leaving the data's actions.

    The defaults are those of the authors on Gym, who choose both penalties on each task; those of `presets` are theirs
    for hopper-medium. After its step the actor, as in TD3, is what its target follows; theirs follows the one before.
    """

    family: ClassVar[str] = "td"

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "official": {},
        "official-hopper-medium": {"actor_penalty": 0.01, "critic_penalty": 0.001},
    }

    hidden_size: int = 256  # units of a hidden layer
    num_layers: int = 3  # hidden layers of each network
    batch_size: int = 1024  # transitions in a batch
    learning_rate: float = 1e-3  # step size of Adam, for actor and critics
    discount: float = 0.99  # factor of a reward one step later, in [0, 1]
    tau: float = 5e-3  # share of the network that the target takes over at each of its updates (Polyak), in (0, 1]
    # weight of the squared distance of the actor's action from the data's (β1 of the authors)
    actor_penalty: float = 0.01
    critic_penalty: float = 0.01  # weight of the next action's squared distance from the data's, in the target (β2)
    policy_noise: float = 0.2  # standard deviation of the noise on the target policy's actions, which lie in [-1, 1]
    noise_clip: float = 0.5  # largest absolute value of that noise
    policy_every: int = 2  # critic steps for one step of the actor and the targets
    layer_norm: bool = True  # normalise the outputs of the critics' hidden layers (Ba et al. 2016)
    # subtract the mean of the data's observations and divide by their standard deviation
    normalize_observations: bool = False
    # scale rewards so that best and worst episode are 1000 apart (Kostrikov et al. 2021)
    normalize_rewards: bool = False
    balance_returns: bool = False  # draw transitions evenly over returns, see `dtbench.data.balanced_weights`
    # share that the average of the weights used for acting keeps at each step, in [0, 1); 0: no average
    ema_decay: float = 0.0

    @property
    def backups_per_step(self) -> float:
        """Bellman backups that a gradient step brings to the target critics."""
        return self.tau / self.policy_every

    def learner(self, dataset: TrajectoryDataset, *, seed: int, device: torch.device) -> "ReBRACLearner":
        """Build actor and critics; raise IncompatibleTask unless both spaces are flat Boxes, actions bounded."""
        require_flat_boxes("rebrac", dataset)
        return ReBRACLearner(self, dataset, seed=seed, device=device)


def squared_distance(actions: Tensor, data: Tensor) -> Tensor:
    """Return (a - a of the data)², summed over the numbers of an action, [B]."""
    return (actions - data).square().sum(dim=-1)


def critic_target(rewards: Tensor, discounts: Tensor, values: Tensor, distance: Tensor, *, penalty: float) -> Tensor:
    """R + γ (min Q'(s', a') - β₂ (a' - a' of the data)²), Tarasov et al. (2023), eq. 4, [B]; `values` [2, B]."""
    return rewards + discounts * (values.amin(dim=0) - penalty * distance)


def actor_loss(values: Tensor, distance: Tensor, *, penalty: float) -> Tensor:
    """β₁ (π(s) - a)² - λ min Q(s, π(s)), λ = 1 / mean |min Q|: Tarasov et al. (2023), eq. 3; `values` [2, B]."""
    smaller = values.amin(dim=0)
    return (penalty * distance - smaller / smaller.detach().abs().mean()).mean()


class ReBRACNetwork(nn.Module):
    """A deterministic actor and two critics."""

    def __init__(self, algorithm: ReBRAC, observations: int, actions: int) -> None:
        super().__init__()
        hidden_size, num_layers = algorithm.hidden_size, algorithm.num_layers
        self.actor = MLP(observations, *[hidden_size] * num_layers, actions, output=nn.Tanh())
        *hidden, last = (layer for layer in self.actor if isinstance(layer, nn.Linear))
        for layer in hidden:
            nn.init.uniform_(layer.weight, -1 / math.sqrt(layer.in_features), 1 / math.sqrt(layer.in_features))
            nn.init.constant_(layer.bias, 0.1)
        nn.init.uniform_(last.weight, -1e-3, 1e-3)
        nn.init.uniform_(last.bias, -1e-3, 1e-3)
        self.critics = NormalizedCritics(
            observations + actions, hidden_size=hidden_size, num_layers=num_layers, layer_norm=algorithm.layer_norm
        )


@dataclass(frozen=True, slots=True)
class ReBRACBatch:
    """What the losses read of transitions."""

    observations: Tensor  # [B, observation], scaled
    actions: Tensor  # [B, action]
    rewards: Tensor  # [B]
    discounts: Tensor  # [B]: the discount, and 0 where the environment ended
    following: Tensor  # [B, observation], scaled: the next observations
    next_actions: Tensor  # [B, action]
    followed: Tensor  # [B]: 1, and 0 where the data's episode ends, whose next action is unknown


class ReBRACLearner(Checkpointed):
    """An actor and critics with target networks and an optimizer each."""

    parts = ("network", "target", "actor_optimizer", "critic_optimizer", "steps")
    return_conditioned = False
    context = 1

    def __init__(self, algorithm: ReBRAC, dataset: TrajectoryDataset, *, seed: int, device: torch.device) -> None:
        self.algorithm = algorithm
        self.scale = observation_scale(dataset, normalize=algorithm.normalize_observations, device=device)
        self.reward_scale = reward_scale(dataset, normalize=algorithm.normalize_rewards)
        sampler = transition_sampler(algorithm, dataset, seed=seed, device=device, next_actions=True)
        self.batches: Batches[ReBRACBatch] = Batches(sampler, self._prepared, ahead=rows_ahead(dataset))
        self.stream = TorchStream(seed, device)
        with self.stream.active():
            self.network = ReBRACNetwork(algorithm, *require_flat_boxes("rebrac", dataset)).to(device)
        self.target = deepcopy(self.network).requires_grad_(False)
        self._lay_out()
        self.acting = WeightAverage(self.network.actor, algorithm.ema_decay)
        self.steps = 0

    def _lay_out(self) -> None:
        network, target = self.network, self.target
        laid = FlatActorCritic.of(network, target, learning_rate=self.algorithm.learning_rate)
        self.averaged = laid.averaged
        self.actor_optimizer, self.critic_optimizer = laid.actor_optimizer, laid.critic_optimizer
        self.actor, self.target_actor = Pass(network.actor), Pass(target.actor)
        self.critics, self.target_critics = NormalizedPass(network.critics), NormalizedPass(target.critics)
        self.graphed: GraphedUpdate[ReBRACBatch] = GraphedUpdate(self._descend, laid.flat.values.device)

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

    def _descend(self, batch: ReBRACBatch, improving: bool) -> Metrics:
        target = self._target(batch, torch.randn_like(batch.actions))
        values = self.critics.forward(torch.cat([batch.observations, batch.actions], dim=-1))
        self.critics.backward((values - target).mul_(2 / target.shape[0]))
        self.critic_optimizer.descend()
        metrics: dict[str, SupportsFloat] = {"critic_loss": Deferred(lambda: bellman_error(values, target))}
        if improving:
            metrics["actor_loss"] = self._improve(batch)
            for slow, fast in self.averaged:
                slow.lerp_(fast, self.algorithm.tau)
        return metrics

    def _target(self, batch: ReBRACBatch, noise: Tensor) -> Tensor:
        a = self.algorithm
        chosen = self.target_actor.forward(batch.following)[0].tanh_()
        actions = smoothed_actions(chosen, noise, scale=a.policy_noise, clip=a.noise_clip)
        distance = squared_distance(actions, batch.next_actions) * batch.followed
        values = self.target_critics.forward(torch.cat([batch.following, actions], dim=-1))
        return critic_target(batch.rewards, batch.discounts, values, distance, penalty=a.critic_penalty)

    def _improve(self, batch: ReBRACBatch) -> SupportsFloat:
        """Take a step of the actor; return its loss."""
        penalty, rows = self.algorithm.actor_penalty, batch.actions.shape[0]
        predicted = self.actor.forward(batch.observations)[0].tanh_()
        values = self.critics.forward(torch.cat([batch.observations, predicted], dim=-1))
        smaller = values.amin(dim=0)
        of_values = (values == smaller) * (-1 / rows / smaller.abs().mean())
        of_pairs = self.critics.backward(of_values, weights=False)
        gradient = (predicted - batch.actions).mul_(2 * penalty / rows)
        gradient += of_pairs[:, batch.observations.shape[1] :]
        self.actor.backward(TANH_BACKWARD(gradient, predicted)[None])
        self.actor_optimizer.descend()
        return Deferred(lambda: actor_loss(values, squared_distance(predicted, batch.actions), penalty=penalty))

    def critic_loss(self, batch: ReBRACBatch, noise: Tensor) -> Tensor:
        """Return both critics' error against the penalised target of a smoothed action, for autograd."""
        with torch.no_grad():
            target = self._target(batch, noise)
        return bellman_error(self.network.critics(batch.observations, batch.actions), target)

    def actor_loss(self, batch: ReBRACBatch) -> Tensor:
        """Return the actor's loss under both critics, for autograd."""
        predicted = self.network.actor(batch.observations)
        values = self.network.critics(batch.observations, predicted, frozen=True)
        distance = squared_distance(predicted, batch.actions)
        return actor_loss(values, distance, penalty=self.algorithm.actor_penalty)

    @torch.no_grad()
    def act(self, history: History) -> Tensor:
        """Return the policy's actions, [B, action]."""
        actions: Tensor = self.acting.network(self.scale(history.observations[:, -1]))
        return actions

    @torch.no_grad()
    def action_values(self, history: History, actions: Tensor) -> Tensor:
        """Return the mean of both critics' values of these actions of the present, [B], in the data's rewards."""
        values: Tensor = self.network.critics(self.scale(history.observations[:, -1]), actions.float()).mean(dim=0)
        return values / self.reward_scale

    def _prepared(self, drawn: Transitions) -> ReBRACBatch:
        assert drawn.next_actions is not None
        assert drawn.followed is not None
        return ReBRACBatch(
            observations=self.scale(drawn.observations),
            actions=drawn.actions.float(),
            rewards=drawn.rewards * self.reward_scale,
            discounts=torch.where(drawn.terminals, 0.0, self.algorithm.discount),
            following=self.scale(drawn.next_observations),
            next_actions=drawn.next_actions.float(),
            followed=drawn.followed.float(),
        )
