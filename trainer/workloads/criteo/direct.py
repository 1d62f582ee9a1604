"""Rows straight from plain text: the lines of a batch are looked up, and parsed as they are needed."""

from __future__ import annotations

import hashlib
import json
import logging
import mmap
import zlib
from collections import OrderedDict, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....errors import UserError
from .columns import COLUMNS, Rows
from .sources import SourceFile, warnings_on_rows
from .synthesis import expected_rows
from .text import NEWLINE, Format, parse

CHUNK_BYTES = 4 << 20
MOST_CHUNKS = 512
"""Chunks whose lines' places are kept; a block of five million lines has some 300."""
MOST_TOLD = 20
FEW_ROWS = 100_000
"""Bad rows may be this often the share that is allowed, before so many rows have been read."""

Positions = NDArray[np.int64]
Mask = NDArray[np.bool_]

log = logging.getLogger("alphagrid")


class TextRows:
    """The lines of the log's files, one after the other, as rows.

    A line that is no row is told in the run's log with file and line, and takes part with weight 0.
    """

    def __init__(self, files: Sequence[SourceFile], max_bad_share: float) -> None:
        for file in files:
            _check_plain(file)
        self._files = [_Lines(file) for file in files]
        self._starts = np.cumsum([0, *map(len, self._files)])
        self._max_bad_share = max_bad_share
        self._read = self._bad = 0

    def __len__(self) -> int:
        """Return the number of lines, headers left out."""
        return int(self._starts[-1])

    @property
    def days(self) -> dict[int, int]:
        """Lines of each day, in order."""
        found: dict[int, int] = {}
        for lines in self._files:
            found[lines.file.day] = found.get(lines.file.day, 0) + len(lines)
        return found

    def warnings(self, synthetic: Mapping[str, Any] | None) -> list[str]:
        """Return warnings about days of other sizes than published or synthesized, and unended files."""
        named = {lines.file.day for lines in self._files if lines.file.is_named_by_day}
        rows = {day: count for day, count in self.days.items() if day in named}
        unended = [lines.file.path for lines in self._files if lines.unended]
        return warnings_on_rows(rows, *expected_rows(synthetic), unended)

    @property
    def fingerprint(self) -> str:
        """A short hash of the files' text in their order."""
        told = [
            [lines.file.day, lines.file.header_lines, lines.file.size, lines.checksum]
            for lines in self._files
        ]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]

    def take(self, rows: Positions) -> tuple[Rows, Mask | None]:
        """Return rows by their numbers, and which of them are sound (None: all).

        Raises:
            UserError: too many lines are no rows.
        """
        found = np.zeros((len(rows), COLUMNS), np.uint32)
        sound = np.zeros(len(rows), bool)
        for format_, (at, text) in self._texts(rows).items():
            parsed = parse(text, format_)
            found[at[parsed.line_of]] = parsed.rows
            sound[at[parsed.line_of]] = True
            for line, reason in parsed.bad:
                self._tell(int(rows[at[line]]), reason)
        self._read += len(rows)
        self._check_share()
        return found, None if sound.all() else sound

    def _texts(self, rows: Positions) -> dict[Format, tuple[Positions, bytes]]:
        """Return the lines of rows, those of one format together, and which of the rows they are."""
        found: dict[Format, list[tuple[Positions, bytes]]] = defaultdict(list)
        places = np.searchsorted(self._starts, rows, "right") - 1
        for place in np.unique(places):
            at, lines = np.flatnonzero(places == place), self._files[place]
            found[lines.file.format].append((at, lines.text(rows[at] - self._starts[place])))
        return {
            format_: (np.concatenate([at for at, _ in parts]), b"".join(text for _, text in parts))
            for format_, parts in found.items()
        }

    def _tell(self, row: int, reason: str) -> None:
        self._bad += 1
        if self._bad <= MOST_TOLD:
            place = int(np.searchsorted(self._starts, row, "right")) - 1
            lines = self._files[place]
            line = lines.number(row - int(self._starts[place]))
            log.warning("no row, it weighs nothing: %s:%d: %s", lines.file.path, line, reason)
        if self._bad == MOST_TOLD:
            log.warning("further lines that are no rows are only counted")

    def _check_share(self) -> None:
        allowed = self._max_bad_share * max(self._read, min(FEW_ROWS, len(self)))
        if self._bad > allowed:
            raise UserError(
                f"{self._bad:,} of {self._read:,} lines read are no rows (the log names the first)",
                "mend the files, or allow more with workload.max_bad_share",
            )


class _Lines:
    """The lines of one file after its header, by number; their places are found chunk by chunk."""

    def __init__(self, file: SourceFile) -> None:
        self.file = file
        self._text = _mapped(file.path)
        self.checksum = 0
        """CRC-32 of the text."""
        counts = []
        for start in range(0, len(self._text), CHUNK_BYTES):
            chunk = self._text[start : start + CHUNK_BYTES]
            counts.append(chunk.count(b"\n"))
            self.checksum = zlib.crc32(chunk, self.checksum)
        self._newlines = np.cumsum([0, *counts])
        self._places: OrderedDict[int, Positions] = OrderedDict()
        self.unended = self._text[-1] != NEWLINE
        self._count = int(self._newlines[-1]) + self.unended - file.header_lines

    def __len__(self) -> int:
        return self._count

    def number(self, line: int) -> int:
        """Return what an editor calls a line."""
        return line + self.file.header_lines + 1

    def text(self, lines: Positions) -> bytes:
        """Return lines one after the other, each with a newline."""
        last = lines + self.file.header_lines
        starts, ends = self._after(last - 1), self._after(last)
        parts = [self._text[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]
        return b"".join(part if part.endswith(b"\n") else part + b"\n" for part in parts)

    def _after(self, newlines: Positions) -> Positions:
        """Return the places after the newlines of these numbers; after number −1 the file begins."""
        found = np.zeros_like(newlines)
        chunks = np.searchsorted(self._newlines, newlines, "right") - 1
        for chunk in np.unique(chunks[newlines >= 0]):
            at = np.flatnonzero((chunks == chunk) & (newlines >= 0))
            if chunk == len(self._newlines) - 1:  # the end of a file whose last line has none
                found[at] = len(self._text)
            else:
                found[at] = self._chunk(int(chunk))[newlines[at] - self._newlines[chunk]] + 1
        return found

    def _chunk(self, chunk: int) -> Positions:
        found = self._places.get(chunk)
        if found is None:  # another thread may be here, too: what is found is kept in hand
            start = chunk * CHUNK_BYTES
            letters = np.frombuffer(self._text[start : start + CHUNK_BYTES], np.uint8)
            found = self._places[chunk] = np.flatnonzero(letters == NEWLINE) + start
            while len(self._places) > MOST_CHUNKS:
                self._places.popitem(last=False)
        return found


def _mapped(path: Path) -> mmap.mmap:
    try:
        with path.open("rb") as opened:
            return mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise UserError(
            f"{path}: {error.strerror}", "where files are very many, run: alphagrid data prepare criteo1tb"
        ) from error


def _check_plain(file: SourceFile) -> None:
    path: Path = file.path
    if file.size == 0:
        raise UserError(f"{path} is empty", "fetch it anew, or move it away")
    if file.is_gzip:
        raise UserError(
            f"{path} is compressed: no line of it can be looked up",
            f"run: alphagrid data prepare criteo1tb {path.parent} PREPARED, and give that folder as data_dir",
        )
