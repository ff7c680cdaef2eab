"""Key-value caches and the rollout of Decision Transformer, which computes the newest step alone."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from dtbench.algorithm import History
from dtbench.decision_transformer.model import Block, CausalTransformer
from dtbench.decision_transformer.network import DecisionTransformerNetwork
from dtbench.nn import greedy_actions

CHUNK_TOKENS = 8192  # of all episodes at a time, which bounds the memory of a block
COMPACT_SHARE = 7 / 8  # of the cached episodes; where fewer are active, the others are dropped from the caches


class KeyValueCache:
    """Keys and values of every episode's tokens, up to `length`, so that each token passes through the stack once.

    Exact while the window begins with the first token.
    """

    def __init__(self, transformer: CausalTransformer, length: int) -> None:
        self.transformer, self.length, self.end = transformer, length, 0
        self._kept: list[Tensor] = []  # of each block [B, length, 2 width]: keys and values

    def append(self, tokens: Tensor, *, private: bool = False) -> Tensor:
        """Append n new tokens, [B, n, hidden_size]; return the stack's output for the last one, [B, hidden_size].

        A `private` last token is seen by itself alone: the next token overwrites it.
        """
        new, hidden_size = tokens.shape[1:]
        if not self._kept:
            self._kept = [tokens.new_empty(len(tokens), self.length, 2 * hidden_size) for _ in self.transformer.blocks]
        begin, self.end = self.end, self.end + new - private
        size = max(1, CHUNK_TOKENS // new)
        parts = zip(torch.split(tokens, size), *(torch.split(kept, size) for kept in self._kept), strict=True)
        return torch.cat([self._pass(part, kept, begin) for part, *kept in parts])

    def keep(self, rows: Tensor) -> None:
        """Drop all episodes but these."""
        self._kept = [kept[rows] for kept in self._kept]

    def _pass(self, tokens: Tensor, kept: list[Tensor], begin: int) -> Tensor:
        """Pass new tokens through the stack and write their keys and values from slot `begin` on."""
        new, hidden_size = tokens.shape[1:]
        stop, last = begin + new, len(kept) - 1
        visible = None if new == 1 else torch.ones(new, stop, dtype=torch.bool, device=tokens.device).tril(begin)
        for number, (block, seen) in enumerate(zip(_blocks(self.transformer), kept, strict=True)):
            query, key_value = block.attention.qkv(block.norm_1(tokens)).tensor_split([hidden_size], dim=-1)
            seen[:, begin:stop] = key_value
            if number == last:
                tokens, query, visible = tokens[:, -1:], query[:, -1:], None  # nothing reads the other outputs
            tokens = _after_attention(block, tokens, _attend(block, query, seen[:, :stop], visible))
        normed: Tensor = self.transformer.norm(tokens[:, -1])
        return normed


class WindowCache:
    """The last `length` tokens of every episode and their projections in the first block.

    Exact where KeyValueCache is not: every step passes the window through the stack, but for the first block's
    projections, which do not change, and for the last block's outputs of older tokens, which nothing reads.
    """

    def __init__(self, transformer: CausalTransformer, length: int) -> None:
        self.transformer, self.length = transformer, length
        self.slots = length + max(length // 4, 8)  # a window moves through them and is then moved back to their start
        self.end = 0
        self._tokens = self._projected = torch.zeros(0)

    def append(self, tokens: Tensor, *, private: bool = False) -> Tensor:
        """Append as `KeyValueCache` does; the first call brings a whole window."""
        batch, new, hidden_size = tokens.shape
        if not len(self._tokens):
            self._tokens = tokens.new_empty(batch, self.slots, hidden_size)
            self._projected = tokens.new_empty(batch, self.slots, 3 * hidden_size)
        if self.end + new > self.slots:
            self._wind_back(new)
        first = next(_blocks(self.transformer))
        self._tokens[:, self.end : self.end + new] = tokens
        self._projected[:, self.end : self.end + new] = first.attention.qkv(first.norm_1(tokens))
        stop = self.end + new
        window = slice(max(stop - self.length, 0), stop)
        self.end = stop - private
        size = max(1, CHUNK_TOKENS // self.length)
        buffers = (self._tokens[:, window], self._projected[:, window])
        parts = zip(*(torch.split(buffer, size) for buffer in buffers), strict=True)
        return torch.cat([self._pass(*part) for part in parts])

    def keep(self, rows: Tensor) -> None:
        """Drop all episodes but these."""
        self._tokens, self._projected = self._tokens[rows], self._projected[rows]

    def _pass(self, tokens: Tensor, projected: Tensor) -> Tensor:
        """Return the newest token's output, [B, hidden_size], of windows [B, L, hidden_size] and their projections."""
        first, *rest = _blocks(self.transformer)
        query, key_value = projected.tensor_split([tokens.shape[2]], dim=-1)
        if not rest:
            tokens = _after_attention(first, tokens[:, -1:], _attend(first, query[:, -1:], key_value, None))
            return self.transformer.norm(tokens[:, -1])  # type: ignore[no-any-return]
        tokens = _after_attention(first, tokens, _attend(first, query, key_value, None, causal=True))
        return newest_hidden(self.transformer, tokens, begin=1)

    def _wind_back(self, new: int) -> None:
        """Move the tokens that the next window still has to the start of the buffers."""
        kept = min(self.length - new, self.end)
        for buffer in (self._tokens, self._projected):
            buffer[:, :kept] = buffer[:, self.end - kept : self.end].clone()
        self.end = kept


def newest_hidden(transformer: CausalTransformer, tokens: Tensor, *, begin: int = 0) -> Tensor:
    """Return the output of the stack from block `begin` on for the last token, [B, L, width] to [B, width].

    The last block is computed for that token alone: with its query q and the others' inputs x, q.(W_k x) is
    (q W_k).x and the sum of a W_v x is W_v times the sum of a x. A bias of keys adds the same to all scores and
    drops out of the softmax; that of values is added once, since weights sum to 1.
    """
    *blocks, last = _blocks(transformer)
    for block in blocks[begin:]:
        tokens = block(tokens, None)
    num_heads, hidden_size = last.attention.num_heads, tokens.shape[2]
    size = hidden_size // num_heads
    seen = last.norm_1(tokens)
    of_query, of_key, of_value = last.attention.qkv.weight.view(3, num_heads, size, hidden_size)
    bias = last.attention.qkv.bias.view(3, num_heads, size)
    query = torch.einsum("bw,hdw->bhd", seen[:, -1], of_query) + bias[0]
    absorbed = torch.einsum("bhd,hdw->bhw", query, of_key)
    weights = (absorbed @ seen.transpose(1, 2) / math.sqrt(size)).softmax(dim=-1)
    value = torch.einsum("bhw,hdw->bhd", weights @ seen, of_value) + bias[2]
    newest = _after_attention(last, tokens[:, -1], value.reshape(-1, hidden_size))
    normed: Tensor = transformer.norm(newest)
    return normed


class ActiveEpisodes:
    """The episodes that the caches hold: ended ones are dropped once they are an eighth of them."""

    def __init__(self) -> None:
        self.rows: Tensor | None = None  # among all episodes; None: all of them

    def update(self, rows: Tensor, episodes: int) -> Tensor | None:
        """Set the active `rows`; return the rows of the caches to keep, None for all."""
        held = episodes if self.rows is None else len(self.rows)
        if len(rows) > COMPACT_SHARE * held or len(rows) == held:
            return None
        kept = rows if self.rows is None else torch.searchsorted(self.rows, rows)
        self.rows = rows
        return kept

    def current(self, values: Tensor, slot: int = -1) -> Tensor:
        """Return one slot of the active episodes' history, [episodes, T, ...] to [active, ...]."""
        return values[:, slot] if self.rows is None else values[self.rows, slot]

    def select(self, values: Tensor, rows: Tensor) -> Tensor:
        """Return the rows of [active, ...] that belong to `rows`."""
        if len(rows) == len(values):
            return values
        return values[rows if self.rows is None else torch.searchsorted(self.rows, rows)]


class DecisionTransformerRollout:
    """Acts in lock step with a network in which a token does not depend on its position in the window.

    While the window begins where the episodes do, keys and values are kept. Then the windows are passed through the
    stack (`WindowCache`), or read by `predict` where all tokens change as the window moves: with `anchored` timesteps,
    which are counted from its first step, and generated returns.
    """

    def __init__(
        self,
        network: DecisionTransformerNetwork,
        *,
        context: int,
        encode: Callable[[Tensor], Tensor],
        predict: Callable[[History], Tensor],
        anchored: bool,
    ) -> None:
        """`network` is in evaluation mode; `encode` makes its input, `predict` reads a whole history."""
        self.network, self.context, self.encode, self.predict = network, context, encode, predict
        returns = network.returns
        self.step, self.changes = 0, anchored or returns.window_dependent
        # Private tokens are not cached; the present action is not known.
        self.length = (returns.selection.kinds - returns.private) * context - (not returns.private)
        self.cache: KeyValueCache | WindowCache = KeyValueCache(network.transformer, self.length)
        self.active = ActiveEpisodes()

    def act(self, history: History, rows: Tensor) -> Tensor:
        return greedy_actions(self.action_logits(history, rows), self.network.action_space)

    @torch.inference_mode()
    def action_logits(self, history: History, rows: Tensor) -> Tensor:
        step, self.step = self.step, self.step + 1
        full = step >= self.context
        if full and self.changes:
            return self.predict(history.of(rows))
        kept = self.active.update(rows, len(history.mask))
        if full and isinstance(self.cache, KeyValueCache):
            self.cache = WindowCache(self.network.transformer, self.length)
            hidden = self.cache.append(self._window(history), private=self.network.returns.private)
        else:
            if kept is not None:
                self.cache.keep(kept)
            hidden = self._append(history, step)
        predicted: Tensor = self.network.action_head(hidden)
        return self.active.select(predicted, rows)

    def _append(self, history: History, step: int) -> Tensor:
        """Append the present's tokens; return what is read for its action, [active, hidden_size]."""
        network, current = self.network, self.active.current
        before = []
        if step > 0 and self.context > 1:
            action = network.embed_actions(current(history.actions, -2)[:, None])
            before.append(action + self._time(current(history.timesteps, -2)))
        time = self._time(current(history.timesteps))
        observation = network.embed_observation(self.encode(current(history.observations))[:, None]) + time
        present = (current(history.returns_to_go)[:, None], observation, time)
        return network.returns.append(network, self._append_tokens, before, present)

    def _append_tokens(self, tokens: Sequence[Tensor], private: bool) -> Tensor:
        return self.cache.append(self.network.embed_norm(torch.cat(list(tokens), dim=1)), private=private)

    def _time(self, timesteps: Tensor) -> Tensor:
        """Embed timesteps [B] as [B, 1, hidden_size]."""
        embedding: Any = self.network.embed_timestep
        embedded: Tensor = embedding(timesteps[:, None].clamp(max=embedding.num_embeddings - 1))
        return embedded

    def _window(self, history: History) -> Tensor:
        """Return the window's tokens that others see, and the one to read, [active, L, hidden_size]."""
        held = history.of(slice(None) if self.active.rows is None else self.active.rows)
        returns = self.network.returns.tokens(held.returns_to_go)
        observations, timesteps = self.encode(held.observations), held.timesteps
        tokens = self.network.tokens(returns, observations, held.actions, timesteps)
        if self.network.returns.private:
            seen = torch.arange(tokens.shape[1] - 1, device=tokens.device)
            return tokens[:, seen[(seen % 3 != 1) | (seen == seen[-1])]]
        return tokens[:, :-1]


def _blocks(transformer: CausalTransformer) -> Any:
    return iter(transformer.blocks)


def _attend(block: Block, query: Tensor, key_value: Tensor, visible: Tensor | None, *, causal: bool = False) -> Tensor:
    """Mix values for queries [B, n, width] over [B, L, 2 width]; `visible` is [n, L] or None: all."""
    batch, _, hidden_size = query.shape
    shape = (batch, -1, block.attention.num_heads, hidden_size // block.attention.num_heads)
    query, key, value = (part.view(shape).transpose(1, 2) for part in (query, *key_value.chunk(2, dim=-1)))
    mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=visible, is_causal=causal)
    return mixed.transpose(1, 2).flatten(2)


def _after_attention(block: Block, tokens: Tensor, mixed: Tensor) -> Tensor:
    return block.after_attention(tokens + block.attention.out(mixed))
