"""Advisory locks between processes: to run a run, supervise a root, submit, or write the index."""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import SystemRefused
from .files import open_regular

SILENT_SECONDS = 2.0
REPLACEMENTS = 10
"""How often a lock file is opened again because it was deleted between opening and locking it."""
SIGNATURE_BYTES = 100
"""Upper limit of the text that names the holder of a lock."""

log = logging.getLogger("alphagrid")


class FileLock:
    """An exclusive `flock` on a file; the kernel releases it when the process ends, however it ends.

    The file remains when the lock is released; only the lock counts. If the file was deleted or replaced
    while this process waited for the lock, the path is opened again.
    """

    def __init__(self, path: Path, signed: bool = True) -> None:
        self.path = path
        self._signed = signed
        """Whether the file names the holder."""
        self._descriptor: int | None = None

    @property
    def descriptor(self) -> int:
        """The open file; a process that inherits it holds the lock too."""
        assert self._descriptor is not None, "the lock is not held"
        return self._descriptor

    def acquire(self, patience: float = 0.0) -> bool:
        """Take the lock and sign the file; return whether the lock was free within `patience` seconds.

        Raises:
            SystemRefused: the path is a link or not a regular file, or the file system has no locks.
            OSError: the file cannot be opened or written.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        deadline = time.monotonic() + patience
        while (descriptor := _open_locked(self.path)) is None:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.02)
        self._descriptor = descriptor
        try:
            if self._signed:
                self._sign()
        except OSError:  # a full disk: a process that cannot sign the lock must not keep it
            self.release()
            raise
        return True

    def release(self) -> None:
        """Release the lock; without effect if it is not held."""
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
    """Hold the lock at `path`; log a warning if that takes longer than `SILENT_SECONDS`.

    Raises:
        SystemRefused: `refusal`, if another process holds it for `patience` seconds.
    """
    lock = FileLock(path)
    try:
        acquired = lock.acquire(min(patience, SILENT_SECONDS))
        if not acquired and patience > SILENT_SECONDS:
            log.warning("waiting for another process that submits or cancels (%s)", path)
            acquired = lock.acquire(patience - SILENT_SECONDS)
    except OSError as error:
        raise SystemRefused(f"cannot write {path}: {error.strerror}") from error
    if not acquired:
        raise SystemRefused(f"{refusal} ({path} is locked)", f"see which process holds it: fuser -v {path}")
    try:
        yield lock
    finally:
        lock.release()


@contextmanager
def attempted(path: Path, patience: float = float("inf")) -> Iterator[bool]:
    """Hold the lock at `path`; yield False if another process holds it for `patience` seconds."""
    lock = FileLock(path, signed=False)
    try:
        yield lock.acquire(patience)
    finally:
        lock.release()


def is_held(path: Path) -> bool:
    """Return whether some process holds the lock at `path`, without writing anything."""
    try:
        descriptor = open_regular(path, os.O_RDONLY)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except PermissionError as error:
        raise SystemRefused(
            f"cannot read {path}: {error.strerror}", f"see whose it is: ls -l {path}"
        ) from error
    try:
        return not _try_lock(descriptor, fcntl.LOCK_SH, path)
    finally:
        os.close(descriptor)


def holder(path: Path) -> int | None:
    """Return the id of the process that holds the lock at `path`, or None if that is not certain.

    Another process may have reused the id of a killed holder. So the file also records the holder's start
    time, and both must match.
    """
    if not is_held(path):
        return None
    words = _read_signature(path).split()
    if len(words) != 2 or not words[0].isdigit():
        return None
    pid = int(words[0])
    return pid if birth(pid) == words[1] else None


def _open_locked(path: Path) -> int | None:
    """Open and lock the file at `path`, creating it if necessary; return None if another process holds it."""
    for _ in range(REPLACEMENTS):
        descriptor = open_regular(path, os.O_RDWR | os.O_CREAT)
        try:
            locked = _try_lock(descriptor, fcntl.LOCK_EX, path)
            if locked and _is_file_at(descriptor, path):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        if not locked:
            return None
    raise SystemRefused(
        f"cannot lock {path}: it is another file each time it is opened", "choose another: --root DIR"
    )


def _is_file_at(descriptor: int, path: Path) -> bool:
    """Return whether `path` still names the open file (device numbers differ on overlays of old kernels)."""
    try:
        return os.fstat(descriptor).st_ino == path.lstat().st_ino
    except FileNotFoundError:
        return False


def _read_signature(path: Path) -> str:
    try:
        with open(open_regular(path, os.O_RDONLY), encoding="ascii", errors="replace") as file:  # noqa: PTH123
            return file.read(SIGNATURE_BYTES)
    except FileNotFoundError:
        return ""


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
    """Return when a process started, in the kernel's ticks; '-' if /proc does not have it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return "-"
