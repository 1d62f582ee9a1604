"""Claims: which process works on a run, where locks (`store.locks`) do not reach from host to host.

On some network file systems, and between two mounts of one folder, a `flock` is seen by one host only.
Creating a file with O_EXCL is exclusive everywhere. So whoever takes up a run creates the next of the files
`claim-0001`, `claim-0002`, … in its folder. The newest claim counts. No claim is ever removed (but one that
could not be written, by its maker), so a process whose list of the folder is out of date tries to create a
file that exists, and fails.

The file says whose it is, and its owner touches it every `HEARTBEAT_SECONDS`. A process of the same machine
(and process namespace) is known to live by its id and start time. For one of another machine the heartbeat
decides: after `STALE_SECONDS` without one its claim is over. The clocks of the hosts may differ by a few
minutes, and their caches may be a minute old. A process that was suspended for longer finds the newer
attempt of the run, and stops (`journal.overtaken`).
"""

from __future__ import annotations

import errno
import os
import re
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from . import locks
from .layout import RunFiles

HEARTBEAT_SECONDS = 20.0
STALE_SECONDS = 300.0
NAME = re.compile(r"claim-(\d{4,})")
RELEASED = b"released\n"


class Owner(BaseModel):
    """A process on some host."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    host: str
    realm: str
    """The boot of the machine and the process namespace within which `pid` means something."""
    pid: int
    born: str
    """When the process started, as `locks.birth` says."""

    @classmethod
    def current(cls) -> Owner:
        """Return this process."""
        return cls(host=socket.gethostname(), realm=_realm(), pid=os.getpid(), born=locks.birth(os.getpid()))

    @property
    def lives(self) -> bool | None:
        """Whether the process lives; None where this cannot be known from here."""
        return _lives(self.pid, self.born) if self.realm == _realm() else None


class Claim:
    """What keeps other hosts' processes from the run with the folder `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path: Path | None = None
        self._over = threading.Event()
        self._heart: threading.Thread | None = None

    def acquire(self) -> bool:
        """Claim the run, unless another process has; return whether that worked.

        Raises:
            OSError: the folder cannot be written.
        """
        newest = _newest(self._folder)
        if newest is not None and is_alive(newest[1]):
            return False
        path = self._folder / f"claim-{1 if newest is None else newest[0] + 1:04d}"
        try:
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o666)
        except FileExistsError:
            return False
        try:
            content = Owner.current().model_dump_json().encode()
            if os.write(descriptor, content) < len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            os.fsync(descriptor)
        except OSError:  # a full disk: this process works on nothing, and no other should wait for it
            path.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)
        self._path = path
        self._heart = threading.Thread(target=self._beat, daemon=True)
        self._heart.start()
        return True

    def release(self) -> None:
        """Give the claim back; without effect if there is none."""
        if self._path is None or self._heart is None:
            return
        self._over.set()
        self._heart.join()
        with suppress(OSError):  # the claim ends with the process, too
            _overwrite(self._path, RELEASED)
        self._path = None

    def _beat(self) -> None:
        assert self._path is not None
        while not self._over.wait(HEARTBEAT_SECONDS):
            with suppress(OSError):
                os.utime(self._path)


def _overwrite(path: Path, content: bytes) -> None:
    """Replace the content of a file by a shorter one, in its place: that needs no room on a full disk."""
    with path.open("r+b", buffering=0) as file:
        file.write(content)
        file.truncate(len(content))


def is_at_work(run: RunFiles) -> bool:
    """Return whether a local worker has the run, on this host (by its lock) or another (by its claim)."""
    return locks.is_held(run.lock) or is_held(run.path)


def is_held(folder: Path) -> bool:
    """Return whether a process has claimed the run with this folder, without writing anything."""
    newest = _newest(folder)
    return newest is not None and is_alive(newest[1])


def is_alive(path: Path) -> bool:
    """Return whether the process that wrote a claim works on."""
    try:
        content, written = path.read_bytes(), path.stat().st_mtime
    except OSError:  # listed, but not there yet
        return True
    if content == RELEASED:
        return False
    try:
        lives = Owner.model_validate_json(content).lives
    except ValidationError:  # not written yet, or damaged
        lives = None
    return time.time() - written < STALE_SECONDS if lives is None else lives


def _newest(folder: Path) -> tuple[int, Path] | None:
    try:
        names = [NAME.fullmatch(name) for name in os.listdir(folder)]  # noqa: PTH208 (names alone)
    except (FileNotFoundError, NotADirectoryError):
        return None
    number = max((int(name[1]) for name in names if name), default=0)
    return (number, folder / f"claim-{number:04d}") if number else None


def _lives(pid: int, born: str) -> bool:
    """Return whether the process `pid` that started at `born` has not ended; a zombie has."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state not in ("Z", "X") and locks.birth(pid) == born
    except (OSError, IndexError):
        if Path("/proc/self/stat").exists():
            return False
    try:  # no Linux
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _realm() -> str:
    """Return what tells this machine, since its last boot, and this process namespace from all others."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:  # no Linux
        return socket.gethostname()
