"""The local supervisor: one detached process per root that keeps this machine's slots busy.

It starts runs through submitit's LocalExecutor, restarts runs whose process died, and ends when no run is
left. A killed supervisor loses no state, because the queue is read from files (`local_queue`).
"""

from __future__ import annotations

import logging
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...printable import VisibleFormatter
from ...store import locks
from ...store.layout import Root

PATIENCE = 2.0
"""Seconds of retries for a lock: other processes hold it for an instant to see whether it is held."""
PERIOD = 0.25
REFRESH_PERIOD = 1.0
KEEP_PERIOD = 3600.0
MAX_SILENT_STARTS = 3
"""Number of processes of one run that end without a record before the run counts as failed."""
MINUTES_WITHOUT_END = 60 * 24 * 3650

log = logging.getLogger("alphagrid.supervisor")


def supervise(root: Root) -> None:
    """Run the local runs under `root` until none is left; return at once if another process does so."""
    lock = locks.FileLock(root.supervisor / "lock")
    supervisor: Supervisor | None = None
    while lock.acquire(PATIENCE):
        supervisor = supervisor or Supervisor(root)
        supervisor.work()
        # A submitter that came just now still saw the lock held, and relies on this last look.
        lock.release()
        if not supervisor.has_work():
            return


@dataclass
class _Child:
    """A started process of a job, and the number of earlier attempts of its run."""

    job: Any
    process: Any
    attempts_before: int


class Supervisor:
    """The work of `supervise` while it holds the lock."""

    def __init__(self, root: Root) -> None:
        from .local_queue import LocalQueue
        from .local_slots import GPUS_VARIABLE, visible_gpus

        gpus = visible_gpus(os.environ)
        os.environ[GPUS_VARIABLE] = ",".join(gpus)
        self._root = root
        self._queue = LocalQueue(root, gpus)
        self._children: list[_Child] = []
        self._silent_starts: dict[tuple[str, str], int] = {}
        self._refreshed_at = float("-inf")
        self._slots_kept_at = float("-inf")

    def has_work(self) -> bool:
        """Refresh the queue, and return whether any run is left."""
        self._refresh_queue(0.0)
        return self._queue.next() is not None or len(self._queue) > 0

    def work(self) -> None:
        """Start, watch and restart runs until none is left."""
        while True:
            self._refresh_queue(REFRESH_PERIOD)
            self._keep_slots()
            self._reap_children()
            self._start_what_fits()
            if not self._children and not self.has_work():
                return
            time.sleep(PERIOD)

    def _refresh_queue(self, period: float) -> None:
        if time.monotonic() - self._refreshed_at >= period:
            try:
                self._queue.refresh()
            except OSError as error:  # a network file system that does not answer now may do so next time
                log.error("cannot look for runs: %s", error)
            self._refreshed_at = time.monotonic()

    def _keep_slots(self) -> None:
        from . import local_slots

        if time.monotonic() - self._slots_kept_at >= KEEP_PERIOD:
            local_slots.keep()
            self._slots_kept_at = time.monotonic()

    def _start_what_fits(self) -> None:
        from . import local_slots

        while (job := self._queue.next()) is not None and local_slots.free(
            job.parallel
        ) > self._count_starting():
            self._queue.remove(job)
            try:
                self._start_job(job)
            except OSError as error:
                self._queue.set_aside(job, f"cannot be started: {error}")

    def _count_starting(self) -> int:
        """Return the number of started processes that do not hold their run, and so a slot, yet."""
        return sum(self._queue.job_state(child.job) != "at work" for child in self._children)

    def _start_job(self, job: Any) -> None:
        from ..worker import run_attempt

        before = len(job.run.journals())
        executor = _local_executor(job.files.submitit / job.run_id)
        process = executor.submit(
            run_attempt, str(self._root.path), job.files.name, job.run_id, job.submission
        )
        self._children.append(_Child(job, process, before))
        log.info("%s: started as process %s", job.name, process.job_id)

    def _reap_children(self) -> None:
        ended = [child for child in self._children if child.process.done()]
        self._children = [child for child in self._children if child not in ended]
        for child in ended:
            log.info("%s: process %s ended", child.job.name, child.process.job_id)
            if not self._is_given_up(child):
                self._queue.put_back(child.job)

    def _is_given_up(self, child: _Child) -> bool:
        """Count a run's processes that ended without a record; conclude the run after `MAX_SILENT_STARTS`.

        Returns whether the run was concluded.
        """
        from ..worker import conclude_silent_run

        job = child.job
        if self._queue.job_state(job) != "due" or len(job.run.journals()) > child.attempts_before:
            self._silent_starts.pop(job.key, None)
            return False
        count = self._silent_starts[job.key] = self._silent_starts.get(job.key, 0) + 1
        if count < MAX_SILENT_STARTS:
            return False
        reason = f"{count} processes ended before they could begin; `alphagrid logs` shows what they said"
        conclude_silent_run(job.files, job.run_id, job.submission, reason)
        return True


def _local_executor(folder: Path) -> Any:
    """Return submitit's executor; each run has its folder, because the system reuses process ids."""
    import submitit

    executor = submitit.LocalExecutor(folder)
    executor.update_parameters(timeout_min=MINUTES_WITHOUT_END, stderr_to_stdout=True)
    return executor


if __name__ == "__main__":
    handler = logging.StreamHandler()
    handler.setFormatter(VisibleFormatter("%(asctime)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    supervise(Root(Path(sys.argv[1])))
