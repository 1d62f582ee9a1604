"""The `local` scheduler: a detached supervisor per root executes recorded runs, a few at a time."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from ...errors import SystemRefused, UserError
from ...store import claims, locks, ownership
from ...store.files import open_regular
from ...store.layout import ExperimentFiles, Root, RunFiles
from ..runs.states import SchedulerState
from ..runs.submitted_job import RunKey
from .base import OpenRun, Scheduler, SchedulerStates, SubmitRequest, SubmitResult

if TYPE_CHECKING:
    from ...store.submissions import Submission

START_SECONDS = 120.0


class LocalScheduler(Scheduler):
    """Background processes on this machine."""

    name = "local"
    has_disk_queue = True
    assigns_gpus = True
    uses_slots = True

    def check(self, root: Root, environ: Mapping[str, str]) -> None:
        """Refuse a folder for this machine's slots that other users can enter.

        Raises:
            SystemRefused: the message says why the folder cannot be used.
        """
        from . import local_slots

        local_slots.prepare()

    def recorded_variables(self, names: Iterable[str], environ: Mapping[str, str]) -> Mapping[str, str]:
        """Return all variables: a worker inherits its supervisor's environment, which may be an older one."""
        return {name: environ[name] for name in names}

    def submit(self, request: SubmitRequest) -> SubmitResult:
        """Record the submission, from which the supervisor takes its runs."""
        return record(request)

    def start(self, root: Root, files: ExperimentFiles, submission: Submission, is_due: bool) -> None:
        """Start the root's supervisor unless it is running."""
        if is_due:
            ensure_supervisor(root)

    def states(self, root: Root, runs: Sequence[OpenRun], *, tolerant: bool) -> SchedulerStates:
        """Return the states by locks, claims and supervisors."""
        supervised: dict[str, bool] = {}
        states: dict[RunKey, SchedulerState] = {}
        for run in runs:
            state = worker_state(run.run)
            if state is None and not run.record.settled:
                if run.files.name not in supervised:
                    supervised[run.files.name] = is_supervised_by_owner(root, run.files)
                state = SchedulerState("pending") if supervised[run.files.name] else None
            if state is not None:
                states[run.job.key] = state
        return SchedulerStates(states)

    def own_job_id(self) -> str | None:
        """Return the id that submitit gives a local process."""
        return os.environ.get("SUBMITIT_LOCAL_JOB_ID")

    def restarts_crashed_runs(self, profile: Mapping[str, Any]) -> bool:
        """Return True: the supervisor starts a crashed run again."""
        return True

    def log_folder(self, files: ExperimentFiles, run_id: str) -> Path:
        """Return a separate folder per run, because the system reuses process ids."""
        return files.submitit / run_id


def record(request: SubmitRequest) -> SubmitResult:
    """Record a submission whose runs this machine executes.

    Raises:
        SystemRefused: the file cannot be written.
    """
    from ...store import submissions

    submissions.write(request.files, request.submission)
    return SubmitResult(tuple(entry.id for entry in request.submission.runs))


def worker_state(run: RunFiles) -> SchedulerState | None:
    """Return `running` if a worker has the run, `silent` if its claim cannot be read, else None."""
    try:
        return SchedulerState("running") if claims.is_at_work(run) else None
    except (OSError, UserError) as error:
        return SchedulerState("silent", str(error))


def stop_workers(files: ExperimentFiles, run_ids: Collection[str]) -> None:
    """Send SIGTERM to the workers on this machine that have the runs, of all schedulers.

    Raises:
        SystemRefused: a worker could not be signalled; all others were signalled.
    """
    import signal

    refusals = []
    for run_id in run_ids:
        try:
            pid = locks.holder(files.run(run_id).lock)
            if pid is not None:
                os.kill(pid, signal.SIGTERM)
        except ProcessLookupError:  # it has ended meanwhile
            continue
        except (OSError, SystemRefused) as error:
            refusals.append(f"the worker of {run_id} could not be told ({error})")
    if refusals:
        raise SystemRefused(f"{refusals[0]}; the run is marked, and stops when it is started again")


def is_supervised(root: Root) -> bool:
    """Return whether a supervisor of this user runs for this root on this machine."""
    return locks.is_held(root.supervisor / "lock")


def is_supervised_by_owner(root: Root, files: ExperimentFiles) -> bool:
    """Return whether a supervisor of the experiment's owner runs, if its lock can be read."""
    owner = ownership.uid(files.path)
    folders = {root.path / ".supervisor", root.supervisor, root.supervisor_of(owner)}
    return any(_is_held(folder / "lock") for folder in folders if ownership.uid(folder) == owner)


def ensure_supervisor(root: Root) -> None:
    """Start the root's supervisor, in a new session, unless one runs.

    The supervisor outlives this process, its terminal and Ctrl-C.

    Raises:
        SystemRefused: the supervisor did not start.
    """
    if is_supervised(root):
        return
    log_file = root.supervisor / "log"
    try:
        root.supervisor.mkdir(parents=True, exist_ok=True)
        with open(open_regular(log_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT), "ab") as log:  # noqa: PTH123
            process = _spawn_supervisor(root, log)
    except OSError as error:
        raise SystemRefused(f"cannot write {log_file}: {error.strerror}") from error
    deadline = time.monotonic() + START_SECONDS
    while not is_supervised(root) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    if process.poll() != 0 and not is_supervised(root):
        raise SystemRefused(f"the local supervisor did not start; see {log_file}")
    threading.Thread(target=process.wait, daemon=True).start()  # leaves no zombie while this process lives


def _is_held(lock: Path) -> bool:
    """Return whether a lock is held; False if it cannot be read."""
    try:
        return locks.is_held(lock)
    except (OSError, UserError):
        return False


def _spawn_supervisor(root: Root, log: IO[bytes]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", f"{__package__}.local_supervisor", str(root.path.absolute())]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
