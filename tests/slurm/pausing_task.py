"""Linear least squares that pauses at a moment that its options name, until a signal has arrived.

In a Slurm job alone: elsewhere it runs through, so that the same configuration can be run undisturbed.
It puts a file into the folder MOMENTS when it pauses, and does not pause where there is that file already.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from alphagrid.trainer import checkpoint_writer
from alphagrid.trainer.streams import Batch, Stream
from alphagrid.trainer.workloads.least_squares import LeastSquares
from alphagrid.trainer.workloads.options import LeastSquaresOptions
from torch import nn

TRAINING, ALPHA = 22, 32
"""The batches at which to pause: of training outside, of probing inside a window of α*."""
STOP = (signal.SIGTERM, signal.SIGUSR2)

save = torch.save


class PausingOptions(LeastSquaresOptions):
    moment: str = ""
    """`model`, `training`, `alpha`, `evaluation`, `checkpoint`, or `attempt` (after two steps of each); then,
    after a dash, until when: `forever`, `resumed` or a number, which is how many times to pause."""
    step_seconds: float = 0.0


class Pausing(LeastSquares):
    Options = PausingOptions
    options: PausingOptions
    reached = 0
    """The index of the last batch that was trained on."""
    taken = 0
    """Batches that this attempt has trained on."""

    def model(self) -> nn.Module:
        torch.save = self.save  # type: ignore[assignment]  # what checkpoints are written with
        checkpoint_writer.MOST_OVERHEAD = 1e9  # one is due every few steps, however busy the machine
        self.pause("model")
        return nn.Sequential(nn.Dropout(0.1), super().model())  # so that random numbers matter

    def stream(self, name: str, seed: int) -> Stream:
        return PausingStream(self, name, super().stream(name, seed))

    def split(self, name: str) -> Iterable[Batch]:
        for batch in super().split(name):
            yield batch
            if self.reached > 10:
                self.pause("evaluation")

    def save(self, state: dict[str, Any], file: Any) -> None:
        save(state, file)
        if self.reached > 10:
            self.pause("checkpoint")

    def before(self, name: str, index: int) -> None:
        if name == "probe" and index == ALPHA:
            self.pause("alpha")
        if name == "train":
            time.sleep(self.options.step_seconds)
            self.reached, self.taken = index, self.taken + 1
            if self.taken == 3:
                self.pause("attempt")
            if index == TRAINING:
                self.pause("training")

    def pause(self, place: str) -> None:
        wanted, _, until = self.options.moment.partition("-")
        if wanted != place or "SLURM_JOB_ID" not in os.environ:
            return
        for number in range(int(until) if until.isdigit() else 1):
            marker = Path(os.environ["MOMENTS"]) / (f"{self.options.moment}.{number}")
            if not marker.exists():
                return wait(marker, until)


class PausingStream:
    def __init__(self, workload: Pausing, name: str, inner: Stream) -> None:
        self.workload, self.name, self.inner = workload, name, inner

    def batch(self, index: int) -> Batch:
        self.workload.before(self.name, index)
        return self.inner.batch(index)


def wait(marker: Path, until: str) -> None:
    """Make the file and wait for a signal, which reaches the worker's handlers, too."""
    arrived = []
    handlers = {number: signal.getsignal(number) for number in (*STOP, signal.SIGCONT)}

    def note(number: int, frame: Any) -> None:
        handler = handlers[signal.Signals(number)]
        assert callable(handler)
        handler(number, frame)
        if until != "forever" and (number in STOP or until == "resumed"):
            arrived.append(number)

    for number in handlers:
        signal.signal(number, note)
    marker.touch()
    while not arrived:
        time.sleep(0.01)
    for number, handler in handlers.items():
        signal.signal(number, handler)
