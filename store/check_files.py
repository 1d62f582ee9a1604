"""Check the files of runs that the index does not hold: markers, configs, claims, checkpoints."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from .files import is_late, open_file, read_object
from .layout import ExperimentFiles, Root, RunFiles
from .shapes import read_config

SUMMED_BYTES = 64 << 20
"""Checkpoints up to this size are read whole and compared with the checksum in their name."""
CHUNK = 1 << 20


Look = Callable[[Path], str | None]


def damaged_files(root: Root) -> Iterator[tuple[str, str, str]]:
    """Yield experiment, file and problem of each damaged file; skip files that vanish meanwhile."""
    for files in root.experiments():
        for run in _list_runs(files):
            for path, look in _files_to_check(run):
                if (reason := _find_damage(path, look)) is not None:
                    yield files.name, f"{run.id}/{path.name}", reason


def _list_runs(files: ExperimentFiles) -> list[RunFiles]:
    try:
        return files.runs()
    except OSError:  # the index records this problem
        return []


def _files_to_check(run: RunFiles) -> list[tuple[Path, Look]]:
    """Return the files of a run to check, each with its check; of the checkpoints only the newest."""
    try:
        claims = [(path, _check_claim) for _, path in run.claims()]
        checkpoints = [(path, _check_checkpoint) for path in run.checkpoints()[-1:]]
    except OSError:  # the index records this problem
        return []
    return [
        (run.cancel_marker, _check_marker),
        (run.config, lambda _: _check_config(run)),
        *claims,
        *checkpoints,
    ]


def _find_damage(path: Path, look: Callable[[Path], str | None]) -> str | None:
    try:
        return look(path)
    except OSError as error:
        return None if is_late(path, error) else f"cannot be read: {error.strerror or error}"


def _check_marker(path: Path) -> str | None:
    try:
        list(read_object(path)["submissions"])
    except (ValueError, KeyError, TypeError):
        return "is not a valid cancel marker: submit refuses, a supervisor does not start the run; remove it"
    return None


def _check_config(run: RunFiles) -> str | None:
    try:
        read_config(run)
    except ValueError as error:
        return f"is no copy of a config ({error}): the next attempt writes it again"
    return None


def _check_claim(path: Path) -> str | None:
    from .claims import problem  # pydantic, which commands that check nothing need not import

    return problem(path)


def _check_checkpoint(path: Path) -> str | None:
    """Return the problem of a checkpoint, or None; of a large one, check only its beginning and end."""
    with open_file(path) as file:
        if not zipfile.is_zipfile(file):
            return "is no checkpoint: the run goes on from an earlier one"
        if file.seek(0, 2) > SUMMED_BYTES:
            return None
        file.seek(0)
        value = 0
        while chunk := file.read(CHUNK):
            value = zlib.crc32(chunk, value)
    if f"{value:08x}" != path.stem.rpartition("-")[2]:
        return "its checksum does not match: the run goes on from an earlier one"
    return None
