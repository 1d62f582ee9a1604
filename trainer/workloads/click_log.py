"""A generated click log, and embeddings with an MLP that learn it."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from .clicks import Clicks
from .options import ClickLogOptions
from .planted import Array, log_odds, zipf


class ClickLog(Clicks):
    """Clicks given Gaussian features and categories that follow Zipf's law."""

    Options = ClickLogOptions
    options: ClickLogOptions

    def impressions(self, random: np.random.Generator, count: int) -> tuple[Array, Array]:
        """Return features and categories [count, dense + columns], and log-odds [count]."""
        columns, vocabulary = self.options.columns, self.options.vocabulary
        dense = random.standard_normal((count, self.options.dense))
        categories = zipf(random, count, np.full(columns, vocabulary))
        keys = categories + vocabulary * np.arange(columns, dtype=np.uint32)
        return np.hstack([dense, categories]), log_odds(dense, keys)

    def model(self) -> nn.Module:
        """Return a model of the options' sizes."""
        return ClickModel(self.options)


class ClickModel(nn.Module):
    """Inputs [B, dense + columns] to one logit each [B]: an MLP over features and embedded categories."""

    def __init__(self, options: ClickLogOptions) -> None:
        super().__init__()
        self._dense, self._columns = options.dense, options.columns
        self._vocabulary = options.vocabulary
        self.embedding = nn.Embedding(options.columns * options.vocabulary, options.embedding_dim)
        widths = [options.dense + options.columns * options.embedding_dim, *options.hidden]
        layers = [layer for pair in pairwise(widths) for layer in (nn.Linear(*pair), nn.ReLU())]
        self.mlp = nn.Sequential(*layers, nn.Linear(widths[-1], 1))

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the logits."""
        columns = torch.arange(self._columns, device=inputs.device)
        embedded = self.embedding(inputs[:, self._dense :].long() + self._vocabulary * columns).flatten(1)
        dense = inputs[:, : self._dense].to(embedded.dtype)
        logits: Tensor = self.mlp(torch.cat([dense, embedded], 1))
        return logits.squeeze(1)
