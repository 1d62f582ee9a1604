"""The index of a root: an SQLite file that can be deleted and rebuilt at any time.

One process ingests at a time, under a lock beside the file; any number read meanwhile.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Self

from ..errors import SystemRefused, UserError
from . import check, folders, ingest, locks, schema
from .check import Problem
from .ingest import Synced, transaction
from .layout import Root
from .location import FilesystemOf, database_path

BUSY_SECONDS = 30.0
PATIENCE_SECONDS = 30.0
"""How long a sync waits while another process ingests."""
FOR_EVER = float("inf")
REFUSALS = frozenset(
    {
        *(sqlite3.SQLITE_BUSY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR),
        *(sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOLFS, sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY),
    }
)
"""SQLite's result codes for failures of the system, not of alphagrid."""


class Store:
    """An open index. The functions of `queries` take its `db`; close the store after use."""

    def __init__(self, root: Root, path: Path, *, discard_damaged: bool = False) -> None:
        schema.require_sqlite()
        self.root = root
        self.path = path
        """Path of the index. While the root does not exist, an empty index in memory replaces it."""
        self._in_memory = not root.path.exists()
        with _translated_errors(path):
            try:
                self.db = self._open()
            except sqlite3.DatabaseError as error:
                if not (discard_damaged and _is_damage(error)):
                    raise
                with self._lock(FOR_EVER):
                    _remove_index(path)
                self.db = self._open()

    def sync(
        self, experiments: Collection[str] | None = None, *, patience: float = PATIENCE_SECONDS
    ) -> Synced:
        """Ingest new records, of all experiments or of those in `experiments`.

        While another process ingests, wait for up to `patience` seconds. If it has not finished by then,
        return an incomplete `Synced`; the index can still be read.

        Raises:
            UserError: the index is damaged, or a newer alphagrid has replaced it.
            SystemRefused: the disk of the index is full or fails, or the root cannot be listed.
        """
        with _translated_errors(self.path), self._lock(patience) as held:
            if not held:
                return Synced(complete=False)
            self._prepare(self.db)
            return ingest.sync(self.db, self.root, experiments)

    def rebuild(self) -> Synced:
        """Rebuild the index from the files in one transaction; readers see the old one until it ends."""
        with _translated_errors(self.path), self._lock(FOR_EVER):
            try:
                return self._refill()
            except sqlite3.DatabaseError as error:
                if not _is_damage(error):
                    raise
                self.db.close()  # too damaged even to be emptied
                _remove_index(self.path)
                self.db = self._connect()
                return self._refill()

    def check(self) -> list[Problem]:
        """Sync, then return all problems of journals, submissions, and the index itself.

        The lock is released before checkpoints are read, which takes long.
        """
        with _translated_errors(self.path):
            with self._lock(FOR_EVER):
                self._prepare(self.db)
                ingest.sync(self.db, self.root)
                problems = check.index_problems(self.db, self.root)
            return check.by_file(problems | check.file_problems(self.root))

    def export(self, target: Path) -> Path:
        """Write a consistent copy of the index, one file, and return its path.

        Raises:
            UserError: `target` exists.
            SystemRefused: it cannot be written.
        """
        if target.exists():
            raise UserError(f"{target} exists", "choose another name, or remove it first")
        with _translated_errors(target):
            self.db.execute("VACUUM INTO ?", (str(target),))
        return target

    def close(self) -> None:
        """Close the index; closing twice is fine."""
        self.db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _open(self) -> sqlite3.Connection:
        db = self._connect()
        try:
            if not schema.is_current(db, str(self.path)):
                with self._lock(FOR_EVER):
                    self._prepare(db)
        except BaseException:
            db.close()
            raise
        return db

    def _connect(self) -> sqlite3.Connection:
        if self._in_memory:
            return sqlite3.connect(":memory:", isolation_level=None)
        if self.path.parent != self.root.path:
            folders.make_private(self.path.parent.parent)
            folders.make_private(self.path.parent)
        db = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None)
        db.execute("PRAGMA synchronous = NORMAL")
        return db

    def _prepare(self, db: sqlite3.Connection) -> None:
        """Create the tables unless they exist; the caller holds the lock."""
        if db.in_transaction:  # an earlier failure was so bad that not even rolling back succeeded
            db.execute("ROLLBACK")
        if not schema.is_current(db, str(self.path)):
            db.execute("PRAGMA journal_mode = WAL")
            with transaction(db):
                schema.create(db)

    def _refill(self) -> Synced:
        schema.is_current(self.db, str(self.path))  # raises if the file belongs to another program
        self.db.execute("PRAGMA journal_mode = WAL")
        with transaction(self.db):
            schema.create(self.db)
            return ingest.sync(self.db, self.root)

    def _lock(self, patience: float) -> AbstractContextManager[bool]:
        return nullcontext(True) if self._in_memory else locks.attempted(Path(f"{self.path}.lock"), patience)


def open_store(
    root: Root,
    *,
    environ: Mapping[str, str] = os.environ,
    filesystem_of: FilesystemOf | None = None,
    discard_damaged: bool = False,
) -> Store:
    """Open a root's index; create it if there is none, empty it if an older version made it.

    With `discard_damaged` an empty index replaces a file that is no longer a readable database.

    Raises:
        UserError: a newer alphagrid or another program made the file, or it is damaged; it stays unchanged.
        SystemRefused: the index cannot be written.
    """
    return Store(root, database_path(root, environ, filesystem_of), discard_damaged=discard_damaged)


def _remove_index(path: Path) -> None:
    """Remove an index and the files that SQLite keeps beside it."""
    for suffix in ("", "-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)


@contextmanager
def _translated_errors(path: Path) -> Iterator[None]:
    """Translate failures of SQLite and of the file system into errors for the user."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        if _is_damage(error):
            hint = "it is only an index: `alphagrid store rebuild` makes it again from the journals"
            raise UserError(f"{path} is damaged: {error}", hint) from error
        if _result_code(error) in REFUSALS:
            raise SystemRefused(
                f"cannot use {path}: {error}", "it needs space and the right to write"
            ) from error
        raise
    except OSError as error:
        raise SystemRefused(f"cannot use {error.filename or path}: {error.strerror or error}") from error


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    return _result_code(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _result_code(error: sqlite3.DatabaseError) -> int:
    """Return SQLite's primary result code, 0 for an error of Python's module itself."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF
