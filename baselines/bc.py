"""Behaviour cloning with an MLP, on all data or on the best of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, SupportsFloat

import gymnasium as gym
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.averages import WeightAverage
from baselines.batches import Batches, draw_weights, rows_ahead
from baselines.checkpoint import Checkpointed
from baselines.cuda_graphs import GraphedUpdate
from baselines.flat import FlatAdamW, FlatParameters
from baselines.layers import TANH_BACKWARD, Pass
from baselines.networks import Deferred, flat_observations, flat_size, observation_scale
from dtbench import History, IncompatibleTask, Metrics, TrajectoryDataset, WindowSampler
from dtbench.data import TorchStream, Windows, generator, require_unit
from dtbench.nn import MLP, greedy_actions, indices_of


@dataclass(frozen=True)
class BehaviorCloning:
    """Predict the action from the last `context` observations (Chen et al. 2021, appendix and public code).

    `best_fraction` and `minimum_return` make it X % BC: only the best episodes are imitated. Observations are
    normalised by all of the data whatever is kept, and padding is zeros after that, in training as in acting.
    """

    version: ClassVar[int] = 2  # 2: more hyperparameters
    family: ClassVar[str] = "imitation"

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "corl": {
            "num_layers": 2,
            "dropout": 0.0,
            "batch_size": 256,
            "learning_rate": 3e-4,
            "weight_decay": 0.0,
            "normalize_observations": True,
        },
        # Table 10 and the public code, whose Gym script gives BC DT's context and warm-up. Not its padding: that is
        # zeros before normalising in training and after it in acting, and it never pads an episode's beginning in
        # training. Here a window always reaches back from the step to imitate.
        "paper": {"context": 20, "warmup_steps": 10_000, "normalize_observations": True},
    }

    context: int = 1  # steps, the present one last, whose observations the network reads; the public Gym code has 20
    hidden_size: int = 256  # units of a hidden layer (Table 10)
    num_layers: int = 3  # hidden layers (Table 10)
    dropout: float = 0.1  # share of a hidden layer's outputs set to zero in training, in [0, 1)
    batch_size: int = 64  # steps to imitate in a batch (Table 10)
    learning_rate: float = 1e-4  # step size of AdamW
    weight_decay: float = 1e-4  # of AdamW, on all parameters
    best_fraction: float = 1.0  # X % BC: keep the best episodes, up to this share of the data's steps, in (0, 1]
    # keep the episodes whose return reaches it, in the environment's rewards; None: all
    minimum_return: float | None = None
    # subtract the mean of the data's observations and divide by their standard deviation
    normalize_observations: bool = False
    warmup_steps: int = 0  # gradient steps over which the learning rate rises linearly, then it stays
    balance_returns: bool = False  # draw steps evenly over returns, see `dtbench.data.balanced_weights`
    # share that the average of the weights used for acting keeps at each step, in [0, 1); 0: no average
    ema_decay: float = 0.0

    def learner(self, dataset: TrajectoryDataset, *, seed: int, device: torch.device) -> "BehaviorCloningLearner":
        """Build the network for the dataset's spaces; raise IncompatibleTask where they do not fit."""
        self.check(dataset)
        return BehaviorCloningLearner(self, dataset, seed=seed, device=device)

    def check(self, dataset: TrajectoryDataset) -> None:
        """Raise IncompatibleTask where the dataset's spaces do not fit."""
        require_unit("cloning", dataset.action_space)
        if self.normalize_observations and not isinstance(dataset.observation_space, gym.spaces.Box):
            raise IncompatibleTask(f"{dataset.observation_space} cannot be normalised: drop normalize_observations.")


@dataclass(frozen=True, slots=True)
class Cloned:
    """What is read of windows."""

    inputs: Tensor  # [B, context * numbers of an observation]
    labels: Tensor  # [B], or [B, numbers of an action]


class BehaviorCloningLearner(Checkpointed):
    """An MLP that predicts the actions of the data."""

    parts = ("network", "optimizer", "steps")
    return_conditioned = False

    def __init__(
        self, algorithm: BehaviorCloning, dataset: TrajectoryDataset, *, seed: int, device: torch.device
    ) -> None:
        self.algorithm, self.context = algorithm, algorithm.context
        self.observation_space, self.action_space = dataset.observation_space, dataset.action_space
        self.scale = observation_scale(dataset, normalize=algorithm.normalize_observations, device=device)
        chosen = dataset.keep(best_fraction=algorithm.best_fraction, minimum_return=algorithm.minimum_return)
        self.sampler = WindowSampler(
            chosen,
            context=self.context,
            batch_size=algorithm.batch_size,
            rng=generator(seed, 1),
            device=device,
            anchor="end",
            weights=draw_weights(chosen, balance_returns=algorithm.balance_returns),
        )
        self.batches: Batches[Cloned] = Batches(
            self.sampler, self._prepared, ahead=rows_ahead(dataset, steps=self.context)
        )
        self.stream = TorchStream(seed, device)
        with self.stream.active():
            self.network = self._build().to(device)
        self.optimizer = FlatAdamW(
            FlatParameters(self.network),
            [{"params": list(self.network.parameters())}],
            lr=algorithm.learning_rate,
            weight_decay=algorithm.weight_decay,
        )
        self.mlp = Pass(self.network)
        self.graphed: GraphedUpdate[Cloned] = GraphedUpdate(self._descend, device)
        self.acting = WeightAverage(self.network, algorithm.ema_decay)
        self.steps = 0

    def update(self) -> Metrics:
        """Take one step of AdamW on cross-entropy (discrete) or squared error (continuous).

        Without dropout its gradient is written out.
        """
        batch = self.batches.next()
        self.steps += 1
        if self.steps <= self.algorithm.warmup_steps:
            self.optimizer.set_rate(0, self.algorithm.learning_rate * self.steps / self.algorithm.warmup_steps)
        if self.algorithm.dropout:
            loss: SupportsFloat = self._by_autograd(batch).detach()
            self.optimizer.descend()
            metrics: Metrics = {"action_loss": loss}
        else:
            metrics = self.graphed(batch)
        self.acting.update()
        return metrics

    def _descend(self, batch: Cloned) -> Metrics:
        predicted = self._write_gradient(batch)
        self.optimizer.descend()
        return {"action_loss": Deferred(lambda: self.loss(predicted, batch.labels))}

    def loss(self, predicted: Tensor, labels: Tensor) -> Tensor:
        """Return the cross-entropy of logits, or the squared error of actions, [B, numbers]."""
        if isinstance(self.action_space, gym.spaces.Discrete):
            return F.cross_entropy(predicted, labels)
        return F.mse_loss(predicted, labels)

    def _by_autograd(self, batch: Cloned) -> Tensor:
        self.network.train()
        parameters = list(self.network.parameters())
        with self.stream.active():
            loss = self.loss(self.network(batch.inputs), batch.labels)
            gradients = torch.autograd.grad(loss, parameters)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            assert parameter.grad is not None
            parameter.grad.copy_(gradient)
        return loss

    @torch.no_grad()
    def _write_gradient(self, batch: Cloned) -> Tensor:
        outputs = self.mlp.forward(batch.inputs)[0]
        if isinstance(self.action_space, gym.spaces.Discrete):
            gradient = outputs.softmax(dim=-1)
            gradient.scatter_add_(1, batch.labels[:, None], torch.full_like(outputs[:, :1], -1.0))
            gradient /= outputs.shape[0]
        else:
            outputs = outputs.tanh()
            gradient = TANH_BACKWARD((outputs - batch.labels).mul_(2 / outputs.numel()), outputs)
        self.mlp.backward(gradient[None])
        return outputs

    def act(self, history: History) -> Tensor:
        """Return the likeliest discrete action, or the predicted continuous one, [B, *action]."""
        return greedy_actions(self.action_logits(history), self.action_space)

    @torch.no_grad()
    def action_logits(self, history: History) -> Tensor:
        """Return the logits of the present discrete actions, [B, actions]."""
        predicted: Tensor = self.acting.network.eval()(self._input(history))
        return predicted

    def _prepared(self, windows: Windows) -> Cloned:
        labels = windows.actions[:, -1]
        if isinstance(self.action_space, gym.spaces.Discrete):
            labels = indices_of(labels, self.action_space)
        else:
            labels = labels.flatten(1).float()
        return Cloned(self._input(windows), labels)

    def _input(self, seen: Windows | History) -> Tensor:
        """Return what the network reads of the last `context` steps, [B, inputs]."""
        flat = self.scale(flat_observations(seen.observations, self.observation_space))
        return (flat * seen.mask[..., None]).flatten(1)

    def _inputs(self) -> int:
        return self.context * flat_size(self.observation_space)

    def _build(self) -> nn.Module:
        hidden = [self.algorithm.hidden_size] * self.algorithm.num_layers
        inputs = self._inputs()
        output = None if isinstance(self.action_space, gym.spaces.Discrete) else nn.Tanh()
        return MLP(inputs, *hidden, flat_size(self.action_space), dropout=self.algorithm.dropout, output=output)
