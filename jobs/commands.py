"""Slurm's command-line tools, each under a time limit."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping

from ..errors import SystemRefused

CALL_SECONDS = 60


class Absent(SystemRefused):
    """The command is not on this machine's PATH, and will not be while the process lives."""


def run(
    command: list[str],
    variables: Mapping[str, str] | None = None,
    *,
    unknown_ok: bool = False,
    seconds: float = CALL_SECONDS,
) -> str:
    """Run one of Slurm's commands and return its output; `unknown_ok`: that no such job exists is no failure.

    Raises:
        Absent: it is not there.
        SystemRefused: it failed, or did not answer within `seconds`.
    """
    environment = {**os.environ, "SLURM_BITSTR_LEN": "0", **(variables or {})}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, env=environment)
    except FileNotFoundError as error:
        raise Absent(f"this machine has no {command[0]}") from error
    except subprocess.TimeoutExpired as error:
        raise SystemRefused(f"{command[0]} did not answer within {seconds:.0f} s") from error
    if done.returncode and not (unknown_ok and "Invalid job id" in done.stderr):
        raise SystemRefused(f"{command[0]} failed: {done.stderr.strip() or done.returncode}")
    return done.stdout
