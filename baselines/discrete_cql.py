"""Conservative Q-learning for discrete actions (Kumar et al. 2020), memoryless or with a window of history."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.bc import flat_observations, flat_size
from baselines.networks import follow
from dtbench import (
    CausalTransformer,
    GamesHeld,
    History,
    IncompatibleTask,
    Linear,
    Metrics,
    Perceptron,
    Rollout,
    TorchStream,
    TrajectoryDataset,
    TransformerCache,
    Windows,
    WindowSampler,
    generator,
    next_beginning,
)


@dataclass(frozen=True)
class DiscreteCQL:
    """Double Q-learning with a target network and the CQL(H) penalty (Kumar et al. 2020, eq. 4).

    `context=1` sees the present observation only, with a perceptron. A longer context (None: the longest
    episode) reads the window of observations and actions that Decision Transformer reads, with a causal
    transformer, and learns at every step of the window.
    """

    context: int | None = 1
    width: int = 256
    layers: int = 2
    heads: int = 1
    dropout: float = 0.0
    batch_size: int = 64  # windows
    learning_rate: float = 3e-4
    weight_decay: float = 0.0
    discount: float = 0.99
    penalty: float = 1.0  # alpha in CQL(H)
    target_rate: float = 5e-3  # Polyak averaging of the target network
    gradient_clip: float = 1.0

    def learner(self, dataset: TrajectoryDataset, *, seed: int, device: torch.device) -> "DiscreteCQLLearner":
        """Build both networks; raise IncompatibleTask for continuous actions."""
        if not isinstance(dataset.action_space, gym.spaces.Discrete):
            raise IncompatibleTask(f"discrete_cql needs discrete actions, not {dataset.action_space}. Try cql.")
        return DiscreteCQLLearner(self, dataset, seed=seed, device=device)


class MarkovQ(nn.Module):
    """Q-values of every step from its observation alone, [B, T, actions]."""

    def __init__(self, inputs: int, actions: int, width: int, layers: int) -> None:
        super().__init__()
        self.stack = Perceptron(inputs, *[width] * layers, actions)

    def forward(self, observations: Tensor, actions: Tensor, timesteps: Tensor, mask: Tensor) -> Tensor:
        values: Tensor = self.stack(observations)
        return values


class HistoryQ(nn.Module):
    """Q-values of every step from all observations up to it and all actions before it, [B, T, actions]."""

    def __init__(self, inputs: int, actions: int, *, algorithm: DiscreteCQL, max_timestep: int) -> None:
        super().__init__()
        width = algorithm.width
        self.embed_observation = Linear(inputs, width)
        self.embed_action = nn.Embedding(actions + 1, width)  # the last one: no action yet
        self.embed_timestep = nn.Embedding(max_timestep, width)
        nn.init.normal_(self.embed_timestep.weight, std=0.1)
        self.transformer = CausalTransformer(
            width=width, layers=algorithm.layers, heads=algorithm.heads, dropout=algorithm.dropout
        )
        self.head = nn.Linear(width, actions)
        self.no_action = actions

    def forward(self, observations: Tensor, actions: Tensor, timesteps: Tensor, mask: Tensor) -> Tensor:
        before = torch.full_like(actions, self.no_action)
        before[:, 1:] = torch.where(mask[:, :-1], actions[:, :-1], self.no_action)
        values: Tensor = self.head(self.transformer(self.tokens(observations, before, timesteps), mask))
        return values

    def tokens(self, observations: Tensor, before: Tensor, timesteps: Tensor) -> Tensor:
        """What the stack reads of steps and the actions before them, [B, T, width]."""
        time = self.embed_timestep(timesteps.clamp(max=self.embed_timestep.num_embeddings - 1))
        tokens: Tensor = self.embed_observation(observations) + self.embed_action(before) + time
        return tokens


class DiscreteCQLLearner:
    """Two Q-networks, one of them slow."""

    return_conditioned = False

    def __init__(self, algorithm: DiscreteCQL, dataset: TrajectoryDataset, *, seed: int, device: torch.device) -> None:
        """See `DiscreteCQL.learner`."""
        self.algorithm, self.observation_space = algorithm, dataset.observation_space
        assert isinstance(dataset.action_space, gym.spaces.Discrete)
        self.actions, self.first_action = int(dataset.action_space.n), int(dataset.action_space.start)
        longest = int(dataset.lengths.max())
        self.context = algorithm.context or longest
        # A window one step longer than what the policy reads holds the successor of its last step.
        self.sampler = WindowSampler(
            dataset,
            context=self.context + 1,
            batch_size=algorithm.batch_size,
            rng=generator(seed, 1),
            device=device,
            anchor="start" if self.context == 1 else "inside",
        )
        self.stream = TorchStream(seed, device)
        with self.stream.active():
            self.network, self.target = (self._build(longest).to(device) for _ in range(2))
        self.target.load_state_dict(self.network.state_dict())
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=algorithm.learning_rate, weight_decay=algorithm.weight_decay, fused=True
        )

    def update(self) -> Metrics:
        """One step on the double Q-learning error and the conservative penalty."""
        windows = self.sampler.sample()
        self.network.train()
        with self.stream.active():
            temporal, penalty = self._losses(windows)
            loss = temporal + self.algorithm.penalty * penalty
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(self.network.parameters(), self.algorithm.gradient_clip)
            self.optimizer.step()
        follow(self.target, self.network, self.algorithm.target_rate)
        return {"td_loss": temporal.detach(), "penalty": penalty.detach()}

    def act(self, history: History) -> Tensor:
        """The action of the highest value, [B]."""
        return self.action_logits(history).argmax(dim=-1) + self.first_action

    @torch.no_grad()
    def action_logits(self, history: History) -> Tensor:
        """Q-values of the present's actions, [B, actions]."""
        self.network.eval()
        begin = int(history.mask.any(dim=0).int().argmax())
        arguments = (history.actions, history.timesteps, history.mask)
        actions, timesteps, mask = (tensor[:, begin:] for tensor in arguments)
        values = self._values(self.network, history.observations[:, begin:], actions, timesteps, mask)
        return values[:, -1]

    def rollout(self, *, streaming: bool) -> Rollout | None:
        """What plays games with keys and values kept; None for a perceptron, which reads one observation."""
        return HistoryRollout(self, streaming=streaming) if isinstance(self.network, HistoryQ) else None

    def state_dict(self) -> dict[str, Any]:
        """Both networks, optimizer and both random streams."""
        return {
            "network": self.network.state_dict(),
            "target": self.target.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "sampler": self.sampler.rng.bit_generator.state,
            "stream": self.stream.state,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state_dict` was taken."""
        self.network.load_state_dict(state["network"])
        self.target.load_state_dict(state["target"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.sampler.rng.bit_generator.state = state["sampler"]
        self.stream.state = state["stream"]

    def _losses(self, windows: Windows) -> tuple[Tensor, Tensor]:
        values = self._window_values(self.network, windows)
        with torch.no_grad():
            slow = self._window_values(self.target, windows)
            best = values.argmax(dim=-1, keepdim=True)  # double Q-learning: the fast network chooses
            following = slow.gather(-1, best).squeeze(-1)[:, 1:]
        taken = values.gather(-1, self.labels(windows.actions)[..., None]).squeeze(-1)
        future = F.pad(following, (0, 1))
        backup = windows.rewards + self.algorithm.discount * torch.where(windows.terminals, 0.0, future)
        usable = usable_steps(windows)
        if self.context == 1:
            usable[:, 1:] &= ~windows.mask[:, :-1]  # of a pair only the drawn step counts, or last steps count twice
        temporal = F.smooth_l1_loss(taken[usable], backup[usable])
        return temporal, conservative_penalty(values[usable], taken[usable])

    def _window_values(self, network: nn.Module, windows: Windows) -> Tensor:
        return self._values(network, windows.observations, windows.actions, windows.timesteps, windows.mask)

    def _values(
        self, network: nn.Module, observations: Tensor, actions: Tensor, timesteps: Tensor, mask: Tensor
    ) -> Tensor:
        flat = flat_observations(observations, self.observation_space)
        values: Tensor = network(flat, self.labels(actions), timesteps, mask)
        return values

    def labels(self, actions: Tensor) -> Tensor:
        """Actions counted from 0."""
        return (actions.long() - self.first_action).clamp(min=0)

    def _build(self, longest: int) -> nn.Module:
        inputs = flat_size(self.observation_space)
        if self.context == 1:
            return MarkovQ(inputs, self.actions, self.algorithm.width, self.algorithm.layers)
        return HistoryQ(inputs, self.actions, algorithm=self.algorithm, max_timestep=longest)


class HistoryRollout:
    """Plays games with HistoryQ: keys and values are kept while the window begins where the episodes do.

    After that the whole window is read at every step, as its first step then knows no action before it. With
    `streaming` the window's beginning stays until the window is full, and keys and values are kept meanwhile.
    """

    def __init__(self, learner: DiscreteCQLLearner, *, streaming: bool) -> None:
        """It plays with the learner's weights of this moment."""
        self.learner, self.streaming, self.step, self.begin = learner, streaming, 0, 0
        assert isinstance(learner.network, HistoryQ)
        self.network: HistoryQ = deepcopy(learner.network).eval()
        self.cache, self.held = TransformerCache(self.network.transformer, learner.context), GamesHeld()

    def act(self, history: History, rows: Tensor) -> Tensor:
        """See `dtbench.algorithm.Rollout`."""
        return self.action_logits(history, rows).argmax(dim=-1) + self.learner.first_action

    @torch.inference_mode()
    def action_logits(self, history: History, rows: Tensor) -> Tensor:
        """See `dtbench.algorithm.Rollout`."""
        step, context = self.step, self.learner.context
        self.step += 1
        full, new = step - self.begin >= context, 1
        if full and not self.streaming:
            return self.learner.action_logits(history.of(rows))
        kept = self.held.update(rows, len(history.mask))
        if full:
            self.begin = next_beginning(step, context)
            self.cache, new = TransformerCache(self.network.transformer, context), step - self.begin + 1
        elif kept is not None:
            self.cache.keep(kept)
        values: Tensor = self.network.head(self.cache.append(self._tokens(history, new, step)))
        return self.held.of_played(values, rows)

    def _tokens(self, history: History, new: int, step: int) -> Tensor:
        """Of the last `new` steps, [held, new, width]."""
        learner, network, context = self.learner, self.network, self.learner.context
        held = history.of(slice(None) if self.held.rows is None else self.held.rows, context - new)
        before = torch.full_like(held.timesteps, network.no_action)
        before[:, 1:] = learner.labels(held.actions[:, :-1])
        if step - new >= self.begin:
            before[:, 0] = learner.labels(self.held.present(history.actions, -new - 1))
        observations = flat_observations(held.observations, learner.observation_space)
        return network.tokens(observations, before, held.timesteps)


def usable_steps(windows: Windows) -> Tensor:
    """[B, T] bool: steps that are no padding and whose successor is in the window, or needs none."""
    successor = F.pad(windows.mask[:, 1:], (0, 1), value=False)
    return windows.mask & (windows.terminals | successor)


def conservative_penalty(values: Tensor, taken: Tensor) -> Tensor:
    """Log sum_a exp Q(s, a) - Q(s, a of the data), Kumar et al. (2020), eq. 4."""
    return (values.logsumexp(dim=-1) - taken).mean()
