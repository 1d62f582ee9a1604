"""Checkpoints: written whole or not at all, checked when read, two kept.

A file is called checkpoint-<step>-<attempt>-<crc32>.pt. It is written under a temporary name, synced and
renamed; its name then vouches for its content. It holds tensors and plain Python values only.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch

from ..errors import UserError
from ..store.files import sync_folder
from ..store.journal import overtaken
from ..store.layout import RunFiles

CHUNK = 1 << 20
FORMAT = 3


class CheckpointDamaged(Exception):
    """The content of a checkpoint is not what its name vouches for, or cannot be read."""


@dataclass(frozen=True, order=True)
class CheckpointFile:
    """One checkpoint on disk; the later in order, the further the run."""

    step: int
    attempt: int
    path: Path
    checksum: int

    @classmethod
    def from_path(cls, path: Path) -> CheckpointFile:
        """Read step, attempt and checksum off a checkpoint's name."""
        _, step, attempt, checksum = path.stem.split("-")
        return cls(int(step), int(attempt), path, int(checksum, 16))


class _Checksum:
    """A file that is written through, summing up what passes."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.value = 0
        self.failure: OSError | None = None

    def write(self, data: bytes) -> int:
        self.value = zlib.crc32(data, self.value)
        try:
            return self._file.write(data)
        except OSError as error:
            self.failure = error
            raise

    def flush(self) -> None:
        self._file.flush()


def write(run: RunFiles, step: int, attempt: int, state: Mapping[str, Any], keep: int) -> Path | None:
    """Write a checkpoint durably, then delete all but the newest `keep`; return its path.

    If a newer attempt has begun by then, the checkpoint is withdrawn and the others are left to that
    attempt: None is returned. (An attempt that has not begun when this one looks will find the new
    checkpoint, so it does not miss those that are deleted.)

    Raises:
        OSError: the disk is full or the directory cannot be written; older checkpoints are untouched.
    """
    temporary = run.path / f".checkpoint-{step:010d}-{attempt:04d}.tmp"
    try:
        temporary.unlink(missing_ok=True)
        with temporary.open("xb") as file:  # a new file: others know this name, and may have put a link there
            summed = _Checksum(file)
            _save({"format": FORMAT, **state}, summed)
            file.flush()
            os.fsync(file.fileno())
        path = run.path / f"checkpoint-{step:010d}-{attempt:04d}-{summed.value:08x}.pt"
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(run.path)
    if overtaken(run, attempt):
        path.unlink(missing_ok=True)
        return None
    for old in _outdated(available(run), CheckpointFile.from_path(path), keep):
        old.path.unlink(missing_ok=True)
    return path


def _save(state: dict[str, Any], file: _Checksum) -> None:
    """Serialise; where the file could not be written, torch's zip writer hides why, and this says it."""
    try:
        torch.save(state, file)  # type: ignore[arg-type]
    except RuntimeError:
        if file.failure is not None:
            raise file.failure from None
        raise


def _outdated(files: list[CheckpointFile], newest: CheckpointFile, keep: int) -> list[CheckpointFile]:
    """Return what `newest` takes the place of, and all but the newest `keep` of what is left.

    It takes the place of whatever earlier attempts had reached at its step or beyond: had that been sound
    and the run's, this attempt would have gone on from there. Those of later attempts are left alone: this
    one may have been overtaken without knowing it.
    """
    own = [file for file in files if file.attempt <= newest.attempt]
    replaced = [file for file in own if file.step >= newest.step and file != newest]
    return replaced + [file for file in own if file not in replaced][:-keep]


def available(run: RunFiles, after_attempt: int = 0) -> list[CheckpointFile]:
    """Return the checkpoints of attempts later than `after_attempt`, oldest first."""
    files = map(CheckpointFile.from_path, run.checkpoints())
    return sorted(file for file in files if file.attempt > after_attempt)


def read(file: CheckpointFile) -> dict[str, Any]:
    """Check the content against the name, and load the state onto the CPU.

    Raises:
        CheckpointDamaged: it does not match, or cannot be read.
        FileNotFoundError: it has been taken away meanwhile.
        UserError: it is sound, but of a format that this version does not read.
    """
    try:
        with file.path.open("rb") as stream:
            state = _load(stream, file.checksum)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise CheckpointDamaged(str(error)) from error
    if state.get("format") != FORMAT:
        raise UserError(
            f"{file.path} is of format {state.get('format')}, this alphagrid reads format {FORMAT}",
            "go on with the version that wrote it, or begin anew with `alphagrid retry --fresh`",
        )
    return state


def _load(stream: IO[bytes], checksum: int) -> dict[str, Any]:
    """Check and load one open file, so that what is loaded is what was checked."""
    value = 0
    while chunk := stream.read(CHUNK):
        value = zlib.crc32(chunk, value)
    if value != checksum:
        raise CheckpointDamaged("its checksum does not match")
    stream.seek(0)
    state: dict[str, Any] = torch.load(stream, map_location="cpu", weights_only=True)
    return state
