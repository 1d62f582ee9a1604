"""A run in somebody's hands: which submission gave it away, and as which job."""

from __future__ import annotations

from dataclasses import dataclass

Key = tuple[str, str]
COMMENT = "alphagrid:"
"""What the comment of every job of ours begins with; the submission's id follows."""


@dataclass(frozen=True)
class Handed:
    """What one has to know of a run to ask its scheduler about it."""

    run_id: str
    submission: str
    """The newest one that sends the run."""
    cluster: str
    """slurm, local or debug."""
    job_id: str | None = None
    """None if no job was written down."""
    submitted: float | None = None
    """Unix time; job ids are reused, so it belongs to the job's identity."""
    name: str = ""
    refusal: str | None = None
    """Why its cluster did not take it, if it has no job."""
    site: str | None = None
    """The name of the Slurm cluster that has its job."""

    @property
    def key(self) -> Key:
        """What tells it from runs of other submissions, and of other experiments."""
        return self.submission, self.run_id

    @property
    def comment(self) -> str:
        """What Slurm knows its job by; ids come back, comments do not."""
        return comment(self.submission)


def comment(submission: str) -> str:
    """Return the comment that a submission's jobs carry."""
    return f"{COMMENT}{submission}"


def array(job_id: str) -> str:
    """Return the number of the array, or of the job, that a job belongs to."""
    return job_id.split("_")[0]
