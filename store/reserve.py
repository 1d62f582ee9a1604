"""A little space, set aside while there is some, so that a run can say its last words on a full disk."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Self

from .files import open_regular

RESERVED_BYTES = 8192
"""Enough for the records with which a worker ends an attempt."""


class Reserve:
    """A file that only takes up space; one per run, whichever attempt wrote it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @classmethod
    def take(cls, path: Path) -> Self:
        """Set the space aside, in a file whose folder is made if need be.

        Raises:
            OSError: there is no such space; what there was is left.
            SystemRefused: there is a link in its place.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            _fill(path)
        except OSError:
            path.unlink(missing_ok=True)
            raise
        return cls(path)

    def release(self) -> None:
        """Give the space back, if that can be done; doing so twice is fine."""
        with suppress(OSError):
            self._path.unlink(missing_ok=True)


def _fill(path: Path) -> None:
    descriptor = open_regular(path, os.O_WRONLY | os.O_CREAT)
    try:
        content = os.urandom(RESERVED_BYTES)  # zeros would take no space on a file system that compresses
        if os.pwrite(descriptor, content, 0) < RESERVED_BYTES:
            os.pwrite(descriptor, content, RESERVED_BYTES)  # raises what cut the first one short
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
