"""DLRM-small as in AlgoPerf (after Naumov et al. 2019): embeddings, two MLPs, and products between them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (torch's own name for it)

from .criteo.columns import CATEGORIES, DENSE
from .options import DLRMOptions

EPSILON = 1e-6
"""Of AlgoPerf's layer normalisation."""


class DLRM(nn.Module):
    """Inputs [B, 39], of any dtype that holds the hashes exactly, to one logit each [B].

    The defaults are AlgoPerf's, with 539,267,457 parameters. All categories share one table, a parameter of
    its own: AlgoPerf's concatenation of four parts would copy it, and its tangent, in every forward pass.
    """

    def __init__(
        self,
        table_rows: int = 4_194_304,
        embedding_dim: int = 128,
        bottom: Sequence[int] = (512, 256),
        top: Sequence[int] = (1024, 1024, 512, 256),
        dropout: float = 0.0,
        layer_norm: bool = False,
        residual: bool = False,
        embedding_init: float | None = None,
    ) -> None:
        super().__init__()
        self.residual = residual
        self.table = nn.Parameter(torch.empty(table_rows, embedding_dim))
        self.embedding_norm = nn.LayerNorm(embedding_dim, EPSILON) if layer_norm else nn.Identity()
        outputs = [*bottom] if residual else [*bottom, embedding_dim]
        pairs = (1 + CATEGORIES) * (2 + CATEGORIES) // 2
        width = outputs[-1] + (CATEGORIES * embedding_dim if residual else pairs)
        self.bottom = nn.Sequential(*_hidden_layers([DENSE, *outputs], layer_norm, residual))
        layers = _hidden_layers([width, *top], layer_norm, residual)
        if dropout:
            layers.append(nn.Dropout(dropout))
        self.top = nn.Sequential(*layers, nn.Linear(top[-1], 1))
        self._initialise(1 / math.sqrt(table_rows) if embedding_init is None else embedding_init)

    @classmethod
    def of(cls, options: DLRMOptions) -> DLRM:
        """Return a model of the options' sizes and variants."""
        return cls(**{name: getattr(options, name) for name in OPTIONS})

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the logits."""
        dense = self.bottom(inputs[:, :DENSE].to(self.table.dtype))
        rows = inputs[:, DENSE:].long() % len(self.table)
        embedded = self.embedding_norm(self.look_up(rows))
        if self.residual:
            seen = embedded.flatten(1)
        else:
            seen = interactions(torch.cat([dense.unsqueeze(1), embedded], 1))
        logits: Tensor = self.top(torch.cat([dense, seen], 1))
        return logits.squeeze(1)

    def look_up(self, rows: Tensor) -> Tensor:
        """Return rows of the table [B, 26, D]."""
        return F.embedding(rows, self.table)

    def _initialise(self, limit: float) -> None:
        """Draw parameters as AlgoPerf does: the table is all positive, below `limit`."""
        nn.init.uniform_(self.table, 0, limit)
        for mlp, initialise in ((self.bottom, nn.init.xavier_uniform_), (self.top, nn.init.xavier_normal_)):
            for layer in mlp.modules():
                if isinstance(layer, nn.Linear):
                    initialise(layer.weight)
                    nn.init.normal_(layer.bias, std=1 / math.sqrt(layer.out_features))


OPTIONS = (*DLRMOptions.model_fields.keys() - {"name", "batch_size", "accumulate"},)
"""The options that are arguments of the model."""


class Residual(nn.Sequential):
    """Layers whose output is added to their input."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the sum."""
        outputs: Tensor = inputs + super().forward(inputs)  # type: ignore[no-untyped-call]
        return outputs


def interactions(features: Tensor) -> Tensor:
    """Return the inner products of features [B, N, D] with one another and themselves, [B, N(N + 1)/2].

    They are the upper triangle of the Gram matrices, with its diagonal, row by row.
    """
    number = features.shape[1]
    products = features @ features.mT
    row, column = torch.triu_indices(number, number, device=features.device)
    return products.flatten(1).index_select(1, row * number + column)


def _hidden_layers(widths: Sequence[int], layer_norm: bool, residual: bool) -> list[nn.Module]:
    """Return linear layers between these widths, each with a ReLU after it, and maybe a normalisation.

    With `residual`, each but the first is added to what goes into it.
    """
    modules: list[nn.Module] = []
    for position, (fan_in, fan_out) in enumerate(pairwise(widths)):
        layers: list[nn.Module] = [nn.Linear(fan_in, fan_out), nn.ReLU()]
        if layer_norm:
            layers.append(nn.LayerNorm(fan_out, EPSILON))
        modules += [Residual(*layers)] if residual and position else layers
    return modules
