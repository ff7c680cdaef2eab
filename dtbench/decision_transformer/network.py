"""Tokens of Decision Transformer: returns, observations and actions in, predictions out."""

import math
from typing import Any

import gymnasium as gym
import torch
from torch import Tensor, nn

from dtbench.decision_transformer.model import CausalTransformer
from dtbench.decision_transformer.returns import ReturnTokens
from dtbench.nn import Dropout, ImageScale, Linear, NatureEncoder, indices_of, is_image, to_floats


class DecisionTransformerNetwork(nn.Module):
    """Tokens of T steps in, predictions for every step out.

    `ReturnTokens` decide the order of a step's tokens; the action is read at the last token before it. All tokens of a
    step share its timestep embedding; one layer norm follows.
    """

    def __init__(
        self,
        *,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        transformer: CausalTransformer,
        hidden_size: int,
        max_timestep: int,
        dropout: float = 0.1,
        returns: ReturnTokens,
        timestep_std: float = 1.0,
    ) -> None:
        """Make a table of `max_timestep` rows, the last for all later steps; they start as N(0, timestep_std)."""
        super().__init__()
        self.returns = returns
        self.observation_space, self.action_space = observation_space, action_space
        self.embed_timestep = nn.Embedding(max_timestep, hidden_size)
        nn.init.normal_(self.embed_timestep.weight, std=timestep_std)
        self.embed_observation = observation_encoder(observation_space, hidden_size)
        self.embed_action: nn.Module
        if isinstance(action_space, gym.spaces.Discrete):
            self.embed_action = nn.Embedding(int(action_space.n), hidden_size)
            self.action_head: nn.Module = nn.Linear(hidden_size, int(action_space.n))
        else:
            size = math.prod(action_space.shape or ())
            self.embed_action = Linear(size, hidden_size)
            self.action_head = nn.Sequential(nn.Linear(hidden_size, size), nn.Tanh())
        self.embed_return = returns.embedding(hidden_size)
        self.return_head = returns.head(hidden_size)
        self.embed_norm = nn.LayerNorm(hidden_size)
        self.embed_dropout = Dropout(dropout)
        self.transformer = transformer

    def forward(
        self, returns: Tensor, observations: Tensor, actions: Tensor, timesteps: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Return action predictions [B, T, actions] and, where returns are predicted, their logits [B, T, bins].

        `returns` [B, T] are tokens of `ReturnTokens`; `observations` are encoder input.
        """
        batch, length = timesteps.shape
        tokens = self.tokens(returns, observations, actions, timesteps)
        visible = self._token_masks(tokens, mask, length)
        read = self.returns.selection
        hidden = self.transformer(tokens, *visible, read=read).view(batch, length, read.last - read.first, -1)
        return_logits = None if self.return_head is None else self.return_head(hidden[:, :, 0])
        return self.action_head(hidden[:, :, -1]), return_logits

    def attention_weights(
        self, returns: Tensor, observations: Tensor, actions: Tensor, timesteps: Tensor, mask: Tensor | None
    ) -> Tensor:
        """Return the attention of each step's first token, [layers, B, heads, T, T, kinds], as in `forward`.

        The last axis is the tokens of the step attended to; with it, a row sums to 1.
        """
        length = timesteps.shape[1]
        tokens = self.tokens(returns, observations, actions, timesteps)
        weights = self.transformer.attention_weights(tokens, *self._token_masks(tokens, mask, length))
        kinds = tokens.shape[1] // length
        of_first = weights[..., ::kinds, :]
        return of_first.reshape(*of_first.shape[:-1], length, kinds)

    def tokens(self, returns: Tensor, observations: Tensor, actions: Tensor, timesteps: Tensor) -> Tensor:
        """Return the stack's input, [B, T x kinds, hidden_size]."""
        time = self.embed_timestep(timesteps.clamp(max=self.embed_timestep.num_embeddings - 1))
        observation = self.embed_observation(observations) + time
        action = self.embed_actions(actions) + time
        kinds = [*self.returns.arrange(self.embed_return, returns, observation, time), action]
        batch, length, hidden_size = time.shape
        tokens = torch.stack(kinds, dim=2).view(batch, length * len(kinds), hidden_size)
        normed: Tensor = self.embed_dropout(self.embed_norm(tokens))
        return normed

    def _token_masks(self, tokens: Tensor, mask: Tensor | None, length: int) -> tuple[Tensor | None, Tensor | None]:
        """Return which tokens are not padding, [B, T x kinds], and which are private, [T x kinds]."""
        kinds = tokens.shape[1] // length
        token_mask = None if mask is None else mask.repeat_interleave(kinds, dim=1)
        if not self.returns.private:
            return token_mask, None
        return token_mask, torch.arange(tokens.shape[1], device=tokens.device) % kinds == 1

    def embed_actions(self, actions: Tensor) -> Tensor:
        """Embed [B, T, *action] as [B, T, hidden_size]."""
        if isinstance(self.action_space, gym.spaces.Discrete):
            embedded: Tensor = self.embed_action(indices_of(actions, self.action_space))
        else:
            embedded = self.embed_action(actions.float().flatten(2))
        return embedded


class ObservationEncoder(nn.Module):
    """An encoder of indices, images or vectors, [B, T, *observation] to [B, T, hidden_size]."""

    def __init__(self, encoder: nn.Module, space: gym.Space[Any], *, scale: nn.Module | None = None) -> None:
        super().__init__()
        self.encoder, self.space, self.scale = encoder, space, scale

    def forward(self, observations: Tensor) -> Tensor:
        batch, length = observations.shape[:2]
        if isinstance(self.space, gym.spaces.Discrete):
            encoded: Tensor = self.encoder(indices_of(observations, self.space))
        elif is_image(self.space):
            images = observations.flatten(0, 1)
            scaled = to_floats(images).div_(255) if self.scale is None else self.scale(images)
            encoded = self.encoder(scaled).view(batch, length, -1)
        else:
            encoded = self.encoder(observations.float().flatten(2))
        return encoded


def observation_encoder(
    space: gym.Space[Any],
    hidden_size: int,
    *,
    channels: tuple[int, int, int] = (32, 64, 64),
    scale: ImageScale | None = None,
) -> ObservationEncoder:
    """Return an embedding for indices, the Nature encoder for 84 x 84 images, a linear layer for the rest."""
    if isinstance(space, gym.spaces.Discrete):
        return ObservationEncoder(nn.Embedding(int(space.n), hidden_size), space)
    if is_image(space):
        encoder = NatureEncoder((space.shape or ())[0], hidden_size, activation=nn.Tanh(), channels=channels)
        return ObservationEncoder(encoder, space, scale=scale)
    return ObservationEncoder(Linear(math.prod(space.shape or ()), hidden_size), space)
