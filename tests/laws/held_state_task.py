"""A task whose model holds what its `state_dict` leaves out, each kind in a layer of its own."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from alphagrid.trainer.workloads.base import InMemoryWorkload
from alphagrid.trainer.workloads.options import WorkloadOptions
from torch import Tensor, nn


class RunningShift(nn.Module):
    """Subtracts a running mean of its inputs, which is no part of its `state_dict`."""

    shift: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("shift", torch.zeros(2), persistent=False)

    def forward(self, inputs: Tensor) -> Tensor:
        if self.training:
            with torch.no_grad():
                self.shift.lerp_(inputs.mean(0), 0.25)
        return inputs - self.shift


class FirstMean(nn.Module):
    """Subtracts the mean of the first batch that it sees: a buffer that is none before."""

    mean: Tensor | None

    def __init__(self, persistent: bool) -> None:
        super().__init__()
        self.register_buffer("mean", None, persistent=persistent)

    def forward(self, inputs: Tensor) -> Tensor:
        if self.mean is None:
            self.mean = inputs.detach().mean(0)
        return inputs - self.mean


class Made(nn.Module):
    """Registers its buffer in the first pass."""

    mean: Tensor

    def forward(self, inputs: Tensor) -> Tensor:
        if not hasattr(self, "mean"):
            self.register_buffer("mean", inputs.detach().mean(0))
        return inputs - self.mean


class Growing(nn.Module):
    """Subtracts the mean over its last batches' means, of which there are more and more, in float64."""

    means: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("means", torch.zeros(1, 2))

    def forward(self, inputs: Tensor) -> Tensor:
        if self.training:
            self.means = torch.cat([self.means, inputs.detach().mean(0, keepdim=True).double()])[-30:]
        return inputs - self.means.mean(0).float()


class Counting(nn.Module):
    """Counts its passes, those of evaluations too."""

    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(()))

    def forward(self, inputs: Tensor) -> Tensor:
        self.count += 1
        return inputs * self.count.cos()


class Shared(nn.Module):
    """Has a buffer whose elements share memory: nothing can be copied into it."""

    row: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("row", torch.ones(1).expand(2))

    def forward(self, inputs: Tensor) -> Tensor:
        if self.training:
            self.row = (self.row[:1] * 1.01).expand(2)
        return inputs * self.row


class OwnNoise(nn.Module):
    """Adds noise from a generator of its own in training; with the source `always`, in evaluations too."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.source = source
        self.own = torch.Generator().manual_seed(1)
        self.listed = [None, torch.Generator().manual_seed(2)]
        self.named = {"noise": (torch.Generator().manual_seed(3),)}
        self.python = random.Random(4)
        self.numpy = [np.random.default_rng(5)]
        self.twister = np.random.Generator(np.random.MT19937(6))
        self.legacy = np.random.RandomState(7)
        self.made: torch.Generator | None = None

    def forward(self, inputs: Tensor) -> Tensor:
        if not self.training and self.source != "always":
            return inputs
        return inputs + 0.5 * self._drawn(len(inputs))

    def _drawn(self, rows: int) -> Tensor:
        if self.source == "python":
            return torch.tensor([[self.python.gauss(0, 1), self.python.random()] for _ in range(rows)])
        numpy: Any = {"numpy": self.numpy[0], "twister": self.twister, "legacy": self.legacy}.get(self.source)
        if numpy is not None:
            return torch.from_numpy(numpy.normal(size=(rows, 2))).float()
        if self.source == "made" and self.made is None:
            self.made = torch.Generator().manual_seed(8)
        generators = {"listed": self.listed[1], "named": self.named["noise"][0], "made": self.made}
        return torch.randn(rows, 2, generator=generators.get(self.source, self.own))


BUFFERS = {
    "buffer": RunningShift,
    "late": lambda: FirstMean(persistent=False),
    "late_persistent": lambda: FirstMean(persistent=True),
    "registered_late": Made,
    "growing": Growing,
    "counting": Counting,
    "shared": Shared,
}


class HeldStateOptions(WorkloadOptions):
    held: str = "buffer"


class HeldState(InMemoryWorkload):
    Options = HeldStateOptions
    loss = "mse"
    options: HeldStateOptions

    def data(self, split: str) -> dict[str, Tensor]:
        draw = torch.randn(120, 3, generator=torch.Generator().manual_seed(len(split)))
        return {"inputs": draw[:, :2] + 1, "targets": draw[:, 2:]}

    def model(self) -> nn.Module:
        held = self.options.held
        layers = [BUFFERS[name]() if name in BUFFERS else OwnNoise(name) for name in held.split("+")]
        return nn.Sequential(*layers, nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1))
