"""Published networks of Decision Transformer: transformers' as it is, CORL's and the Atari code's layout rewritten.

All take a batch in the order (returns-to-go, observations, actions, timesteps, mask) and return predicted actions
[B, T, ...].
"""

import math
import re
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class TransformersLayout(nn.Module):
    """transformers' DecisionTransformerModel with its defaults, called as its own training does."""

    def __init__(
        self, *, observed: int, acted: int, longest: int, hidden_size: int, num_layers: int, num_heads: int
    ) -> None:
        from transformers import DecisionTransformerConfig, DecisionTransformerModel
        from transformers.utils import logging

        super().__init__()
        logging.set_verbosity_error()  # it warns of token ids that no Decision Transformer has
        config = DecisionTransformerConfig(
            state_dim=observed,
            act_dim=acted,
            max_ep_len=longest,
            hidden_size=hidden_size,
            n_layer=num_layers,
            n_head=num_heads,
        )
        self.model = DecisionTransformerModel(config)  # its defaults: ReLU, dropout 0.1 three times

    def forward(self, returns: Tensor, observations: Tensor, actions: Tensor, timesteps: Tensor, mask: Tensor) -> Any:
        return self.model(
            states=observations,
            actions=actions,
            rewards=None,
            returns_to_go=returns[..., None],
            timesteps=timesteps,
            attention_mask=mask.long(),
        ).action_preds


class CORLLayout(nn.Module):
    """The layout of CORL's network (tinkoff-ai/CORL, algorithms/offline/dt.py, commit 2c308c8), with its names.

    Pre-norm blocks, `nn.MultiheadAttention` with a boolean causal mask as a buffer and a padding mask repeated for the
    three kinds of token, dropout after attention, GELU, N(0, 0.02) for all weights; windows padded on the right.
    """

    def __init__(
        self,
        *,
        observed: int,
        acted: int,
        context: int,
        longest: int,
        hidden_size: int,
        num_layers: int,
        num_heads: int,
    ):
        super().__init__()
        self.timestep_emb = nn.Embedding(longest + context, hidden_size)
        self.state_emb, self.action_emb = nn.Linear(observed, hidden_size), nn.Linear(acted, hidden_size)
        self.return_emb = nn.Linear(1, hidden_size)
        self.emb_norm, self.emb_drop = nn.LayerNorm(hidden_size), nn.Dropout(0.1)
        self.blocks = nn.ModuleList(CORLBlock(3 * context, hidden_size, num_heads) for _ in range(num_layers))
        self.out_norm = nn.LayerNorm(hidden_size)
        self.action_head = nn.Sequential(nn.Linear(hidden_size, acted), nn.Tanh())
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)

    def forward(
        self, states: Tensor, actions: Tensor, returns_to_go: Tensor, time_steps: Tensor, padding_mask: Tensor
    ) -> Tensor:
        """Predict actions; `padding_mask` is True where a step is padding."""
        batch, length = time_steps.shape
        time = self.timestep_emb(time_steps)
        kinds = (self.return_emb(returns_to_go[..., None]), self.state_emb(states), self.action_emb(actions))
        tokens = torch.stack([kind + time for kind in kinds], dim=2).view(batch, 3 * length, -1)
        tokens = self.emb_drop(self.emb_norm(tokens))
        padding = torch.stack([padding_mask] * 3, dim=2).view(batch, 3 * length)
        for block in self.blocks:
            tokens = block(tokens, padding)
        predicted: Tensor = self.action_head(self.out_norm(tokens)[:, 1::3])
        return predicted


class CORLBlock(nn.Module):
    """One block of `CORLLayout`."""

    def __init__(self, tokens: int, hidden_size: int, num_heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2, self.drop = nn.LayerNorm(hidden_size), nn.LayerNorm(hidden_size), nn.Dropout(0.1)
        self.attention = nn.MultiheadAttention(hidden_size, num_heads, 0.1, batch_first=True)
        self.mlp = nn.Sequential(
            nn.Linear(hidden_size, 4 * hidden_size),
            nn.GELU(),
            nn.Linear(4 * hidden_size, hidden_size),
            nn.Dropout(0.1),
        )
        self.register_buffer("causal_mask", torch.ones(tokens, tokens, dtype=torch.bool).triu(1))

    def forward(self, tokens: Tensor, padding: Tensor) -> Tensor:
        normed = self.norm1(tokens)
        mixed = self.attention(
            normed, normed, normed, attn_mask=self.causal_mask, key_padding_mask=padding, need_weights=False
        )[0]
        tokens = tokens + self.drop(mixed)
        added: Tensor = tokens + self.mlp(self.norm2(tokens))
        return added


class CORLCalled(nn.Module):
    """CORL's layout that takes the batch in this project's order."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(
        self, returns: Tensor, observations: Tensor, actions: Tensor, timesteps: Tensor, mask: Tensor
    ) -> Tensor:
        predicted: Tensor = self.network(observations, actions, returns, timesteps, ~mask)
        return predicted


def corl_weights_for_ours(network: nn.Module) -> dict[str, Tensor]:
    """Return the weights of CORL's layout by the names of `DecisionTransformerNetwork`, for equal outputs."""
    names = {
        "timestep_emb": "embed_timestep",
        "state_emb": "embed_observation.encoder",
        "action_emb": "embed_action",
        "return_emb": "embed_return",
        "emb_norm": "embed_norm",
        "out_norm": "transformer.norm",
        "action_head.0": "action_head.0",
    }
    in_block = {
        "norm1": "norm_1",
        "norm2": "norm_2",
        "mlp.0": "mlp_in",
        "mlp.2": "mlp_out",
        "attention.in_proj": "attention.qkv",
        "attention.out_proj": "attention.out",
    }
    renamed = {}
    for name, value in network.state_dict().items():
        module, kind = re.fullmatch(r"(.+)[._](weight|bias|mask)", name).groups()  # type: ignore[union-attr]
        if module.startswith("blocks.") and kind != "mask":
            _, number, rest = module.split(".", 2)
            renamed[f"transformer.blocks.{number}.{in_block[rest]}.{kind}"] = value
        elif kind != "mask":
            renamed[f"{names[module]}.{kind}"] = value
    return renamed


class OfficialAtariLayout(nn.Module):
    """The layout of the paper's public Atari code (kzl/decision-transformer, atari/mingpt/model_atari.py): minGPT.

    Query, key and value by three linear maps, attention written out, a causal mask as a buffer in each block, three
    `nn.Dropout`s, tokens written into a tensor of zeros one kind after another. One thing is cheaper here: that code
    repeats its table of timesteps for every window before it takes one row from each. Frames are floats in [0, 1].
    """

    def __init__(
        self, *, actions: int, context: int, longest: int, hidden_size: int, num_layers: int, num_heads: int
    ) -> None:
        super().__init__()
        self.state_encoder = nn.Sequential(
            nn.Conv2d(4, 32, 8, stride=4),
            nn.ReLU(),
            nn.Conv2d(32, 64, 4, stride=2),
            nn.ReLU(),
            nn.Conv2d(64, 64, 3, stride=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(3136, hidden_size),
            nn.Tanh(),
        )
        self.ret_emb = nn.Sequential(nn.Linear(1, hidden_size), nn.Tanh())
        self.action_embeddings = nn.Sequential(nn.Embedding(actions, hidden_size), nn.Tanh())
        self.pos_emb = nn.Parameter(torch.zeros(3 * context, hidden_size))
        self.global_pos_emb = nn.Parameter(torch.zeros(longest + 1, hidden_size))
        self.drop = nn.Dropout(0.1)
        self.blocks = nn.Sequential(*(OfficialBlock(3 * context, hidden_size, num_heads) for _ in range(num_layers)))
        self.ln_f = nn.LayerNorm(hidden_size)
        self.head = nn.Linear(hidden_size, actions, bias=False)

    def forward(
        self, returns: Tensor, observations: Tensor, actions: Tensor, timesteps: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """Predict logits of full windows, with the first timestep of a window in training and the last in acting."""
        batch, length = timesteps.shape
        states = self.state_encoder(observations.flatten(0, 1)).view(batch, length, -1)
        tokens = torch.zeros(batch, 3 * length, states.shape[-1], device=states.device)
        tokens[:, ::3] = self.ret_emb(returns[..., None])
        tokens[:, 1::3] = states
        tokens[:, 2::3] = self.action_embeddings(actions)
        time = self.global_pos_emb[timesteps[:, 0 if self.training else -1]]
        hidden = self.blocks(self.drop(tokens + time[:, None] + self.pos_emb[: 3 * length]))
        logits: Tensor = self.head(self.ln_f(hidden))
        return logits[:, 1::3]


class OfficialBlock(nn.Module):
    """One block of `OfficialAtariLayout`."""

    def __init__(self, tokens: int, hidden_size: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.ln1, self.ln2 = nn.LayerNorm(hidden_size), nn.LayerNorm(hidden_size)
        self.key, self.query, self.value, self.proj = (nn.Linear(hidden_size, hidden_size) for _ in range(4))
        self.attn_drop, self.resid_drop = nn.Dropout(0.1), nn.Dropout(0.1)
        self.mlp = nn.Sequential(
            nn.Linear(hidden_size, 4 * hidden_size),
            nn.GELU(),
            nn.Linear(4 * hidden_size, hidden_size),
            nn.Dropout(0.1),
        )
        self.register_buffer("mask", torch.ones(tokens, tokens).tril()[None, None])

    def forward(self, x: Tensor) -> Tensor:
        x = x + self._attend(self.ln1(x))
        added: Tensor = x + self.mlp(self.ln2(x))
        return added

    def _attend(self, x: Tensor) -> Tensor:
        batch, length, hidden_size = x.shape
        query, key, value = (
            made(x).view(batch, length, self.num_heads, -1).transpose(1, 2)
            for made in (self.query, self.key, self.value)
        )
        weights = (query @ key.transpose(-2, -1)) * (1.0 / math.sqrt(key.shape[-1]))
        weights = weights.masked_fill(self.mask[:, :, :length, :length] == 0, float("-inf"))
        mixed = self.attn_drop(F.softmax(weights, dim=-1)) @ value
        out: Tensor = self.resid_drop(self.proj(mixed.transpose(1, 2).contiguous().view(batch, length, hidden_size)))
        return out


def official_weights_for_ours(network: OfficialAtariLayout) -> dict[str, Tensor]:
    """Return the weights of the official layout by the names of our `AtariNetwork`, for equal outputs."""
    state = network.state_dict()
    renamed = {
        "embed_place": state["pos_emb"],
        "embed_timestep": state["global_pos_emb"],
        "embed_action.0.weight": state["action_embeddings.0.weight"],
        "action_head.weight": state["head.weight"],
    }
    in_block = {"ln1": "norm_1", "ln2": "norm_2", "mlp.0": "mlp_in", "mlp.2": "mlp_out", "proj": "attention.out"}
    for kind in ("weight", "bias"):
        renamed[f"embed_return.0.{kind}"] = state[f"ret_emb.0.{kind}"]
        renamed[f"transformer.norm.{kind}"] = state[f"ln_f.{kind}"]
        for layer in (0, 2, 4, 7):
            renamed[f"embed_observation.encoder.{layer}.{kind}"] = state[f"state_encoder.{layer}.{kind}"]
        for number in range(len(network.blocks)):
            theirs, ours = f"blocks.{number}", f"transformer.blocks.{number}"
            parts = [state[f"{theirs}.{part}.{kind}"] for part in ("query", "key", "value")]
            renamed[f"{ours}.attention.qkv.{kind}"] = torch.cat(parts)
            for name, own in in_block.items():
                renamed[f"{ours}.{own}.{kind}"] = state[f"{theirs}.{name}.{kind}"]
    return renamed
