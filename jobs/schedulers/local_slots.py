"""Slots of this machine: they limit how many local runs train at a time, and assign each a GPU.

Slots belong to the machine, not to a root: all supervisors and workers of a user share them. A worker
holds its slot's lock while it trains, so a killed worker frees it. `store.location` defines their folder.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ...store import folders, locks
from ...store.location import slots_folder

GPUS_VARIABLE = "ALPHAGRID_GPUS"
"""The supervisor passes the GPUs to its workers in it; submitit empties CUDA_VISIBLE_DEVICES."""


@dataclass(frozen=True)
class Slot:
    """A held slot: its number and the lock that holds it."""

    number: int
    lock: locks.FileLock

    def gpu(self, gpus: tuple[str, ...]) -> str | None:
        """Return the GPU that belongs to this slot, as CUDA_VISIBLE_DEVICES writes it."""
        return gpus[self.number % len(gpus)] if gpus else None


def prepare() -> Path:
    """Create the folder of this user's slots, which no other user can enter, and return it.

    Raises:
        SystemRefused: the folder belongs to another user, or it cannot be created.
    """
    folder = slots_folder(os.environ)
    folders.make_private(folder.parent)
    folders.make_private(folder)
    return folder


def keep() -> None:
    """Mark all slots as just used, so that a cleaner of old files in /var/tmp leaves held ones alone."""
    for path in slots_folder(os.environ).glob("slot-*.lock"):
        with suppress(OSError):
            os.utime(path, follow_symlinks=False)


def capacity(max_parallel: int | None, threads: int, gpus: int) -> int:
    """Return how many runs may train at a time: `max_parallel`, else one per GPU or per `threads` cores."""
    if max_parallel is not None:
        return max_parallel
    if gpus:
        return gpus
    return max(1, _usable_cores() // max(1, threads))


def free(count: int) -> int:
    """Return how many of the first `count` slots are free."""
    folder = slots_folder(os.environ)
    return sum(not locks.is_held(_slot_path(folder, number)) for number in range(count))


def take(count: int, stopped: Callable[[], bool]) -> Slot | None:
    """Wait for one of the first `count` slots and hold it; return None if `stopped()` returns true.

    Raises:
        SystemRefused: other users can enter the folder of the slots.
    """
    folder = prepare()
    while not stopped():
        for number in range(count):
            lock = locks.FileLock(_slot_path(folder, number))
            if lock.acquire():
                return Slot(number, lock)
        time.sleep(0.1)
    return None


def visible_gpus(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the CUDA devices that processes of this environment may use, without importing torch."""
    if GPUS_VARIABLE in environ:
        listed = environ[GPUS_VARIABLE]
    elif "CUDA_VISIBLE_DEVICES" in environ:
        listed = environ["CUDA_VISIBLE_DEVICES"]
    else:
        return tuple(str(index) for index in range(_count_gpus()))
    return tuple(word.strip() for word in listed.split(",") if word.strip() not in ("", "-1"))


def _usable_cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        return os.cpu_count() or 1


def _slot_path(folder: Path, number: int) -> Path:
    return folder / f"slot-{number:03d}.lock"


def _count_gpus() -> int:
    try:
        listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return len(list(Path("/dev").glob("nvidia[0-9]*")))
    return sum(line.startswith("GPU ") for line in listing.stdout.splitlines())
