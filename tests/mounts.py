"""Two mounts of one folder, which stand for two hosts: each has its own locks, and caches that are late."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

CACHE_SECONDS = 5
"""For how long a mount believes what it has seen: names, their absence, sizes and times."""


@contextmanager
def two_mounts(folder: Path) -> Iterator[tuple[Path, Path]]:
    """Mount the folder `real` below `folder` twice; a machine that cannot do this skips the test."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK) or shutil.which("bindfs") is None:
        pytest.skip(
            "NOT TESTED: two hosts with one root; no /dev/fuse, or no bindfs (see tests/slurm/install)"
        )
    names = ("real", "first", "second")
    for name in names:
        (folder / name).mkdir()
    with ExitStack() as mounted:
        for name in names[1:]:
            _mount(folder / "real", folder / name)
            mounted.callback(_unmount, folder / name)
        yield folder / "first", folder / "second"


def _mount(real: Path, place: Path) -> None:
    late = ",".join(f"{what}_timeout={CACHE_SECONDS}" for what in ("attr", "entry", "negative"))
    command = ["bindfs", "-o", late, str(real), str(place)]
    environment = {"PATH": os.environ["PATH"]}  # without the mark of the processes that a test ends itself
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"NOT TESTED: two hosts with one root: bindfs cannot mount here ({done.stderr.strip()})")


def _unmount(place: Path) -> None:
    subprocess.run(["fusermount3", "-u", "-z", str(place)], check=True)
