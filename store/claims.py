"""Claims: which process works on a run, where locks (`store.locks`) do not reach from host to host.

On some network file systems, and between two mounts of one folder, only one host sees a `flock`. Creating a
file with O_EXCL is exclusive everywhere. A process that starts a run therefore creates the next of the files
`claim-0001`, `claim-0002`, … in the run's folder. The newest claim counts. A process removes a claim only
if it could not write it. So a process whose list of the folder is out of date tries to create a file that
exists, and fails.

The file names its owner, and the owner touches it every `HEARTBEAT_SECONDS`. For a process of the same
machine (and process namespace), its id and start time show whether it runs. For a process of another machine
the heartbeat decides: its claim ends after `STALE_SECONDS` without one. The clocks of the hosts may differ by
a few minutes, and their caches may be a minute old. A process that was suspended for longer finds the newer
attempt of the run, and stops (`journal.is_superseded`).

The heartbeat also decides on a claim that cannot be read or is damaged (a folder, a pipe). Such a claim
blocks the run for `STALE_SECONDS`, as the claim of a silent host does.
"""

from __future__ import annotations

import errno
import os
import socket
import threading
import time
from contextlib import suppress
from functools import cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from ..errors import SystemRefused
from . import locks
from .files import is_late, open_file, open_regular
from .layout import RunFiles, next_number

HEARTBEAT_SECONDS = 20.0
STALE_SECONDS = 300.0
AHEAD_SECONDS = 86400.0
"""How far another host's clock may be ahead [s]. A later file time is not a heartbeat."""
RELEASE_SECONDS = 5.0
"""How long a process waits to release its claim, on a file system that may hang."""
MOST_BYTES = 10_000
"""Upper limit of a claim's size."""
RELEASED = b"released\n"


class Owner(BaseModel):
    """A process on some host."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    host: str
    realm: str
    """The boot of the machine and the process namespace within which `pid` means something."""
    pid: int
    born: str
    """When the process started, as `locks.birth` returns it."""

    @classmethod
    def current(cls) -> Owner:
        """Return this process."""
        return cls(host=socket.gethostname(), realm=_realm(), pid=os.getpid(), born=locks.birth(os.getpid()))

    @property
    def lives(self) -> bool | None:
        """Whether the process runs; None if this machine cannot tell."""
        return _is_running(self.pid, self.born) if self.realm == _realm() else None


class Claim:
    """Excludes processes of other hosts from the run in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stop = threading.Event()
        self._heartbeat: threading.Thread | None = None

    def acquire(self) -> bool:
        """Claim the run unless another process has; return whether this process has the claim.

        Raises:
            SystemRefused: the folder already has the last possible claim number.
            OSError: the folder cannot be written.
        """
        newest = _newest_claim(self._folder)
        if newest is not None and is_alive(newest[1]):
            return False
        path = RunFiles(self._folder).claim(next_number(newest))
        try:
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o666)
        except FileExistsError:
            return False
        try:
            content = Owner.current().model_dump_json().encode()
            if os.write(descriptor, content) < len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            os.fsync(descriptor)
        except OSError:  # a full disk: this process does not start the run, so no other should wait for it
            path.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)
        self._heartbeat = threading.Thread(target=self._send_heartbeats, args=(path,), daemon=True)
        self._heartbeat.start()
        return True

    def release(self) -> None:
        """Release the claim; without effect if there is none.

        If the file system hangs for `RELEASE_SECONDS`, the claim ends with the process.
        """
        if self._heartbeat is not None:
            self._stop.set()
            self._heartbeat.join(RELEASE_SECONDS)
            self._heartbeat = None

    def _send_heartbeats(self, path: Path) -> None:
        """Touch the claim until `release` is called, then mark it as released."""
        while not self._stop.wait(HEARTBEAT_SECONDS):
            with suppress(OSError):
                os.utime(path, follow_symlinks=False)
        with suppress(OSError, SystemRefused):
            _overwrite(path, RELEASED)


def _overwrite(path: Path, content: bytes) -> None:
    """Overwrite a file with shorter content; this needs no space on a full disk."""
    with os.fdopen(open_regular(path, os.O_WRONLY), "wb", buffering=0) as file:
        file.write(content)
        file.truncate(len(content))


def is_at_work(run: RunFiles) -> bool:
    """Return whether a local worker runs the run, on this host (lock) or another (claim)."""
    return locks.is_held(run.lock) or is_held(run.path)


def is_held(folder: Path) -> bool:
    """Return whether a process has claimed the run in this folder, without writing anything."""
    newest = _newest_claim(folder)
    return newest is not None and is_alive(newest[1])


def is_alive(path: Path) -> bool:
    """Return whether the process that wrote a claim still runs, as far as this machine can tell.

    A file that is listed and has not arrived yet counts as a live claim. The heartbeat decides on any other
    file that cannot be read or is not a claim.
    """
    try:
        content = _read_claim(path)
    except OSError as error:
        return is_late(path, error) or _is_fresh(path)
    if content == RELEASED:
        return False
    owner = _parse_owner(content)
    lives = None if owner is None else owner.lives
    return _is_fresh(path) if lives is None else lives


def problem(path: Path) -> str | None:
    """Return the problem of a claim, or None; an empty claim may still be in the making.

    Raises:
        OSError: the claim cannot be read, or is not a regular file.
    """
    if path.is_symlink():
        return "is a link, and no claim: remove it"
    content = _read_claim(path)
    is_claim = content == RELEASED or _parse_owner(content) is not None
    if is_claim or (not content and _is_fresh(path)):
        return None
    return f"holds no claim: no other host starts the run until the file is {STALE_SECONDS:.0f} s old"


def _read_claim(path: Path) -> bytes:
    with open_file(path) as file:
        return file.read(MOST_BYTES)


def _parse_owner(content: bytes) -> Owner | None:
    try:
        return Owner.model_validate_json(content)
    except ValidationError:  # not written yet, or damaged
        return None


def _is_fresh(path: Path) -> bool:
    """Return whether a claim has been touched recently, or its time cannot be read."""
    try:
        age = time.time() - path.lstat().st_mtime
    except PermissionError:  # this user cannot create a claim in this folder either
        return False
    except OSError:
        return True
    return -AHEAD_SECONDS < age < STALE_SECONDS


def _newest_claim(folder: Path) -> tuple[int, Path] | None:
    """Return number and path of the newest claim in a run's folder, None if there is none."""
    return next(reversed(RunFiles(folder).claims()), None)


def _is_running(pid: int, born: str) -> bool:
    """Return whether the process `pid` that started at `born` still runs; a zombie does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state not in ("Z", "X") and locks.birth(pid) == born
    except (OSError, IndexError):
        if Path("/proc/self/stat").exists():
            return False
    try:  # not Linux
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


@cache
def _realm() -> str:
    """Return an identifier of this machine since its last boot and of this process namespace."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:  # not Linux
        return socket.gethostname()
