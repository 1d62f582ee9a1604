"""Checkpoints: written whole or not at all, checked when read, two kept.

A file is called checkpoint-<step>-<attempt>-<crc32>.pt. It is written under a temporary name, synced and
renamed; its name then vouches for its content. It holds tensors and plain Python values only.
"""

from __future__ import annotations

import os
import pickle
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import torch

from ..errors import UserError
from ..store.files import sync_folder
from ..store.journal import is_superseded
from ..store.layout import RunFiles
from .checkpoint_file import (
    FORMAT,
    CheckpointDamaged,
    CheckpointFile,
    available,
    candidates,
    check_content,
    other_format,
    outline,
    places_of,
)

__all__ = ["CheckpointDamaged", "CheckpointFile", "available", "candidates", "read", "write"]

PLAIN_VALUES = (
    "tensors and plain Python values can be loaded again, NumPy's values and other objects cannot: use "
    "float(x), x.tolist() or torch.from_numpy(x) in get_extra_state and state_dict"
)


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


def write(
    run: RunFiles, step: int, attempt: int, state: Mapping[str, Any], keep: int, check: bool = False
) -> Path | None:
    """Write a checkpoint durably, then delete all but the newest `keep`; return its path.

    If a newer attempt has begun by then, the checkpoint is withdrawn and the others are left to that
    attempt: None is returned. (An attempt that has not begun when this one looks will find the new
    checkpoint, so it does not miss those that are deleted.) With `check` it is read back, memory-mapped.

    Raises:
        OSError: the disk is full or the directory cannot be written; older checkpoints are untouched.
        UserError: a value cannot be written or, with `check`, loaded again; no checkpoint is left of it.
    """
    temporary = run.path / f".checkpoint-{step:010d}-{attempt:04d}.tmp"
    try:
        temporary.unlink(missing_ok=True)
        with temporary.open("xb") as file:  # a new file: others know this name, and may have put a link there
            summed = _Checksum(file)
            _save({"format": FORMAT, **state}, summed)
            file.flush()
            os.fsync(file.fileno())
        if check:
            _check_loadable(temporary)
        path = run.path / f"checkpoint-{step:010d}-{attempt:04d}-{summed.value:08x}.pt"
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(run.path)
    if is_superseded(run, attempt):
        path.unlink(missing_ok=True)
        return None
    for old in _outdated(available(run), CheckpointFile.from_path(path), keep):
        old.path.unlink(missing_ok=True)
    return path


def _save(state: dict[str, Any], file: _Checksum) -> None:
    """Serialise; where the file could not be written, torch's zip writer hides why, and this says it.

    Raises:
        UserError: a value cannot be pickled.
    """
    try:
        torch.save(state, file)  # type: ignore[arg-type]
    except Exception as error:
        if file.failure is not None:
            raise file.failure from None
        key = _unpicklable(state)
        if key is None:
            raise
        raise UserError(f"the checkpoint cannot be written: {key}: {error}", PLAIN_VALUES) from error


def _unpicklable(value: Any, key: str = "") -> str | None:
    """Return the dotted key of the first value that cannot be pickled; None if all can."""
    if isinstance(value, torch.Tensor):
        return None
    if isinstance(value, dict | list | tuple):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for name, item in items:
            if (found := _unpicklable(item, f"{key}.{name}" if key else str(name))) is not None:
                return found
        return None
    try:
        pickle.dumps(value)
    except Exception:
        return key
    return None


def _check_loadable(path: Path) -> None:
    """Load a file just written as a resumed run will, but without reading the tensors.

    Raises:
        UserError: it holds a value that a resumed run could not load.
    """
    try:
        try:
            torch.load(str(path), map_location="cpu", weights_only=True, mmap=True)
        except (OSError, RuntimeError):  # not every file system can map files into memory
            torch.load(str(path), map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:
        reason = _reason(path, error)
        raise UserError(f"a resumed run could not load the checkpoint: {reason}", PLAIN_VALUES) from error


def _reason(path: Path, error: Exception) -> str:
    """Return which keys of a checkpoint hold what torch refuses to load; else what torch says."""
    with path.open("rb") as stream:
        state = outline(stream)
    refused = torch.serialization.get_unsafe_globals_in_checkpoint(str(path))
    places = [f"{key} holds {_told(name)}" for key, name in places_of(state, refused)]
    if not places:
        return str(error).partition("WeightsUnpickler error:")[2].strip().partition("\n")[0] or str(error)
    return ", ".join(places[:3]) + (f" and {len(places) - 3} more" if len(places) > 3 else "")


def _told(class_name: str) -> str:
    """Return what an object is called, given the function that a pickle makes it with."""
    kind = class_name.rpartition(".")[2]
    if class_name.startswith("numpy.") and kind in ("scalar", "_reconstruct"):
        return "a NumPy scalar" if kind == "scalar" else "a NumPy array"
    return f"an object of {class_name}"


def _outdated(files: list[CheckpointFile], newest: CheckpointFile, keep: int) -> list[CheckpointFile]:
    """Return what `newest` takes the place of, and all but the newest `keep` of what is left.

    It takes the place of whatever earlier attempts had reached at its step or beyond: had that been sound
    and the run's, this attempt would have gone on from there. Those of later attempts are left alone: this
    one may be superseded without knowing it.
    """
    own = [file for file in files if file.attempt <= newest.attempt]
    replaced = [file for file in own if file.step >= newest.step and file != newest]
    return replaced + [file for file in own if file not in replaced][:-keep]


def read(file: CheckpointFile) -> dict[str, Any]:
    """Check the content against the name, and load the state onto the CPU.

    Raises:
        CheckpointDamaged: it does not match, or cannot be read.
        FileNotFoundError: it has been taken away meanwhile.
        UserError: it is sound, but of a format that this version does not read, or with values that torch
            refuses to load.
    """
    try:
        with file.path.open("rb") as stream:
            return _load(file, stream)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise CheckpointDamaged(str(error)) from error


def _load(file: CheckpointFile, stream: IO[bytes]) -> dict[str, Any]:
    """Check and load one open file, so that what is loaded is what was checked."""
    check_content(stream, file.checksum)
    found = outline(stream).get("format")
    if found != FORMAT:
        raise UserError(
            f"{file.path} {other_format(found)}",
            "go on with the version that wrote it, or train from the start with `alphagrid retry --fresh`",
        )
    try:
        state: dict[str, Any] = torch.load(stream, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{file.path} cannot be loaded: {_reason(file.path, error)}",
            f"{PLAIN_VALUES}; then train from the start with `alphagrid retry --fresh`",
        ) from error
    return state
