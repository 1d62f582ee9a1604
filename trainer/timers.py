"""Timers of a clock: the host's time, or the device's."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

Mark = Any
"""A point in time, in its timer's representation."""


class Timer(Protocol):
    """Sets marks, and returns the seconds between two marks once both have passed."""

    def mark(self) -> Mark:
        """Set and return a mark."""

    def has_passed(self, mark: Mark) -> bool:
        """Return without waiting whether a mark has passed."""

    def wait(self) -> None:
        """Wait until all marks have passed."""

    def seconds(self, start: Mark, end: Mark) -> float:
        """Return the seconds from one mark to another; both have passed."""


class HostTimer:
    """The host's clock: a mark passes as it is set."""

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self.mark = now

    def has_passed(self, mark: float) -> bool:
        """Return True: a mark of the host passes at once."""
        return True

    def wait(self) -> None:
        """Return at once."""

    def seconds(self, start: float, end: float) -> float:
        """Return the difference."""
        return end - start


class CudaTimer:
    """Events in a CUDA stream: a mark passes when the work queued before it is done.

    The host runs ahead of the device, so its clock would charge the work of one section to another. To read
    it correctly, the host would have to wait for the device at every step.
    """

    def mark(self) -> Mark:
        """Record an event in the current stream."""
        import torch

        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    def has_passed(self, mark: Mark) -> bool:
        """Query the event."""
        return bool(mark.query())

    def wait(self) -> None:
        """Wait for the device."""
        import torch

        torch.cuda.synchronize()

    def seconds(self, start: Mark, end: Mark) -> float:
        """Return the time between two events; CUDA gives milliseconds, to about half a microsecond."""
        return float(start.elapsed_time(end)) / 1000
