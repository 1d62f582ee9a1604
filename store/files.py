"""Read and write files that other processes and users may have changed.

A write is complete or has no effect, and never follows a link that another user may have created. A read
expects that a file may be missing although its folder lists it, or may not be a regular file.
"""

from __future__ import annotations

import errno
import os
import stat
import uuid
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import SystemRefused
from . import numbers

NOT_ARRIVED = frozenset({errno.ENOENT, errno.ESTALE})
"""Errors of a network file system for a file that it lists too early, or still lists."""


def has_not_arrived(error: OSError) -> bool:
    """Return whether a file that its folder lists has not arrived yet, or no longer exists."""
    return error.errno in NOT_ARRIVED


def is_late(path: Path, error: OSError) -> bool:
    """Return whether a file that is listed may still arrive; the target of a broken link does not."""
    return has_not_arrived(error) and not os.path.islink(path)  # noqa: PTH114 (a stale one raises with Path)


def open_file(path: Path) -> BinaryIO:
    """Open a file to read its bytes; refuse a pipe, a device or a folder without waiting.

    Raises:
        OSError: the file cannot be opened, or is not a regular file.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "is no regular file", str(path))
    return os.fdopen(descriptor, "rb")


def read_file(path: Path) -> bytes:
    """Return a file's bytes.

    Raises:
        OSError: the file cannot be read, or is not a regular file.
    """
    with open_file(path) as file:
        return file.read()


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file.

    Raises:
        OSError: the file cannot be read, or is not a regular file.
        ValueError: the file holds something else, or is nested too deeply.
    """
    value = numbers.decode(read_file(path).decode())
    if not isinstance(value, dict):
        raise ValueError("is no JSON object")
    return value


def write_atomically(path: Path, content: bytes) -> None:
    """Write `content` to `path`: temporary file beside it, fsync, rename, fsync of the folder.

    Raises:
        OSError: the folder cannot be written, or the disk is full; `path` is then unchanged.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def open_regular(path: Path, flags: int) -> int:
    """Open a file with a predictable name and return its descriptor; the umask applies to a new file.

    A link under this name could lead to any file of the user. So this function refuses links and everything
    else that is not a regular file. It does not write to a file with a second name, as in a copy by `cp -al`.

    Raises:
        SystemRefused: the path is a link, or not a regular file.
        OSError: the file cannot be opened.
    """
    try:
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK) and path.is_symlink():
            raise _not_regular(path, "is a link") from None
        raise
    status = os.fstat(descriptor)
    is_regular, writes = stat.S_ISREG(status.st_mode), flags & os.O_ACCMODE != os.O_RDONLY
    if is_regular and (status.st_nlink <= 1 or not writes):
        return descriptor
    os.close(descriptor)
    raise _not_regular(path, "has a second name (a hard link)" if is_regular else "is not a regular file")


def _not_regular(path: Path, problem: str) -> SystemRefused:
    return SystemRefused(
        f"{path} {problem}; alphagrid writes to regular files of its own only",
        f"see who made it (ls -l {path}), then remove it",
    )


def sync_folder(folder: Path) -> None:
    """Make created and renamed files in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
