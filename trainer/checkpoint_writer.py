"""Write checkpoints when due: small ones at once, large ones on a background thread."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..store.layout import RunFiles
from . import checkpoint
from .config import CheckpointOptions
from .state_copy import Uncopied, copy_state, size

BACKGROUND_BYTES = 64 * 2**20
"""States of at least this size are copied and written in the background, if a full copy is possible."""
MOST_OVERHEAD = 0.02
"""Maximum fraction of the time between two checkpoints for which a checkpoint may block training."""


@dataclass(frozen=True)
class Written:
    """A checkpoint on disk: its step, size, and the seconds for which it was written and blocked training."""

    step: int
    train_seconds: float
    path: Path
    bytes: int
    seconds: float
    blocked_seconds: float

    def record(self) -> dict[str, Any]:
        """Return the fields of a `checkpoint` record."""
        return {
            "file": self.path.name,
            "bytes": self.bytes,
            "seconds": self.seconds,
            "blocked_seconds": self.blocked_seconds,
        }


class CheckpointWriter:
    """Writes an attempt's checkpoints every `every_seconds`, or less often if they block for too long."""

    def __init__(
        self, run: RunFiles, attempt: int, options: CheckpointOptions, now: Callable[[], float]
    ) -> None:
        self._run = run
        self._attempt = attempt
        self._options = options
        self._now = now
        self._last = now()
        self._blocked = 0.0
        self._thread: ThreadPoolExecutor | None = None
        self._pending: Future[Written | None] | None = None
        self._checked = False

    def due(self) -> bool:
        """Return whether the next checkpoint is due."""
        interval = max(self._options.every_seconds, self._blocked / MOST_OVERHEAD)
        return self._pending is None and self._now() - self._last >= interval

    def write(
        self, step: int, train_seconds: float, state: dict[str, Any], last: bool = False, check: bool = False
    ) -> list[Written]:
        """Write a checkpoint, and return the checkpoints that have reached the disk by now.

        With `last`, this method waits until all have. If a newer attempt has begun, it writes nothing. With
        `check`, it reads the attempt's first checkpoint back.

        Raises:
            OSError: this checkpoint or the one before could not be written.
            UserError: the state holds a value that cannot be written or loaded again.
        """
        start = self._now()
        done = self.finished(wait=True)
        check, self._checked = check and not self._checked, self._checked or check
        copy = None if last or size(state) < BACKGROUND_BYTES else _try_copy(state)
        if copy is None:
            done += _as_list(self._write(step, train_seconds, state, check, start, None))
        else:
            blocked = self._now() - start
            self._thread = self._thread or ThreadPoolExecutor(1, "checkpoint")
            self._pending = self._thread.submit(self._write, step, train_seconds, copy, check, start, blocked)
        self._last = self._now()
        self._blocked = self._last - start
        return done

    def finished(self, wait: bool = False) -> list[Written]:
        """Return the pending checkpoint if it has reached the disk; with `wait`, wait for it."""
        pending = self._pending
        if pending is None or not (wait or pending.done()):
            return []
        self._pending = None
        return _as_list(pending.result())

    def close(self) -> None:
        """Wait until the background thread has ended; ignore its result."""
        if self._thread is not None:
            self._thread.shutdown()

    def _write(
        self,
        step: int,
        train_seconds: float,
        state: dict[str, Any],
        check: bool,
        start: float,
        blocked: float | None,
    ) -> Written | None:
        path = checkpoint.write(self._run, step, self._attempt, state, self._options.keep, check)
        if path is None:
            return None
        seconds = self._now() - start
        size = path.stat().st_size
        return Written(step, train_seconds, path, size, seconds, seconds if blocked is None else blocked)


def _as_list(written: Written | None) -> list[Written]:
    return [] if written is None else [written]


def _try_copy(state: dict[str, Any]) -> dict[str, Any] | None:
    """Return a copy that training cannot change; None if the state cannot be copied."""
    try:
        copy: dict[str, Any] = copy_state(state)
    except Uncopied:
        return None
    return copy
