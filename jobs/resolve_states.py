"""The states of an experiment's runs: their files' records joined with what their schedulers say."""

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
"""How long accounting is waited for: it learns a moment later than squeue that a job has ended, and how."""


@dataclass(frozen=True)
class ExperimentRuns:
    """An experiment's runs as their files tell of them, before a scheduler is asked."""

    files: ExperimentFiles
    records: Mapping[str, DiskRecord]
    """By run id."""
    jobs: Mapping[str, SubmittedJob]
    """By run id; those of all runs that `may_have_job` are among them."""

    @property
    def open(self) -> list[OpenRun]:
        """The runs that a scheduler may still have a job for."""
        return [
            OpenRun(self.files, job, self.records[run_id])
            for run_id, job in self.jobs.items()
            if self.records[run_id].may_have_job
        ]

    def states(self, answers: SchedulerStates) -> dict[str, RunState]:
        """Return the state of each run, given what the schedulers said of the open ones."""
        open_keys = {run.job.run_id: run.job.key for run in self.open}
        return {
            run_id: resolve(record, answers.states.get(open_keys[run_id]) if run_id in open_keys else None)
            for run_id, record in self.records.items()
        }


def read_records(files: ExperimentFiles, runs: Mapping[str, SubmittedRun]) -> dict[str, DiskRecord]:
    """Return what each run's files say of it.

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

    With `tolerant`, a scheduler that does not answer is named as the reason of `unknown`.

    Raises:
        SystemRefused: a scheduler does not answer although it may have a run, and not `tolerant`.
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
    """Return the states of runs that may be submitted again; runs that Slurm does not list are read twice.

    A run may have ended between reading its files and asking Slurm, and what was cancelled a moment ago must
    not be submitted again because accounting does not know of it yet.

    Raises:
        SystemRefused: a scheduler does not answer although it may have a run.
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
        if not unlisted or clock.monotonic() > deadline:  # a job that slurmctld has lost never settles
            break
        clock.sleep(1)
    return states
