"""Decision Transformer (Chen et al. 2021): tokens, loss and acting."""

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import gymnasium as gym
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dtbench.algorithm import History, Metrics, Rollout
from dtbench.data.actions import require_unit
from dtbench.data.dataset import TrajectoryDataset, observation_moments
from dtbench.data.randomness import TorchStream, generator
from dtbench.data.sampling import Anchor, Windows, WindowSampler, balanced_weights
from dtbench.decision_transformer.critic import Critic, class_weights
from dtbench.decision_transformer.kv_cache import DecisionTransformerRollout
from dtbench.decision_transformer.model import CausalTransformer
from dtbench.decision_transformer.network import DecisionTransformerNetwork
from dtbench.decision_transformer.returns import RETURN_TOKENS, PredictedReturns, Returns, mean_of_steps
from dtbench.errors import IncompatibleTask, InvalidValue
from dtbench.nn import greedy_actions, indices_of, is_image

CPU = torch.device("cpu")


@dataclass(frozen=True)
class DecisionTransformer:
    """Predict actions from returns-to-go, observations and past actions (Chen et al. 2021, Algorithm 1).

    Defaults are those of the paper's Gym experiments (Table 9 and its public code). `returns` is the source of
    the return tokens: "given" as a target (the paper's DT), "none" (its behaviour cloning, the same
    transformer without return tokens), "generated" by the model itself, weighted by a prior for high returns
    (its shortest paths on a graph, where a return follows the observation that it is predicted from), or
    "predicted": given as a target when it acts, and also predicted at every step (its critic on Key-to-Door).
    """

    version: ClassVar[int] = 3  # 2: dropout draws other numbers; 3: first weights are those of the public code

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        # As the public code has it, and CORL and d3rlpy after it.
        "code": {"warmup_steps": 10_000, "return_scale": 1000.0, "max_timestep": 1000},
        # As Table 9 prints it: ten times the warm-up, which halves the mean learning rate of 100,000 steps.
        "paper": {"warmup_steps": 100_000, "return_scale": 1000.0, "max_timestep": 1000},
    }

    context: int | None = 20  # K, the steps that the transformer reads; None: the longest episode of the data
    hidden_size: int = 128  # width of tokens, a multiple of num_heads (Table 9)
    num_layers: int = 3  # transformer blocks (Table 9)
    num_heads: int = 1  # attention heads (Table 9)
    dropout: float = 0.1  # share of activations set to zero in training, in [0, 1) (Tables 8 and 9)
    activation: Literal["relu", "gelu"] = "relu"  # of the blocks' MLPs: relu (Table 9) or gelu
    init_std: float = 0.02  # standard deviation of the blocks' first weights: GPT-2's, made for widths of 768 and more
    # narrower first weights of what adds to the residual stream: GPT-2's, not the public code's
    scale_residuals: bool = False
    # rows of the timestep table, the last for all later steps; None: the longest episode
    max_timestep: int | None = None
    timestep_std: float = 1.0  # standard deviation of the first timestep embeddings; torch's, as in the public code
    batch_size: int = 64  # windows in a batch (Table 9)
    learning_rate: float = 1e-4  # step size of AdamW (Table 9)
    # gradient steps of the linear rise of the learning rate: the public code's; Table 9 prints 1e5
    warmup_steps: int = 10_000
    # gradient steps after which a cosine has brought the learning rate to 0; None: it stays
    decay_steps: int | None = None
    weight_decay: float = 1e-4  # of AdamW, on all parameters as in the public code (Table 9)
    grad_clip: float = 0.25  # largest norm of the gradient of all parameters (Table 9)
    # share that the average of the weights used for acting keeps at each step, in [0, 1); 0: no average
    ema_decay: float = 0.0
    # where the drawn step lies in its window: start, end or inside, see `dtbench.data.WindowSampler`
    anchor: Anchor = "start"
    balance_returns: bool = False  # draw windows evenly over returns, see `dtbench.data.balanced_weights`
    # count timesteps from the window's first step, so that any step can begin an episode
    relative_timesteps: bool = False
    return_scale: float | None = None  # what returns-to-go are divided by, above 0; None: the largest of the data's
    # subtract the mean of the data's observations and divide by their standard deviation
    normalize_observations: bool = True
    best_fraction: float = 1.0  # X % BC: keep the best episodes, up to this share of the data's steps, in (0, 1]
    # keep the episodes whose return reaches it, in the environment's rewards; None: all
    minimum_return: float | None = None
    precision: Literal["fp32", "bf16"] = "fp32"  # of matrix products in training: fp32 or bf16; it always acts in fp32
    returns: Returns = "given"  # source of the return tokens: given, none, generated or predicted, see above
    # with generated returns: the return of an episode that was truncated; None: what it earned
    cut_off_return: float | None = None
    # with generated returns: κ in P(R) P_prior(R)^κ, 10 in the paper's graph experiment
    return_prior_power: float = 10.0
    return_floor: float = 0.0  # with generated returns: one less likely than this, in [0, 1), counts as impossible

    @property
    def family(self) -> str:
        """Without return tokens it imitates."""
        return "imitation" if self.returns == "none" else "dt"

    def learner(
        self, dataset: TrajectoryDataset, *, seed: int, device: torch.device = CPU
    ) -> "DecisionTransformerLearner":
        """Build the network for the dataset's spaces; raise InvalidValue for impossible sizes."""
        self.check_sizes()
        return DecisionTransformerLearner(self, dataset, seed=seed, device=device)

    def check_sizes(self) -> None:
        """Raise InvalidValue for sizes that no network can have."""
        if self.hidden_size % self.num_heads:
            raise InvalidValue(f"hidden_size {self.hidden_size} is not a multiple of num_heads {self.num_heads}.")
        if self.return_scale is not None and not self.return_scale > 0:
            raise InvalidValue(f"return_scale {self.return_scale} must be positive.")
        if not 0 <= self.ema_decay < 1:
            raise InvalidValue(f"ema_decay {self.ema_decay} must lie in [0, 1).")
        if self.max_timestep is not None and self.max_timestep < 1:
            raise InvalidValue(f"max_timestep {self.max_timestep} must be 1 or more.")
        if not 0 <= self.return_floor < 1:
            raise InvalidValue(f"return_floor {self.return_floor} must lie in [0, 1).")


class DecisionTransformerLearner:
    """A learner that samples windows and learns to predict their actions."""

    def __init__(
        self, algorithm: DecisionTransformer, dataset: TrajectoryDataset, *, seed: int, device: torch.device
    ) -> None:
        for space in (dataset.observation_space, dataset.action_space):
            if not isinstance(space, gym.spaces.Box | gym.spaces.Discrete):
                raise IncompatibleTask(f"DecisionTransformer reads Box and Discrete spaces, not {space}.")
        require_unit("DecisionTransformer", dataset.action_space)
        self.algorithm, self.device = algorithm, device
        longest = int(dataset.lengths.max())
        self.context = algorithm.context or longest
        self._set_normalization(dataset)
        # Chen et al. normalise with all data, also where X % BC keeps only the best of it.
        chosen = dataset.keep(best_fraction=algorithm.best_fraction, minimum_return=algorithm.minimum_return)
        self.returns = RETURN_TOKENS[algorithm.returns](algorithm, chosen)
        self.return_conditioned = self.returns.conditioned
        weights = balanced_weights(chosen) if algorithm.balance_returns else None
        self.return_weights = class_weights(self.returns.labels, self.returns.values, weights)
        self.sampler = WindowSampler(
            chosen,
            context=self.context,
            batch_size=algorithm.batch_size,
            rng=generator(seed, 1),
            device=device,
            anchor=algorithm.anchor,
            pad="right",  # a causal model never sees what stands to the right: no mask
            returns_to_go=self.returns.labels,
            weights=weights,
        )
        self.stream = TorchStream(seed, device)
        with self.stream.active():
            self.network = self._build(dataset, longest).to(device)
        averaged = algorithm.ema_decay > 0
        self.average = {name: value.clone() if averaged else value for name, value in self._weights().items()}
        self.optimizer = self._make_optimizer()
        self.step = 0

    def update(self) -> Metrics:
        """Take one step of AdamW on the loss of a batch of windows."""
        windows = self.sampler.sample()
        for group in self.optimizer.param_groups:
            group["lr"] = self.algorithm.learning_rate * self._schedule()
        self.network.train()
        with self.stream.active():
            losses = self.losses(windows)
            weight = {"return_loss": self.returns.loss_weight}
            loss = torch.stack([value * weight.get(name, 1.0) for name, value in losses.items()]).sum(dim=0)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.algorithm.grad_clip)
            self.optimizer.step()
        self.step += 1
        if share := self._average_share():
            current = self._weights()
            torch._foreach_lerp_(list(self.average.values()), [current[name] for name in self.average], share)
        return {name: value.detach() for name, value in losses.items()} | {"gradient_norm": norm}

    def act(self, history: History) -> Tensor:
        """Return the likeliest discrete action, or the predicted continuous one, [B, *action]."""
        return greedy_actions(self._predict(history), self.network.action_space)

    def action_logits(self, history: History) -> Tensor:
        """Return the logits of the present discrete actions, [B, actions]."""
        return self._predict(history)

    def rollout(self) -> Rollout | None:
        """Return a rollout with a copy of the averaged weights, which caches keys and values."""
        return DecisionTransformerRollout(
            self._acting_network(),
            context=self.context,
            encode=self._encoder_input,
            predict=self._predict,
            anchored=self.algorithm.relative_timesteps,
        )

    def critic(self) -> Critic | None:
        """Return a critic with a copy of the averaged weights; None unless returns are predicted."""
        if not isinstance(self.returns, PredictedReturns):
            return None
        return Critic(
            self._acting_network(),
            values=self.returns.values,
            weights=self.return_weights,
            encode=self._encoder_input,
            timesteps=self._timesteps,
        )

    def state_dict(self) -> dict[str, Any]:
        """Return weights, their average, optimizer, step and both random streams."""
        return {
            "network": self.network.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "sampler": self.sampler.rng.bit_generator.state,
            "stream": self.stream.state,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state_dict` was taken."""
        self.network.load_state_dict(state["network"])
        if self.algorithm.ema_decay:
            self.average = {name: value.to(self.device, copy=True) for name, value in state["average"].items()}
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]
        self.sampler.rng.bit_generator.state = state["sampler"]
        self.stream.state = state["stream"]

    def _acting_network(self) -> Any:
        network = copy.deepcopy(self.network)
        network.load_state_dict(self.average)
        return network.eval()

    def _make_optimizer(self) -> torch.optim.Optimizer:
        algorithm = self.algorithm
        return torch.optim.AdamW(
            self.network.parameters(), lr=algorithm.learning_rate, weight_decay=algorithm.weight_decay, fused=True
        )

    def _weights(self) -> dict[str, Tensor]:
        weights: dict[str, Tensor] = self.network.state_dict()
        return weights

    def _build(self, dataset: TrajectoryDataset, longest: int) -> Any:
        algorithm = self.algorithm
        return DecisionTransformerNetwork(
            observation_space=dataset.observation_space,
            action_space=dataset.action_space,
            transformer=self._transformer(),
            hidden_size=algorithm.hidden_size,
            max_timestep=algorithm.max_timestep or longest,
            dropout=algorithm.dropout,
            returns=self.returns,
            timestep_std=algorithm.timestep_std,
        )

    def _transformer(self) -> CausalTransformer:
        algorithm = self.algorithm
        return CausalTransformer(
            hidden_size=algorithm.hidden_size,
            num_layers=algorithm.num_layers,
            num_heads=algorithm.num_heads,
            dropout=algorithm.dropout,
            activation=algorithm.activation,
            init_std=algorithm.init_std,
            scale_residuals=algorithm.scale_residuals,
        )

    def _set_normalization(self, dataset: TrajectoryDataset) -> None:
        space = dataset.observation_space
        self.mean, self.scale = torch.zeros(()), torch.ones(())
        if self.algorithm.normalize_observations and isinstance(space, gym.spaces.Box) and not is_image(space):
            mean, std = observation_moments(dataset)
            self.mean = torch.tensor(mean, dtype=torch.float32)
            self.scale = torch.tensor(std + 1e-6, dtype=torch.float32)  # Chen et al.'s epsilon
        self.mean, self.scale = self.mean.to(self.device), self.scale.to(self.device)

    def _encoder_input(self, observations: Tensor) -> Tensor:
        return (observations.float() - self.mean) / self.scale if self.mean.dim() else observations

    def _timesteps(self, history: History) -> Tensor:
        if not self.algorithm.relative_timesteps:
            return history.timesteps
        newest = history.mask.sum(dim=1, keepdim=True) - 1
        return (newest - torch.arange(history.mask.shape[1] - 1, -1, -1, device=self.device)).clamp(min=0)

    def losses(self, windows: Windows) -> dict[str, Tensor]:
        """Return the named losses of windows that are padded on the right."""
        returns, timesteps = self.returns.tokens(windows.returns_to_go), windows.timesteps
        if self.algorithm.relative_timesteps:
            timesteps = torch.arange(self.context, device=self.device).expand_as(timesteps)
        observations = self._encoder_input(windows.observations)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.algorithm.precision == "bf16"):
            predicted, return_logits = self.network(returns, observations, windows.actions, timesteps, None)
        losses = {"action_loss": action_loss(predicted.float(), windows, self.network.action_space)}
        return losses | self.returns.losses(return_logits, returns, windows.mask)

    def _average_share(self) -> float:
        """Return the share by which the average moves to the present weights; 0 without an average."""
        if not self.algorithm.ema_decay:
            return 0.0
        # Early averages forget fast, or the initial weights would linger in them.
        return 1 - min(self.algorithm.ema_decay, (1 + self.step) / (10 + self.step))

    def _schedule(self) -> float:
        warmup = min((self.step + 1) / max(self.algorithm.warmup_steps, 1), 1.0)
        if self.algorithm.decay_steps is None:
            return warmup
        return warmup * 0.5 * (1 + math.cos(math.pi * min(self.step / self.algorithm.decay_steps, 1.0)))

    @torch.inference_mode()
    def _predict(self, history: History) -> Tensor:
        self.network.eval()
        begin = int(history.mask.any(dim=0).int().argmax())  # steps before are padding in every row
        mask = history.mask[:, begin:]
        observations = self._encoder_input(history.observations[:, begin:])
        actions, timesteps = history.actions[:, begin:], self._timesteps(history)[:, begin:]
        returns = self.returns.acting_tokens(
            history.returns_to_go[:, begin:],
            lambda tokens: self._apply(tokens, observations, actions, timesteps, mask)[1],
        )
        return self._apply(returns, observations, actions, timesteps, mask)[0][:, -1]

    def _apply(
        self, returns: Tensor, observations: Tensor, actions: Tensor, timesteps: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        arguments = (returns, observations, actions, timesteps, None if bool(mask.all()) else mask)
        outputs: tuple[Tensor, Tensor] = torch.func.functional_call(self.network, self.average, arguments)
        return outputs


def action_loss(predicted: Tensor, windows: Windows, space: gym.Space[Any]) -> Tensor:
    """Return cross-entropy of discrete actions or mean squared error of continuous ones, without padding."""
    if isinstance(space, gym.spaces.Discrete):
        labels = indices_of(windows.actions, space)
        errors = F.cross_entropy(predicted.flatten(0, 1), labels.flatten(), reduction="none").view_as(labels)
    else:
        errors = (predicted - windows.actions.flatten(2).float()).square().mean(dim=-1)
    return mean_of_steps(errors, windows.mask)
