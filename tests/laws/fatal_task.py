"""Digits whose process ends itself at chosen places of the training, once at each; copied beside a spec.

A death is `<signal>:<place>:<steps done>`: places are `step` (the forward pass of a training step), `probe`
(that of a measurement of α*) and `evaluation`.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import torch
from alphagrid.trainer.workloads.digits import Digits
from alphagrid.trainer.workloads.options import DigitsOptions
from torch import Tensor, nn

SIGNALS = {"kill": signal.SIGKILL, "term": signal.SIGTERM}


class FatalOptions(DigitsOptions):
    deaths: list[str] = []
    marks: str = ""
    """Folder with a file for each death died."""


class Fate(nn.Module):
    """Counts the steps, and ends the process where that is written."""

    steps: Tensor

    def __init__(self, options: FatalOptions) -> None:
        super().__init__()
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self._deaths = {place: how for how, _, place in (death.partition(":") for death in options.deaths)}
        self._marks = Path(options.marks)

    def forward(self, inputs: Tensor) -> Tensor:
        trains = self.training and torch.is_grad_enabled()
        self._meet("step" if trains else "probe" if self.training else "evaluation")
        if trains:
            self.steps += 1
            time.sleep(0.001)  # so that checkpoints fall between the deaths
        return inputs

    def _meet(self, place: str) -> None:
        death = f"{place}:{int(self.steps)}"
        if death in self._deaths and not (self._marks / death).exists():
            (self._marks / death).touch()
            os.kill(os.getpid(), SIGNALS[self._deaths[death]])


class Fatal(Digits):
    Options = FatalOptions
    options: FatalOptions

    def model(self) -> nn.Module:
        return nn.Sequential(Fate(self.options), super().model())
