"""A task whose model draws from generators of its own: torch's, Python's, NumPy's, a late one."""

from __future__ import annotations

import random
from typing import Literal

import numpy as np
import torch
from alphagrid.trainer.workloads.base import InMemoryWorkload
from alphagrid.trainer.workloads.options import WorkloadOptions
from torch import Tensor, nn


class OwnGeneratorsOptions(WorkloadOptions):
    source: Literal["attribute", "list", "mapping", "python", "numpy", "lazy", "always"] = "attribute"


class OwnNoise(nn.Module):
    def __init__(self, source: str) -> None:
        super().__init__()
        self.source = source
        self.own = torch.Generator().manual_seed(1)
        self.listed = [torch.Generator().manual_seed(2)]
        self.named = {"noise": (torch.Generator().manual_seed(3),)}
        self.python = random.Random(4)
        self.numpy = np.random.default_rng(5)
        self.lazy: torch.Generator | None = None

    def forward(self, inputs: Tensor) -> Tensor:
        if not self.training and self.source != "always":
            return inputs
        return inputs + 0.5 * self.draw(len(inputs)).to(inputs)

    def draw(self, rows: int) -> Tensor:
        if self.source == "python":
            return torch.tensor([[self.python.gauss(0, 1), self.python.random()] for _ in range(rows)])
        if self.source == "numpy":
            return torch.from_numpy(self.numpy.standard_normal((rows, 2)))
        if self.source == "lazy" and self.lazy is None:
            self.lazy = torch.Generator().manual_seed(6)
        generators = {"list": self.listed[0], "mapping": self.named["noise"][0], "lazy": self.lazy}
        return torch.randn(rows, 2, generator=generators.get(self.source) or self.own)


class OwnGenerators(InMemoryWorkload):
    Options = OwnGeneratorsOptions
    loss = "mse"
    options: OwnGeneratorsOptions

    def data(self, split: str) -> dict[str, Tensor]:
        draw = torch.randn(120, 3, generator=torch.Generator().manual_seed(len(split)))
        return {"inputs": draw[:, :2], "targets": draw[:, 2:]}

    def model(self) -> nn.Module:
        return nn.Sequential(OwnNoise(self.options.source), nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1))
