"""The transformer inside ACT, as in DETR (Carion et al. 2020, https://arxiv.org/abs/2005.12872), and its positions.

Shapes: B batch, S tokens of the encoder, C actions of a chunk, D model width. Names are those of LeRobot's state dict.
"""

import math
from collections.abc import Callable
from functools import lru_cache

import torch
import torch.nn.functional as F  # noqa: N812 - the name torch's own documentation uses
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from aloha_runtime.act.config import ACTConfig


class Attention(nn.Module):
    """Multi-head attention with fused kernels; parameters named and laid out as `nn.MultiheadAttention` has them."""

    def __init__(self, config: ACTConfig) -> None:
        super().__init__()
        dim = config.dim_model
        self.in_proj_weight = nn.Parameter(torch.empty(3 * dim, dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * dim))
        self.out_proj = nn.Linear(dim, dim)
        self.heads, self.dropout = config.n_heads, config.dropout
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, is_pad: Tensor | None = None) -> Tensor:
        """query (B, Q, D), key and value (B, S, D), is_pad (B, S) True where a key is to be ignored -> (B, Q, D)."""
        parts = zip((query, key, value), self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3), strict=True)
        q, k, v = (F.linear(x, w, b).view(*x.shape[:2], self.heads, -1).transpose(1, 2) for x, w, b in parts)
        mask = None if is_pad is None else ~is_pad[:, None, None, :]  # (B, 1, 1, S)
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)  # (B, heads, Q, D / heads)
        return self.out_proj(mixed.transpose(1, 2).flatten(2))


def runner(config: ACTConfig) -> Callable[..., Tensor]:
    """How a layer is run: as it is, or in training with its activations computed again on the way back."""

    def run(layer: nn.Module, *inputs: Tensor | None) -> Tensor:
        if config.use_gradient_checkpointing and layer.training and torch.is_grad_enabled():
            return checkpoint(layer, *inputs, use_reentrant=False)
        return layer(*inputs)

    return run


class Encoder(nn.Module):
    """Transformer encoder in which positions are added to queries and keys of every layer."""

    def __init__(self, config: ACTConfig, n_layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(n_layers))
        self._run = runner(config)
        self.norm = nn.LayerNorm(config.dim_model) if config.pre_norm else nn.Identity()

    def forward(self, x: Tensor, positions: Tensor, is_pad: Tensor | None = None) -> Tensor:
        for layer in self.layers:
            x = self._run(layer, x, positions, is_pad)  # (B, S, D)
        return self.norm(x)


class EncoderLayer(nn.Module):
    """Self-attention, then feed-forward, each with a residual; normalised before (`pre_norm`) or after."""

    def __init__(self, config: ACTConfig) -> None:
        super().__init__()
        self.self_attn = Attention(config)
        self.linear1 = nn.Linear(config.dim_model, config.dim_feedforward)
        self.linear2 = nn.Linear(config.dim_feedforward, config.dim_model)
        self.norm1, self.norm2 = nn.LayerNorm(config.dim_model), nn.LayerNorm(config.dim_model)
        self.dropout = nn.Dropout(config.dropout)
        self.activation = getattr(F, config.feedforward_activation)
        self.pre_norm = config.pre_norm

    def forward(self, x: Tensor, positions: Tensor, is_pad: Tensor | None = None) -> Tensor:
        if self.pre_norm:
            x = x + self.dropout(self._attend(self.norm1(x), positions, is_pad))  # (B, S, D)
            return x + self.dropout(self._feed_forward(self.norm2(x)))
        x = self.norm1(x + self.dropout(self._attend(x, positions, is_pad)))  # (B, S, D)
        return self.norm2(x + self.dropout(self._feed_forward(x)))

    def _attend(self, x: Tensor, positions: Tensor, is_pad: Tensor | None) -> Tensor:
        query = x + positions
        return self.self_attn(query, query, x, is_pad)

    def _feed_forward(self, x: Tensor) -> Tensor:
        return self.linear2(self.dropout(self.activation(self.linear1(x))))


class Decoder(nn.Module):
    """Transformer decoder whose queries are learned, one per action of the chunk; its input is all zeros."""

    def __init__(self, config: ACTConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.n_decoder_layers))
        self._run = runner(config)
        self.norm = nn.LayerNorm(config.dim_model)

    def forward(self, memory: Tensor, memory_positions: Tensor, queries: Tensor) -> Tensor:
        """memory (B, S, D), its positions (1, S, D), queries (C, D) -> (B, C, D)."""
        x = memory.new_zeros(memory.shape[0], *queries.shape)  # (B, C, D)
        for layer in self.layers:
            x = self._run(layer, x, queries, memory, memory_positions)  # (B, C, D)
        return self.norm(x)


class DecoderLayer(nn.Module):
    """Self-attention among the actions, cross-attention to the observation, feed-forward; each with a residual."""

    def __init__(self, config: ACTConfig) -> None:
        super().__init__()
        self.self_attn, self.multihead_attn = Attention(config), Attention(config)
        self.linear1 = nn.Linear(config.dim_model, config.dim_feedforward)
        self.linear2 = nn.Linear(config.dim_feedforward, config.dim_model)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(config.dim_model) for _ in range(3))
        self.dropout = nn.Dropout(config.dropout)
        self.activation = getattr(F, config.feedforward_activation)
        self.pre_norm = config.pre_norm

    def forward(self, x: Tensor, queries: Tensor, memory: Tensor, memory_positions: Tensor) -> Tensor:
        keys = memory + memory_positions  # (B, S, D)
        if self.pre_norm:
            x = x + self.dropout(self._attend(self.norm1(x), queries))  # (B, C, D)
            x = x + self.dropout(self.multihead_attn(self.norm2(x) + queries, keys, memory))
            return x + self.dropout(self._feed_forward(self.norm3(x)))
        x = self.norm1(x + self.dropout(self._attend(x, queries)))  # (B, C, D)
        x = self.norm2(x + self.dropout(self.multihead_attn(x + queries, keys, memory)))
        return self.norm3(x + self.dropout(self._feed_forward(x)))

    def _attend(self, x: Tensor, queries: Tensor) -> Tensor:
        query = x + queries
        return self.self_attn(query, query, x)

    def _feed_forward(self, x: Tensor) -> Tensor:
        return self.linear2(self.dropout(self.activation(self.linear1(x))))


def sinusoid(length: int, dim: int) -> Tensor:
    """Sinusoidal positions (length, dim) of Vaswani et al. 2017, section 3.5: sine on even, cosine on odd columns."""
    column = torch.arange(dim, dtype=torch.float64)
    angle = torch.arange(length, dtype=torch.float64)[:, None] / 10000 ** (2 * (column // 2) / dim)
    return torch.where(column % 2 == 0, angle.sin(), angle.cos()).float()


@lru_cache(maxsize=32)
@torch.inference_mode(False)  # the first caller may run in inference mode, a later one may train
def sinusoid_2d(height: int, width: int, dim: int) -> Tensor:
    """Sinusoidal positions (height * width, dim) of a feature map: the row in the first half, the column in the second.

    Rows and columns count from 1 and are scaled to 0..2 pi, as in DETR (Carion et al. 2020), from which ACT has it.
    """
    frequency = 10000 ** (2 * (torch.arange(dim // 2) // 2) / (dim // 2))  # (D / 2,)

    def encode(size: int) -> Tensor:
        position = torch.arange(1, size + 1) / (size + 1e-6) * 2 * math.pi  # (size,)
        angle = position[:, None] / frequency  # (size, D / 2)
        return torch.stack([angle[:, 0::2].sin(), angle[:, 1::2].cos()], dim=-1).flatten(1)

    rows = encode(height)[:, None].expand(height, width, -1)
    columns = encode(width)[None].expand(height, width, -1)
    return torch.cat([rows, columns], dim=-1).flatten(0, 1)  # (h * w, D)
