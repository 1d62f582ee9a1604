"""A small causal transformer (Vaswani et al. 2017, with normalisation before each part as in GPT-2)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (torch's own name for it)


class Transformer(nn.Module):
    """Tokens [B, T] to logits [B, T, K] of the token that follows each, seen from those up to it."""

    def __init__(
        self, vocabulary: int, context: int, width: int, heads: int, layers: int, tie_weights: bool
    ) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(context, width)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        for embedding in (self.tokens, self.positions):
            nn.init.normal_(embedding.weight, std=1 / math.sqrt(width))  # tied logits then begin near ±1
        if tie_weights:
            self.head.weight = self.tokens.weight

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the logits."""
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        hidden = self.blocks(self.tokens(tokens) + self.positions(positions))
        logits: Tensor = self.head(self.norm(hidden))
        return logits


class Block(nn.Module):
    """Attention, then an MLP of four times the width; each adds to its input."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = nn.Sequential(nn.LayerNorm(width), Attention(width, heads))
        self.mlp = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, hidden: Tensor) -> Tensor:
        """Map [B, T, width] to the same shape."""
        hidden = hidden + self.attention(hidden)
        after: Tensor = hidden + self.mlp(hidden)
        return after


class Attention(nn.Module):
    """Causal attention.

    torch's kernel is a tenth faster in training than the same by products and softmax. It has no forward
    mode, though: take that under the MATH kernel, as the jvp route does, which costs no more than products.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self._heads = heads
        self.project = nn.Linear(width, 3 * width)
        self.merge = nn.Linear(width, width)

    def forward(self, hidden: Tensor) -> Tensor:
        """Map [B, T, width] to the same shape."""
        batch, length, width = hidden.shape
        split = self.project(hidden).view(batch, length, 3, self._heads, width // self._heads)
        query, key, value = split.permute(2, 0, 3, 1, 4)  # each [B, heads, T, width of a head]
        attended = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        merged: Tensor = self.merge(attended.transpose(1, 2).reshape(batch, length, width))
        return merged
