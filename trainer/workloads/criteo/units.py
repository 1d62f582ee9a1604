"""Units of preparation: each unit becomes one shard, with a note of its result beside it.

A unit with a note is done, if its file has not changed since.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from ....store.files import write_atomically
from .columns import Rows
from .shards import FORMAT, Shard, ShardWriter
from .sources import Damaged, SourceFile, texts
from .text import BadLine, parse

UNIT_BYTES = 256 << 20
MOST_KEPT = 10_000
"""Maximum number of bad lines of a unit whose place and reason are stored; all are counted."""


@dataclass(frozen=True)
class Unit:
    """The lines that begin between two bytes of a file; a compressed file is one unit."""

    file: SourceFile
    start: int
    stop: int

    @property
    def name(self) -> str:
        """Name of its shard and note, without extension."""
        part = "" if self.file.part is None else f"_{self.file.part:03}"
        return f"day_{self.file.day:02}{part}-{self.start // UNIT_BYTES:05}"

    @property
    def origin(self) -> list[str | int]:
        """Identity of its input; if that changes, the unit must be converted again."""
        return [FORMAT, self.file.path.name, self.file.size, self.file.mtime_ns, self.start, self.stop]


@dataclass(frozen=True)
class Note:
    """Result of a unit."""

    origin: list[str | int]
    shard: Shard
    lines: int
    """Including a header and bad lines."""
    bad: int
    kept_bad: list[BadLine]
    """The first bad lines; line numbers count from 0 within the unit."""
    damage: str | None
    """Why the file cannot be read to its end."""
    unended: bool = False
    """Whether the file's last line has no line end; notes of earlier versions lack this field."""

    def write(self, path: Path) -> None:
        """Write the note."""
        write_atomically(path, json.dumps(asdict(self)).encode())

    @classmethod
    def read(cls, path: Path) -> Note:
        """Read a note."""
        content = json.loads(path.read_bytes())
        content["shard"] = Shard(**content["shard"])
        content["kept_bad"] = [BadLine(*line) for line in content["kept_bad"]]
        return cls(**content)


def units_of(files: list[SourceFile]) -> list[Unit]:
    """Cut files into units, in order."""
    return [
        Unit(file, start, file.size if file.is_gzip else min(start + UNIT_BYTES, file.size))
        for file in files
        for start in range(0, 1 if file.is_gzip else max(file.size, 1), UNIT_BYTES)
    ]


def done(unit: Unit, folder: Path) -> Note | None:
    """Return the note of a unit that has been converted, from a file that is still the same."""
    try:
        note = Note.read(folder / f"{unit.name}.json")
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    return note if note.origin == unit.origin and (folder / note.shard.name).exists() else None


def convert(unit: Unit, folder: Path, on_bytes: Callable[[int], None]) -> Note:
    """Write a unit's shard, then its note; call `on_bytes` with the number of bytes newly read."""
    tally = _Tally(unit)
    with ShardWriter.at(folder / f"{unit.name}.npy") as shard:
        try:
            for text, position in texts(unit.file, unit.start, unit.stop, tally.note_unended):
                shard.append(tally.rows_of(text))
                on_bytes(tally.moved_to(position))
        except Damaged as error:
            tally.damage = str(error)
    on_bytes(tally.moved_to(unit.stop))
    made = Shard(f"{unit.name}.npy", unit.file.day, shard.rows, shard.clicks, shard.sha256)
    note = Note(unit.origin, made, tally.lines, tally.bad, tally.kept, tally.damage, tally.unended)
    note.write(folder / f"{unit.name}.json")
    return note


class _Tally:
    """Counts a unit's lines as they are parsed."""

    def __init__(self, unit: Unit) -> None:
        self._format = unit.file.format
        self._header = unit.file.header_lines if unit.start == 0 else 0
        self._position = unit.start
        self.lines = self.bad = 0
        self.kept: list[BadLine] = []
        self.damage = None if unit.file.size else "empty"
        self.unended = False

    def note_unended(self) -> None:
        """Record that the last line has no line end."""
        self.unended = True

    def rows_of(self, text: bytes) -> Rows:
        """Parse lines, without a header."""
        for _ in range(self._header):
            text = text[text.index(b"\n") + 1 :]
        self.lines += self._header
        self._header = 0
        parsed = parse(text, self._format)
        room = MOST_KEPT - len(self.kept)
        self.kept += [BadLine(self.lines + line, reason) for line, reason in parsed.bad[:room]]
        self.lines += parsed.lines
        self.bad += len(parsed.bad)
        return parsed.rows

    def moved_to(self, position: int) -> int:
        """Set the position; return the number of bytes read since the last one."""
        moved, self._position = position - self._position, position
        return moved
