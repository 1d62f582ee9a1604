"""Run Slurm's command-line tools, each under a time limit. `sbatch.py` submits jobs.

The output must not depend on the user's shell: `SQUEUE_STATES=RUNNING` hides pending jobs, `SLURM_CLUSTERS`
selects another cluster, `SBATCH_PARTITION` overrides a script (squeue(1), sacct(1), sbatch(1), "ENVIRONMENT
VARIABLES"). So the commands run without these variables, except those that locate the cluster.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence

from ..errors import SystemRefused, UserError

CALL_SECONDS = 60.0
HIDDEN = ("SQUEUE_", "SACCT_", "SCANCEL_", "SCONTROL_", "SRUN_", "SBATCH_", "SLURM_")
"""Prefixes of the variables that change what Slurm's commands do or print."""
KEPT = frozenset({"SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_JWT"})
KEPT_PREFIX = "SLURM_SACK_"
"""With `KEPT`: the variables that locate the cluster and authenticate with it."""
OTHER_CLUSTERS = ("SLURM_CLUSTERS", "SBATCH_CLUSTERS")
GONE = (
    "Invalid job id",
    "already finished",
    "already completing or completed",
    "Job/step already completing",
)
"""What Slurm prints about a job that has ended, or that it no longer knows."""


class Absent(SystemRefused):
    """The command is not on this machine's PATH. A retry in this process cannot succeed."""


class Failed(SystemRefused):
    """The command ended with an error. `complaint` is its output on stderr."""

    def __init__(self, command: str, complaint: str) -> None:
        super().__init__(f"{command} failed: {complaint}")
        self.complaint = complaint

    @property
    def job_is_gone(self) -> bool:
        """Return whether the command failed because the job has ended or is unknown."""
        return any(phrase in self.complaint for phrase in GONE)


def clean_environment(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment (default: this process') without variables that change Slurm's commands."""
    environ = os.environ if environ is None else environ
    return {name: value for name, value in environ.items() if _is_kept(name)}


def check_environment(environ: Mapping[str, str]) -> None:
    """Check that the environment does not direct Slurm's commands to another cluster.

    Raises:
        UserError: `SLURM_CLUSTERS` or `SBATCH_CLUSTERS` is set.
    """
    if names := [name for name in OTHER_CLUSTERS if environ.get(name)]:
        value = environ[names[0]]
        raise UserError(
            f"{names[0]}={value} is set, and alphagrid submits to this machine's own cluster only",
            f"unset {' '.join(names)}; or log in to a node of '{value}' and submit there",
        )


def run(command: Sequence[str], *, seconds: float = CALL_SECONDS) -> str:
    """Run one of Slurm's commands and return its output.

    Times in the output are Unix times, and task lists are complete. Bytes that are not UTF-8 become
    replacement characters.

    Raises:
        Absent: the command is not installed.
        Failed: the command ended with an error.
        SystemRefused: the command could not be run, or did not answer within `seconds`.
    """
    environment = {**clean_environment(), "SLURM_TIME_FORMAT": "%s", "SLURM_BITSTR_LEN": "0"}
    try:
        process = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds, env=environment
        )
    except FileNotFoundError as error:
        raise Absent(f"this machine has no {command[0]}") from error
    except OSError as error:
        raise SystemRefused(f"{command[0]} cannot be run ({error.strerror})") from error
    except subprocess.TimeoutExpired as error:
        raise SystemRefused(f"{command[0]} did not answer within {seconds:.0f} s") from error
    if process.returncode:
        complaint = process.stderr.decode(errors="replace").strip()
        raise Failed(command[0], complaint or f"exit code {process.returncode}")
    return process.stdout.decode(errors="replace")


def _is_kept(name: str) -> bool:
    return name in KEPT or name.startswith(KEPT_PREFIX) or not name.startswith(HIDDEN)
