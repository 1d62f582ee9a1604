"""What signal handlers may tell a run: to stop, and that it was suspended. They set a flag, nothing else."""

from __future__ import annotations

from collections.abc import Callable


class StopRequest:
    """Set at most once, by a signal or another thread; the loop looks at it between steps.

    `on_resumption` is called when the process goes on after a suspension.
    """

    def __init__(self) -> None:
        self.reason: str | None = None
        self.on_resumption: Callable[[], None] = lambda: None

    def request(self, reason: str) -> None:
        """Ask for a stop; the first reason stays."""
        if self.reason is None:
            self.reason = reason

    def __bool__(self) -> bool:
        """Return whether a stop was asked for."""
        return self.reason is not None
