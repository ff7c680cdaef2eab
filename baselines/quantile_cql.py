"""Conservative Q-learning on QR-DQN: the discrete CQL of the Atari experiments (Kumar et al. 2020)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from baselines.discrete_cql import conservative_penalty
from baselines.qr_dqn import QRDQN, QRDQNLearner
from baselines.value_networks import gather_actions, require_discrete_actions
from dtbench import Metrics, TrajectoryDataset
from dtbench.data import Transitions


@dataclass(frozen=True)
class QuantileCQL(QRDQN):
    """QR-DQN and the penalty CQL(H) on its means (Kumar et al. 2020, eq. 4)."""

    # weight of the penalty CQL(H), eq. 4: the official minq_weight for 1 % of the data; for 10 % it is 1
    alpha: float = 4.0

    def learner(self, dataset: TrajectoryDataset, *, seed: int, device: torch.device) -> "QuantileCQLLearner":
        """Build both networks; raise IncompatibleTask for continuous actions."""
        require_discrete_actions("quantile_cql", dataset)
        return QuantileCQLLearner(self, dataset, estimates=self.quantiles, seed=seed, device=device)


class QuantileCQLLearner(QRDQNLearner):
    """A learner that descends the quantile Huber loss and the weighted penalty."""

    algorithm: QuantileCQL

    def loss(self, batch: Transitions) -> tuple[Tensor, Metrics]:
        """Return the sum of both terms, and each of them, the penalty without its weight."""
        quantiles = self.network(batch.observations)
        temporal = self.temporal_loss(quantiles, batch)
        values = quantiles.mean(dim=-1)
        penalty = conservative_penalty(values, gather_actions(values, self.labels(batch)))
        return temporal + self.algorithm.alpha * penalty, {"td_loss": temporal.detach(), "penalty": penalty.detach()}
