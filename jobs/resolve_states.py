"""Resolve the states of an experiment's runs from their disk records and their schedulers' states."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from ..store.layout import ExperimentFiles, Root
from ..store.submissions import SubmittedRun
from .clock import Clock
from .runs import disk_record
from .runs.disk_record import DiskRecord
from .runs.states import RunState, resolve
from .runs.submitted_job import SubmittedJob
from .schedulers import SCHEDULERS, Schedulers, scheduler_states
from .schedulers.base import OpenRun, SchedulerStates

ACCOUNTING_SECONDS = 10.0
"""Maximum wait for accounting, which records the end of a job a moment after squeue stops listing it."""


@dataclass(frozen=True)
class ExperimentRuns:
    """An experiment's runs: their disk records and jobs, before any scheduler is queried."""

    files: ExperimentFiles
    records: Mapping[str, DiskRecord]
    """By run id."""
    jobs: Mapping[str, SubmittedJob]
    """By run id; all runs that `may_have_job` are included."""

    @property
    def open(self) -> list[OpenRun]:
        """Runs for which a scheduler may still have a job."""
        return [
            OpenRun(self.files, job, self.records[run_id])
            for run_id, job in self.jobs.items()
            if self.records[run_id].may_have_job
        ]

    def states(self, answers: SchedulerStates) -> dict[str, RunState]:
        """Return the state of each run, given the schedulers' states of the open runs."""
        open_keys = {run.job.run_id: run.job.key for run in self.open}
        return {
            run_id: resolve(record, answers.states.get(open_keys[run_id]) if run_id in open_keys else None)
            for run_id, record in self.records.items()
        }


def read_records(files: ExperimentFiles, runs: Mapping[str, SubmittedRun]) -> dict[str, DiskRecord]:
    """Return each run's disk record.

    Raises:
        UserError: a cancel marker is damaged.
    """
    return {run_id: disk_record.read(files.run(run_id), run.submission.id) for run_id, run in runs.items()}


def run_states(
    root: Root,
    files: ExperimentFiles,
    runs: Mapping[str, SubmittedRun],
    records: Mapping[str, DiskRecord] | None = None,
    *,
    schedulers: Schedulers = SCHEDULERS,
    tolerant: bool = False,
) -> dict[str, RunState]:
    """Return the state of each run; `records` are read if they are not given.

    With `tolerant`, runs whose scheduler does not answer are `unknown`, with that as the reason.

    Raises:
        SystemRefused: a scheduler that may have a job for a run does not answer, and not `tolerant`.
        UserError: a cancel marker is damaged.
    """
    records = read_records(files, runs) if records is None else records
    jobs = {
        run_id: SubmittedJob.of(run.submission, run_id, run.entry.name)
        for run_id, run in runs.items()
        if run_id in records
    }
    experiment = ExperimentRuns(files, records, jobs)
    return experiment.states(scheduler_states(root, experiment.open, schedulers, tolerant=tolerant))


def confirmed_states(
    root: Root,
    files: ExperimentFiles,
    runs: Mapping[str, SubmittedRun],
    *,
    schedulers: Schedulers = SCHEDULERS,
    clock: Clock = time,
) -> dict[str, RunState]:
    """Return the states of runs before a submission; runs that Slurm does not list are checked twice.

    A run may have ended between the read of its files and the query to Slurm. A run that was cancelled a
    moment ago must not be submitted again only because accounting does not have its record yet.

    Raises:
        SystemRefused: a scheduler that may have a job for a run does not answer.
        UserError: a cancel marker is damaged.
    """
    states = run_states(root, files, runs, schedulers=schedulers)
    unlisted = {
        run_id: run
        for run_id, run in runs.items()
        if schedulers[run.submission.profile["cluster"]].may_leave_out_jobs
        and run_id in run.submission.jobs
        and states[run_id].is_unlisted
    }
    deadline = clock.monotonic() + ACCOUNTING_SECONDS
    while unlisted:
        states.update(run_states(root, files, unlisted, schedulers=schedulers))
        unlisted = {run_id: run for run_id, run in unlisted.items() if states[run_id].is_unsettled}
        if not unlisted or clock.monotonic() > deadline:  # accounting never closes a job that slurmctld lost
            break
        clock.sleep(1)
    return states
