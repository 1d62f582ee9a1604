"""Snapshots of a project's files: `code/<hash>/` below an experiment, and its manifest `code/<hash>.json`.

A snapshot gets its name after all of its files are on the disk, so a named snapshot is complete. Its files
are read-only.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import stat
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ...errors import SystemRefused, UserError
from ...store.files import read_object, sync_folder, write_atomically
from ...store.layout import CODE_HASH, ExperimentFiles
from .project_files import LARGEST_FILE, Project, shown

HASH_DIGITS = 16
CHUNK = 1 << 20
ABANDONED_SECONDS = 3600.0

NO_CODE = frozenset({
    ".md", ".rst", ".tex", ".bib", ".pdf", ".ipynb", ".html", ".log", ".csv", ".tsv",
    ".png", ".jpg", ".jpeg", ".gif", ".svg", ".gitignore", ".gitattributes", ".gitmodules",
})  # fmt: skip
"""Endings of files that are copied but do not count as code."""
_SETTINGS = re.compile(rb"^(experiment|cluster|extends)\s*:", re.MULTILINE)
"""Marks specifications and profiles among YAML files. They may change, so they do not count as code."""

Manifest = Mapping[str, Sequence[Any]]
"""By path: kind (`file`, `program` or `link`), hash, size [bytes], and whether the file counts as code."""


def keep(files: ExperimentFiles, project: Project, spec: Path | None = None) -> str:
    """Write a snapshot of a project unless it exists, and return its hash.

    Raises:
        UserError: a file cannot be read, or the files of an existing snapshot were changed.
        SystemRefused: the snapshot cannot be written.
    """
    try:
        source = _ProjectSource(project, spec)
        code_hash = _hash_manifest({name: _read_entry(source, name, _read_file) for name in project.files})
        if not _is_whole(files, code_hash):
            code_hash = _copy_project(files, source)
    except OSError as error:
        where = f": {shown(error.filename)}" if error.filename else ""
        refusal = UserError if _is_in(project.folder, error.filename) else SystemRefused
        raise refusal(f"cannot copy the code: {error.strerror}{where}") from error
    return code_hash


def folder_of(files: ExperimentFiles, code_hash: str) -> Path:
    """Return the folder of a snapshot, which need not exist."""
    return files.code / code_hash


def changed(files: ExperimentFiles, before: str, after: str) -> list[str]:
    """Return the paths of code files in which two snapshots differ.

    If a snapshot no longer exists, the result is one entry that says so.
    """
    if before == after:
        return []
    old, new = _read_manifest(files, before), _read_manifest(files, after)
    if old is None or new is None:
        return [f"snapshot {before if old is None else after} (it is gone)"]
    return sorted(path for path in old.keys() | new.keys() if _entries_differ(old.get(path), new.get(path)))


def _entries_differ(old: Sequence[Any] | None, new: Sequence[Any] | None) -> bool:
    entries = [entry for entry in (old, new) if entry is not None]
    return all(entry[3] for entry in entries) and (len(entries) < 2 or entries[0][:2] != entries[1][:2])


# Content of a snapshot


@dataclass(frozen=True)
class _ProjectSource:
    """A project's files, and the specification among them, which does not count as code."""

    project: Project
    spec: Path | None

    @cached_property
    def inside(self) -> frozenset[str]:
        """The project's files and the folders that hold them."""
        folders = (str(above) for name in self.project.files for above in Path(name).parents)
        return frozenset(self.project.files).union(folders)

    def link(self, name: str) -> str | None:
        """Return the target of the link `name` in a snapshot; None if the target's file is copied instead.

        A link inside the project stays relative. A link to a folder or a very large file outside stays as it
        is.
        """
        real = os.path.realpath(self.project.folder / name)
        inside = os.path.relpath(real, os.path.realpath(self.project.folder))
        if inside in self.inside:
            return os.path.relpath(inside, Path(name).parent)
        target = Path(real)
        return None if target.is_file() and target.stat().st_size <= LARGEST_FILE else real

    def counts(self, name: str, head: bytes) -> bool:
        """Return whether a file counts as code: a run does not continue after code has changed."""
        path = self.project.folder / name
        if path.suffix in NO_CODE or path.name in NO_CODE:
            return False
        if self.spec is not None and os.path.realpath(path) == os.path.realpath(self.spec):
            return False
        return not (path.suffix in (".yaml", ".yml") and _SETTINGS.search(head))


_FileSummary = tuple[str, int, bytes]
"""A file's hash, its size [bytes], and its first chunk."""


def _read_entry(source: _ProjectSource, name: str, read: Callable[[Path], _FileSummary]) -> list[Any]:
    path = source.project.folder / name
    if path.is_symlink() and (target := source.link(name)) is not None:
        return ["link", hashlib.sha256(os.fsencode(target)).hexdigest(), 0, True]
    digest, size, head = read(path)
    mode = "program" if path.stat().st_mode & stat.S_IXUSR else "file"
    return [mode, digest, size, source.counts(name, head)]


def _read_file(path: Path, copy: Path | None = None) -> _FileSummary:
    """Return a file's summary, and copy the file to `copy` if that is given."""
    digest, size, head = hashlib.sha256(), 0, b""
    with path.open("rb") as file, (copy or Path(os.devnull)).open("wb") as target:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            size += len(chunk)
            head = head or chunk
            target.write(chunk)
    return digest.hexdigest(), size, head


def _hash_manifest(manifest: Manifest) -> str:
    whole = hashlib.sha256()
    for name in sorted(manifest, key=os.fsencode):
        mode, digest = manifest[name][:2]
        whole.update(b"%b\0%b\0%b\n" % (os.fsencode(name), mode.encode(), digest.encode()))
    return whole.hexdigest()[:HASH_DIGITS]


# Writing a snapshot


def _copy_project(files: ExperimentFiles, source: _ProjectSource) -> str:
    """Copy a project and return the snapshot's hash.

    The hash is that of the copied files, because a file may change during the copy.
    """
    files.code.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(files.code)
    temporary = files.code / f".{uuid.uuid4().hex}.tmp"
    temporary.mkdir()
    try:
        manifest = {name: _copy_file(source, name, temporary) for name in source.project.files}
        code_hash = _hash_manifest(manifest)
        _make_durable(temporary)
        write_atomically(_manifest_path(files, code_hash), json.dumps({"files": manifest}).encode())
        _give_name(temporary, folder_of(files, code_hash))
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return code_hash


def _copy_file(source: _ProjectSource, name: str, folder: Path) -> list[Any]:
    copy = folder / name
    copy.parent.mkdir(parents=True, exist_ok=True)
    entry = _read_entry(source, name, lambda path: _read_file(path, copy))
    if entry[0] == "link":
        copy.symlink_to(str(source.link(name)))
    else:
        readable = copy.stat().st_mode & 0o444  # by the umask
        copy.chmod(readable | readable >> 2 if entry[0] == "program" else readable)
    return entry


def _make_durable(folder: Path) -> None:
    """Sync all files, and then their folders, to the disk."""
    for above, _, names in os.walk(folder, topdown=False):
        for path in (Path(above) / name for name in names):
            if not path.is_symlink():
                sync_folder(path)
        sync_folder(Path(above))


def _give_name(temporary: Path, folder: Path) -> None:
    try:
        temporary.rename(folder)
    except OSError as error:  # another process has written the same snapshot
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
    sync_folder(folder.parent)


def _is_whole(files: ExperimentFiles, code_hash: str) -> bool:
    """Return whether a snapshot and its manifest exist.

    Raises:
        UserError: a file of the snapshot was changed.
    """
    folder, manifest = folder_of(files, code_hash), _read_manifest(files, code_hash)
    if manifest is None or not folder.is_dir():
        return False
    for name, (mode, digest, *_) in manifest.items():
        path = folder / name
        if mode != "link" and not (path.is_file() and _read_file(path)[0] == digest):
            raise UserError(
                f"the code that was kept has been changed: {shown(path)}",
                f"remove {folder}, and submit again",
            )
    return True


def _read_manifest(files: ExperimentFiles, code_hash: str) -> Manifest | None:
    """Return a snapshot's manifest; None if it does not exist or is damaged."""
    if not CODE_HASH.fullmatch(code_hash):  # a journal may say anything
        return None
    try:
        entries: Manifest = read_object(_manifest_path(files, code_hash))["files"]
    except (OSError, ValueError, KeyError):
        return None
    is_whole = isinstance(entries, dict) and all(
        isinstance(e, list) and len(e) >= 4 for e in entries.values()
    )
    return entries if is_whole else None


def _manifest_path(files: ExperimentFiles, code_hash: str) -> Path:
    return files.code / f"{code_hash}.json"


def _remove_abandoned(folder: Path) -> None:
    """Remove unfinished snapshots of killed submitters."""
    for path in folder.glob(".*.tmp"):
        if path.is_dir() and time.time() - path.stat().st_mtime > ABANDONED_SECONDS:
            shutil.rmtree(path, ignore_errors=True)


def _is_in(folder: Path, name: object) -> bool:
    return isinstance(name, str | bytes) and Path(os.fsdecode(name)).is_relative_to(folder)
