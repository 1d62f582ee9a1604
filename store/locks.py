"""Advisory locks between processes: who runs a run, supervises a root, submits, or writes the index."""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import SystemRefused

SILENT_SECONDS = 2.0

log = logging.getLogger("alphagrid")


class FileLock:
    """An exclusive `flock` on a file, released at the latest when its process ends, however it ends.

    The file stays behind when the lock is released; what counts is the lock, never the file.
    """

    def __init__(self, path: Path, signed: bool = True) -> None:
        self.path = path
        self._signed = signed
        """Whether the file says who holds it."""
        self._descriptor: int | None = None

    @property
    def descriptor(self) -> int:
        """The open file; a process that inherits it holds the lock too."""
        assert self._descriptor is not None, "the lock is not held"
        return self._descriptor

    def acquire(self, patience: float = 0.0) -> bool:
        """Take the lock and write down who holds it; tell whether that worked within `patience` seconds."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        deadline = time.monotonic() + patience
        while not _try_lock(descriptor, fcntl.LOCK_EX, self.path):
            if time.monotonic() >= deadline:
                os.close(descriptor)
                return False
            time.sleep(0.02)
        self._descriptor = descriptor
        try:
            if self._signed:
                self._sign()
        except OSError:  # a full disk; the lock must not stay with whoever could not take it
            self.release()
            raise
        return True

    def release(self) -> None:
        """Give the lock back; without effect if it is not held."""
        if self._descriptor is not None:
            os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = None

    def _sign(self) -> None:
        assert self._descriptor is not None
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()} {birth(os.getpid())}\n".encode(), 0)


@contextmanager
def held(path: Path, patience: float, refusal: str) -> Iterator[FileLock]:
    """Hold the lock at `path`; who has to wait for long is told.

    Raises:
        SystemRefused: `refusal`, when another process keeps it for `patience` seconds.
    """
    lock = FileLock(path)
    try:
        taken = lock.acquire(min(patience, SILENT_SECONDS))
        if not taken and patience > SILENT_SECONDS:
            log.warning("waiting for another process that submits or cancels (%s)", path)
            taken = lock.acquire(patience - SILENT_SECONDS)
    except OSError as error:
        raise SystemRefused(f"cannot write {path}: {error.strerror}") from error
    if not taken:
        raise SystemRefused(refusal)
    try:
        yield lock
    finally:
        lock.release()


@contextmanager
def attempted(path: Path, patience: float = float("inf")) -> Iterator[bool]:
    """Hold the lock at `path`; yield False if another process keeps it for `patience` seconds."""
    lock = FileLock(path, signed=False)
    try:
        yield lock.acquire(patience)
    finally:
        lock.release()


def is_held(path: Path) -> bool:
    """Tell whether some process holds the lock at `path`, without writing anything."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        return not _try_lock(descriptor, fcntl.LOCK_SH, path)
    finally:
        os.close(descriptor)


def holder(path: Path) -> int | None:
    """Return the process id that holds the lock at `path`, or None if it cannot be said for certain.

    A process id left behind by a killed holder may belong to somebody else by now, so the holder's
    start time stands beside it and has to agree.
    """
    if not is_held(path):
        return None
    words = path.read_text().split()
    if len(words) != 2 or not words[0].isdigit():
        return None
    pid = int(words[0])
    return pid if birth(pid) == words[1] else None


def _try_lock(descriptor: int, kind: int, path: Path) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise SystemRefused(
            f"{path}: the file system offers no locks ({error.strerror})",
            "use a root on a file system with flock, for example a local disk",
        ) from error
    return True


def birth(pid: int) -> str:
    """Return when a process started, in the kernel's ticks; '-' where /proc does not say."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return "-"
