"""The journal of one attempt: JSON lines, appended by one writer, each with a checksum.

A record is one line and one `os.write`. Its last keys are `time` (unix), `seq` (0, 1, …) and `crc`, the
CRC-32 of the line's bytes before `,"crc":`. Numbers that JSON cannot represent are strings (`numbers.py`).
"""

from __future__ import annotations

import errno
import math
import os
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Self

from ..errors import SystemRefused
from . import numbers
from .files import has_not_arrived, open_file, sync_folder
from .layout import RunFiles, next_number
from .reserve import Reserve

Record = dict[str, Any]

SYNCED_KINDS = frozenset({"checkpoint", "end"})
SYNC_SECONDS = 30.0
_CRC = b',"crc":'
_ENVELOPE: Mapping[str, Any] = {
    "kind": str, "step": int, "train_seconds": int | float, "time": int | float, "seq": int,
}  # fmt: skip
_DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class Journal:
    """Writes the journal of one attempt; no other process writes to its file."""

    def __init__(
        self, path: Path, descriptor: int, clock: Callable[[], float], reserve: Reserve | None = None
    ) -> None:
        self.path = path
        self.position = 0
        """Bytes written: the end of the last whole record."""
        self._descriptor = descriptor
        self._clock = clock
        self._reserve = reserve
        self._seq = 0
        self._last_sync = -math.inf  # so that the first record, `start`, is durable at once

    @classmethod
    def create(
        cls, path: Path, *, clock: Callable[[], float] = time.time, reserve: Reserve | None = None
    ) -> Self:
        """Create the file, and its folder if necessary; `close` releases `reserve`.

        Raises:
            FileExistsError: the journal exists: another attempt has this number.
            SystemRefused: the file cannot be created.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(
                path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666
            )
            sync_folder(path.parent)
        except FileExistsError:
            raise
        except OSError as error:
            raise _write_error(path, error) from error
        return cls(path, descriptor, clock, reserve)

    def append(self, kind: str, step: int, train_seconds: float, **fields: Any) -> None:
        """Write one record.

        Raises:
            SystemRefused: the disk is full (or fails) at both tries; the file then has no torn record.
            TypeError: a field is not a JSON value (for example a tensor).
        """
        now = self._clock()
        record = {"kind": kind, "step": step, "train_seconds": train_seconds, **fields}
        record["time"] = now
        record["seq"] = self._seq
        self._write(_encode_line(record))
        self._seq += 1
        if kind in SYNCED_KINDS or not 0 <= now - self._last_sync < SYNC_SECONDS:
            self.sync()
            self._last_sync = now

    def sync(self) -> None:
        """Make everything written so far durable.

        Raises:
            SystemRefused: the disk is full or fails.
        """
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            raise _write_error(self.path, error) from error

    def make_room(self) -> None:
        """Release the space reserved for the attempt's last records, before they are written."""
        if self._reserve is not None:
            self._reserve.release()

    def close(self) -> None:
        """Close the file; closing twice is fine."""
        if self._descriptor >= 0:
            self.make_room()
            os.close(self._descriptor)
            self._descriptor = -1

    def _write(self, line: bytes) -> None:
        try:
            written = os.write(self._descriptor, line)
        except OSError:
            written = -1
        if written != len(line):
            self._retry_write(line)
        self.position += len(line)

    def _retry_write(self, line: bytes) -> None:
        """Truncate the file to the last whole record and write the line again."""
        try:
            os.ftruncate(self._descriptor, self.position)
            if os.write(self._descriptor, line) == len(line):
                return
            os.ftruncate(self._descriptor, self.position)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise _write_error(self.path, error) from error


def next_attempt(run: RunFiles) -> int:
    """Return the number of the run's next attempt (1 for the first).

    Raises:
        SystemRefused: the run already has the last possible number.
    """
    return next_number(next(reversed(run.journals()), None))


def open_next(run: RunFiles, *, clock: Callable[[], float] = time.time) -> tuple[int, Journal]:
    """Create the journal of the run's next attempt; two concurrent workers get different numbers.

    This function also reserves a little space. Without it an attempt could not record why it ended, so it
    does not start.

    Raises:
        SystemRefused: the disk is full or cannot be written, or the run has the last possible number.
    """
    try:
        reserve = Reserve.take(run.reserve)
    except OSError as error:
        raise _write_error(run.journal(next_attempt(run)), error) from error
    while True:
        attempt = next_attempt(run)
        try:
            return attempt, Journal.create(run.journal(attempt), clock=clock, reserve=reserve)
        except FileExistsError:
            continue


def is_superseded(run: RunFiles, attempt: int) -> bool:
    """Return whether a newer attempt of the run has begun (one `stat`)."""
    return run.journal(attempt + 1).exists()


@dataclass(frozen=True)
class BadLine:
    """A complete line that is not a valid record although valid records follow it."""

    offset: int
    reason: str


@dataclass(frozen=True)
class Reading:
    """Records of a journal, their offsets, and the offset up to which the file is valid."""

    records: list[Record] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    offset: int = 0
    """Where the next read starts."""
    bad: list[BadLine] = field(default_factory=list)
    tail: int = 0
    """Bytes after `offset` that do not form a valid record yet."""


def read(path: Path, offset: int = 0) -> Reading:
    """Read the records from `offset` on.

    Bytes after the last valid record, torn or filled with NULs, count as not arrived yet: the next read
    starts with them. `bad` reports invalid lines before a valid one.

    Raises:
        OSError: the file cannot be read.
    """
    with open_file(path) as file:
        file.seek(offset)
        return parse(file.read(), offset)


def read_first(path: Path) -> Record | None:
    """Return the first record of a journal, None until a complete record has arrived.

    Raises:
        OSError: the file cannot be read.
    """
    try:
        with open_file(path) as file:
            records = parse(file.readline()).records
    except OSError as error:
        if has_not_arrived(error):
            return None
        raise
    return records[0] if records else None


def read_end(path: Path, most: int) -> list[Record]:
    """Return the records of about the last `most` bytes of a journal, at least the last record.

    Raises:
        OSError: the file cannot be read.
    """
    try:
        with open_file(path) as file:
            return _read_end(file, most)
    except OSError as error:
        if has_not_arrived(error):
            return []
        raise


def _read_end(file: BinaryIO, most: int) -> list[Record]:
    def read_from(start: int) -> Reading:
        file.seek(start)
        return parse(file.read(), start)

    size = file.seek(0, os.SEEK_END)
    start = max(0, size - most)
    reading = read_from(start)
    while not reading.records and start > 0:
        start = max(0, size - 2 * (size - start))
        reading = read_from(start)
    if reading.records and start > 0 and size - reading.offsets[-1] > most // 2:
        reading = read_from(max(0, reading.offsets[-1] - most))  # include records before a long last one
    return reading.records


def parse(content: bytes, offset: int = 0) -> Reading:
    """Read the records in `content`, which begins at byte `offset` of a journal."""
    reading, suspects, start, trusted = Reading(), [], 0, 0
    while (end := content.find(b"\n", start)) >= 0:
        try:
            record = _decode_line(content[start:end])
        except ValueError as error:
            suspects.append(BadLine(offset + start, str(error)))
        else:
            reading.bad.extend(suspects)
            suspects.clear()
            reading.records.append(record)
            reading.offsets.append(offset + start)
            trusted = end + 1
        start = end + 1
    return Reading(reading.records, reading.offsets, offset + trusted, reading.bad, len(content) - trusted)


def _encode_line(record: Record) -> bytes:
    body = numbers.encode(record).encode()[:-1]
    return b'%b,"crc":%d}\n' % (body, zlib.crc32(body))


def _decode_line(line: bytes) -> Record:
    """Read one line.

    Raises:
        ValueError: the line is not a valid record; the message says why.
    """
    body, mark, crc = line.rpartition(_CRC)
    if not mark:
        raise ValueError("no checksum")
    if crc != b"%d}" % zlib.crc32(body):
        raise ValueError("the checksum does not match")
    record: Record = numbers.decode(body.decode() + "}")
    _check_envelope(record)
    return record


def _check_envelope(record: Record) -> None:
    for key, type_ in _ENVELOPE.items():
        if not isinstance(record.get(key), type_):
            raise ValueError(f"the key {key} is missing or wrong")


def _write_error(path: Path, error: OSError) -> SystemRefused:
    if error.errno in _DISK_FULL:
        return SystemRefused(f"disk full: cannot write {path}", "free some space; the run can then go on")
    return SystemRefused(f"cannot write {path}: {error.strerror or error}")
