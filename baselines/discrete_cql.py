"""Conservative Q-learning for discrete actions (Kumar et al. 2020), memoryless or with a window of history."""

from copy import deepcopy
from dataclasses import dataclass
from typing import ClassVar

import gymnasium as gym
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.averages import WeightAverage
from baselines.batches import Batches, draw_weights, rows_ahead
from baselines.checkpoint import Checkpointed
from baselines.networks import cosine, flat_observations, flat_size, observation_scale, soft_update
from dtbench import History, IncompatibleTask, Metrics, Rollout, TrajectoryDataset, WindowSampler
from dtbench.data import TorchStream, Windows, generator
from dtbench.decision_transformer import ActiveEpisodes, CausalTransformer, KeyValueCache
from dtbench.nn import MLP, Linear, greedy_actions, indices_of


@dataclass(frozen=True)
class DiscreteCQL:
    """Double Q-learning with a target network and the CQL(H) penalty (Kumar et al. 2020, eq. 4).

    `context=1` sees the present observation only, with an MLP. A longer context (None: the longest
    episode) reads the window of observations and actions that Decision Transformer reads, with a causal
    transformer, and learns at every step of the window.
    """

    version: ClassVar[int] = 3  # 2: more hyperparameters; 3: decay_steps
    family: ClassVar[str] = "td"

    # steps of history that the critics read, the present one included; None: the longest episode
    context: int | None = 1
    hidden_size: int = 256  # units of a hidden layer, or the transformer's width
    num_layers: int = 2  # hidden layers, or the transformer's blocks
    num_heads: int = 1  # attention heads of the transformer; divides hidden_size
    dropout: float = 0.0  # share of activations set to zero in training, in [0, 1); the transformer alone
    batch_size: int = 64  # windows in a batch
    learning_rate: float = 3e-4  # step size of AdamW
    # gradient steps over which the learning rate falls to 0 as a cosine; None: it stays
    decay_steps: int | None = None
    weight_decay: float = 0.0  # of AdamW, on all parameters
    discount: float = 0.99  # factor of a reward one step later, in [0, 1]
    alpha: float = 1.0  # weight of the penalty CQL(H), eq. 4; 0: double Q-learning
    tau: float = 5e-3  # share of the network that the target takes over at each of its updates (Polyak), in (0, 1]
    grad_clip: float = 1.0  # largest norm of the gradient of all parameters
    # subtract the mean of the data's observations and divide by their standard deviation
    normalize_observations: bool = False
    balance_returns: bool = False  # draw windows evenly over returns, see `dtbench.data.balanced_weights`
    # share that the average of the weights used for acting keeps at each step, in [0, 1); 0: no average
    ema_decay: float = 0.0

    @property
    def backups_per_step(self) -> float:
        """Bellman backups that a gradient step brings to the target critics."""
        return self.tau

    def learner(self, dataset: TrajectoryDataset, *, seed: int, device: torch.device) -> "DiscreteCQLLearner":
        """Build both networks; raise IncompatibleTask for continuous actions."""
        if not isinstance(dataset.action_space, gym.spaces.Discrete):
            raise IncompatibleTask(f"discrete_cql needs discrete actions, not {dataset.action_space}. Try cql.")
        if self.normalize_observations and not isinstance(dataset.observation_space, gym.spaces.Box):
            raise IncompatibleTask(
                f"discrete_cql cannot normalize {dataset.observation_space}: drop normalize_observations."
            )
        return DiscreteCQLLearner(self, dataset, seed=seed, device=device)


class MLPQNetwork(nn.Module):
    """Q-values of every step from its observation alone, [B, T, actions]."""

    def __init__(self, inputs: int, actions: int, hidden_size: int, num_layers: int) -> None:
        super().__init__()
        self.stack = MLP(inputs, *[hidden_size] * num_layers, actions)

    def forward(self, observations: Tensor, actions: Tensor, timesteps: Tensor, mask: Tensor) -> Tensor:
        values: Tensor = self.stack(observations)
        return values


class TransformerQNetwork(nn.Module):
    """Q-values of every step from all observations up to it and all actions before it, [B, T, actions]."""

    def __init__(self, inputs: int, actions: int, *, algorithm: DiscreteCQL, max_timestep: int) -> None:
        super().__init__()
        hidden_size = algorithm.hidden_size
        self.embed_observation = Linear(inputs, hidden_size)
        self.embed_action = nn.Embedding(actions + 1, hidden_size)  # the last one: no action yet
        self.embed_timestep = nn.Embedding(max_timestep, hidden_size)
        nn.init.normal_(self.embed_timestep.weight, std=0.1)
        self.transformer = CausalTransformer(
            hidden_size=hidden_size,
            num_layers=algorithm.num_layers,
            num_heads=algorithm.num_heads,
            dropout=algorithm.dropout,
        )
        self.head = nn.Linear(hidden_size, actions)
        self.no_action = actions

    def forward(self, observations: Tensor, actions: Tensor, timesteps: Tensor, mask: Tensor) -> Tensor:
        before = torch.full_like(actions, self.no_action)
        before[:, 1:] = torch.where(mask[:, :-1], actions[:, :-1], self.no_action)
        values: Tensor = self.head(self.transformer(self.tokens(observations, before, timesteps), mask))
        return values

    def tokens(self, observations: Tensor, before: Tensor, timesteps: Tensor) -> Tensor:
        """Return the tokens of steps and the actions before them, [B, T, hidden_size]."""
        time = self.embed_timestep(timesteps.clamp(max=self.embed_timestep.num_embeddings - 1))
        tokens: Tensor = self.embed_observation(observations) + self.embed_action(before) + time
        return tokens


class DiscreteCQLLearner(Checkpointed):
    """A Q-network and its target network."""

    return_conditioned = False

    def __init__(self, algorithm: DiscreteCQL, dataset: TrajectoryDataset, *, seed: int, device: torch.device) -> None:
        self.algorithm, self.observation_space = algorithm, dataset.observation_space
        assert isinstance(dataset.action_space, gym.spaces.Discrete)
        self.actions, self.action_space = int(dataset.action_space.n), dataset.action_space
        longest = int(dataset.lengths.max())
        self.context = algorithm.context or longest
        self.scale = observation_scale(dataset, normalize=algorithm.normalize_observations, device=device)
        # A window one step longer than what the policy reads holds the successor of its last step.
        self.sampler = WindowSampler(
            dataset,
            context=self.context + 1,
            batch_size=algorithm.batch_size,
            rng=generator(seed, 1),
            device=device,
            anchor="start" if self.context == 1 else "inside",
            weights=draw_weights(dataset, balance_returns=algorithm.balance_returns),
        )
        self.batches: Batches[Windows] = Batches(
            self.sampler, lambda drawn: drawn, ahead=rows_ahead(dataset, steps=self.context + 1)
        )
        self.stream = TorchStream(seed, device)
        with self.stream.active():
            self.network, self.target = (self._build(longest).to(device) for _ in range(2))
        self.target.load_state_dict(self.network.state_dict())
        self.acting = WeightAverage(self.network, algorithm.ema_decay)
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=algorithm.learning_rate, weight_decay=algorithm.weight_decay, fused=True
        )
        self.steps = 0

    def update(self) -> Metrics:
        """Take one step on the double Q-learning error and the conservative penalty."""
        left = cosine(self.steps, self.algorithm.decay_steps)
        self.optimizer.param_groups[0]["lr"] = self.algorithm.learning_rate * left
        windows = self.batches.next()
        self.network.train()
        with self.stream.active():
            temporal, penalty = self._losses(windows)
            loss = temporal + self.algorithm.alpha * penalty
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(self.network.parameters(), self.algorithm.grad_clip)
            self.optimizer.step()
        soft_update(self.target, self.network, self.algorithm.tau)
        self.acting.update()
        self.steps += 1
        return {"td_loss": temporal.detach(), "penalty": penalty.detach()}

    def act(self, history: History) -> Tensor:
        """Return the action of the highest value, [B]."""
        return greedy_actions(self.action_logits(history), self.action_space)

    @torch.no_grad()
    def action_logits(self, history: History) -> Tensor:
        """Return the Q-values of the present actions, [B, actions]."""
        return self._present_values(self.acting.network, history)

    @torch.no_grad()
    def action_values(self, history: History, actions: Tensor) -> Tensor:
        """Return the values of these actions of the present, [B]."""
        values = self._present_values(self.network, history)
        return values.gather(-1, self.labels(actions)[:, None]).squeeze(-1)

    def _present_values(self, network: nn.Module, history: History) -> Tensor:
        """Return the Q-values of the present, [B, actions], without the window's padding."""
        network.eval()
        begin = int(history.mask.any(dim=0).int().argmax())
        arguments = (history.actions, history.timesteps, history.mask)
        actions, timesteps, mask = (tensor[:, begin:] for tensor in arguments)
        return self._values(network, history.observations[:, begin:], actions, timesteps, mask)[:, -1]

    def rollout(self) -> Rollout | None:
        """Return what keeps keys and values; None for an MLP, which reads one observation."""
        return HistoryRollout(self) if isinstance(self.network, TransformerQNetwork) else None

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
        flat = self.scale(flat_observations(observations, self.observation_space))
        values: Tensor = network(flat, self.labels(actions), timesteps, mask)
        return values

    def labels(self, actions: Tensor) -> Tensor:
        """Return the actions counted from 0."""
        return indices_of(actions, self.action_space)

    def _build(self, longest: int) -> nn.Module:
        inputs = flat_size(self.observation_space)
        if self.context == 1:
            return MLPQNetwork(inputs, self.actions, self.algorithm.hidden_size, self.algorithm.num_layers)
        return TransformerQNetwork(inputs, self.actions, algorithm=self.algorithm, max_timestep=longest)


class HistoryRollout:
    """Acts with TransformerQNetwork, keeping keys and values while the window begins where the episodes do.

    After that the whole window is read at every step, as its first step then knows no action before it.
    """

    def __init__(self, learner: DiscreteCQLLearner) -> None:
        """Act with the learner's weights of this moment."""
        self.learner, self.step = learner, 0
        assert isinstance(learner.acting.network, TransformerQNetwork)
        self.network: TransformerQNetwork = deepcopy(learner.acting.network).eval()
        self.cache, self.active = KeyValueCache(self.network.transformer, learner.context), ActiveEpisodes()

    def act(self, history: History, rows: Tensor) -> Tensor:
        return greedy_actions(self.action_logits(history, rows), self.learner.action_space)

    @torch.inference_mode()
    def action_logits(self, history: History, rows: Tensor) -> Tensor:
        step, self.step = self.step, self.step + 1
        if step >= self.learner.context:
            return self.learner.action_logits(history.of(rows))
        kept = self.active.update(rows, len(history.mask))
        if kept is not None:
            self.cache.keep(kept)
        values: Tensor = self.network.head(self.cache.append(self._tokens(history, step)))
        return self.active.select(values, rows)

    def _tokens(self, history: History, step: int) -> Tensor:
        """Embed the present step and the action before it, [active, 1, hidden_size]."""
        current, labels = self.active.current, self.learner.labels
        timesteps = current(history.timesteps)[:, None]
        before = torch.full_like(timesteps, self.network.no_action)
        if step:
            before[:, 0] = labels(current(history.actions, -2))
        observations = flat_observations(current(history.observations)[:, None], self.learner.observation_space)
        return self.network.tokens(self.learner.scale(observations), before, timesteps)


def usable_steps(windows: Windows) -> Tensor:
    """Return which steps are not padding and have their successor in the window, or need none, [B, T] bool."""
    successor = F.pad(windows.mask[:, 1:], (0, 1), value=False)
    return windows.mask & (windows.terminals | successor)


def conservative_penalty(values: Tensor, taken: Tensor) -> Tensor:
    """Log sum_a exp Q(s, a) - Q(s, a of the data), Kumar et al. (2020), eq. 4."""
    return (values.logsumexp(dim=-1) - taken).mean()
