"""Random ensemble mixture: Q-learning of random convex combinations of many heads (Agarwal et al. 2020)."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from baselines.networks import bellman_target
from baselines.value_networks import ValueLearner, ValueLearning, gather_actions, require_discrete_actions
from dtbench import Metrics, TrajectoryDataset
from dtbench.data import Transitions


@dataclass(frozen=True)
class REM(ValueLearning):
    """`num_heads` Q-functions on one network, mixed by random weights in each minibatch; actions take their mean."""

    num_heads: int = 200  # K, the Q-functions that are mixed (Agarwal et al. 2020)

    def learner(self, dataset: TrajectoryDataset, *, seed: int, device: torch.device) -> "REMLearner":
        """Build both networks; raise IncompatibleTask for continuous actions."""
        require_discrete_actions("rem", dataset)
        return REMLearner(self, dataset, estimates=self.num_heads, seed=seed, device=device)


def random_mixture(num_heads: int, device: torch.device) -> Tensor:
    """α: uniform numbers divided by their sum, [heads]: Agarwal et al. (2020)."""
    numbers = torch.rand(num_heads, device=device)
    return numbers / numbers.sum()


class REMLearner(ValueLearner):
    """A learner that descends the Huber loss of one mixture of heads a minibatch, drawn from the learner's stream."""

    def loss(self, batch: Transitions) -> tuple[Tensor, Metrics]:
        """Return the loss of a mixture drawn for this minibatch."""
        with self.stream.active():
            mixture = random_mixture(self.network.shape[1], batch.rewards.device)
        temporal = self.mixture_loss(batch, mixture)
        return temporal, {"td_loss": temporal.detach()}

    def mixture_loss(self, batch: Transitions, mixture: Tensor) -> Tensor:
        """L(Σ α_k Q_k(s, a) - r - γ max_a' Σ α_k Q'_k(s', a')), the Huber loss L at 1; the mean over the batch.

        Agarwal et al. (2020) and their code: one α for both networks, and the maximum is that of the mixture.
        """
        values = gather_actions(self.network(batch.observations) @ mixture, self.labels(batch))
        with torch.no_grad():
            following = (self.target(batch.next_observations) @ mixture).amax(dim=-1)
        return F.smooth_l1_loss(
            values, bellman_target(batch.rewards, batch.terminals, following, self.algorithm.discount)
        )
