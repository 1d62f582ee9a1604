"""The files of Criteo's logs: their days, and the format of their lines."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ....errors import UserError
from .columns import COLUMNS, NAMES
from .text import COMMA, TAB, Format

DAY = re.compile(r"day_(\d+)(?:_(\d+))?(?:\.(?:tsv|txt|csv))?(\.gz)?")
OTHER = re.compile(r".+\.(?:tsv|txt|csv)(\.gz)?")
READ_BYTES = 2 << 20
FIRST_BYTES = 1 << 16
"""Bytes in which the first line must end."""
PUBLISHED_ROWS = (
    195_841_983, 199_563_535, 196_792_019, 181_115_208, 152_115_810, 172_548_507, 204_846_845, 200_801_003,
    193_772_492, 198_424_372, 185_778_055, 153_588_700, 169_003_364, 194_216_520, 194_081_279, 187_154_596,
    177_984_934, 163_382_602, 142_061_091, 156_534_237, 193_627_464, 192_215_183, 189_747_893, 178_274_637,
)  # fmt: skip
"""Rows of the days of Criteo 1TB."""
LAST_DAY = len(PUBLISHED_ROWS) - 1
MOST_DAYS = 5
"""Days that a warning names."""
GZIP = 31
"""zlib's name for a gzip header and trailer."""


class Damaged(Exception):
    """A file is damaged or ends too early; the message is the reason."""


@dataclass(frozen=True)
class SourceFile:
    """A file of the log, and its format."""

    path: Path
    day: int
    part: int | None
    is_gzip: bool
    format: Format
    header_lines: int
    size: int
    mtime_ns: int

    @property
    def is_named_by_day(self) -> bool:
        """Whether the file's name says which day it holds."""
        return DAY.fullmatch(self.path.name) is not None


def find(source: Path) -> list[SourceFile]:
    """Return the log's files under a folder (or the one file), by day and part.

    Files are called `day_D` or `day_D_NN`; where there are none, `train.txt` (.tsv, .csv) is one day, and
    where there is none of these, any .txt, .tsv or .csv are its parts, by name. Each may be compressed with
    gzip.

    Raises:
        UserError: there is no such folder, it has no logs, a day exists twice, or a header is wrong.
    """
    if not source.exists():
        raise UserError(f"{source} does not exist", "give the folder of day_0, … (or of Kaggle's train.txt)")
    files = [source] if source.is_file() else sorted(path for path in source.iterdir() if path.is_file())
    days = [(path, match) for path in files if (match := DAY.fullmatch(path.name))]
    sources = [
        _source_file(path, int(match[1]), int(match[2]) if match[2] else None, bool(match[3]))
        for path, match in days
    ]
    if not sources:
        tables = [(path, match) for path in files if (match := OTHER.fullmatch(path.name))]
        # Kaggle's folder holds train.txt, an unlabelled test.txt and a readme.txt
        tables = [(path, match) for path, match in tables if path.name.startswith("train.")] or tables
        sources = [_source_file(path, 0, part, bool(match[1])) for part, (path, match) in enumerate(tables)]
    if not sources:
        raise UserError(
            f"{source} holds no click logs",
            "its files are called day_0, … (parts: day_0_00, …) or *.txt, *.tsv, *.csv; maybe with .gz",
        )
    _check_no_duplicates(sources)
    return sorted(sources, key=lambda file: (file.day, -1 if file.part is None else file.part))


def missing_days(days: Iterable[int]) -> list[int]:
    """Return the missing days between 0 and the last one."""
    there = set(days)
    return [day for day in range(max(there)) if day not in there]


def remarks_on_days(days: Iterable[int]) -> list[str]:
    """Return remarks on the days of the logs: days other than Criteo's change the splits."""
    there = sorted(set(days))
    missing = ", ".join(map(str, missing_days(there)))
    remarks = [f"days missing: {missing}"] if missing else []
    if len(there) > 1 and there[-1] != LAST_DAY:
        remarks.append(
            f"held out for validation and test: day {there[-1]} (of all of Criteo's, day {LAST_DAY})"
        )
    return remarks


def warnings_on_rows(
    rows: Mapping[int, int], expected: Mapping[int, int], whose: str, unended: Iterable[Path] = ()
) -> list[str]:
    """Return a warning if days have other numbers of rows than expected, and one for each unended file."""
    other = [day for day, count in sorted(rows.items()) if expected.get(day, count) != count]
    differences = [f"day {day}: {rows[day]:,} instead of {expected[day]:,}" for day in other[:MOST_DAYS]]
    more = f" and {len(other) - MOST_DAYS} more" if len(other) > MOST_DAYS else ""
    warnings = [f"other numbers of rows than {whose}: {', '.join(differences)}{more}"] if other else []
    cut = (f"{path}: the last line has no line end; the file may be cut off" for path in unended)
    return [*warnings, *cut]


def texts(
    file: SourceFile, start: int, stop: int, on_unended: Callable[[], None] = lambda: None
) -> Iterator[tuple[bytes, int]]:
    """Yield the lines that begin between two bytes of a file, many at a time, and how far the file was read.

    Every text ends with a newline; `on_unended` is called if the file's last line has none. A compressed
    file is always read whole.

    Raises:
        Damaged: a compressed file has no proper end; all lines before that have been yielded.
    """
    if file.is_gzip:
        return _read_gzip(file.path, on_unended)
    return _read_plain(file.path, start, stop, on_unended)


def _read_plain(
    path: Path, start: int, stop: int, on_unended: Callable[[], None]
) -> Iterator[tuple[bytes, int]]:
    with path.open("rb") as file:
        if start:
            file.seek(start - 1)
            file.readline()
        position = file.tell()
        while position < stop:
            text = file.read(min(READ_BYTES, stop - position))
            if not text.endswith(b"\n"):
                text += file.readline()
            if not text:
                return
            position += len(text)
            if not text.endswith(b"\n"):
                on_unended()
                text += b"\n"
            yield text, position


def _read_gzip(path: Path, on_unended: Callable[[], None]) -> Iterator[tuple[bytes, int]]:
    """Yield the lines of a gzip file, possibly of several members; zeros after a member are padding."""
    rest, inflater = b"", zlib.decompressobj(GZIP)
    with path.open("rb") as file:
        while compressed := file.read(READ_BYTES // 4):
            while compressed:
                if inflater.eof:
                    if not (compressed := compressed.lstrip(b"\0")):
                        break
                    inflater = zlib.decompressobj(GZIP)
                try:
                    text = rest + inflater.decompress(compressed)
                except zlib.error as error:
                    raise Damaged(f"not sound gzip: {error}") from error
                compressed = inflater.unused_data
                end = text.rfind(b"\n") + 1
                rest = text[end:]
                if end:
                    yield text[:end], file.tell()
        if not inflater.eof:
            raise Damaged("gzip ends too early" + (", within a line" if rest else ""))
        if rest:
            on_unended()
            yield rest + b"\n", file.tell()


def _source_file(path: Path, day: int, part: int | None, is_gzip: bool) -> SourceFile:
    status = path.stat()
    first = _read_first_line(path, is_gzip)
    format_, header_lines = _detect_format(path, first)
    return SourceFile(path, day, part, is_gzip, format_, header_lines, status.st_size, status.st_mtime_ns)


def _read_first_line(path: Path, is_gzip: bool) -> bytes:
    with path.open("rb") as file:
        beginning = file.read(FIRST_BYTES)
    if is_gzip:
        try:
            beginning = zlib.decompressobj(GZIP).decompress(beginning, FIRST_BYTES)
        except zlib.error:
            beginning = b""
    return beginning.split(b"\n", 1)[0].rstrip(b"\r")


def _detect_format(path: Path, first: bytes) -> tuple[Format, int]:
    """Return the format of the lines, and the number of header lines (0 or 1)."""
    delimiter = COMMA if first.count(COMMA) > first.count(TAB) else TAB
    names = [
        name.strip().strip('"').lower() for name in first.decode(errors="replace").split(delimiter.decode())
    ]
    column_names = [name.lower() for name in NAMES]
    if not set(names) & set(column_names):
        return Format(delimiter), 0
    lacking = [name for name in NAMES if name.lower() not in names]
    if lacking or len(names) != COLUMNS:
        raise UserError(
            f"{path}:1: the header has {len(names)} columns"
            + (f" and lacks {', '.join(lacking)}" if lacking else ""),
            f"it must name {COLUMNS}: label, I1 to I13, C1 to C26, in any order",
        )
    return Format(delimiter, tuple(names.index(name) for name in column_names)), 1


def _check_no_duplicates(files: list[SourceFile]) -> None:
    """Refuse two files for one part of a day, and a whole day beside its parts."""
    seen: dict[tuple[int, int | None], Path] = {}
    for file in files:
        other = seen.setdefault((file.day, file.part), file.path)
        whole = seen.get((file.day, None), file.path)
        for twin in (other, whole):
            if twin != file.path:
                raise UserError(
                    f"day {file.day} is there twice: {twin.name} and {file.path.name}", "move one away"
                )
