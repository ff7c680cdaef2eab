"""Conservative Q-learning for continuous actions (Kumar et al. 2020): CQL(H) on soft actor-critic."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from baselines.batches import TDBatch, rows_ahead, td_batch, transition_sampler
from baselines.networks import Deferred, bellman_error, observation_scale, require_flat_boxes, reward_scale
from baselines.sac import (
    Initialization,
    SoftActorCritic,
    SoftActorCriticLearner,
    TanhNormal,
    entropy_loss,
    policy_loss,
)
from dtbench import Metrics, TrajectoryDataset
from dtbench.data import TorchStream, Transitions

Backup = Literal["sampled", "soft", "mean"]


@dataclass(frozen=True)
class CQL:
    """Soft actor-critic whose critics also push down the values of actions outside the data.

    The defaults are those of CORL, which adds `normalize_rewards` on hopper-medium. `backup` is the value of the next
    step: that of a sampled action (`sampled`: the authors and CORL), that with its entropy (`soft`: SAC), or that of
    the policy's mean (`mean`: d3rlpy).
    """

    version: ClassVar[int] = 2  # 2: more hyperparameters
    family: ClassVar[str] = "td"

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "corl": {},
        # The authors' examples/cql_mujoco_new.py without the Lagrange multiplier; their README gives 5 or 10.
        "official": {
            "policy_learning_rate": 1e-4,
            "alpha": 5.0,
            "cloning_steps": 40_000,
            "normalize_observations": False,
            "initialization": "rlkit",
            "initial_log_std": 0.0,
            "minimum_log_std": -5.0,
        },
        # Its reproduction scripts, without the Lagrange multiplier; they raise the penalty to 10 on medium-v0.
        "d3rlpy": {
            "policy_learning_rate": 1e-4,
            "alpha": 5.0,
            "backup": "mean",
            "normalize_observations": False,
            "initialization": "torch",
            "initial_log_std": 0.0,
        },
    }

    hidden_size: int = 256  # units of a hidden layer
    num_layers: int = 3  # hidden layers of each network
    batch_size: int = 256  # transitions in a batch
    policy_learning_rate: float = 3e-5  # step size of Adam, for the policy and the entropy's weight
    critic_learning_rate: float = 3e-4  # step size of Adam, for the critics
    discount: float = 0.99  # factor of a reward one step later, in [0, 1]
    tau: float = 5e-3  # share of the network that the target takes over at each of its updates (Polyak), in (0, 1]
    alpha: float = 10.0  # weight of the penalty CQL(H), eq. 4; 0: soft actor-critic
    # actions in the penalty's log-sum-exp of each kind: uniform, the policy's, and its at the next step
    sampled_actions: int = 10
    backup: Backup = "sampled"  # the value of the next step: sampled, soft or mean, see above
    cloning_steps: int = 0  # first gradient steps, in which the policy imitates
    # first weights: torch, orthogonal or rlkit, see `baselines.sac.SoftActorCritic`
    initialization: Initialization = "orthogonal"
    initial_log_std: float = -1.0  # added to the log of the standard deviation that the policy's network gives
    minimum_log_std: float = -20.0  # lowest log of the policy's standard deviation; the highest is 2
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

    def learner(self, dataset: TrajectoryDataset, *, seed: int, device: torch.device) -> "CQLLearner":
        """Build policy and critics; raise IncompatibleTask unless both spaces are flat Boxes, actions bounded."""
        require_flat_boxes("cql", dataset)
        return CQLLearner(self, dataset, seed=seed, device=device)


def conservative_penalty(values: Tensor, log_density: Tensor, taken: Tensor) -> Tensor:
    """Log sum_a exp(Q(s, a) - log μ(a | s)) - Q(s, a of the data), Kumar et al. (2020), eq. 4 and appendix F.

    `values` [2, B, M] of actions drawn with `log_density` [B, M], and `taken` [2, B]; summed over both critics.
    The logarithm of the number of actions, a constant, is left out as in all published code. d3rlpy multiplies it by
    a learned weight by default (the paper's Lagrange version); the authors' D4RL runs and CORL do not.
    """
    return ((values - log_density).logsumexp(dim=-1) - taken).mean(dim=-1).sum()


class CQLLearner(SoftActorCriticLearner):
    """A learner that takes CQL's steps.

    CORL takes all losses before any step, so the order of SAC's one step is its order too.
    """

    def __init__(self, algorithm: CQL, dataset: TrajectoryDataset, *, seed: int, device: torch.device) -> None:
        self.algorithm = algorithm
        observations, self.actions = require_flat_boxes("cql", dataset)
        stream = TorchStream(seed, device)
        with stream.active():
            network = SoftActorCritic(
                observations,
                self.actions,
                hidden_size=algorithm.hidden_size,
                num_layers=algorithm.num_layers,
                initialization=algorithm.initialization,
                initial_log_std=algorithm.initial_log_std,
                minimum_log_std=algorithm.minimum_log_std,
            )
        super().__init__(
            network.to(device),
            sampler=transition_sampler(algorithm, dataset, seed=seed, device=device),
            prepare=self._prepared,
            scale=observation_scale(dataset, normalize=algorithm.normalize_observations, device=device),
            stream=stream,
            learning_rates=(algorithm.policy_learning_rate, algorithm.critic_learning_rate),
            tau=algorithm.tau,
            ahead=rows_ahead(dataset),
            reward_scale=reward_scale(dataset, normalize=algorithm.normalize_rewards),
            ema_decay=algorithm.ema_decay,
        )

    def _prepared(self, drawn: Transitions) -> TDBatch:
        # Where nothing follows, the penalty looks at the policy's actions here instead; the backup is the reward.
        following = torch.where(drawn.terminals[:, None], drawn.observations, drawn.next_observations)
        whole = replace(drawn, next_observations=following)
        return td_batch(
            whole, self.observation_scale, discount=self.algorithm.discount, reward_scale=self.reward_scale
        )

    @property
    def cloning(self) -> bool:
        """Whether the policy imitates in this step."""
        return self.steps < self.algorithm.cloning_steps

    def descend(self, batch: TDBatch, cloning: bool) -> Metrics:
        """Write the gradients for a batch and move all networks along them."""
        a, rows = self.algorithm, batch.rewards.shape[0]
        there = self.network.distribution(self.there.forward(batch.following)[0])
        target = torch.addcmul(batch.rewards, batch.discounts, self.following_value(batch.following, there))
        here, losses = self.improve(batch, -float(self.actions), cloning=cloning)
        actions, densities = self.drawn_actions(batch.actions, here, there)
        pairs = torch.cat([batch.observations[:, None].expand(-1, actions.shape[1], -1), actions], dim=-1)
        values = self.critics.forward(pairs.flatten(0, 1)).view(2, rows, -1)
        taken, others = values[..., 0], values[..., 1:]
        gradient = torch.empty_like(values)
        torch.mul(taken - target, 2 / rows, out=gradient[..., 0]).sub_(a.alpha / rows)
        torch.mul((others - densities).softmax(dim=-1), a.alpha / rows, out=gradient[..., 1:])
        self.critics.backward(gradient.view(2, -1, 1))
        self.step()
        return {
            **losses,
            "td_loss": Deferred(lambda: bellman_error(taken, target)),
            "penalty": Deferred(lambda: a.alpha * conservative_penalty(others, densities, taken)),
        }

    def losses(self, batch: TDBatch) -> dict[str, Tensor]:
        """Return the losses whose gradients `update` follows, for autograd."""
        network, a = self.network, self.algorithm
        here, log_weight = network.policy(batch.observations), network.log_entropy_weight
        with torch.no_grad():
            there = network.policy(batch.following)
            target = batch.rewards + batch.discounts * self.following_value(batch.following, there)
        chosen, density, _ = here.draw()
        if self.cloning:
            value = here.log_density_of(batch.actions)
        else:
            value = network.critics(batch.observations, chosen, frozen=True).amin(dim=0)
        actions, densities = self.drawn_actions(batch.actions, here.detached(), there)
        values = network.critics(batch.observations, actions)
        taken = values[..., 0]
        return {
            "policy_loss": policy_loss(value, density, log_weight.detach().exp()),
            "entropy_loss": entropy_loss(log_weight, density, -float(self.actions)),
            "td_loss": bellman_error(taken, target),
            "penalty": a.alpha * conservative_penalty(values[..., 1:], densities, taken),
        }

    def following_value(self, following: Tensor, there: TanhNormal) -> Tensor:
        """Return the smaller of the target critics' two values of the next step, [B]."""
        if self.algorithm.backup == "mean":
            return self._slow_value(following, there.mean.tanh())
        actions, density, _ = there.draw()
        value = self._slow_value(following, actions)
        if self.algorithm.backup == "soft":
            return value - self.network.log_entropy_weight.exp() * density
        return value

    def _slow_value(self, observations: Tensor, actions: Tensor) -> Tensor:
        return self.slow.forward(torch.cat([observations, actions], dim=-1)).amin(dim=0)[:, 0]

    @torch.no_grad()
    def drawn_actions(self, actions: Tensor, here: TanhNormal, there: TanhNormal) -> tuple[Tensor, Tensor]:
        """Return actions [B, 1 + M, action], the data's first, and the log densities [B, M] of those drawn."""
        count = self.algorithm.sampled_actions
        drawn, densities = zip(*(policy.sample(count) for policy in (here, there)), strict=True)
        uniform = torch.rand(len(actions), count, self.actions, device=actions.device) * 2 - 1
        even = torch.full_like(densities[0], -self.actions * math.log(2))  # a density of 1/2 for each number
        return torch.cat([actions[:, None], *drawn, uniform], dim=1), torch.cat([*densities, even], dim=1)
