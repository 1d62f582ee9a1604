"""Two mounts of one folder, which stand for two hosts: each has its own locks, and caches that are late."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NoReturn

import pytest

CACHE_SECONDS = 5
"""For how long a mount believes what it has seen: names, their absence, sizes and times."""
PROGRAMS = ("bindfs", "fusermount3")


@contextmanager
def two_mounts(folder: Path) -> Iterator[tuple[Path, Path]]:
    """Mount the folder `real` below `folder` twice.

    A machine without /dev/fuse, or on which nothing may be mounted, skips the test. One that lacks the
    programs skips it, too; if ALPHAGRID_REQUIRE_SLURM=1, as in CI, the test fails there.
    """
    if missing := [program for program in PROGRAMS if shutil.which(program) is None]:
        _give_up(f"not installed: {', '.join(missing)} (run tests/slurm/install)", is_failure=is_required())
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        _give_up("no /dev/fuse that can be read and written")
    names = ("real", "first", "second")
    for name in names:
        (folder / name).mkdir()
    with ExitStack() as mounted:
        for name in names[1:]:
            _mount(folder / "real", folder / name)
            mounted.callback(_unmount, folder / name)
        first, second = folder / "first", folder / "second"
        assert any(_are_late(first, second) for _ in range(3)), "a mount sees at once what another one does"
        yield first, second


def is_required() -> bool:
    """Return whether Slurm's packages, and with them these programs, have to be there."""
    return os.environ.get("ALPHAGRID_REQUIRE_SLURM") == "1"


def _give_up(why: str, is_failure: bool = False) -> NoReturn:
    message = f"NOT TESTED: two hosts with one root: {why}"
    if is_failure:
        pytest.fail(message, pytrace=False)
    pytest.skip(message)


def _mount(real: Path, place: Path) -> None:
    late = ",".join(f"{what}_timeout={CACHE_SECONDS}" for what in ("attr", "entry", "negative"))
    command = ["bindfs", "-o", late, str(real), str(place)]
    environment = {"PATH": os.environ["PATH"]}  # without the mark of the processes that a test ends itself
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        _give_up(f"bindfs cannot mount here ({done.stderr.strip()})")


def _are_late(first: Path, second: Path) -> bool:
    """Return whether the second mount does not see for a while what is done through the first.

    A process that is held up for longer than the caches last sees it nevertheless: then look once more.
    """
    new, grown, gone = (f".{what}-{time.monotonic_ns()}" for what in ("new", "grown", "gone"))
    (first / grown).touch()
    (first / gone).touch()
    before = [(second / name).exists() for name in (new, grown, gone)]
    (first / new).touch()
    (first / grown).write_text("grown")
    (first / gone).unlink()
    late = [not (second / new).exists(), (second / grown).stat().st_size == 0, (second / gone).exists()]
    for name in (new, grown):
        (first / name).unlink()
    return before == [False, True, True] and all(late)


def _unmount(place: Path) -> None:
    subprocess.run(["fusermount3", "-u", "-z", str(place)], check=True)
