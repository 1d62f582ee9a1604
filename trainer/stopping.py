"""Requests of signal handlers to a run: to stop, or after a suspension. Handlers only set a flag."""

from __future__ import annotations

from collections.abc import Callable


class StopRequest:
    """A stop request, set at most once by a signal or another thread; the loop checks it between steps.

    The signal handler calls `on_resumption` when the process continues after a suspension.
    """

    def __init__(self) -> None:
        self.reason: str | None = None
        self.on_resumption: Callable[[], None] = lambda: None

    def request(self, reason: str) -> None:
        """Request a stop; the first reason stays."""
        if self.reason is None:
            self.reason = reason

    def __bool__(self) -> bool:
        """Return whether a stop was requested."""
        return self.reason is not None
