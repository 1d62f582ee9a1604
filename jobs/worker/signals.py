"""Handle a worker's signals: a handler sets a flag, and the training loop stops at the next step."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Protocol

REASONS = {
    number: f"asked to stop ({number.name})" for number in (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT)
}
"""Why the run stops, by signal."""
BEFORE_LIMIT = REASONS[signal.SIGUSR2]
"""The reason of the signal before a job's time limit; some clusters send it at preemption too."""


class Request(Protocol):
    """A stop request (`trainer.stopping.StopRequest`)."""

    on_resumption: Callable[[], None]
    """Called when the process continues after a suspension."""

    def request(self, reason: str) -> None:
        """Request a stop; called from a signal handler."""


@contextmanager
def requesting(stop: Request) -> Iterator[None]:
    """Turn TERM, USR2 and INT into a stop request, and report CONT, while the block runs.

    Handlers only set a flag: a checkpoint written inside a handler could meet a half-done step or a held
    lock. They replace submitit's, which would bypass SIGTERM. Outside the main thread nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        stop.request(REASONS[signal.Signals(number)])

    def resumed(number: int, frame: FrameType | None) -> None:
        stop.on_resumption()

    handlers = {**dict.fromkeys(REASONS, handle), signal.SIGCONT: resumed}
    previous = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
