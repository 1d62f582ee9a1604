"""A task that draws from every generator: noise from Python and numpy, dropout from torch, targets from none.

Its targets have nothing to do with its inputs, so that α* on another batch is as often negative as not.
"""

from __future__ import annotations

import random
from typing import Annotated

import numpy as np
import torch
from alphagrid.trainer.workloads.base import InMemoryWorkload
from alphagrid.trainer.workloads.options import WorkloadOptions
from pydantic import Field
from torch import Tensor, nn


class NoisyOptions(WorkloadOptions):
    noise: Annotated[float, Field(ge=0)] = 0.5


class Noise(nn.Module):
    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.bias = nn.Parameter(torch.tensor([random.random(), np.random.random()], dtype=torch.float32))

    def forward(self, inputs: Tensor) -> Tensor:
        if not self.training:
            return inputs + self.bias
        drawn = torch.tensor([random.gauss(0, 1), float(np.random.standard_normal())], dtype=torch.float32)
        return inputs + self.bias + self.scale * drawn


class Noisy(InMemoryWorkload):
    Options = NoisyOptions
    loss = "mse"
    options: NoisyOptions

    def data(self, split: str) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(len(split))
        draw = torch.randn(120, 3, generator=generator)
        return {"inputs": draw[:, :2], "targets": draw[:, 2:]}

    def model(self) -> nn.Module:
        layers = [Noise(self.options.noise), nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Dropout(0.5)]
        return nn.Sequential(*layers, nn.Linear(4, 1))
