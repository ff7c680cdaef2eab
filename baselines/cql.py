"""Conservative Q-learning for continuous actions (Kumar et al. 2020): CQL(H) on soft actor-critic."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from baselines.networks import bellman_error, bellman_target, observation_scale, require_flat_boxes
from baselines.sac import SoftActorCritic, SoftActorCriticLearner, TanhNormal, entropy_loss, policy_loss
from dtbench import Metrics, TrajectoryDataset, TransitionSampler
from dtbench.data import TorchStream, generator

Backup = Literal["sampled", "soft", "mean"]


@dataclass(frozen=True)
class CQL:
    """Soft actor-critic whose critics also push down the values of actions outside the data.

    The defaults are those of CORL, the same on all of D4RL's Gym tasks. `backup` is the value of the next step: that
    of a sampled action (`sampled`: the authors and CORL), that with its entropy (`soft`: SAC), or that of the
    policy's mean (`mean`: d3rlpy).
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "corl": {},
        # The authors' examples/cql_mujoco_new.py without the Lagrange multiplier; their README gives 5 or 10.
        "official": {
            "policy_learning_rate": 1e-4,
            "alpha": 5.0,
            "cloning_steps": 40_000,
            "normalize_observations": False,
            "orthogonal": False,
            "initial_log_std": 0.0,
            "minimum_log_std": -5.0,
        },
        # Its reproduction scripts, without the Lagrange multiplier; they raise the penalty to 10 on medium-v0.
        "d3rlpy": {
            "policy_learning_rate": 1e-4,
            "alpha": 5.0,
            "backup": "mean",
            "normalize_observations": False,
            "orthogonal": False,
            "initial_log_std": 0.0,
        },
    }

    hidden_size: int = 256
    num_layers: int = 3
    batch_size: int = 256
    policy_learning_rate: float = 3e-5  # of the entropy's weight too
    critic_learning_rate: float = 3e-4
    discount: float = 0.99
    tau: float = 5e-3  # Polyak averaging of the target critics
    alpha: float = 10.0  # weight of the CQL(H) penalty
    sampled_actions: int = 10  # of each kind: uniform, the policy's, and the policy's at the next step
    backup: Backup = "sampled"
    cloning_steps: int = 0  # first steps, in which the policy imitates
    orthogonal: bool = True  # the critics' first weights
    initial_log_std: float = -1.0  # added to the policy's output
    minimum_log_std: float = -20.0  # the maximum is 2
    normalize_observations: bool = True

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
                orthogonal=algorithm.orthogonal,
                initial_log_std=algorithm.initial_log_std,
                minimum_log_std=algorithm.minimum_log_std,
            )
        super().__init__(
            network.to(device),
            sampler=TransitionSampler(dataset, batch_size=algorithm.batch_size, rng=generator(seed, 1), device=device),
            scale=observation_scale(dataset, normalize=algorithm.normalize_observations, device=device),
            stream=stream,
            learning_rates=(algorithm.policy_learning_rate, algorithm.critic_learning_rate),
            tau=algorithm.tau,
        )

    def update(self) -> Metrics:
        """Take one step of policy, entropy and critics."""
        batch = self.sampler.sample()
        observations = self.observation_scale(batch.observations)
        # Where nothing follows, the penalty looks at the policy's actions here instead; the backup is the reward.
        raw = torch.where(batch.terminals[:, None], batch.observations, batch.next_observations)
        following = self.observation_scale(raw)
        actions = batch.actions.float()
        with self.stream.active():
            here = self.network.policy(observations)
            with torch.no_grad():
                there = self.network.policy(following)
                target = bellman_target(
                    batch.rewards, batch.terminals, self.following_value(following, there), self.algorithm.discount
                )
            losses = {
                **self.policy_losses(observations, actions, here),
                **self.critic_losses(observations, actions, (here.detached(), there), target),
            }
        return self.step(losses)

    def following_value(self, following: Tensor, there: TanhNormal) -> Tensor:
        """Return the smaller of the target critics' two values of the next step, [B]."""
        if self.algorithm.backup == "mean":
            mean_value: Tensor = self.target(following, there.mean.tanh()).amin(dim=0)
            return mean_value
        actions, density = there.sample(1)
        value: Tensor = self.target(following, actions[:, 0]).amin(dim=0)
        if self.algorithm.backup == "soft":
            return value - self.network.log_entropy_weight.exp() * density[:, 0]
        return value

    def policy_losses(self, observations: Tensor, actions: Tensor, here: TanhNormal) -> dict[str, Tensor]:
        """Return the losses of policy and entropy weight; in the first `cloning_steps` the policy imitates."""
        chosen, density = (drawn[:, 0] for drawn in here.sample(1))
        log_weight = self.network.log_entropy_weight
        if self.steps < self.algorithm.cloning_steps:
            values = here.log_density_of(actions)
        else:
            values = self.network.critics(observations, chosen, frozen=True).amin(dim=0)
        return {
            "policy_loss": policy_loss(values, density, log_weight.detach().exp()),
            "entropy_loss": entropy_loss(log_weight, density, -float(self.actions)),
        }

    def critic_losses(
        self, observations: Tensor, actions: Tensor, policies: tuple[TanhNormal, TanhNormal], target: Tensor
    ) -> dict[str, Tensor]:
        """Return the Bellman error and the penalty; the critics see the data's and all drawn actions at once."""
        count = self.algorithm.sampled_actions
        with torch.no_grad():
            drawn, densities = zip(*(policy.sample(count) for policy in policies), strict=True)
            uniform = torch.rand(len(actions), count, self.actions, device=actions.device) * 2 - 1
            even = torch.full_like(densities[0], -self.actions * math.log(2))  # a density of 1/2 for each number
        values = self.network.critics(observations, torch.cat([actions[:, None], *drawn, uniform], dim=1))
        taken = values[..., 0]
        penalty = conservative_penalty(values[..., 1:], torch.cat([*densities, even], dim=1), taken)
        return {"td_loss": bellman_error(taken, target), "penalty": self.algorithm.alpha * penalty}
