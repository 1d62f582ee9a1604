"""The clock of submissions and cancellations; tests pass their own."""

from __future__ import annotations

from typing import Protocol


class Clock(Protocol):
    """The part of the module `time` that is used."""

    def time(self) -> float:
        """Return the Unix time [s]."""

    def monotonic(self) -> float:
        """Return a time [s] that never goes back."""

    def sleep(self, seconds: float, /) -> None:
        """Wait."""
