"""A task with dropout before an operation that has no forward-mode derivative."""

from __future__ import annotations

import torch
from alphagrid.trainer.workloads.base import InMemoryWorkload
from alphagrid.trainer.workloads.options import WorkloadOptions
from torch import Tensor, nn


class Distances(nn.Module):
    """Distances to the unit vectors, from units of which half are dropped."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.drop, self.outer = nn.Linear(2, 8), nn.Dropout(0.5), nn.Linear(8, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.outer(torch.cdist(self.drop(self.inner(inputs)), torch.eye(8)))
        return outputs


class Opaque(InMemoryWorkload):
    Options = WorkloadOptions
    loss = "mse"

    def data(self, split: str) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(len(split))
        draw = torch.randn(120, 3, generator=generator)
        return {"inputs": draw[:, :2], "targets": draw[:, 2:]}

    def model(self) -> nn.Module:
        return Distances()
