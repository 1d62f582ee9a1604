"""The worker: it runs one attempt of a run inside its job.

The worker reads its task from the run's folder and the submission's file. It writes the `start` record first,
lets the trainer write its records, and records how the attempt ended.
"""

from __future__ import annotations

import logging
import os
import sys
from contextlib import ExitStack, closing
from pathlib import Path

from ...errors import SystemRefused, UserError
from ...printable import VisibleFormatter
from ...store import claims, journal, locks, submissions
from ...store.layout import SUBMISSION_ID, ExperimentFiles, Root, RunFiles
from ...store.submissions import Submission
from ...trainer.stopping import StopRequest
from ..code import submitted_code
from ..import_path import importable
from ..runs import attempts, cancel_marker
from ..runs.attempts import Attempt
from ..schedulers import SCHEDULERS, local_slots
from . import gpus, requeue, signals
from .running_attempt import Ending, RunningAttempt, Task, append_unresumed_start

EXIT_CODES: dict[Ending, int] = {"failed": 1, "crash": 1}
LOCK_PATIENCE = 2.0
MANIFEST_PATIENCE = 30.0
"""Maximum wait for a submission's file to become visible on the machine that runs it."""
NOT_REQUEUED = "it crashed, and Slurm does not put its job back into the queue; the end of its log says more"
NO_OTHER_NODE = "Slurm does not put its job back into the queue"

log = logging.getLogger("alphagrid")


def run_attempt(root: str, experiment: str, run_id: str, submission: str) -> None:
    """Run one attempt and exit with the code of its ending; submitit calls this in the job."""
    _log_to_stderr()
    _remove_torn_result()
    files = Root(Path(root)).experiment(experiment)
    stop = StopRequest()
    with signals.requesting(stop):
        try:
            ending = attempt_run(files, run_id, submission, stop)
        except SystemRefused as error:
            log.error("cannot begin: %s", error.message)
            sys.exit(error.exit_code)
        log.info("%s", ending)
        _end_slurm_job(files, run_id, submission, ending, stop)
    if exit_code := EXIT_CODES.get(ending, 0):
        sys.exit(exit_code)


def attempt_run(
    files: ExperimentFiles, run_id: str, submission: str, stop: StopRequest | None = None
) -> Ending:
    """Run one attempt in this process and return how it ended.

    Raises:
        SystemRefused: it could not begin, because the disk is full or cannot be written.
    """
    stop = StopRequest() if stop is None else stop
    manifest = _read_submission(files, submission)
    entry = next((entry for entry in manifest.runs if entry.id == run_id), None)
    if entry is None:  # given up to another submitter's job (`slurm_duplicates`)
        return "elsewhere"
    task = Task(files.run(run_id), manifest, entry, SCHEDULERS[manifest.profile["cluster"]])
    with signals.requesting(stop), ExitStack() as held:
        if not _reserve_run(task, stop, held) or _is_settled(task):
            return "elsewhere"
        if cancel_marker.is_cancelled(task.run, submission):
            return "cancelled"
        held.enter_context(importable(submitted_code.import_folder(files, manifest)))
        earlier = attempts.read(task.run)
        number, writer = journal.open_next(task.run)
        with closing(writer):
            return RunningAttempt(task, stop, number, writer, earlier).run()


def conclude_silent_run(files: ExperimentFiles, run_id: str, submission: str, reason: str) -> None:
    """Record that a run failed whose processes died before they wrote a record.

    If the record cannot be written, the run stays unchanged, and the next `submit` handles it.
    """
    try:
        _record_failure(files.run(run_id), submission, reason)
    except (OSError, SystemRefused) as error:
        log.error("%s: cannot write how it ended: %s", run_id, error)


def _end_slurm_job(
    files: ExperimentFiles, run_id: str, submission: str, ending: Ending, stop: StopRequest
) -> None:
    """Requeue this process' Slurm job if the attempt's ending requires it, and wait to be killed.

    Has no effect outside a Slurm job.
    """
    if ending == "no gpu":
        nodes = attempts.nodes_without_gpu(attempts.read(files.run(run_id)), submission)
        if not requeue.come_back_elsewhere(nodes) and not _is_cancelled():
            reason = gpus.failure_reason(nodes, NO_OTHER_NODE, files.name, run_id)
            conclude_silent_run(files, run_id, submission, reason)
    if ending in ("requeue", "crash"):
        comes_back = requeue.come_back()
        if ending == "crash" and not comes_back and not _is_cancelled():
            conclude_silent_run(files, run_id, submission, NOT_REQUEUED)
    if stop and ending in ("requeue", "interrupted") and requeue.own_job():
        requeue.wait_to_be_killed(stop.reason == signals.BEFORE_LIMIT)


def _is_cancelled() -> bool:
    """Return whether Slurm stops this process' job because of scancel."""
    return requeue.why_stopped(before_limit=False) == "cancelled"


def _read_submission(files: ExperimentFiles, submission: str) -> Submission:
    """Return this worker's submission; its file may become visible late if another machine wrote it.

    Raises:
        SystemRefused: the file did not become visible.
    """
    path = files.submissions / f"{submission}.json"
    try:
        return submissions.wait_for(path, MANIFEST_PATIENCE)
    except OSError as error:
        raise SystemRefused(f"cannot read {path}: {error.strerror or error}") from error


def _record_failure(run: RunFiles, submission: str, reason: str) -> None:
    run.path.mkdir(parents=True, exist_ok=True)
    lock, claim = locks.FileLock(run.lock), claims.Claim(run.path)
    if not lock.acquire(LOCK_PATIENCE):
        return
    try:
        if not claim.acquire():  # another host has the run
            return
        earlier = attempts.read(run)
        number, writer = journal.open_next(run)
        with closing(writer):
            writer.make_room()
            start = {"attempt": number, "fresh": False, "submission": submission, "job": None}
            append_unresumed_start(writer, start, earlier)
            last = attempts.reached(earlier) or Attempt(0, Path())
            writer.append("end", last.step, last.train_seconds, status="failed", reason=reason)
    finally:
        claim.release()
        lock.release()


def _reserve_run(task: Task, stop: StopRequest, held: ExitStack) -> bool:
    """Hold a slot of this machine and the run, as the scheduler requires; return whether both are held.

    Raises:
        SystemRefused: the run's folder or its lock cannot be written.
    """
    try:
        if not task.scheduler.uses_run_locks:
            task.run.path.mkdir(parents=True, exist_ok=True)
            return True
        if task.scheduler.uses_slots and not _take_slot(task, stop, held):
            return False
        lock, claim = locks.FileLock(task.run.lock), claims.Claim(task.run.path)
        held.callback(lock.release)
        held.callback(claim.release)
        return lock.acquire(LOCK_PATIENCE) and claim.acquire()
    except OSError as error:
        raise SystemRefused(f"cannot write below {task.run.path}: {error.strerror or error}") from error


def _take_slot(task: Task, stop: StopRequest, held: ExitStack) -> bool:
    """Wait for a slot of this machine, and make its GPU the only visible one."""
    visible = local_slots.visible_gpus(os.environ) if task.entry.config.get("device") != "cpu" else ()
    threads = task.entry.config.get("threads", 1)
    count = local_slots.capacity(task.submission.profile.get("max_parallel"), threads, len(visible))
    slot = local_slots.take(count, lambda: bool(stop))
    if slot is None:
        return False
    held.callback(slot.lock.release)
    os.environ["CUDA_VISIBLE_DEVICES"] = slot.gpu(visible) or ""
    return True


def _is_settled(task: Task) -> bool:
    """Return whether another worker has ended the run, or a newer submission has started it."""
    latest = attempts.latest(task.run)
    if latest is None or latest.submission is None:
        return False
    if latest.submission == task.submission.id:
        return latest.end is not None
    if not SUBMISSION_ID.fullmatch(str(latest.submission)):
        return False
    try:
        newer = submissions.read(task.files.submissions / f"{latest.submission}.json")
    except (OSError, UserError):
        return False
    return newer.created > task.submission.created


def _log_to_stderr() -> None:
    """Send alphagrid's messages to the run's log; submitit's own logger has its own handler."""
    handler = logging.StreamHandler()
    handler.setFormatter(VisibleFormatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False


def _remove_torn_result() -> None:
    """Remove the partial result file of a killed attempt of this job, which makes submitit fail."""
    from submitit.core.job_environment import JobEnvironment

    result = JobEnvironment().paths.result_pickle
    result.with_suffix(result.suffix + ".save_tmp").unlink(missing_ok=True)
