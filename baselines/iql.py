"""Implicit Q-learning (Kostrikov et al. 2021): values of the data's actions only, then weighted imitation."""

import math
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.averages import WeightAverage
from baselines.batches import TDBatch, td_batches
from baselines.checkpoint import Checkpointed
from baselines.cuda_graphs import GraphedUpdate
from baselines.flat import FlatAdam, FlatParameters
from baselines.layers import TANH_BACKWARD, Pass, Scratch
from baselines.networks import (
    Deferred,
    TwinCritics,
    bellman_error,
    cosine,
    make_orthogonal,
    observation_scale,
    require_flat_boxes,
    reward_scale,
)
from dtbench import History, Metrics, TrajectoryDataset
from dtbench.data import TorchStream
from dtbench.nn import MLP


@dataclass(frozen=True)
class IQL:
    """Expectile regression of the value, TD for the critics, advantage-weighted regression for the actor.

    The defaults are those of CORL. On hopper-medium and hopper-medium-replay it sets `deterministic`,
    `normalize_rewards` and `tau: 0.001`, on hopper-medium-expert `expectile: 0.5` and `temperature: 6`.
    """

    version: ClassVar[int] = 2  # 2: more hyperparameters
    family: ClassVar[str] = "td"

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "corl": {"decay_steps": "train_steps"},
        # The authors' code: Gym rewards are scaled, observations are not. It takes the value's step before the
        # advantages of actor and critics; here, as in CORL, all three losses come before any step.
        "official": {
            "decay_steps": "train_steps",
            "normalize_observations": False,
            "normalize_rewards": True,
            "minimum_log_std": -5.0,
            "orthogonal": True,
        },
    }

    hidden_size: int = 256  # units of a hidden layer
    num_layers: int = 2  # hidden layers of each network
    batch_size: int = 256  # transitions in a batch
    learning_rate: float = 3e-4  # step size of Adam, for value, critics and actor
    discount: float = 0.99  # factor of a reward one step later, in [0, 1]
    tau: float = 5e-3  # share of the network that the target takes over at each of its updates (Polyak), in (0, 1]
    # τ of eq. 5, in (0, 1): 0.5 is the mean, towards 1 it nears the maximum over the data's actions
    expectile: float = 0.7
    # β of eq. 7, 0 or more: the larger, the more weight on good actions; at 0 the actor clones behaviour
    temperature: float = 3.0
    maximum_weight: float = 100.0  # largest weight exp(β A) of a transition in the actor's loss
    deterministic: bool = False  # train the actor by squared error in place of a Gaussian's likelihood
    minimum_log_std: float = -20.0  # lowest log of the actor's standard deviation; the highest is 2
    # gradient steps over which the actor's learning rate falls to 0 as a cosine; None: it stays
    decay_steps: int | None = None
    orthogonal: bool = False  # orthogonal first weights with a gain of sqrt(2) and biases of 0; else PyTorch's own
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
        return self.tau

    def learner(self, dataset: TrajectoryDataset, *, seed: int, device: torch.device) -> "IQLLearner":
        """Build the networks; raise IncompatibleTask unless both spaces are flat Boxes, actions bounded."""
        require_flat_boxes("iql", dataset)
        return IQLLearner(self, dataset, seed=seed, device=device)


def expectile_loss(error: Tensor, expectile: float) -> Tensor:
    """|τ - 1(u < 0)| u², Kostrikov et al. (2021), eq. 5."""
    weight = torch.where(error < 0, 1 - expectile, expectile)
    return (weight * error.square()).mean()


def expectile_gradient(error: Tensor, expectile: float) -> Tensor:
    """Return the gradient of `expectile_loss` for its errors, [B]."""
    return F.leaky_relu(error, (1 - expectile) / expectile).mul_(2 * expectile / error.shape[0])


def advantage_weight(advantage: Tensor, temperature: float, maximum: float) -> Tensor:
    """Exp(β A), cut off at `maximum`: the weight in eq. 7."""
    return (temperature * advantage).exp_().clamp_(max=maximum)


def effective_share(weight: Tensor) -> Tensor:
    """Return the effective sample size of weights [B] over B, (Σ w)² / (B Σ w²), Kish (1965): 1 if all are equal."""
    return weight.sum().square() / (weight.shape[0] * weight.square().sum())


def negative_log_likelihood(mean: Tensor, log_std: Tensor, actions: Tensor) -> Tensor:
    """- log N(a; μ, σ), summed over the numbers of an action, [B].

    σ is one number for each number of an action, whatever the observation; d3rlpy squeezes its logarithm between
    -5 and 2 by a sigmoid where all others cut it off.
    """
    surprise = ((actions - mean) / log_std.exp()).square() / 2 + log_std + math.log(2 * math.pi) / 2
    return surprise.sum(dim=-1)


def squared_error(mean: Tensor, actions: Tensor) -> Tensor:
    """Return (a - μ)², summed over the numbers of an action, [B]."""
    return (actions - mean).square().sum(dim=-1)


class IQLNetwork(nn.Module):
    """An actor, a value function and two critics."""

    def __init__(self, algorithm: IQL, observations: int, actions: int) -> None:
        super().__init__()
        hidden_size, num_layers = algorithm.hidden_size, algorithm.num_layers
        self.actor = MLP(observations, *[hidden_size] * num_layers, actions)
        self.log_std = None if algorithm.deterministic else nn.Parameter(torch.zeros(actions))
        self.value = MLP(observations, *[hidden_size] * num_layers, 1)
        self.critics = TwinCritics(
            observations,
            actions,
            hidden_size=hidden_size,
            num_layers=num_layers,
            last_gain=math.sqrt(2) if algorithm.orthogonal else None,
        )
        if algorithm.orthogonal:
            for network in (self.actor, self.value):
                make_orthogonal([layer for layer in network if isinstance(layer, nn.Linear)], last_gain=math.sqrt(2))

    def act(self, observations: Tensor) -> Tensor:
        """Return the actor's mean in [-1, 1]; its Gaussian is not squashed."""
        predicted: Tensor = self.actor(observations)
        return predicted.tanh()


class IQLLearner(Checkpointed):
    """Actor, value and critics, and target critics.

    The three losses share no weight that either could move, and CORL takes all of them before any step; so one step
    of Adam does what three would.
    """

    return_conditioned = False
    context = 1

    def __init__(self, algorithm: IQL, dataset: TrajectoryDataset, *, seed: int, device: torch.device) -> None:
        self.algorithm = algorithm
        self.observation_scale = observation_scale(dataset, normalize=algorithm.normalize_observations, device=device)
        self.reward_scale = reward_scale(dataset, normalize=algorithm.normalize_rewards)
        self.batches = td_batches(
            algorithm, dataset, self.observation_scale, reward_scale=self.reward_scale, seed=seed, device=device
        )
        self.stream = TorchStream(seed, device)
        with self.stream.active():
            self.network = IQLNetwork(algorithm, *require_flat_boxes("iql", dataset)).to(device)
        self.target = deepcopy(self.network.critics).requires_grad_(False)
        self._lay_out()
        self.acting = WeightAverage(self.network.actor, algorithm.ema_decay)
        self.steps = 0

    def _lay_out(self) -> None:
        network = self.network
        flat = FlatParameters(network, self.target)
        self.weights, self.slow_weights = flat.values_of(network.critics), flat.values_of(self.target)
        actor = [p for name, p in network.named_parameters() if name.startswith(("actor", "log_std"))]
        others = [*network.value.parameters(), *network.critics.parameters()]
        groups = [{"params": actor}, {"params": others}]
        self.optimizer = FlatAdam(flat, groups, lr=self.algorithm.learning_rate)
        scratch = Scratch()
        self.actor, self.value = Pass(network.actor, scratch), Pass(network.value, scratch)
        self.judges = Pass([network.value, network.critics, self.target], scratch)
        self.graphed: GraphedUpdate[TDBatch] = GraphedUpdate(self._descend, flat.values.device)

    @torch.inference_mode()
    def update(self) -> Metrics:
        """Take one step of value, critics and actor: that along the gradients of `losses`, which are written out."""
        left = cosine(self.steps, self.algorithm.decay_steps)
        self.optimizer.set_rate(0, self.algorithm.learning_rate * left)
        metrics = self.graphed(self.batches.next())
        self.acting.update()
        self.steps += 1
        return metrics

    def _descend(self, batch: TDBatch) -> Metrics:
        a = self.algorithm
        following = self.value.forward(batch.following)[0, :, 0]
        target = torch.addcmul(batch.rewards, batch.discounts, following)
        judged = self.judges.forward(batch.observations, batch.pairs, batch.pairs)[..., 0]
        value, values, slow = judged[0], judged[1:3], judged[3:].amin(dim=0)
        advantage = slow - value
        gradient = torch.empty_like(judged[:3])
        torch.neg(expectile_gradient(advantage, a.expectile), out=gradient[0])
        torch.sub(values, target, out=gradient[1:]).mul_(2 / target.shape[0])
        self.judges.backward(gradient[..., None])
        output = self.actor.forward(batch.observations)[0]
        weight = advantage_weight(advantage, a.temperature, a.maximum_weight)
        log_std = self._log_std()
        self.actor.backward(self._actor_gradient(output, log_std, batch.actions, weight)[None])
        self.optimizer.descend()
        self.slow_weights.lerp_(self.weights, a.tau)
        return {
            "value_loss": Deferred(lambda: expectile_loss(advantage, a.expectile)),
            "critic_loss": Deferred(lambda: bellman_error(values, target)),
            "actor_loss": Deferred(lambda: self._imitation(output, log_std, batch.actions, weight)),
            "effective_share": Deferred(lambda: effective_share(weight)),
        }

    def losses(self, batch: TDBatch) -> dict[str, Tensor]:
        """Return the losses whose gradients `update` follows, for autograd."""
        network, a = self.network, self.algorithm
        with torch.no_grad():
            following = network.value(batch.following).squeeze(-1)
            slow = self.target(batch.observations, batch.actions).amin(dim=0)
        target = batch.rewards + batch.discounts * following
        advantage = slow - network.value(batch.observations).squeeze(-1)
        weight = advantage_weight(advantage.detach(), a.temperature, a.maximum_weight)
        return {
            "value_loss": expectile_loss(advantage, a.expectile),
            "critic_loss": bellman_error(network.critics(batch.observations, batch.actions), target),  # eq. 6
            "actor_loss": self._imitation(network.actor(batch.observations), self._log_std(), batch.actions, weight),
        }

    def _log_std(self) -> Tensor | None:
        """Return log standard deviations of the numbers of an action; None if the actor is deterministic."""
        log_std = self.network.log_std
        return None if log_std is None else log_std.clamp(self.algorithm.minimum_log_std, 2.0)

    def _imitation(self, output: Tensor, log_std: Tensor | None, actions: Tensor, weight: Tensor) -> Tensor:
        """Advantage-weighted regression, Kostrikov et al. (2021), eq. 7."""
        mean = output.tanh()
        errors = squared_error(mean, actions) if log_std is None else negative_log_likelihood(mean, log_std, actions)
        return (weight * errors).mean()

    def _actor_gradient(self, output: Tensor, log_std: Tensor | None, actions: Tensor, weight: Tensor) -> Tensor:
        """Return the gradient of eq. 7 for the actor's outputs, [B, action], and write that for its deviations."""
        mean, share = output.tanh(), (weight / weight.shape[0])[:, None]
        error = mean - actions
        gradient = error * share
        if log_std is None:
            gradient.mul_(2)
        else:
            assert self.network.log_std is not None
            precision = (-2 * log_std).exp()
            of_log_std = share.sum() - precision * (gradient * error).sum(dim=0)
            torch.mul(of_log_std, log_std == self.network.log_std, out=self.network.log_std.grad)
            gradient.mul_(precision)
        output_gradient: Tensor = TANH_BACKWARD(gradient, mean)
        return output_gradient

    @torch.no_grad()
    def act(self, history: History) -> Tensor:
        """Return the mean of the policy, [B, action]."""
        predicted: Tensor = self.acting.network(self.observation_scale(history.observations[:, -1]))
        return predicted.tanh()

    @torch.no_grad()
    def action_values(self, history: History, actions: Tensor) -> Tensor:
        """Return the mean of both critics' values of these actions of the present, [B], in the data's rewards."""
        observations = self.observation_scale(history.observations[:, -1])
        values: Tensor = self.network.critics(observations, actions.float()).mean(dim=0)
        return values / self.reward_scale
