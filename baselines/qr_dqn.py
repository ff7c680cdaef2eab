"""QR-DQN: Q-learning of the distribution of returns, by quantile regression (Dabney et al. 2018)."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from baselines.networks import bellman_target
from baselines.value_networks import ValueLearner, ValueLearning, gather_actions, require_discrete_actions
from dtbench import Metrics, TrajectoryDataset
from dtbench.data import Transitions


@dataclass(frozen=True)
class QRDQN(ValueLearning):
    """`quantiles` of every action's return; an action is worth their mean.

    The target network chooses the action that follows, as in the paper and in Dopamine: no double Q-learning.
    """

    quantiles: int = 200  # N, the quantiles estimated of every action's return (Dabney et al. 2018)

    def learner(self, dataset: TrajectoryDataset, *, seed: int, device: torch.device) -> "QRDQNLearner":
        """Build both networks; raise IncompatibleTask for continuous actions."""
        require_discrete_actions("qr_dqn", dataset)
        return QRDQNLearner(self, dataset, estimates=self.quantiles, seed=seed, device=device)


def quantile_huber_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Sum over i of the mean over j of |τ_i - 1(u < 0)| L(u), u = target_j - predicted_i; the mean over the batch.

    Dabney et al. (2018), eq. 10 and Algorithm 1, with κ = 1 in L and the midpoints of Lemma 2 for τ.
    `predicted` is [B, quantiles]; of `target` every row is a sample of returns.
    """
    count = predicted.shape[1]
    levels = ((torch.arange(count, device=predicted.device) + 0.5) / count)[:, None]
    shape = (-1, count, target.shape[1])
    predicted, target = predicted[:, :, None].expand(shape), target[:, None, :].expand(shape)
    weight = torch.where(target < predicted, 1 - levels, levels)
    huber = F.smooth_l1_loss(predicted, target, reduction="none")
    return (weight * huber).mean(dim=2).sum(dim=1).mean()


class QRDQNLearner(ValueLearner):
    """A learner that descends the quantile Huber loss of the data's actions."""

    def loss(self, batch: Transitions) -> tuple[Tensor, Metrics]:
        """Return the quantile Huber loss."""
        temporal = self.temporal_loss(self.network(batch.observations), batch)
        return temporal, {"td_loss": temporal.detach()}

    def temporal_loss(self, quantiles: Tensor, batch: Transitions) -> Tensor:
        """Return the loss of predicted [B, actions, quantiles] against the target network's of the next step."""
        return quantile_huber_loss(gather_actions(quantiles, self.labels(batch)), self.target_quantiles(batch))

    @torch.no_grad()
    def target_quantiles(self, batch: Transitions) -> Tensor:
        """R + γ θ_j(s', a*), where a* has the target network's highest mean, [B, quantiles]."""
        following = self.target(batch.next_observations)
        best = gather_actions(following, following.mean(dim=-1).argmax(dim=-1))
        return bellman_target(batch.rewards[:, None], batch.terminals[:, None], best, self.algorithm.discount)
