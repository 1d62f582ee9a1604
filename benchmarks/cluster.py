"""The Slurm of the tests, for as long as a benchmark takes."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRAM = Path(__file__).parents[1] / "tests/slurm/cluster"


@contextmanager
def real_slurm(*options: str) -> Iterator[None]:
    """Bring the cluster of `tests/slurm/cluster` up, and down again; inside, Slurm's commands find it."""
    with tempfile.TemporaryDirectory(prefix="alphagrid-bench-") as folder:
        state = str(Path(folder) / "slurm")
        _cluster("up", "--state", state, "--owner", str(os.getpid()), *options)
        try:
            _, variable = shlex.split(_cluster("env", "--state", state))  # export NAME=VALUE
            name, _, value = variable.partition("=")
            os.environ[name] = value
            yield
        finally:
            _cluster("down", "--state", state)


def slurm(*command: str) -> str:
    """Return what one of Slurm's commands printed."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _cluster(*arguments: str) -> str:
    return slurm(sys.executable, str(PROGRAM), *arguments)
