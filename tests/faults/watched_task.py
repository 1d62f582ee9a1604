"""A workload that meets trouble at any training step; copied beside a test's specification."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import torch
from alphagrid.trainer.workloads.digits import Digits
from torch import Tensor, nn

TROUBLE = "ALPHAGRID_TEST_TROUBLE"
"""`WHAT@STEP`: what happens in the forward passes from a step on, counted from 1 in each attempt."""
BALLAST = "ALPHAGRID_TEST_BALLAST"
"""The file with which `fill` fills its disk, and `:` and the bytes that it leaves."""


def asked_for(step: int) -> None:
    what, _, at = os.environ.get(TROUBLE, "").partition("@")
    if what and (step == int(at) or (what == "fill" and step > int(at))):
        DEEDS[what]()


def fill() -> None:
    path, _, leave = os.environ[BALLAST].rpartition(":")
    with Path(path).open("ab", buffering=0) as file:
        stat = os.statvfs(file.fileno())
        file.write(bytes(max(0, stat.f_bavail * stat.f_bsize - int(leave))))


def send(number: signal.Signals) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


DEEDS = {
    "interrupt": send(signal.SIGINT),
    "suspend": send(signal.SIGSTOP),
    "kill": send(signal.SIGKILL),
    "fill": fill,
}

on_step: Callable[[int], None] = asked_for
"""Tests in this process put their own here."""


class Watched(Digits):
    """Digits; the forward passes of the training steps are counted, not those of α* or evaluations."""

    def model(self) -> nn.Module:
        model, passes = super().model(), -1  # before the first step there is a pass for practice

        def count(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            nonlocal passes
            if module.training and torch.is_grad_enabled():
                passes += 1
                if passes:
                    on_step(passes)

        model.register_forward_pre_hook(count)
        return model
