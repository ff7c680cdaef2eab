"""The causal transformer of Decision Transformer, from embeddings to heads."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dtbench.nn import Dropout, Linear, dropout, linear


class CausalTransformer(nn.Module):
    """GPT-2's stack of pre-norm blocks without position embeddings (Radford et al. 2019).

    Maps tokens [B, L, width] to [B, L, width]; a token sees itself and what stands left of it. Dropout acts on
    attention weights and on what every block adds.
    """

    def __init__(
        self,
        *,
        hidden_size: int,
        num_layers: int,
        num_heads: int,
        dropout: float,
        activation: str = "relu",
        init_std: float = 0.02,
        scale_residuals: bool = False,
    ) -> None:
        """`hidden_size` must be a multiple of `num_heads`; matrices start as N(0, init_std).

        Those that add to the stream of tokens start narrower in GPT-2, the deeper the stack; not in minGPT,
        nor in the public code of Decision Transformer.
        """
        super().__init__()
        self.blocks = nn.ModuleList(Block(hidden_size, num_heads, dropout, activation) for _ in range(num_layers))
        self.norm = nn.LayerNorm(hidden_size)
        residual_std = init_std / math.sqrt(2 * num_layers)  # Radford et al. 2019, section 2.3
        for name, parameter in self.blocks.named_parameters():
            if scale_residuals and name.endswith(("attention.out.weight", "mlp_out.weight")):
                nn.init.normal_(parameter, std=residual_std)
            elif parameter.dim() == 2:
                nn.init.normal_(parameter, std=init_std)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(
        self,
        tokens: Tensor,
        mask: Tensor | None = None,
        private: Tensor | None = None,
        *,
        read: "TokenSelection | None" = None,
    ) -> Tensor:
        """Hide padding, where `mask` [B, L] is False, and tokens of `private` [L] from all others.

        With `read` only those tokens are returned, [B, read, width], and the last block computes only them.
        """
        visible = visibility(tokens, mask, private)
        *blocks, last = self.blocks
        for block in blocks:
            tokens = block(tokens, visible)
        normed: Tensor = self.norm(last(tokens, visible, read))
        return normed

    def attention_weights(self, tokens: Tensor, mask: Tensor | None = None, private: Tensor | None = None) -> Tensor:
        """Return the attention weights of `forward`, [layers, B, heads, L, L]: a row's weights sum to 1."""
        visible = visibility(tokens, mask, private)
        weights = []
        for block in self.blocks:
            assert isinstance(block, Block)
            weights.append(block.attention.weights(block.norm_1(tokens), visible))
            tokens = block(tokens, visible)
        return torch.stack(weights)


class Block(nn.Module):
    """Attention and a two-layer network, each added to the stream of tokens."""

    def __init__(self, hidden_size: int, num_heads: int, dropout: float, activation: str) -> None:
        super().__init__()
        self.norm_1 = nn.LayerNorm(hidden_size)
        self.attention = CausalAttention(hidden_size, num_heads, dropout)
        self.norm_2 = nn.LayerNorm(hidden_size)
        self.mlp_in = Linear(hidden_size, 4 * hidden_size)
        self.mlp_out = Linear(4 * hidden_size, hidden_size)
        self.activation: nn.Module = nn.ReLU() if activation == "relu" else nn.GELU()
        self.dropout = Dropout(dropout)

    def forward(self, tokens: Tensor, visible: Tensor | None, read: "TokenSelection | None" = None) -> Tensor:
        mixed = self.attention(self.norm_1(tokens), visible, read)
        return self.after_attention((tokens if read is None else read.of(tokens)) + mixed)

    def after_attention(self, tokens: Tensor) -> Tensor:
        """Add the two-layer network's output to tokens with attention added."""
        normed = self.norm_2(tokens)
        if isinstance(self.activation, nn.ReLU):
            hidden = linear(normed, self.mlp_in.weight, self.mlp_in.bias, relu=True)
        else:
            hidden = self.activation(self.mlp_in(normed))
        added: Tensor = tokens + self.dropout(self.mlp_out(hidden))
        return added


class CausalAttention(nn.Module):
    """Multi-head self-attention (Vaswani et al. 2017) in which no token sees the future."""

    def __init__(self, hidden_size: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = Linear(hidden_size, 3 * hidden_size)
        self.out = Linear(hidden_size, hidden_size)
        self.dropout = Dropout(dropout)

    def forward(self, tokens: Tensor, visible: Tensor | None, read: "TokenSelection | None" = None) -> Tensor:
        query, key, value = self._projections(tokens, read)
        if read is not None:
            everything = torch.ones(1, tokens.shape[1], dtype=torch.bool, device=tokens.device)
            visible = read.rows(causal_visibility(everything) if visible is None else visible)
        mixed = self._mix(query, key, value, visible).transpose(1, 2).flatten(2)
        out: Tensor = self.dropout(self.out(mixed))
        return out

    def _mix(self, query: Tensor, key: Tensor, value: Tensor, visible: Tensor | None) -> Tensor:
        """Mix values for each query, [B, heads, L of queries, width / heads]."""
        p = self.dropout.p if self.training else 0.0
        if query.device.type != "cpu" or not p:
            return F.scaled_dot_product_attention(
                query, key, value, attn_mask=visible, is_causal=visible is None, dropout_p=p
            )
        # With dropout PyTorch takes these steps too on a CPU, with slower dropout.
        weights = dropout(self._scores(query, key, visible).softmax(dim=-1), p)
        return weights.to(value.dtype) @ value

    def _scores(self, query: Tensor, key: Tensor, visible: Tensor | None) -> Tensor:
        """Return scores [B, heads, L of queries, L], -inf where a key is hidden."""
        if visible is None:
            visible = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool, device=query.device).tril()
        hidden = torch.zeros(visible.shape, dtype=query.dtype, device=query.device).masked_fill_(~visible, -math.inf)
        return query @ (key / math.sqrt(query.shape[-1])).transpose(-1, -2) + hidden

    def weights(self, tokens: Tensor, visible: Tensor | None) -> Tensor:
        """Return the weights of the values in `forward`, [B, heads, L, L], which fused attention does not give."""
        query, key, _ = self._projections(tokens)
        return self._scores(query, key, visible).softmax(dim=-1)

    def _projections(self, tokens: Tensor, read: "TokenSelection | None" = None) -> tuple[Tensor, Tensor, Tensor]:
        """Return query (of the tokens to read), key and value, [B, heads, L, width / heads] each."""
        hidden_size = tokens.shape[-1]
        if read is None:
            query, key, value = self.qkv(tokens).chunk(3, dim=-1)
        else:
            weight, bias = self.qkv.weight, self.qkv.bias
            query = linear(read.of(tokens), weight[:hidden_size], bias[:hidden_size])
            key, value = linear(tokens, weight[hidden_size:], bias[hidden_size:]).chunk(2, dim=-1)
        return self._by_head(query), self._by_head(key), self._by_head(value)

    def _by_head(self, tokens: Tensor) -> Tensor:
        batch, length, hidden_size = tokens.shape
        return tokens.view(batch, length, self.num_heads, hidden_size // self.num_heads).transpose(1, 2)


@dataclass(frozen=True, slots=True)
class TokenSelection:
    """The tokens of a step to read: of `kinds` tokens those from `first` up to `last`, exclusive."""

    kinds: int
    first: int
    last: int

    def of(self, tokens: Tensor) -> Tensor:
        """Select [B, T x (last - first), width] from [B, T x kinds, width]."""
        batch, length, hidden_size = tokens.shape
        steps = tokens.view(batch, length // self.kinds, self.kinds, hidden_size)
        return steps[:, :, self.first : self.last].flatten(1, 2)

    def rows(self, visible: Tensor) -> Tensor:
        """Select their rows of [B or 1, 1, T x kinds, T x kinds]."""
        batch, _, length, _ = visible.shape
        steps = visible.view(batch, 1, length // self.kinds, self.kinds, length)
        return steps[:, :, :, self.first : self.last].flatten(2, 3)


def visibility(tokens: Tensor, mask: Tensor | None, private: Tensor | None) -> Tensor | None:
    """Return which tokens each token [B, L, width] sees; None: itself and all to its left."""
    if private is None:
        return None if mask is None else causal_visibility(mask)
    shared = ~private[None] if mask is None else mask & ~private
    return causal_visibility(shared)


def causal_visibility(mask: Tensor) -> Tensor:
    """Return which token (row) sees which (column), [B, 1, L, L]; padding sees itself, so that no row is empty."""
    length = mask.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=mask.device).tril()
    itself = torch.eye(length, dtype=torch.bool, device=mask.device)
    return ((causal & mask[:, None, :]) | itself)[:, None]
