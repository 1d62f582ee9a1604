"""Reserve a little disk space, so that a run can write its last records on a full disk."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Self

from .files import open_regular

RESERVED_BYTES = 8192
"""Enough for the last records of an attempt."""


class Reserve:
    """A file that only occupies space; one per run, shared by its attempts."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @classmethod
    def take(cls, path: Path) -> Self:
        """Reserve the space in a file, creating its folder if necessary.

        Raises:
            OSError: the disk has too little space; the file is then removed.
            SystemRefused: the path is a link.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            _fill(path)
        except OSError:
            path.unlink(missing_ok=True)
            raise
        return cls(path)

    def release(self) -> None:
        """Release the space if possible; releasing twice is fine."""
        with suppress(OSError):
            self._path.unlink(missing_ok=True)


def _fill(path: Path) -> None:
    descriptor = open_regular(path, os.O_WRONLY | os.O_CREAT)
    try:
        content = os.urandom(RESERVED_BYTES)  # a file system that compresses would store zeros in no space
        if os.pwrite(descriptor, content, 0) < RESERVED_BYTES:
            os.pwrite(descriptor, content, RESERVED_BYTES)  # raises the error that cut the first write short
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
