"""One attempt of one run, inside the job: from the submission's manifest to the record of how it ended.

The worker takes its truth from the run's directory. It writes `start` first, lets the trainer write what
happens, and writes how the attempt ended.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import socket
import sys
import traceback
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ValidationError

from ..cluster_profiles import env_values
from ..errors import SystemRefused, UserError
from ..printable import VisibleFormatter
from ..store import claims, journal, locks, submissions
from ..store.files import write_atomically
from ..store.journal import Journal
from ..store.layout import SUBMISSION_ID, ExperimentFiles, Root, RunFiles
from ..store.messages import shortened
from ..store.submissions import RunEntry, Submission
from ..trainer.config import TrainingConfig
from ..trainer.stopping import StopRequest
from . import attempts, canary, code, data_paths, gpus, markers, provenance, requeue, signals, slots
from .attempts import Attempt
from .variables import expand_variables

if TYPE_CHECKING:
    from ..trainer.outcome import Outcome
    from ..trainer.resume import Resume

Ending = Literal[
    "completed", "diverged", "failed", "cancelled", "interrupted", "requeue", "no gpu", "crash", "elsewhere"
]
"""How an attempt ended. `requeue`: interrupted, and its job has to go back into the queue by itself;
`no gpu`: likewise, but not to the same node; `elsewhere`: the run was not this worker's to run."""

EXIT_CODES: dict[Ending, int] = {"failed": 1, "crash": 1}
LOCK_PATIENCE = 2.0
MANIFEST_PATIENCE = 30.0
"""Seconds within which the file of a submission has to arrive on the machine that runs it."""
MOST_OF_A_TRACEBACK = 20_000
"""Characters of a traceback in the journal; the run's log has all of it."""
STOPPED_BY_SLURM: dict[requeue.Cause, str] = {
    "preempted": "preempted",
    "time limit": "its time limit was near",
    "requeued": "put back into the queue",
}

NOT_REQUEUED = "it crashed, and Slurm does not put its job back into the queue; the end of its log says more"

log = logging.getLogger("alphagrid")


def run_attempt(root: str, experiment: str, run_id: str, submission: str) -> None:
    """Run one attempt and end the process with what came of it; submitit calls this in the job."""
    _log_to_stderr()
    _remove_torn_result()
    stop = StopRequest()
    with signals.requesting(stop):
        try:
            ending = attempt_run(Root(Path(root)).experiment(experiment), run_id, submission, stop)
        except SystemRefused as error:
            log.error("cannot begin: %s", error.message)
            sys.exit(error.exit_code)
        log.info("%s", ending)
        if ending == "no gpu":
            _go_to_another_node(Root(Path(root)).experiment(experiment), run_id, submission)
        if ending in ("requeue", "crash"):
            returns = requeue.come_back()
            if ending == "crash" and not returns and requeue.why_stopped(before_limit=False) != "cancelled":
                conclude_silent_run(Root(Path(root)).experiment(experiment), run_id, submission, NOT_REQUEUED)
        if stop and ending in ("requeue", "interrupted") and requeue.own_job():
            requeue.wait_to_be_killed(stop.reason == signals.BEFORE_LIMIT)
    if code := EXIT_CODES.get(ending, 0):
        sys.exit(code)


def attempt_run(
    files: ExperimentFiles, run_id: str, submission: str, stop: StopRequest | None = None
) -> Ending:
    """Run one attempt in this process and return how it ended.

    Raises:
        SystemRefused: it could not begin, because the disk is full or cannot be written.
    """
    stop = StopRequest() if stop is None else stop
    manifest = _manifest(files, submission)
    entry = next((entry for entry in manifest.runs if entry.id == run_id), None)
    if entry is None:  # given up to another submitter's job (`duplicates`)
        return "elsewhere"
    task = _Task(files.run(run_id), manifest, entry)
    with signals.requesting(stop), ExitStack() as held:
        if not _take_place(task, stop, held) or _is_settled(task):
            return "elsewhere"
        if markers.is_cancelled(task.run, submission):
            return "cancelled"
        held.enter_context(canary.releasing(files, manifest, run_id))
        held.enter_context(code.importable(code.import_folder(files, manifest)))
        return _attempt(task, stop)


def _manifest(files: ExperimentFiles, submission: str) -> Submission:
    """Return what this worker was sent with; another machine may have written it a moment ago.

    Raises:
        SystemRefused: it is not there.
    """
    path = files.submissions / f"{submission}.json"
    try:
        return submissions.wait_for(path, MANIFEST_PATIENCE)
    except OSError as error:
        raise SystemRefused(f"cannot read {path}: {error.strerror or error}") from error


def _go_to_another_node(files: ExperimentFiles, run_id: str, submission: str) -> None:
    """Requeue this job without the nodes that showed no GPU; where Slurm does not, the run has failed."""
    nodes = attempts.nodes_without_gpu(attempts.read(files.run(run_id)), submission)
    if not requeue.come_back_elsewhere(nodes) and requeue.why_stopped(before_limit=False) != "cancelled":
        reason = gpus.failure_reason(
            nodes, "Slurm does not put its job back into the queue", files.name, run_id
        )
        conclude_silent_run(files, run_id, submission, reason)


def conclude_silent_run(files: ExperimentFiles, run_id: str, submission: str, reason: str) -> None:
    """Write down that a run failed whose processes die before they can write anything themselves.

    Where the disk does not take even that, the run is left as it is, for the next `submit`.
    """
    try:
        _conclude(files.run(run_id), submission, reason)
    except (OSError, SystemRefused) as error:
        log.error("%s: cannot write how it ended: %s", run_id, error)


def _conclude(run: RunFiles, submission: str, reason: str) -> None:
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
            _append_unresumed(writer, start, earlier)
            last = attempts.reached(earlier) or Attempt(0, Path())
            writer.append("end", last.step, last.train_seconds, status="failed", reason=reason)
    finally:
        claim.release()
        lock.release()


@dataclass(frozen=True)
class _Task:
    """What this worker was sent to do."""

    run: RunFiles
    submission: Submission
    entry: RunEntry

    @property
    def files(self) -> ExperimentFiles:
        return ExperimentFiles(self.run.path.parent)

    @property
    def cluster(self) -> str:
        return str(self.submission.profile["cluster"])

    @property
    def comes_back(self) -> bool:
        """Whether anybody starts the run again when it has crashed."""
        return self.cluster == "local" or (self.cluster == "slurm" and self.submission.profile["requeue"])

    @property
    def job(self) -> dict[str, str]:
        """The job that this process is, as the scheduler calls it."""
        job_id = requeue.own_job() if self.cluster == "slurm" else os.environ.get("SUBMITIT_LOCAL_JOB_ID")
        return {"cluster": self.cluster, "job_id": job_id or str(os.getpid())}


def _take_place(task: _Task, stop: StopRequest, held: ExitStack) -> bool:
    """Hold a slot of this machine and the run itself; tell whether both were to be had.

    Raises:
        SystemRefused: the run's folder or its lock cannot be written.
    """
    try:
        return _hold(task, stop, held)
    except OSError as error:
        raise SystemRefused(f"cannot write below {task.run.path}: {error.strerror or error}") from error


def _hold(task: _Task, stop: StopRequest, held: ExitStack) -> bool:
    if task.cluster == "slurm":
        task.run.path.mkdir(parents=True, exist_ok=True)
        return True
    if task.cluster == "local" and not _take_slot(task, stop, held):
        return False
    lock, claim = locks.FileLock(task.run.lock), claims.Claim(task.run.path)
    held.callback(lock.release)
    held.callback(claim.release)
    return lock.acquire(LOCK_PATIENCE) and claim.acquire()


def _take_slot(task: _Task, stop: StopRequest, held: ExitStack) -> bool:
    gpus = slots.visible_gpus(os.environ) if task.entry.config.get("device") != "cpu" else ()
    count = slots.capacity(
        task.submission.profile.get("max_parallel"), task.entry.config.get("threads", 1), len(gpus)
    )
    slot = slots.take(count, lambda: bool(stop))
    if slot is None:
        return False
    held.callback(slot.lock.release)
    os.environ["CUDA_VISIBLE_DEVICES"] = slot.gpu(gpus) or ""
    return True


def _is_settled(task: _Task) -> bool:
    """Tell whether the run is another worker's: one has ended it, or a newer submission has taken it up."""
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


def _attempt(task: _Task, stop: StopRequest) -> Ending:
    """Number the attempt, and see it through to the record of its end, whatever happens."""
    earlier = attempts.read(task.run)
    number, writer = journal.open_next(task.run)
    with closing(writer):
        try:
            try:
                ending, reason = _outcome(task, stop, earlier, number, writer)
            except gpus.NoGpu as error:
                return _leave_node(task, error, number, writer)
            if ending == "interrupted" and stop and requeue.own_job():
                return _stopped_by_slurm(task, stop, number, writer)
            return _write_end(task, ending, reason, number, writer)
        except SystemRefused as error:  # the disk filled up over the very record of a crash, or of the end
            return _write_end(task, "interrupted", error.message, number, writer)


def _outcome(
    task: _Task, stop: StopRequest, earlier: list[Attempt], number: int, writer: Journal
) -> tuple[Ending, str | None]:
    try:
        return _train(task, stop, earlier, number, writer)
    except gpus.NoGpu:
        raise
    except (Exception, SystemExit) as error:
        return _explain(task, error, number, writer)


def _train(
    task: _Task, stop: StopRequest, earlier: list[Attempt], number: int, writer: Journal
) -> tuple[Ending, str | None]:
    start = _start_record(task, earlier, number)
    lost = attempts.fruitless(earlier, task.submission.id, task.job["job_id"], requeue.restarts())
    try:
        if len(lost) >= attempts.MAX_FRUITLESS:
            raise UserError(_gave_up(lost))
        code.check_same(task.files, task.submission, task.entry, () if start["fresh"] else earlier)
        config = _configuration(task)
        gpus.check(config.device, task.submission.profile)
        resume = _prepare(task.run, earlier, number, start["fresh"])
        start.update(provenance.hardware(config), resume_step=resume.step)
    except BaseException as error:
        if isinstance(error, code.CodeChanged):
            start["code"] = {**start["code"], "refused": True}
        _append_unresumed(writer, start, earlier)
        raise
    writer.append("start", resume.step, resume.train_seconds, **start)
    if warning := _other_versions(earlier, start):
        writer.append("event", resume.step, resume.train_seconds, event="warning", message=warning)
    _discard_checkpoints(task.run, number, -1 if start["fresh"] else resume.step)
    log.info("attempt %d of %s starts at step %d", number, task.entry.name, resume.step)
    outcome = _run_loop(task, config, writer, number, resume, stop)
    return outcome.status, outcome.reason


def _append_unresumed(writer: Journal, start: dict[str, Any], earlier: list[Attempt]) -> None:
    """Write the start of an attempt that takes up nothing: what earlier ones wrote stands."""
    last = (None if start["fresh"] else attempts.reached(earlier)) or Attempt(0, Path())
    writer.append("start", last.step, last.train_seconds, **{**start, "resume_step": last.step})


def _prepare(run: RunFiles, earlier: list[Attempt], number: int, fresh: bool) -> Resume:
    from ..trainer import resume

    after = number - 1 if fresh else attempts.ignored_until(earlier)
    return resume.prepare(run, after, attempts.limits(earlier))


def _discard_checkpoints(run: RunFiles, number: int, step: int) -> None:
    """Remove the checkpoints of earlier attempts beyond `step`, where this one has taken up the run.

    No later attempt will resume from them (`attempts.limits`), damaged or not; they would crowd out the new.
    """
    from ..trainer import checkpoint

    for file in checkpoint.available(run):
        if file.attempt < number and file.step > step:
            file.path.unlink(missing_ok=True)


def _run_loop(
    task: _Task, config: TrainingConfig, writer: Journal, number: int, resume: Resume, stop: StopRequest
) -> Outcome:
    from ..trainer import loop

    allowed = task.submission.data_change_allowed
    return loop.train(config, task.run, writer, number, resume, stop, allow_data_change=allowed)


def _explain(task: _Task, error: BaseException, number: int, writer: Journal) -> tuple[Ending, str | None]:
    """Tell what an exception means for the run; one that is nobody's message is recorded as a crash."""
    if isinstance(error, SystemRefused):
        return "interrupted", error.message
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = f": cannot write {error.filename}" if error.filename else ""
        return "interrupted", f"disk full ({error.strerror}){where}"
    if isinstance(error, UserError | ValidationError):  # it would fail the same way every time
        log.error("%s", error)
        hint = getattr(error, "hint", None)
        return "failed", f"{error} ({hint})" if hint else str(error)
    text = "".join(traceback.format_exception(error)).encode(errors="backslashreplace").decode()
    log.error("%s", text)
    reason = shortened(f"{type(error).__name__}: {_message(error)}")
    if not _is_superseded(task, number):
        told = shortened(text, MOST_OF_A_TRACEBACK, MOST_OF_A_TRACEBACK)
        _append(task, writer, "event", event="crash", reason=reason, traceback=told)
    lost = attempts.fruitless(attempts.read(task.run), task.submission.id)
    if len(lost) >= attempts.MAX_FRUITLESS:
        return "failed", _gave_up(lost)
    return ("crash" if task.comes_back else "failed"), reason


def _stopped_by_slurm(task: _Task, stop: StopRequest, number: int, writer: Journal) -> Ending:
    """Ask Slurm why it stopped the run, write that down, and tell whether the job has to come back."""
    why = requeue.why_stopped(stop.reason == signals.BEFORE_LIMIT)
    if why == "cancelled":
        return _write_end(task, "cancelled", "cancelled with scancel", number, writer)
    ending = _write_end(
        task, "interrupted", STOPPED_BY_SLURM.get(why, stop.reason), number, writer, cause=why
    )
    if ending != "interrupted" or why not in requeue.COMES_BACK:
        return ending
    lost = attempts.fruitless(attempts.read(task.run), task.submission.id)
    if len(lost) >= attempts.MAX_FRUITLESS:
        return _write_end(task, "failed", _gave_up(lost), number, writer)
    return "requeue"


def _leave_node(task: _Task, error: gpus.NoGpu, number: int, writer: Journal) -> Ending:
    """Record that this node shows no GPU, and return whether the job goes to another one or the run fails."""
    log.error("%s", error)
    tried = attempts.nodes_without_gpu(attempts.read(task.run), task.submission.id)
    why = gpus.why_not_elsewhere(task.submission.profile, [*tried, error.node])
    if why is not None:
        reason = gpus.failure_reason([*tried, error.node], f"{error}; {why}", task.files.name, task.run.id)
        return _write_end(task, "failed", reason, number, writer)
    details = {"cause": attempts.NO_GPU, "node": error.node}
    ending = _write_end(task, "interrupted", str(error), number, writer, **details)
    return "no gpu" if ending == "interrupted" else ending


def _write_end(
    task: _Task, ending: Ending, reason: str | None, number: int, writer: Journal, **details: Any
) -> Ending:
    """Write how the attempt ended, unless a newer attempt of the run has begun meanwhile."""
    if _is_superseded(task, number):
        return "elsewhere"
    reason = None if reason is None else shortened(reason)
    writer.make_room()
    if ending in ("interrupted", "crash", "cancelled") and markers.is_cancelled(task.run, task.submission.id):
        ending, reason = "cancelled", "cancelled by the user"
    if ending == "interrupted":
        try:
            _append(task, writer, "event", event="interrupted", reason=reason, **details)
            writer.sync()
        except SystemRefused as error:  # somebody else took the room; the log has the reason
            log.error("%s: %s", reason, error.message)
    elif ending != "crash":
        _append(task, writer, "end", status=ending, reason=reason)
    return ending


def _is_superseded(task: _Task, number: int) -> bool:
    """Return whether a newer attempt has begun, and mark this one: it did not die, and it does not count."""
    superseded = journal.overtaken(task.run, number)
    if superseded:
        with suppress(OSError):
            task.run.superseded_marker(number).touch()
    return superseded


def _message(error: BaseException) -> str:
    """Return what an exception says of itself, if it can."""
    try:
        return str(error)
    except Exception:
        return "(its message cannot be shown)"


def _append(task: _Task, writer: Journal, kind: str, **fields: Any) -> None:
    """Append a record at the step and time of the last one, of an earlier attempt if this has none."""
    last = attempts.reached(attempts.read(task.run))
    step, train_seconds = (last.step, last.train_seconds) if last else (0, 0.0)
    writer.append(kind, step, train_seconds, **fields)


def _gave_up(lost: list[Attempt]) -> str:
    """Say why a run that comes no further is not started once more."""
    if all(attempt.timed_out for attempt in lost):
        return f"{len(lost)} time limits without a new checkpoint; it needs more `hours`"
    reasons = [attempt.reason or "its process died" for attempt in lost]
    return f"{len(lost)} attempts without a new checkpoint; the last: {reasons[-1]}"


def _configuration(task: _Task) -> TrainingConfig:
    """Return the run's config, variables expanded as this node knows them; keep a copy beside the journal."""
    _set_variables(task)
    copy = {key: value for key, value in task.entry.config.items() if key != "stop"}
    content = json.dumps(copy, indent=1).encode()
    if not task.run.config.exists() or task.run.config.read_bytes() != content:
        write_atomically(task.run.config, content)
    written = data_paths.written_config(task.entry)
    config = TrainingConfig.model_validate(expand_variables(written, os.environ))
    config = data_paths.with_expanded_paths(config, task.entry)
    if (
        task.submission.code_hash is not None and task.cluster != "debug"
    ):  # which runs what was imported to check it
        code.check_origin(task.files, task.submission.code_hash, code.user_modules([task.entry]))
    return config


def _set_variables(task: _Task) -> None:
    """Set the profile's variables in this process; on Slurm the job's script has done so, before `setup`.

    Raises:
        UserError: a value uses a variable that is not set.
    """
    if task.cluster == "slurm":
        return
    profile = task.submission.profile
    os.environ.update(profile.get("variables") or {})
    os.environ.update(env_values.expand(profile.get("env") or {}, os.environ))


def _other_versions(earlier: list[Attempt], start: dict[str, Any]) -> str | None:
    """Say so if the newest attempt that began had another Python, torch or alphagrid."""
    records = (provenance.start_record(attempt.journal) for attempt in reversed(earlier))
    before: dict[str, Any] = next(
        (record["versions"] for record in records if record and record.get("versions")), {}
    )
    return provenance.changed_versions(before, start["versions"])


def _start_record(task: _Task, earlier: list[Attempt], number: int) -> dict[str, Any]:
    """Return what is known of the attempt before anything can go wrong."""
    return {
        "attempt": number,
        "resume_step": 0,
        "fresh": attempts.starts_anew(earlier, task.submission.id, task.entry.fresh),
        "submission": task.submission.id,
        "versions": provenance.versions(),
        "packages": provenance.packages(task.entry.config["workload"]["name"]),
        "code": code.record(task.submission, task.entry),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "device": None,
        "gpu": None,
        "cuda": None,
        "driver": None,
        "threads": task.entry.config.get("threads"),
        "job": task.job,
        "stop": task.entry.config.get("stop"),
    }


def _log_to_stderr() -> None:
    """Send alphagrid's messages to the run's log; submitit's own logger has its own handler."""
    handler = logging.StreamHandler()
    handler.setFormatter(VisibleFormatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False


def _remove_torn_result() -> None:
    """Remove what a killed attempt of this very job left of its result file: submitit stumbles over it."""
    from submitit.core.job_environment import JobEnvironment

    result = JobEnvironment().paths.result_pickle
    result.with_suffix(result.suffix + ".save_tmp").unlink(missing_ok=True)
