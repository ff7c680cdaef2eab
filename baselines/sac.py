"""Soft actor-critic (Haarnoja et al. 2018, arXiv 1812.05905): its losses and networks, which CQL shares."""

import math
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.averages import WeightAverage
from baselines.batches import Batches, Sampler, TDBatch, rows_ahead, td_batch, transition_sampler
from baselines.checkpoint import Checkpointed
from baselines.cuda_graphs import GraphedUpdate
from baselines.flat import FlatAdam, FlatParameters
from baselines.layers import Pass, Scratch
from baselines.networks import (
    Deferred,
    ObservationScale,
    TwinCritics,
    bellman_error,
    observation_scale,
    require_flat_boxes,
    reward_scale,
)
from dtbench import History, Metrics, TrajectoryDataset
from dtbench.data import TorchStream, Transitions
from dtbench.nn import MLP

Initialization = Literal["torch", "orthogonal", "rlkit"]


@dataclass(frozen=True)
class SAC:
    """Soft actor-critic with two critics and a learned temperature.

    The defaults are those of the paper (table 1). On a fixed dataset it is the off-policy baseline that Fu et al.
    (2020) call SAC: nothing keeps it near the data.
    """

    family: ClassVar[str] = "td"

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"official": {}}

    hidden_size: int = 256  # units of a hidden layer
    num_layers: int = 2  # hidden layers of each network
    actor_hidden_size: int | None = None  # units of the actor's hidden layers; None: as wide as the critics
    batch_size: int = 256  # transitions in a batch
    learning_rate: float = 3e-4  # step size of Adam, for actor, critics and temperature
    discount: float = 0.99  # factor of a reward one step later, in [0, 1]
    tau: float = 5e-3  # share of the network that the target takes over at each of its updates (Polyak), in (0, 1]
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
        return self.tau

    def learner(self, dataset: TrajectoryDataset, *, seed: int, device: torch.device) -> "SACLearner":
        """Build policy and critics; raise IncompatibleTask unless both spaces are flat Boxes, actions bounded."""
        sizes = require_flat_boxes("sac", dataset)
        return SACLearner(
            self,
            sizes,
            sampler=transition_sampler(self, dataset, seed=seed, device=device),
            scale=observation_scale(dataset, normalize=self.normalize_observations, device=device),
            seed=seed,
            device=device,
            ahead=rows_ahead(dataset),
            reward_scale=reward_scale(dataset, normalize=self.normalize_rewards),
        )


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


def smallest(values: Tensor, share: float) -> Tensor:
    """Return the gradient of `share` times the smaller of two critics' values [2, B], [2, B, 1]."""
    first = values[0] <= values[1]
    return torch.stack([first, ~first])[..., None] * share


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

    def draw(self) -> tuple[Tensor, Tensor, Tensor]:
        """Draw an action [B, action] that gradients pass through, its log density [B], and its noise [B, action]."""
        noise = torch.randn(self.mean.shape[0], 1, self.mean.shape[-1], device=self.mean.device)[:, 0]
        raw = self.mean + self.log_std.exp() * noise
        return raw.tanh(), log_density(raw, self.mean, self.log_std), noise

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
        initialization: Initialization = "torch",
        initial_log_std: float = 0.0,
        minimum_log_std: float = -20.0,
    ) -> None:
        """Clamp log standard deviations, `initial_log_std` added, to [`minimum_log_std`, 2].

        First weights are PyTorch's with an actor's last layer near zero; "orthogonal" ones of the critics, whose last
        layer is near zero too, as CORL's; or rlkit's, as those of CQL's authors, of actor and critics.
        """
        super().__init__()
        self.initial_log_std, self.minimum_log_std = initial_log_std, minimum_log_std
        self.actor = MLP(observations, *[actor_hidden_size or hidden_size] * num_layers, 2 * actions)
        last = self.actor[-1]
        assert isinstance(last, nn.Linear)
        nn.init.xavier_uniform_(last.weight, gain=1e-2)
        nn.init.zeros_(last.bias)
        self.critics = TwinCritics(
            observations,
            actions,
            hidden_size=hidden_size,
            num_layers=num_layers,
            last_gain=1e-2 if initialization == "orthogonal" else None,
        )
        if initialization == "rlkit":
            make_rlkit(list(self.actor.parameters()), last=1e-3)
            make_rlkit(
                [p for pair in zip(self.critics.weights, self.critics.biases, strict=True) for p in pair], last=3e-3
            )
        self.log_entropy_weight = nn.Parameter(torch.zeros(()))

    def policy(self, observations: Tensor) -> TanhNormal:
        """Return the policy at each observation."""
        return self.distribution(self.actor(observations))

    def distribution(self, outputs: Tensor) -> TanhNormal:
        """Return the policy that the actor's outputs [B, 2 * action] describe."""
        mean, log_std = outputs.chunk(2, dim=-1)
        return TanhNormal(mean, (log_std + self.initial_log_std).clamp(self.minimum_log_std, 2.0))


def make_rlkit(parameters: Sequence[Tensor], *, last: float) -> None:
    """Draw weights and biases, in turn, as rlkit does: hidden weights U(±1/sqrt(outputs)), biases 0.1, then U(±last).

    rlkit calls the outputs of a layer its fan-in. `parameters` are [outputs, inputs], or [..., inputs, outputs], and
    biases of as many numbers.
    """
    *hidden, last_weight, last_bias = parameters
    with torch.no_grad():
        for weight, bias in zip(hidden[::2], hidden[1::2], strict=True):
            outputs = bias.shape[-1]
            weight.uniform_(-1 / math.sqrt(outputs), 1 / math.sqrt(outputs))
            bias.fill_(0.1)
        last_weight.uniform_(-last, last)
        last_bias.uniform_(-last, last)


class SoftActorCriticLearner(Checkpointed):
    """The base of SAC and CQL: acting, the step of all networks, and their state.

    The losses of policy, entropy and critics share no weight that either could move, so one step of Adam does what
    three would.
    """

    return_conditioned = False
    context = 1

    def __init__(
        self,
        network: SoftActorCritic,
        *,
        sampler: Sampler,
        prepare: Callable[[Transitions], TDBatch],
        scale: ObservationScale,
        stream: TorchStream,
        learning_rates: tuple[float, float],
        tau: float,
        ahead: int,
        reward_scale: float,
        ema_decay: float,
    ) -> None:
        """`learning_rates` are those of policy and entropy weight, and of the critics."""
        self.network, self.sampler, self.stream, self.tau = network, sampler, stream, tau
        self.reward_scale = reward_scale
        self.batches: Batches[TDBatch] = Batches(sampler, prepare, ahead=ahead)
        self.observation_scale = scale
        self.target = deepcopy(network.critics).requires_grad_(False)
        flat = FlatParameters(network, self.target)
        self.weights, self.slow_weights = flat.values_of(network.critics), flat.values_of(self.target)
        parts = ([*network.actor.parameters(), network.log_entropy_weight], list(network.critics.parameters()))
        groups = [{"params": part, "lr": rate} for part, rate in zip(parts, learning_rates, strict=True)]
        self.optimizer = FlatAdam(flat, groups)
        scratch = Scratch()
        self.critics, self.judge = Pass(network.critics, scratch), Pass(network.critics, scratch)
        self.there, self.slow = Pass(network.actor, scratch), Pass(self.target, scratch)
        self.here = Pass(network.actor)  # whose way back follows the judge's
        self.acting = WeightAverage(network.actor, ema_decay)
        self.graphed: GraphedUpdate[TDBatch] = GraphedUpdate(self.descend, flat.values.device)
        self.steps = 0

    @torch.no_grad()
    def update(self) -> Metrics:
        """Take one step of policy, entropy and critics along the gradients of `losses`, which are written out."""
        batch = self.batches.next()
        with self.stream.active():
            metrics = self.graphed(batch, self.cloning)
        self.acting.update()
        self.steps += 1
        return metrics

    @property
    def cloning(self) -> bool:
        """Whether the policy imitates in this step."""
        return False

    def descend(self, batch: TDBatch, cloning: bool) -> Metrics:
        """Write the gradients for a batch and move all networks along them."""
        raise NotImplementedError

    @torch.no_grad()
    def act(self, history: History) -> Tensor:
        """Return the squashed mean of the policy, [B, action]."""
        outputs = self.acting.network(self.observation_scale(history.observations[:, -1]))
        return self.network.distribution(outputs).mean.tanh()

    @torch.no_grad()
    def action_values(self, history: History, actions: Tensor) -> Tensor:
        """Return the mean of both critics' values of these actions of the present, [B], in the data's rewards."""
        observations = self.observation_scale(history.observations[:, -1])
        values: Tensor = self.network.critics(observations, actions.float()).mean(dim=0)
        return values / self.reward_scale

    def improve(self, batch: TDBatch, target_entropy: float, *, cloning: bool) -> tuple[TanhNormal, Metrics]:
        """Write the gradients of policy and entropy weight; return the policy and both losses.

        Those of `policy_loss` and `entropy_loss`, written out: ∂ log π / ∂u = 2 tanh(u) for the number u that tanh
        squashes, and ∂ log π / ∂ log σ = -1. While `cloning` the density of the data's actions replaces the value.
        """
        outputs = self.here.forward(batch.observations)[0]
        here = self.network.distribution(outputs)
        chosen, density, noise = here.draw()
        weight, rows = self.network.log_entropy_weight.exp(), chosen.shape[0]
        if cloning:
            values = here.log_density_of(batch.actions)
            of_values = torch.zeros_like(chosen)
        else:
            both = self.judge.forward(torch.cat([batch.observations, chosen], dim=-1))[..., 0]
            values = both.amin(dim=0)
            of_pairs = self.judge.backward(smallest(both, -1 / rows), weights=False, rows=True)
            assert of_pairs is not None
            of_values = of_pairs[:, batch.observations.shape[1] :]
        of_mean = of_values * (1 - chosen.square()) + chosen * (2 * weight / rows)
        of_log_std = of_mean * here.log_std.exp() * noise - weight / rows
        if cloning:
            error = (batch.actions.clamp(-1 + 1e-6, 1 - 1e-6).atanh() - here.mean) * (-here.log_std).exp()
            of_mean = of_mean - error * (-here.log_std).exp() / rows
            of_log_std = of_log_std - (error.square() - 1) / rows
        raw = outputs[:, chosen.shape[1] :] + self.network.initial_log_std
        self.here.backward(torch.cat([of_mean, of_log_std * (raw == here.log_std)], dim=-1)[None])
        log_weight = self.network.log_entropy_weight.clone()  # as it was, for the metric
        assert self.network.log_entropy_weight.grad is not None
        torch.neg(density.mean() + target_entropy, out=self.network.log_entropy_weight.grad)
        return here, {
            "policy_loss": Deferred(lambda: policy_loss(values, density, weight)),
            "entropy_loss": Deferred(lambda: entropy_loss(log_weight, density, target_entropy)),
        }

    def step(self) -> None:
        """Move all networks along the gradients, then the target critics."""
        self.optimizer.descend()
        self.slow_weights.lerp_(self.weights, self.tau)


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
        ahead: int,
        reward_scale: float = 1.0,
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
            prepare=lambda drawn: td_batch(drawn, scale, discount=algorithm.discount, reward_scale=reward_scale),
            scale=scale,
            stream=stream,
            learning_rates=(algorithm.learning_rate, algorithm.learning_rate),
            tau=algorithm.tau,
            ahead=ahead,
            reward_scale=reward_scale,
            ema_decay=algorithm.ema_decay,
        )

    def descend(self, batch: TDBatch, cloning: bool) -> Metrics:
        """Write the gradients for a batch and move all networks along them."""
        target = self.critic_target(batch)
        _, losses = self.improve(batch, -float(self.actions), cloning=cloning)
        values = self.critics.forward(batch.pairs)[..., 0]
        self.critics.backward((values - target).mul_(2 / target.shape[0])[..., None])
        self.step()
        return {**losses, "td_loss": Deferred(lambda: bellman_error(values, target))}

    @torch.no_grad()
    def critic_target(self, batch: TDBatch) -> Tensor:
        """R + γ (min Q(s', a') - α log π(a' | s')), Haarnoja et al. (2018), arXiv 1812.05905, eq. 2 and 3, [B]."""
        actions, density, _ = self.network.distribution(self.there.forward(batch.following)[0]).draw()
        smaller = self.slow.forward(torch.cat([batch.following, actions], dim=-1)).amin(dim=0)[:, 0]
        soft = smaller - self.network.log_entropy_weight.exp() * density
        return torch.addcmul(batch.rewards, batch.discounts, soft)

    def losses(self, batch: TDBatch) -> dict[str, Tensor]:
        """Return the losses whose gradients `update` follows, for autograd."""
        network = self.network
        target = self.critic_target(batch)
        chosen, density, _ = network.policy(batch.observations).draw()
        values = network.critics(batch.observations, chosen, frozen=True).amin(dim=0)
        log_weight = network.log_entropy_weight
        return {
            "policy_loss": policy_loss(values, density, log_weight.detach().exp()),
            "entropy_loss": entropy_loss(log_weight, density, -float(self.actions)),
            "td_loss": bellman_error(network.critics(batch.observations, batch.actions), target),
        }
