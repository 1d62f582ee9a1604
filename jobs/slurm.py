"""Slurm: arrays through submitit, states by one squeue call, and a job's way back into the queue.

What was seen on a real Slurm, and why each detail is as it is, stands in docs and decisions; in short:
jobs go out held and are released when everything is written down, and a job that is asked to stop never
exits by itself, because an exit ends it for good.
"""

from __future__ import annotations

import logging
import math
import os
import shlex
import shutil
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

from ..cluster_profiles.loader import Profile
from ..errors import SystemRefused, UserError
from ..store.layout import ExperimentFiles
from ..store.submissions import JobRef, Submission
from . import environment, squeue
from .commands import run

SBATCH_SECONDS = 120
MAX_ARRAY = 1001
"""Slurm's default MaxArraySize: indices 0 to 1000."""
PYTHON = "env --ignore-signal=TERM --ignore-signal=USR2 -- "
"""Signals that arrive before Python has handlers would end the job, and so its run, for good."""

log = logging.getLogger("alphagrid")


def require() -> None:
    """Refuse where there is no Slurm.

    Raises:
        UserError: sbatch is not on the PATH.
    """
    if shutil.which("sbatch") is None or shutil.which("srun") is None:
        raise UserError("this machine has no Slurm (no sbatch on the PATH)", "run it here: --profile local")


def sbatch_calls(runs: int, max_array: int | None) -> int:
    """Return how many sbatch calls so many runs take."""
    return math.ceil(runs / (max_array or MAX_ARRAY))


def send(
    files: ExperimentFiles, submission: Submission, profile: Profile, now: float
) -> Iterator[dict[str, JobRef]]:
    """Submit a submission's runs as held arrays; yield each array's jobs, to be recorded, then release it.

    Raises:
        SystemRefused: sbatch refused or did not answer; what was yielded before stands.
    """
    size = profile.max_array or MAX_ARRAY
    for first in range(0, len(submission.runs), size):
        chunk = [entry.id for entry in submission.runs[first : first + size]]
        jobs = _send_array(files, submission, profile, chunk)
        yield {run_id: JobRef(cluster="slurm", job_id=job, submitted=now) for run_id, job in jobs.items()}
        run(["scontrol", "release", *sorted({job.split("_")[0] for job in jobs.values()})])


def settle(submissions: Sequence[Submission]) -> None:
    """Clear up after a submitter that was killed half-way.

    Its arrays are found by their comment: one that was written down is released, one that was not (its
    tasks may lack their pickles) is cancelled, and its runs go out again.

    Raises:
        SystemRefused: squeue failed.
    """
    known = {squeue.comment(submission.id): submission for submission in submissions}
    recorded: set[str] = set()
    unrecorded: set[str] = set()
    for line in squeue.listing(["--me"]):
        submission = known.get(line["comment"])
        if submission is None or line["reason"] not in ("JobHeldUser", "JobHeldAdmin"):
            continue
        number = line["job"].split("_")[0]
        ours = any(job.job_id.split("_")[0] == number for job in submission.jobs.values())
        (recorded if ours else unrecorded).add(number)
    for number in sorted(recorded):
        try:
            run(["scontrol", "release", number])
        except SystemRefused as error:  # an administrator may have reasons to hold it
            log.warning("%s", error.message)
    if unrecorded:
        run(["scancel", *sorted(unrecorded)])


def cancel(job_ids: Sequence[str]) -> None:
    """Cancel jobs; those that have ended already do not matter."""
    for first in range(0, len(job_ids), 500):
        run(["scancel", *job_ids[first : first + 500]])


def _send_array(
    files: ExperimentFiles, submission: Submission, profile: Profile, chunk: list[str]
) -> dict[str, str]:
    import submitit
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    from .worker import run_attempt

    root, count = str(files.path.parent.absolute()), len(chunk)
    executor = submitit.SlurmExecutor(files.submitit, python=PYTHON + shlex.quote(sys.executable))
    setup = environment.script_lines(profile, files, submission.id, chunk)
    executor.update_parameters(**parameters(profile, submission), setup=setup)
    with _clean_environment(), _time_limit(SBATCH_SECONDS):
        try:
            jobs = executor.map_array(
                run_attempt, [root] * count, [files.name] * count, chunk, [submission.id] * count
            )
        except (FailedJobError, FailedSubmissionError) as error:
            if isinstance(error.__cause__, SystemRefused):  # our time limit, as submitit passes it on
                raise error.__cause__ from error
            raise SystemRefused(f"sbatch refused: {error}", "see `alphagrid profiles show`") from error
    return {run_id: job.job_id for run_id, job in zip(chunk, jobs, strict=True)}


@contextmanager
def _clean_environment() -> Iterator[None]:
    """Hide what an enclosing job, or SBATCH_*, would impose, but not where the cluster is."""
    import submitit
    from submitit.core.utils import environment_variables

    kept = {name: os.environ[name] for name in ("SLURM_CONF", "SLURM_CONF_SERVER") if name in os.environ}
    with submitit.helpers.clean_env(), environment_variables(**kept):
        yield


def parameters(profile: Profile, submission: Submission) -> dict[str, Any]:
    """Return submitit's parameters for a profile: one task, held, known by its comment.

    Raises:
        UserError: a value holds a line break, which would leave its #SBATCH line and be run.
    """
    wanted: dict[str, Any] = {
        "job_name": submission.experiment,
        "comment": squeue.comment(submission.id),
        "nodes": 1,
        "ntasks_per_node": 1,
        "partition": profile.partition,
        "gres": profile.gres,
        "cpus_per_task": profile.cpus,
        "mem": profile.memory,
        "qos": profile.qos,
        "account": profile.account,
        "constraint": profile.constraint,
        "exclude": profile.exclude,
        "mail_user": profile.mail_user,
        "mail_type": "END,FAIL" if profile.mail_user else None,
        "signal_delay_s": profile.signal_seconds,
        "array_parallelism": profile.throttle or len(submission.runs),
        "stderr_to_stdout": True,
        "srun_args": None if profile.cpus is None else [f"--cpus-per-task={profile.cpus}"],
        "additional_parameters": {
            **dict(profile.sbatch or {}),
            "hold": True,
            "requeue" if profile.requeue else "no-requeue": True,
        },
    }
    given = {key: value for key, value in wanted.items() if value is not None}
    _check_lines({**given, **given["additional_parameters"]})
    minutes = None if profile.hours is None else math.ceil(profile.hours * 60)
    return {**given, "time": minutes, "wckey": None}  # None: say nothing, where submitit would


def _check_lines(values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        if isinstance(value, str) and ("\n" in value or "\r" in value):
            raise UserError(f"profile: {key} holds a line break: {value!r}", "write it on one line")


@contextmanager
def _time_limit(seconds: int) -> Iterator[None]:
    """Interrupt what runs longer, in the main thread; submitit itself waits for sbatch without end."""

    def expire(number: int, frame: FrameType | None) -> None:
        raise SystemRefused(
            f"sbatch did not answer within {seconds} s; the jobs may exist", "submit again: that clears it up"
        )

    try:
        previous = signal.signal(signal.SIGALRM, expire)
    except ValueError:  # not the main thread
        yield
        return
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)
