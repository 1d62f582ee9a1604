"""Run sbatch under a time limit, and classify its refusals.

If the cluster accepts no more jobs, sbatch retries for up to two minutes. `sbatch` kills it as soon as it
prints that it retries. The time limit covers a controller that does not answer. The job may exist then.
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
"""Prefixes of variables of an enclosing job, which sbatch would pass to the new job."""
MAX_ARRAY = 1001
"""Slurm's default MaxArraySize: indices 0 to 1000."""
SECONDS = 60.0
SUBMITTED = re.compile(r"Submitted batch job (\d+)")
WAITS = re.compile(r"^(?:sbatch: )?(?:error: )?(.*), (?:sleeping and )?retrying", re.MULTILINE)
"""What sbatch prints before it retries: all users together have too many jobs (MaxJobCount)."""
SUBMIT_LIMIT = re.compile(r"\b((?:QOS|Assoc)\w*Submit\w*)")
"""Reasons such as QOSMaxSubmitJobPerUserLimit, AssocMaxSubmitJobLimit, AssocGrpSubmitJobsLimit."""
PERHAPS_A_LIMIT = ("Job violates accounting/QOS policy", "Invalid job array specification")
"""Refusals that some sites print instead. The cluster may accept fewer jobs, or none."""
PREFIX = re.compile(r"^sbatch: (?:error: )?(?:Batch job submission failed: )?")
HINT = "see `alphagrid profiles check`"


class TooMany(SystemRefused):
    """The cluster refused this many jobs. It might accept fewer."""

    def __init__(self, limit: str, is_certain: bool) -> None:
        super().__init__(f"submit limit ({limit})", "submit again when some jobs have ended")
        self.limit = limit
        self.is_certain = is_certain
        """Whether the number of jobs is certainly the reason."""

    def as_refusal(self) -> SystemRefused:
        """Return the error to raise if the cluster refuses even one job."""
        return SystemRefused(f"sbatch refused: {self.limit}", HINT)


class Silent(SystemRefused):
    """sbatch did not answer in time. The job may exist."""


def outside_a_job() -> dict[str, str]:
    """Return this process' environment without variables of an enclosing job or for Slurm's commands."""
    return {name: value for name, value in clean_environment().items() if not name.startswith(OF_A_JOB)}


def sbatch(script: Path, keep_open: Sequence[int] = ()) -> str:
    """Submit a batch script and return the job's id. sbatch inherits the descriptors in `keep_open`.

    Raises:
        TooMany: the cluster accepts no more jobs now, or no array of this size.
        Silent: sbatch does not answer within `SECONDS`.
        Absent: sbatch is not on this machine's PATH.
        SystemRefused: sbatch refuses the job, or cannot be run.
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
    """Return the error for the output of an sbatch call that failed."""
    if match := SUBMIT_LIMIT.search(output) or WAITS.search(output):
        return TooMany(match[1], is_certain=True)
    message = "; ".join(PREFIX.sub("", line) for line in output.splitlines())
    if any(phrase in output for phrase in PERHAPS_A_LIMIT):
        return TooMany(message, is_certain=False)
    return SystemRefused(f"sbatch refused: {message}", HINT)


def _read_answer(output: IO[bytes]) -> str:
    """Return the output of sbatch, until it ends or prints that it retries."""
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
