"""What Slurm says of jobs: one squeue call, whatever their number."""

from __future__ import annotations

from collections.abc import Iterable

from ..store.submissions import Submission
from .commands import run
from .states import Word

QUEUED = frozenset({"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT"})
AT_WORK = frozenset({"RUNNING", "COMPLETING", "SIGNALING", "STAGE_OUT", "SUSPENDED", "STOPPED", "RESIZING"})
REASONS = {
    "None": None,
    "Priority": "other jobs come first",
    "Resources": "waits for free resources",
    "BeginTime": "requeued; Slurm lets it start again in about two minutes",
    "JobHeldUser": "held; `scontrol release` frees it",
    "JobHeldAdmin": "held by an administrator",
    "JobArrayTaskLimit": "waits for the array's throttle",
    "Dependency": "waits for another job",
    "launch_failed_requeued_held": "held by Slurm after it failed to start",
}


def comment(submission: str) -> str:
    """Return the comment by which a submission's jobs are known; job ids come back, comments do not."""
    return f"alphagrid:{submission}"


def words(submissions: Iterable[Submission]) -> dict[str, dict[str, Word]]:
    """Return what squeue says, by submission and run; a run that it does not list is left out.

    Raises:
        SystemRefused: squeue failed: that nothing is listed then means nothing.
    """
    found: dict[str, dict[str, Word]] = {}
    run_of: dict[tuple[str, str], tuple[str, str]] = {}
    for submission in submissions:
        found[submission.id] = {}
        for run_id, job in submission.jobs.items():
            run_of[comment(submission.id), job.job_id] = (submission.id, run_id)
    numbers = sorted({job.split("_")[0] for _, job in run_of})
    for line in listing(["--jobs", ",".join(numbers)]) if numbers else []:
        if (key := run_of.get((line["comment"], line["job"]))) is not None:
            found[key[0]][key[1]] = _word(line["state"], line["reason"])
    return found


def listing(selection: list[str]) -> list[dict[str, str]]:
    """Return one mapping per job or array task."""
    output = run(
        ["squeue", "--noheader", "--array", *selection, "--format", "%F|%K|%T|%r|%k"], unknown_ok=True
    )
    lines = []
    for line in output.splitlines():
        array, task, state, reason, said = line.split("|", 4)
        job = f"{array}_{task}" if task.isdigit() else array
        lines.append({"job": job, "state": state, "reason": reason, "comment": said.strip()})
    return lines


def _word(state: str, reason: str) -> Word:
    """Translate the words that we know; another one is passed on as it is."""
    told = REASONS.get(reason, reason)
    if state in QUEUED:
        return Word("pending", told)
    if state in AT_WORK:
        return Word("running", None if state == "RUNNING" else state.lower())
    return Word(state, told)
