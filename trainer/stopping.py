"""Asking a run to stop: a flag that a signal handler may set, and nothing else."""

from __future__ import annotations


class StopRequest:
    """Set at most once, by a signal or another thread; the loop looks at it between steps."""

    def __init__(self) -> None:
        self.reason: str | None = None

    def request(self, reason: str) -> None:
        """Ask for a stop; the first reason stays."""
        if self.reason is None:
            self.reason = reason

    def __bool__(self) -> bool:
        """Tell whether a stop was asked for."""
        return self.reason is not None
