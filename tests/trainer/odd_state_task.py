"""A task whose model has something odd in its checkpoint."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any, Literal

import numpy as np
import torch
from alphagrid.trainer.workloads.base import InMemoryWorkload
from alphagrid.trainer.workloads.options import WorkloadOptions
from torch import Tensor, nn

Odd = Literal["nothing", "scalar", "array", "path", "key", "function"]


class OddOptions(WorkloadOptions):
    odd: Odd = "nothing"


class OddState(nn.Linear):
    """A layer that keeps a record of its own."""

    def __init__(self, odd: Odd) -> None:
        super().__init__(2, 1)
        self.odd = odd

    def get_extra_state(self) -> Any:
        odd: dict[Odd, Any] = {
            "nothing": 1.5,
            "scalar": np.float64(1.5),
            "array": np.arange(3),
            "path": PurePosixPath("a"),
            "key": {np.int64(3): 1.5},
            "function": lambda: 1.5,
        }
        return {"best": [1, {"loss": odd[self.odd]}], "calls": 3}

    def set_extra_state(self, state: Any) -> None:
        pass


class OddTask(InMemoryWorkload):
    Options = OddOptions
    loss = "mse"
    options: OddOptions

    def data(self, split: str) -> dict[str, Tensor]:
        draw = torch.randn(40, 3, generator=torch.Generator().manual_seed(len(split)))
        return {"inputs": draw[:, :2], "targets": draw[:, 2:]}

    def model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(2, 2), OddState(self.options.odd))
