"""What a clock reads: the host's time, or the device's."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

Mark = Any
"""A point in time, as its timer has it."""


class Timer(Protocol):
    """Sets marks, and tells the seconds between two of them once both have come to pass."""

    def mark(self) -> Mark:
        """Set a mark here."""

    def has_passed(self, mark: Mark) -> bool:
        """Tell, without waiting, whether a mark has come to pass."""

    def wait(self) -> None:
        """Wait until all marks have."""

    def seconds(self, start: Mark, end: Mark) -> float:
        """Return the seconds from one mark to another; both have passed."""


class HostTimer:
    """The host's clock: a mark passes as it is set."""

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self.mark = now

    def has_passed(self, mark: float) -> bool:
        """Tell that it has."""
        return True

    def wait(self) -> None:
        """Return at once."""

    def seconds(self, start: float, end: float) -> float:
        """Return the difference."""
        return end - start


class CudaTimer:
    """Events in a CUDA stream: a mark passes when the work queued before it is done.

    The host runs ahead of the device, so its own clock would charge one section's work to another; and
    reading it in time would mean to wait for the device at every step.
    """

    def mark(self) -> Mark:
        """Record an event in the current stream."""
        import torch

        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    def has_passed(self, mark: Mark) -> bool:
        """Ask the event."""
        return bool(mark.query())

    def wait(self) -> None:
        """Wait for the device."""
        import torch

        torch.cuda.synchronize()

    def seconds(self, start: Mark, end: Mark) -> float:
        """Return the time between two events; CUDA gives milliseconds, to about half a microsecond."""
        return float(start.elapsed_time(end)) / 1000
