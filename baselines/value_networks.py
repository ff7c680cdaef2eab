"""The base of QR-DQN, its conservative form and REM: hyperparameters, network and learner."""

from abc import ABC, abstractmethod
from copy import deepcopy
from dataclasses import dataclass
from typing import ClassVar

import gymnasium as gym
import torch
from torch import Tensor, nn

from baselines.averages import WeightAverage
from baselines.batches import Batches, rows_ahead, transition_sampler
from baselines.checkpoint import Checkpointed
from baselines.networks import descend, flat_observations, flat_size
from dtbench import History, IncompatibleTask, InvalidValue, Metrics, TrajectoryDataset
from dtbench.data import TorchStream, Transitions
from dtbench.nn import MLP, Linear, NatureEncoder, greedy_actions, image_scale, indices_of, is_image


@dataclass(frozen=True)
class ValueLearning:
    """Hyperparameters of Q-learning with a target network that is a copy of the network from some steps ago.

    The defaults are those of Agarwal et al. (2020) on logged Atari games, which the official code of discrete CQL
    (Kumar et al. 2020) took over.
    """

    family: ClassVar[str] = "td"

    channels: tuple[int, int, int] = (32, 64, 64)  # filters of the three convolutions (Mnih et al. 2015): images alone
    # subtract the data's mean image and divide, see `dtbench.nn.ImageScale`; not the papers'
    standardize_images: bool = False
    hidden: int = 512  # units of the layer that follows the convolutions: images alone
    hidden_size: int = 256  # units of a hidden layer of the MLP: vectors and indices alone
    num_layers: int = 2  # hidden layers of the MLP: vectors and indices alone
    batch_size: int = 32  # transitions in a batch
    learning_rate: float = 5e-5  # step size of Adam
    adam_epsilon: float = 0.01 / 32  # what Adam adds to the root of the second moment
    discount: float = 0.99  # factor of a reward one step later, in [0, 1]
    # gradient steps between copies to the target network: theirs are 8000 agent steps, every fourth of which learns
    target_every: int = 2000
    balance_returns: bool = False  # draw transitions evenly over returns, see `dtbench.data.balanced_weights`
    # share that the average of the weights used for acting keeps at each step, in [0, 1); 0: no average
    ema_decay: float = 0.0

    @property
    def backups_per_step(self) -> float:
        """Bellman backups that a gradient step brings to the target network, on average."""
        return 1 / self.target_every


class ValueNetwork(nn.Module):
    """Estimates of the values of actions, [B, *observation] to [B, actions, estimates]; their mean is the value.

    Images go through the Nature network, vectors and one-hot indices through an MLP.
    """

    def __init__(self, algorithm: ValueLearning, dataset: TrajectoryDataset, *, actions: int, estimates: int) -> None:
        super().__init__()
        self.space, self.shape = dataset.observation_space, (actions, estimates)
        outputs = actions * estimates
        self.stack: nn.Sequential
        if is_image(self.space):
            frames = (self.space.shape or ())[0]
            self.scale: nn.Module = image_scale(dataset, standardize=algorithm.standardize_images)
            encoder = NatureEncoder(
                frames, algorithm.hidden, activation=nn.ReLU(inplace=True), channels=algorithm.channels
            )
            self.stack = nn.Sequential(*encoder, Linear(algorithm.hidden, outputs))
        else:
            hidden = [algorithm.hidden_size] * algorithm.num_layers
            self.stack = MLP(flat_size(self.space), *hidden, outputs)

    def forward(self, observations: Tensor) -> Tensor:
        image = is_image(self.space)
        estimates: Tensor = self.stack(
            self.scale(observations) if image else flat_observations(observations, self.space)
        )
        return estimates.view(-1, *self.shape)


def gather_actions(values: Tensor, labels: Tensor) -> Tensor:
    """Select the values of one action of each row, [B, ...] from [B, actions, ...] and [B]."""
    return values[torch.arange(len(labels), device=labels.device), labels]


def require_discrete_actions(algorithm: str, dataset: TrajectoryDataset) -> None:
    """Raise IncompatibleTask for continuous actions."""
    if not isinstance(dataset.action_space, gym.spaces.Discrete):
        raise IncompatibleTask(f"{algorithm} needs discrete actions, not {dataset.action_space}. Try cql.")


class ValueLearner(Checkpointed, ABC):
    """A network and a target network, its copy every `target_every` steps; subclasses define the loss."""

    algorithm: ValueLearning
    return_conditioned = False
    context = 1

    def __init__(
        self,
        algorithm: ValueLearning,
        dataset: TrajectoryDataset,
        *,
        estimates: int,
        seed: int,
        device: torch.device,
    ) -> None:
        """Build both networks; raise InvalidValue where the target would never be copied."""
        if algorithm.target_every < 1:
            raise InvalidValue(f"target_every {algorithm.target_every} must be 1 or more.")
        assert isinstance(dataset.action_space, gym.spaces.Discrete)
        self.algorithm, self.action_space = algorithm, dataset.action_space
        sampler = transition_sampler(algorithm, dataset, seed=seed, device=device)
        self.batches: Batches[Transitions] = Batches(sampler, lambda drawn: drawn, ahead=rows_ahead(dataset))
        self.stream = TorchStream(seed, device)
        with self.stream.active():
            network = ValueNetwork(algorithm, dataset, actions=int(dataset.action_space.n), estimates=estimates)
        self.network = network.to(device)
        self.target = deepcopy(self.network).requires_grad_(False)
        self.optimizer = torch.optim.Adam(
            self.network.parameters(), lr=algorithm.learning_rate, eps=algorithm.adam_epsilon, fused=True
        )
        self.acting = WeightAverage(self.network, algorithm.ema_decay)
        self.steps = 0

    @abstractmethod
    def loss(self, batch: Transitions) -> tuple[Tensor, Metrics]:
        """Return the loss that a step of the optimizer descends, and what is logged."""

    def update(self) -> Metrics:
        """Take one step of Adam; after every `target_every` of them the target network is copied."""
        loss, metrics = self.loss(self.batches.next())
        descend(self.optimizer, loss)
        self.acting.update()
        self.steps += 1
        if self.steps % self.algorithm.target_every == 0:
            self.target.load_state_dict(self.network.state_dict())
        return metrics

    def act(self, history: History) -> Tensor:
        """Return the action of the highest value, [B]."""
        return greedy_actions(self.action_logits(history), self.action_space)

    @torch.no_grad()
    def action_logits(self, history: History) -> Tensor:
        """Return the values of the present actions, [B, actions]."""
        estimates: Tensor = self.acting.network(history.observations[:, -1])
        return estimates.mean(dim=-1)

    @torch.no_grad()
    def action_values(self, history: History, actions: Tensor) -> Tensor:
        """Return the values of these actions of the present, [B]."""
        estimates: Tensor = self.network(history.observations[:, -1])
        return gather_actions(estimates.mean(dim=-1), indices_of(actions, self.action_space))

    def labels(self, batch: Transitions) -> Tensor:
        """Return the data's actions, counted from 0, [B]."""
        return indices_of(batch.actions, self.action_space)
