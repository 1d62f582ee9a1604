"""Reading and writing files as others may have left them.

Writing: whole or not at all, and never through a link that another user may have put there. Reading: a file
may be missing although its folder lists it, or be something else than a file.
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
"""What a network file system answers for a moment about a file that it lists already, or still."""


def has_not_arrived(error: OSError) -> bool:
    """Return whether a file that a folder lists is not there yet, or not any more."""
    return error.errno in NOT_ARRIVED


def is_late(path: Path, error: OSError) -> bool:
    """Return whether a file that is listed may still arrive; where a link leads nowhere, none will."""
    return has_not_arrived(error) and not os.path.islink(path)  # noqa: PTH114 (a stale one raises with Path)


def open_file(path: Path) -> BinaryIO:
    """Open a file to read its bytes; a pipe, a device or a folder in its place is refused, not waited for.

    Raises:
        OSError: it cannot be opened, or is no file.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "is no regular file", str(path))
    return os.fdopen(descriptor, "rb")


def read_file(path: Path) -> bytes:
    """Return a file's bytes.

    Raises:
        OSError: it cannot be read, or is no file.
    """
    with open_file(path) as file:
        return file.read()


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file.

    Raises:
        OSError: it cannot be read, or is no file.
        ValueError: it holds something else, or is nested too deeply.
    """
    value = numbers.decode(read_file(path).decode())
    if not isinstance(value, dict):
        raise ValueError("is no JSON object")
    return value


def write_atomically(path: Path, content: bytes) -> None:
    """Put `content` at `path`: temporary file beside it, fsync, rename, fsync of the folder.

    Raises:
        OSError: the folder cannot be written, or the disk is full; `path` is then as it was.
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
    """Open a file whose name others know beforehand, and return its descriptor; a new one follows the umask.

    A link under this name could lead to any file of the user's, so links are refused, and so is whatever is
    no regular file. A file with a second name, as in a copy that `cp -al` made, is not written to.

    Raises:
        SystemRefused: there is a link, or no regular file.
        OSError: it cannot be opened.
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
    """Make names that were created or changed in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
