"""When checkpoints are written, and by whom: small ones at once, large ones on a thread of their own."""

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
"""States at least so large are copied and written behind the training's back, if they can be copied whole."""
MOST_OVERHEAD = 0.02
"""Share of the time between two checkpoints that training may stand still for one."""


@dataclass(frozen=True)
class Written:
    """A checkpoint on disk: what it is of, its size, and the seconds it took and held training up."""

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
    """Writes an attempt's checkpoints; every `every_seconds`, or less often where that costs too much."""

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
        """Return whether it is time for one."""
        interval = max(self._options.every_seconds, self._blocked / MOST_OVERHEAD)
        return self._pending is None and self._now() - self._last >= interval

    def write(
        self, step: int, train_seconds: float, state: dict[str, Any], last: bool = False, check: bool = False
    ) -> list[Written]:
        """Write a checkpoint, and return those that have reached the disk by now.

        With `last`, all have when this returns. None of it is left if a newer attempt has begun. With `check`
        it is read back, unless one before was.

        Raises:
            OSError: this one or the one before could not be written.
            UserError: it holds a value that cannot be written or loaded again.
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
        """Return the checkpoint that was under way if it has reached the disk; with `wait`, wait for it."""
        pending = self._pending
        if pending is None or not (wait or pending.done()):
            return []
        self._pending = None
        return _as_list(pending.result())

    def close(self) -> None:
        """Wait until nothing is being written any more, whatever becomes of it."""
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
    """Return a copy that training cannot change; None where that cannot be had."""
    try:
        copy: dict[str, Any] = copy_state(state)
    except Uncopied:
        return None
    return copy
