"""The pieces that preparing is done in: each makes one shard, and a note beside it of what it found.

A unit whose note is there is done, whatever happened since; its file must not have changed.
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
"""Bad lines of a unit whose place and reason are kept; of the rest the number."""


@dataclass(frozen=True)
class Unit:
    """The lines that begin between two bytes of a file; a compressed file is one unit."""

    file: SourceFile
    start: int
    stop: int

    @property
    def name(self) -> str:
        """What its shard and its note are called, without their endings."""
        part = "" if self.file.part is None else f"_{self.file.part:03}"
        return f"day_{self.file.day:02}{part}-{self.start // UNIT_BYTES:05}"

    @property
    def origin(self) -> list[str | int]:
        """What it is made from: if that changes, it has to be made again."""
        return [FORMAT, self.file.path.name, self.file.size, self.file.mtime_ns, self.start, self.stop]


@dataclass(frozen=True)
class Note:
    """What came of a unit."""

    origin: list[str | int]
    shard: Shard
    lines: int
    """With a header, and with what is no row."""
    bad: int
    kept_bad: list[BadLine]
    """The first of them; lines count from 0 within the unit."""
    damage: str | None
    """Why the file cannot be read to its end."""
    unended: bool = False
    """Whether the file's last line has no line end; notes of earlier versions do not say."""

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
    """Write a unit's shard, then its note; `on_bytes` hears how many bytes were read since it was told."""
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
        """Take down that the last line has no line end."""
        self.unended = True

    def rows_of(self, text: bytes) -> Rows:
        """Parse lines, but for a header."""
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
        """Return how many bytes were read to come here."""
        moved, self._position = position - self._position, position
        return moved
