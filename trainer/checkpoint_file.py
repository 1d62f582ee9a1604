"""Checkpoint files, without torch: their names, checksums and formats, and the outline of what they hold.

A checkpoint is a zip archive that torch wrote: a pickle, and beside it the bytes of each tensor. The outline
is that pickle read with a stand-in for every class, so that nothing in it is imported or run.
"""

from __future__ import annotations

import pickle
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

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


def available(run: RunFiles, after_attempt: int = 0) -> list[CheckpointFile]:
    """Return the checkpoints of attempts later than `after_attempt`, oldest first."""
    files = map(CheckpointFile.from_path, run.checkpoints())
    return sorted(file for file in files if file.attempt > after_attempt)


def candidates(
    run: RunFiles, after_attempt: int = 0, limits: Mapping[int, int] | None = None
) -> list[CheckpointFile]:
    """Return the checkpoints that a run may go on from, newest first.

    `limits` says, per attempt, up to which step its checkpoints count: what an attempt wrote after a
    newer one had begun is not the run's, although its numbers would be the same.
    """
    steps = limits or {}
    return [
        file
        for file in reversed(available(run, after_attempt))
        if file.step <= steps.get(file.attempt, file.step)
    ]


def check_content(stream: IO[bytes], checksum: int) -> None:
    """Compare the content of an open file with the checksum in its name, and go back to its start.

    Raises:
        CheckpointDamaged: it does not match.
    """
    value = 0
    while chunk := stream.read(CHUNK):
        value = zlib.crc32(chunk, value)
    if value != checksum:
        raise CheckpointDamaged("its checksum does not match")
    stream.seek(0)


def outline(stream: IO[bytes]) -> dict[str, Any]:
    """Return what an open checkpoint holds, with a `StandIn` for each object of a class; torch is not needed.

    Raises:
        CheckpointDamaged: it is not an archive that torch wrote, or no state is in it.
    """
    try:
        with zipfile.ZipFile(stream) as archive:
            (name,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
            with archive.open(name) as content:
                state = _Outline(content).load()
    except OSError:
        raise
    except Exception as error:  # a pickle that is not sound fails in any way
        raise CheckpointDamaged(f"it cannot be read: {error}") from error
    finally:
        stream.seek(0)
    if not isinstance(state, dict):
        raise CheckpointDamaged("it holds no state")
    return state


def format_of(file: CheckpointFile) -> Any:
    """Return the format of a checkpoint; its checksum is not looked at.

    Raises:
        CheckpointDamaged, OSError: it cannot be read.
    """
    with file.path.open("rb") as stream:
        return outline(stream).get("format")


def other_format(format_: Any) -> str:
    """Return the message for a checkpoint of a format that this version does not read."""
    return f"is of format {format_}, and this alphagrid reads format {FORMAT}"


class StandIn:
    """Takes the place of an object: `class_name` is its class or the function that makes it."""

    class_name = ""

    def __new__(cls, *args: Any, **kwargs: Any) -> StandIn:
        """Keep what the object is made of."""
        made = super().__new__(cls)
        made.parts = [*args, *kwargs.values()]
        return made

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.parts: list[Any]

    def __setstate__(self, state: Any) -> None:
        """Take in the object's state."""
        self.parts.append(state)

    def __setitem__(self, key: Any, value: Any) -> None:
        """Take in an item of a mapping."""
        self.parts.append(value)

    def append(self, value: Any) -> None:
        """Take in an item of a sequence."""
        self.parts.append(value)

    add = append


class _Outline(pickle.Unpickler):
    """Reads a pickle without importing anything that it names."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        where = {"__builtin__": "builtins"}.get(module, module)  # as it is called in pickles of protocol 2
        return type(name, (StandIn,), {"class_name": f"{where}.{name}"})

    def persistent_load(self, key: Any) -> None:
        return None


def places_of(value: Any, class_names: Collection[str], key: str = "") -> Iterator[tuple[str, str]]:
    """Yield the dotted key and the class of each object in an outline that is of one of some classes."""
    if isinstance(value, StandIn) or (isinstance(value, type) and issubclass(value, StandIn)):
        if value.class_name in class_names:
            yield key, value.class_name
            return
        for part in getattr(value, "parts", ()):
            yield from places_of(part, class_names, key)
    elif isinstance(value, dict):
        for name, item in value.items():
            inner = f"{key}.{name}" if key else str(name)
            if isinstance(name, StandIn):
                yield from places_of(name, class_names, f"{key} (a key)")
                inner = key
            yield from places_of(item, class_names, inner)
    elif isinstance(value, list | tuple | set | frozenset):
        for index, item in enumerate(value):
            yield from places_of(item, class_names, f"{key}.{index}")
