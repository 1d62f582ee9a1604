"""The submitted job of a run: the fields by which a scheduler finds it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ...store.submissions import Submission

RunKey = tuple[str, str]
"""Id of the submission and id of the run: unique over all experiments of a root."""
COMMENT_PREFIX = "alphagrid:"
"""The comment of every Slurm job of alphagrid begins with it; the submission's id follows."""


@dataclass(frozen=True)
class SubmittedJob:
    """The job of a run in the newest submission that contains the run."""

    run_id: str
    submission: str
    """Id of the submission."""
    cluster: str
    """The scheduler's name: slurm, local or debug."""
    job_id: str | None = None
    """The scheduler's id, `<array>_<task>` in a Slurm array; None if no job was recorded."""
    submitted: float | None = None
    """Unix time. Slurm reuses job ids, so the time is part of a job's identity."""
    run_name: str = ""
    refusal: str | None = None
    """Why the scheduler did not accept the run, if it has no job."""
    slurm_cluster: str | None = None
    """`ClusterName` of the Slurm cluster that has the job."""

    @property
    def key(self) -> RunKey:
        """The key that distinguishes it from the jobs of other submissions and experiments."""
        return self.submission, self.run_id

    @property
    def comment(self) -> str:
        """The comment of its Slurm job; Slurm reuses job ids, but comments are unique."""
        return comment_of(self.submission)

    @classmethod
    def of(cls, submission: Submission, run_id: str, run_name: str) -> SubmittedJob:
        """Return the job of a run in a submission."""
        job = submission.jobs.get(run_id)
        return cls(
            run_id=run_id,
            submission=submission.id,
            cluster=submission.profile["cluster"],
            job_id=None if job is None else job.job_id,
            submitted=None if job is None else job.submitted,
            run_name=run_name,
            refusal=submission.refusal,
            slurm_cluster=submission.site,
        )


def comment_of(submission: str) -> str:
    """Return the comment that a submission's Slurm jobs carry."""
    return f"{COMMENT_PREFIX}{submission}"


def array_of(job_id: str) -> str:
    """Return the id of the array that a task belongs to, or of the job itself."""
    return job_id.split("_")[0]
