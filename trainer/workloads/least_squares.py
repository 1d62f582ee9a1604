"""Linear least squares: the GGN is the Hessian, so that one α* step reaches the minimum along d."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .base import InMemoryWorkload
from .options import LeastSquaresOptions

SPLIT_SEEDS = {"train": 1, "validation": 2, "test": 3}


class LeastSquares(InMemoryWorkload):
    """Targets are a fixed linear function of Gaussian inputs, plus noise."""

    Options = LeastSquaresOptions
    loss = "mse"
    options: LeastSquaresOptions

    def data(self, split: str) -> dict[str, Tensor]:
        """Return `inputs` [B, features] and `targets` [B, 1]."""
        options = self.options
        generator = torch.Generator().manual_seed(SPLIT_SEEDS[split])
        inputs = torch.randn(options.examples, options.features, generator=generator)
        truth = torch.linspace(-1, 1, options.features).unsqueeze(1)
        noise = torch.randn(options.examples, 1, generator=generator)
        return {"inputs": inputs, "targets": inputs @ truth + options.noise * noise}

    def model(self) -> nn.Module:
        """Return a linear map without bias."""
        return nn.Linear(self.options.features, 1, bias=False)
