"""One call of sbatch: watched, under a time limit, and its refusals told apart.

sbatch waits up to two minutes by itself when the cluster takes no more jobs, so it is ended as soon as it
says that it will. A time limit is left for a controller that does not answer; the job may exist then.
"""

from __future__ import annotations

import os
import re
import select
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from ..errors import SystemRefused
from .command import Absent, clean_environment

OF_A_JOB = ("SLURMD_", "SUBMITIT_", "MASTER_", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
"""Beginnings of variables of an enclosing job, which sbatch would pass on to the new one."""
MAX_ARRAY = 1001
"""Slurm's default MaxArraySize: indices 0 to 1000."""
SECONDS = 60.0
SUBMITTED = re.compile(r"Submitted batch job (\d+)")
WAITS = re.compile(r"^(?:sbatch: )?(?:error: )?(.*), (?:sleeping and )?retrying", re.MULTILINE)
"""What sbatch says before it sleeps and tries again: too many jobs (MaxJobCount), whoever's they are."""
SUBMIT_LIMIT = re.compile(r"\b((?:QOS|Assoc)\w*Submit\w*)")
"""Reasons such as QOSMaxSubmitJobPerUserLimit, AssocMaxSubmitJobLimit, AssocGrpSubmitJobsLimit."""
PERHAPS_A_LIMIT = ("Job violates accounting/QOS policy", "Invalid job array specification")
"""What some sites say instead: fewer jobs at a time may be taken, or none."""
PREFIX = re.compile(r"^sbatch: (?:error: )?(?:Batch job submission failed: )?")
HINT = "see `alphagrid profiles check`"


class TooMany(SystemRefused):
    """Fewer jobs might have been taken."""

    def __init__(self, limit: str, is_certain: bool) -> None:
        super().__init__(f"submit limit ({limit})", "submit again when some jobs have ended")
        self.limit = limit
        self.is_certain = is_certain
        """Whether it is the number of jobs, and nothing else, that the cluster objects to."""

    def as_refusal(self) -> SystemRefused:
        """Return what it is where not even one job was taken."""
        return SystemRefused(f"sbatch refused: {self.limit}", HINT)


class Silent(SystemRefused):
    """sbatch did not answer in time; the job may exist."""


def outside_a_job() -> dict[str, str]:
    """Return this process' environment without what an enclosing job, or the user's shell, says to Slurm."""
    return {name: value for name, value in clean_environment().items() if not name.startswith(OF_A_JOB)}


def sbatch(script: Path, keep_open: Sequence[int] = ()) -> str:
    """Submit a batch script and return the job's id; sbatch inherits the descriptors in `keep_open`.

    Raises:
        TooMany: the cluster takes no more jobs now, or no array of this size.
        Silent: it did not answer within `SECONDS`.
        Absent: it is not on this machine's PATH.
        SystemRefused: it refused, or cannot be run.
    """
    try:
        process = subprocess.Popen(
            ["sbatch", str(script)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            pass_fds=tuple(keep_open), env=outside_a_job(),
        )  # fmt: skip
    except FileNotFoundError as error:
        raise Absent("this machine has no sbatch") from error
    except OSError as error:
        raise SystemRefused(f"sbatch cannot be run ({error.strerror})") from error
    assert process.stdout is not None
    try:
        with process.stdout:
            output = _read_answer(process.stdout)
        code = None if WAITS.search(output) else process.wait()
    finally:
        process.kill()
        process.wait()
    if code == 0 and (match := SUBMITTED.search(output)):
        return match[1]
    raise refusal(output.strip() or f"exit code {code}")


def refusal(output: str) -> SystemRefused:
    """Return what sbatch's refusal, in its own words, means."""
    if match := SUBMIT_LIMIT.search(output) or WAITS.search(output):
        return TooMany(match[1], is_certain=True)
    message = "; ".join(PREFIX.sub("", line) for line in output.splitlines())
    if any(phrase in output for phrase in PERHAPS_A_LIMIT):
        return TooMany(message, is_certain=False)
    return SystemRefused(f"sbatch refused: {message}", HINT)


def _read_answer(output: IO[bytes]) -> str:
    """Return what sbatch says, up to its end or to its saying that it will try again later."""
    answer, deadline = b"", time.monotonic() + SECONDS
    while not WAITS.search(answer.decode(errors="replace")):
        ready, _, _ = select.select([output], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            raise Silent(
                f"sbatch did not answer within {SECONDS:g} s; the jobs may exist",
                "submit again: that clears it up",
            )
        piece = os.read(output.fileno(), 1 << 16)
        if not piece:
            break
        answer += piece
    return answer.decode(errors="replace")
