"""Prepared logs: a folder of memory-mapped shards, and `dataset.json`, which lists them."""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ....errors import UserError
from ....store.files import sync_folder, write_atomically
from .columns import COLUMNS, ROW_BYTES, Rows

NAME = "criteo1tb"
MANIFEST = "dataset.json"
FORMAT = 1
"""Format of the folder; increase it with every change of the rows."""
MOST_OPEN = 64
"""Maximum number of shards that are mapped at a time."""
CHECK_ROWS = 1 << 16

Positions = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Shard:
    """A file of rows, all of one day; `sha256` is of the rows, without the file's header."""

    name: str
    day: int
    rows: int
    clicks: int
    sha256: str


@dataclass(frozen=True)
class Dataset:
    """Content of `dataset.json`: the shards in the log's order, and the source of their rows."""

    folder: Path
    shards: tuple[Shard, ...]
    source: str
    lines: int
    bad_rows: int
    missing_days: tuple[int, ...] = ()
    damaged: tuple[str, ...] = ()
    synthetic: dict[str, Any] | None = field(default=None)
    """Provenance from `data synthesize`; None for real logs."""

    @cached_property
    def days(self) -> dict[int, int]:
        """Rows of each day, in order."""
        rows_by_day: dict[int, int] = {}
        for shard in self.shards:
            rows_by_day[shard.day] = rows_by_day.get(shard.day, 0) + shard.rows
        return rows_by_day

    @cached_property
    def fingerprint(self) -> str:
        """A short hash of all rows in their order."""
        return hashlib.sha256("".join(shard.sha256 for shard in self.shards).encode()).hexdigest()[:16]

    @property
    def bytes(self) -> int:
        """Size of all shards."""
        return sum(_header_bytes() + shard.rows * ROW_BYTES for shard in self.shards)

    def summary(self) -> dict[str, Any]:
        """Return the content of `dataset.json`, with the number of shards instead of a list."""
        content = {**asdict(self), "folder": str(self.folder), "shards": len(self.shards)}
        return {**content, "fingerprint": self.fingerprint, "rows": {str(k): v for k, v in self.days.items()}}

    def write(self) -> None:
        """Write `dataset.json`: from then on the folder is prepared."""
        content = {"format": FORMAT, "dataset": NAME, **asdict(self)}
        del content["folder"]
        write_atomically(self.folder / MANIFEST, json.dumps(content, indent=1).encode())

    @classmethod
    def read(cls, folder: Path) -> Dataset:
        """Read a prepared folder.

        Raises:
            UserError: the folder is not prepared, another version prepared it, or a shard is damaged.
        """
        prepare_hint = f"run: alphagrid data prepare {NAME} LOGS {folder}"
        try:
            content = json.loads((folder / MANIFEST).read_bytes())
            if content["dataset"] != NAME or content["format"] != FORMAT:
                raise UserError(f"{folder / MANIFEST} is of another version of alphagrid", prepare_hint)
            del content["format"], content["dataset"]
            shards = tuple(Shard(**shard) for shard in content.pop("shards"))
            content.update({key: tuple(content[key]) for key in ("missing_days", "damaged")})
            dataset = cls(folder, shards, **content)
        except FileNotFoundError as error:
            raise UserError(
                f"{folder} has no {MANIFEST}: it is not prepared (to its end)", prepare_hint
            ) from error
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{folder / MANIFEST} is damaged: {error!r}", prepare_hint) from error
        for shard in shards:
            _check_size(folder / shard.name, shard.rows, prepare_hint)
        return dataset


class ShardRows:
    """The rows of all shards, one after the other, read where they are asked for."""

    def __init__(self, dataset: Dataset) -> None:
        self._paths = [dataset.folder / shard.name for shard in dataset.shards]
        self._starts = np.cumsum([0, *(shard.rows for shard in dataset.shards)])
        self._mapped = lru_cache(maxsize=MOST_OPEN)(self._map)

    def __len__(self) -> int:
        """Return the number of rows."""
        return int(self._starts[-1])

    def take(self, rows: Positions) -> Rows:
        """Return rows by their numbers, copied into memory."""
        values = np.empty((len(rows), COLUMNS), np.uint32)
        shards = np.searchsorted(self._starts, rows, "right") - 1
        for shard in np.unique(shards):
            at = np.flatnonzero(shards == shard)
            values[at] = self._mapped(int(shard))[rows[at] - self._starts[shard]]
        return values

    def _map(self, shard: int) -> Rows:
        return map_shard(self._paths[shard])


def map_shard(path: Path) -> Rows:
    """Return a shard's rows without reading them."""
    if path.stat().st_size == _header_bytes():
        return np.empty((0, COLUMNS), np.uint32)
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return np.frombuffer(mapped, "<u4", offset=_header_bytes()).reshape(-1, COLUMNS)


class ShardWriter:
    """Writes rows to a shard as they come; it gets its name when it is whole, and not before."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self.rows = 0
        self.clicks = 0
        _write_header(file, 0)

    @classmethod
    @contextmanager
    def at(cls, path: Path) -> Iterator[ShardWriter]:
        """Open a shard to be written; nothing is left of it if something goes wrong."""
        # a unique name: another process may still write the same shard
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
        try:
            with temporary.open("wb") as file:
                writer = cls(file)
                yield writer
                writer._finish()
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)

    @property
    def sha256(self) -> str:
        """Of the rows so far."""
        return self._hash.hexdigest()

    def append(self, rows: Rows) -> None:
        """Add rows."""
        content = rows.astype("<u4", copy=False).tobytes()
        self._file.write(content)
        self._hash.update(content)
        self.rows += len(rows)
        self.clicks += int(rows[:, 0].sum())

    def _finish(self) -> None:
        self._file.seek(0)
        _write_header(self._file, self.rows)
        self._file.flush()
        os.fsync(self._file.fileno())


def differing(dataset: Dataset, on_rows: Callable[[int], None] = lambda read: None) -> list[str]:
    """Return the names of shards whose rows are no longer those that were written."""
    return [
        shard.name
        for shard in dataset.shards
        if _hash_shard(dataset.folder / shard.name, on_rows) != shard.sha256
    ]


def _hash_shard(path: Path, on_rows: Callable[[int], None]) -> str:
    rows, digest = map_shard(path), hashlib.sha256()
    for start in range(0, len(rows), CHECK_ROWS):
        part = rows[start : start + CHECK_ROWS]
        digest.update(part.tobytes())
        on_rows(len(part))
    return digest.hexdigest()


def _check_size(path: Path, rows: int, hint: str) -> None:
    expected = _header_bytes() + rows * ROW_BYTES
    actual = path.stat().st_size if path.exists() else None
    if actual != expected:
        what = "is missing" if actual is None else f"has {actual} bytes instead of {expected}"
        raise UserError(f"{path} {what}", hint)


def _write_header(file: IO[bytes], rows: int) -> None:
    """Write the header of numpy's format, which has room for any number of rows."""
    np.lib.format.write_array_header_1_0(
        file, {"descr": "<u4", "fortran_order": False, "shape": (rows, COLUMNS)}
    )


@lru_cache(maxsize=1)
def _header_bytes() -> int:
    from io import BytesIO

    header = BytesIO()
    _write_header(header, 0)
    return header.tell()
