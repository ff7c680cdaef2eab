"""Decision Transformer as in the paper's Atari experiments: another layout of tokens, schedule and weight decay."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import gymnasium as gym
import torch
from torch import Tensor, nn

from dtbench.algorithm import History, Rollout
from dtbench.data.dataset import TrajectoryDataset
from dtbench.data.sampling import Anchor
from dtbench.decision_transformer.agent import CPU, DecisionTransformer, DecisionTransformerLearner
from dtbench.decision_transformer.kv_cache import CHUNK_TOKENS, newest_hidden
from dtbench.decision_transformer.model import CausalTransformer
from dtbench.decision_transformer.network import observation_encoder
from dtbench.decision_transformer.returns import ReturnTokens
from dtbench.errors import IncompatibleTask
from dtbench.nn import Dropout, ImageScale, greedy_actions, image_scale, indices_of, is_image

WARMUP_TOKENS = 512 * 20  # of the public code; a token is a predicted action there
FLOOR = 0.1  # of the learning rate, where the cosine ends
WHOLE_ROWS = 4  # observations are encoded in multiples of this number


@dataclass(frozen=True)
class AtariDecisionTransformer(DecisionTransformer):
    """Decision Transformer for images and discrete actions (Chen et al. 2021, Table 8 and its public Atari code).

    What differs from `DecisionTransformer`: every token ends with a tanh and has the position embedding of its place
    in the window, all tokens of a window share one timestep embedding, no layer norm comes before the stack, weight
    decay acts on matrices and kernels alone, and the learning rate follows the number of actions predicted so far.
    Without return tokens (`returns="none"`) it is the paper's behaviour cloning.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    # K, the steps that the transformer reads (Table 8; Pong 50); None: the longest episode of the data
    context: int | None = 30
    hidden_size: int = 128  # width of tokens, a multiple of num_heads (Table 8)
    num_layers: int = 6  # transformer blocks (Table 8)
    num_heads: int = 8  # attention heads (Table 8)
    activation: Literal["relu", "gelu"] = "gelu"  # of the blocks' MLPs: relu or gelu (Table 8)
    batch_size: int = 128  # windows in a batch (Table 8; Pong 512)
    learning_rate: float = 6e-4  # step size of AdamW, before its schedule (Table 8)
    weight_decay: float = 0.1  # of AdamW, on matrices and kernels alone (Table 8)
    grad_clip: float = 1.0  # largest norm of the gradient of all parameters (Table 8)
    anchor: Anchor = "inside"
    return_scale: float = 1.0  # what returns-to-go are divided by, above 0; the paper's code divides by nothing
    betas: tuple[float, float] = (0.9, 0.95)  # decay of AdamW's two moments, each in [0, 1) (Table 8)
    channels: tuple[int, int, int] = (32, 64, 64)  # filters of the three convolutions (Table 8)
    # subtract the data's mean image and divide, see `dtbench.nn.ImageScale`; not the paper's
    standardize_images: bool = False
    # of the learning rate: code, paper or constant, see `learning_rate_share`
    schedule: Literal["code", "paper", "constant"] = "code"

    def learner(self, dataset: TrajectoryDataset, *, seed: int, device: torch.device = CPU) -> "AtariLearner":
        """Build the network for the dataset's spaces; raise InvalidValue for impossible sizes.

        Raises IncompatibleTask for continuous actions and for generated or predicted returns.
        """
        if not isinstance(dataset.action_space, gym.spaces.Discrete):
            raise IncompatibleTask(f"dt_atari predicts discrete actions, not {dataset.action_space}. Try dt.")
        if self.returns in ("generated", "predicted"):
            raise IncompatibleTask("dt_atari takes returns given or none. Try dt.")
        self.check_sizes()
        return AtariLearner(self, dataset, seed=seed, device=device)


class AtariLearner(DecisionTransformerLearner):
    """A learner for Atari: another network, optimizer and schedule."""

    algorithm: AtariDecisionTransformer

    def rollout(self) -> Rollout:
        """Return a rollout that reads the whole window at every step and encodes each image once."""
        return AtariRollout(self._acting_network(), encoder_input=self._encoder_input)

    def _build(self, dataset: TrajectoryDataset, longest: int) -> Any:
        algorithm = self.algorithm
        return AtariNetwork(
            observation_space=dataset.observation_space,
            action_space=dataset.action_space,
            transformer=self._transformer(),
            hidden_size=algorithm.hidden_size,
            context=self.context,
            max_timestep=algorithm.max_timestep or longest,
            dropout=algorithm.dropout,
            returns=self.returns,
            channels=algorithm.channels,
            init_std=algorithm.init_std,
            scale=image_scale(dataset, standardize=True) if algorithm.standardize_images else None,
        )

    def _make_optimizer(self) -> torch.optim.Optimizer:
        decayed, spared = decay_groups(self.network)
        groups = [
            {"params": decayed, "weight_decay": self.algorithm.weight_decay},
            {"params": spared, "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=self.algorithm.learning_rate, betas=self.algorithm.betas, fused=True)

    def _schedule(self) -> float:
        kind, batch = self.algorithm.schedule, self.algorithm.batch_size
        if kind == "constant":
            return 1.0
        steps = self.sampler.dataset.num_steps
        final = 2 * (steps - 3 * self.context) * self.context * 3 if kind == "code" else 2 * steps * self.context
        return learning_rate_share((self.step + 1) * batch * self.context, final)


class AtariRollout:
    """A rollout that reads the whole window at every step, as all tokens change, and caches encoded images."""

    def __init__(self, network: "AtariNetwork", *, encoder_input: Callable[[Tensor], Tensor]) -> None:
        """`network` is in evaluation mode and does not change."""
        self.network, self.encoder_input = network, encoder_input
        self.encodings = torch.zeros(0)  # [B, T, hidden_size]; zeros where padded

    def act(self, history: History, rows: Tensor) -> Tensor:
        return greedy_actions(self.action_logits(history, rows), self.network.action_space)

    @torch.inference_mode()
    def action_logits(self, history: History, rows: Tensor) -> Tensor:
        if is_image(self.network.observation_space):
            history = replace(history, observations=self._encoded(history.observations[:, -1], rows))
        begin = int(history.mask[rows[0]].int().argmax())  # steps before are padding in every row
        episodes = max(1, CHUNK_TOKENS // (3 * (history.mask.shape[1] - begin)))
        parts = [self._tokens(history.of(part, begin)) for part in torch.split(rows, episodes)]
        head, transformer = self.network.action_head, self.network.transformer
        return torch.cat([head(newest_hidden(transformer, tokens)) for tokens in parts])

    def _encoded(self, observations: Tensor, rows: Tensor) -> Tensor:
        """Encode the present's images of these rows; return the windows of encodings, [B, T, hidden_size]."""
        images = observations if len(rows) == len(observations) else observations[rows]
        # Few rows take other kernels, whose last bits differ: an episode must not depend on those beside it.
        missing = -len(images) % WHOLE_ROWS
        images = torch.cat([images, images.new_zeros(missing, *images.shape[1:])])
        encoded: Tensor = self.network.embed_observation(images[:, None])[: len(rows), 0]
        if not len(self.encodings):
            self.encodings = encoded.new_zeros(len(observations), self.network.context, encoded.shape[-1])
        present = encoded.new_zeros(len(observations), 1, encoded.shape[-1])
        present[rows, 0] = encoded
        self.encodings = torch.cat([self.encodings[:, 1:], present], dim=1)
        return self.encodings

    def _tokens(self, history: History) -> Tensor:
        """Return the window's tokens up to the one that is read, [B, L, hidden_size]."""
        encoded = is_image(self.network.observation_space)
        observations = history.observations if encoded else self.encoder_input(history.observations)
        returns = self.network.returns.tokens(history.returns_to_go)
        inputs = (returns, observations, history.actions, history.timesteps, None)
        return self.network.tokens(*inputs, encoded=encoded)[:, :-1]


class AtariNetwork(nn.Module):
    """Tokens (return, observation, action) of T steps in, action logits for every step out (minGPT's layout).

    A token is a tanh of its embedding, plus a position embedding of its place in the window, plus the timestep
    embedding of the window: that of its first step when it trains and of its last when it acts, as in the public code.
    """

    def __init__(
        self,
        *,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        transformer: CausalTransformer,
        hidden_size: int,
        context: int,
        max_timestep: int,
        dropout: float = 0.1,
        returns: ReturnTokens,
        channels: tuple[int, int, int] = (32, 64, 64),
        init_std: float = 0.02,
        scale: ImageScale | None = None,
    ) -> None:
        """`context` is the longest window in steps, `max_timestep` the longest episode."""
        super().__init__()
        assert isinstance(action_space, gym.spaces.Discrete)
        self.observation_space, self.action_space, self.returns = observation_space, action_space, returns
        self.context, self.kinds = context, returns.selection.kinds
        self.embed_place = nn.Parameter(torch.zeros(context * self.kinds, hidden_size))
        self.embed_timestep = nn.Parameter(torch.zeros(max_timestep + 1, hidden_size))
        encoder = observation_encoder(observation_space, hidden_size, channels=channels, scale=scale)
        self.embed_observation: nn.Module = (
            encoder if is_image(observation_space) else nn.Sequential(encoder, nn.Tanh())
        )
        embedding = nn.Embedding(int(action_space.n), hidden_size)
        self.embed_action = nn.Sequential(embedding, nn.Tanh())
        embed_return = returns.embedding(hidden_size)
        self.embed_return = None if embed_return is None else nn.Sequential(embed_return, nn.Tanh())
        self.embed_dropout = Dropout(dropout)
        self.transformer = transformer
        self.action_head = nn.Linear(hidden_size, int(action_space.n), bias=False)
        for weight in (embedding.weight, self.action_head.weight):
            nn.init.normal_(weight, std=init_std)

    def forward(
        self, returns: Tensor, observations: Tensor, actions: Tensor, timesteps: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, None]:
        """Return action logits [B, T, actions]."""
        tokens = self.tokens(returns, observations, actions, timesteps, mask)
        token_mask = None if mask is None or bool(mask.all()) else mask.repeat_interleave(self.kinds, dim=1)
        return self.action_head(self.transformer(tokens, token_mask, read=self.returns.selection)), None

    def tokens(
        self,
        returns: Tensor,
        observations: Tensor,
        actions: Tensor,
        timesteps: Tensor,
        mask: Tensor | None,
        *,
        encoded: bool = False,
    ) -> Tensor:
        """Return what the stack reads, [B, T x kinds, hidden_size], from observations or their encodings."""
        observation = observations if encoded else self.embed_observation(observations)
        action = self.embed_action(indices_of(actions, self.action_space))
        nothing = torch.zeros((), device=observation.device)  # the window has one timestep, added below
        kinds = [*self.returns.arrange(self.embed_return, returns, observation, nothing), action]
        batch, length, hidden_size = observation.shape
        tokens = torch.stack(kinds, dim=2).view(batch, length * self.kinds, hidden_size)
        dropped: Tensor = self.embed_dropout(tokens + self._places(timesteps, mask) + self._time(timesteps, mask))
        return dropped

    def _places(self, timesteps: Tensor, mask: Tensor | None) -> Tensor:
        """Return position embeddings [B or 1, T x kinds, hidden_size], counted from a window's first real step."""
        if mask is None or bool(mask.all()):
            return self.embed_place[None, : timesteps.shape[1] * self.kinds]
        steps = mask.long().cumsum(dim=1).sub(1).clamp(min=0)
        places = steps[..., None] * self.kinds + torch.arange(self.kinds, device=mask.device)
        return self.embed_place[places.flatten(1)]

    def _time(self, timesteps: Tensor, mask: Tensor | None) -> Tensor:
        """Return one timestep embedding a window, [B, 1, hidden_size]."""
        if self.training and mask is not None:
            chosen = timesteps.gather(1, mask.int().argmax(dim=1, keepdim=True))
        else:
            chosen = timesteps[:, :1] if self.training else timesteps[:, -1:]
        return self.embed_timestep[chosen.clamp(max=len(self.embed_timestep) - 1)]


def learning_rate_share(tokens: int, final_tokens: int) -> float:
    """Warm up linearly over 512 x 20 tokens, then follow a cosine that ends, at a tenth, with `final_tokens`.

    The public code sets the last to 2 x 3K x the number of windows, and counts K tokens a window, so that its five
    epochs end at the floor; the paper prints 2 x 500,000 x K. `tokens` counts those of the present step too: the
    public code sets the rate after each step, which gives its very first step the full rate.
    """
    if tokens < WARMUP_TOKENS:
        return tokens / WARMUP_TOKENS
    progress = (tokens - WARMUP_TOKENS) / max(1, final_tokens - WARMUP_TOKENS)
    return max(FLOOR, 0.5 * (1 + math.cos(math.pi * min(progress, 1.0))))


def decay_groups(network: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Return the weights of linear maps and convolutions, which decay, and all others, which do not."""
    matrices = {id(m.weight) for m in network.modules() if isinstance(m, nn.Linear | nn.Conv2d)}
    parameters = list(network.parameters())
    return [p for p in parameters if id(p) in matrices], [p for p in parameters if id(p) not in matrices]
