"""The status of an experiment's runs: the index joined with the schedulers' states.

Reading a status updates the index and changes nothing else.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from ..store.layout import Root
from ..store.messages import shortened
from ..store.rows import RunRow, SenderRow
from . import failure_groups, logs
from .failure_groups import Cause
from .garbage_collector import collector_paused
from .logs import Outlook
from .resolve_states import ExperimentRuns
from .runs.disk_record import DiskRecord
from .runs.states import ACTIVE, STATES, UNSURE, RunState, State
from .runs.submitted_job import SubmittedJob
from .schedulers import SCHEDULERS, Schedulers, scheduler_states
from .schedulers.base import Scheduler, SchedulerStates

if TYPE_CHECKING:
    from sqlite3 import Connection

    from ..store.database import Store
    from ..store.layout import ExperimentFiles

NOT_IN_JSON = ("config", "may_reappear", "poll_seconds")
LOG_LINES = 5
"""Lines of a log that are shown with a cause."""


@dataclass(frozen=True)
class RunStatus:
    """The status of one run; losses and rates are None if missing or not finite."""

    id: str
    name: str
    baseline: str | None
    params: dict[str, Any]
    config: Mapping[str, Any]
    named: bool
    """Whether the newest specification contains the run."""
    state: State
    reason: str | None
    step: int
    train_seconds: float
    best_validation_loss: float | None
    learning_rate: float | None
    attempts: int
    percent_done: float
    """Progress towards `stop`, 0 to 100: the larger of steps and train_seconds."""
    last_seen: float | None
    """Unix time of its newest record."""
    eta_seconds: float | None
    """Remaining training time at the current speed, while the run is running."""
    checkpoint_step: int | None
    checkpoint_bytes: int | None
    checkpoint_seconds: float | None
    """Duration of writing the last checkpoint."""
    superseded: int
    cluster: str | None
    """The cluster of its newest submission: slurm, local or debug."""
    job: dict[str, Any] | None
    is_certain: bool = True
    """Whether every scheduler that may have a job for the run answered."""
    may_reappear: bool = False
    """Whether the scheduler may still have the run although it seems to be over: squeue leaves out jobs."""
    poll_seconds: float = Scheduler.poll_seconds
    """Pause between two queries of the run."""
    rejected: Mapping[str, int] = field(default_factory=dict)
    """Number of α*, or of their windows, that the policy rejected, by reason."""

    @property
    def goes_on(self) -> bool:
        """Whether the run continues, or may continue, without the user."""
        return self.state in ACTIVE or (self.state in UNSURE and not self.is_certain)

    def as_dict(self) -> dict[str, Any]:
        """Return the status as JSON values, without the config."""
        return {key: value for key, value in vars(self).items() if key not in NOT_IN_JSON}


@dataclass(frozen=True)
class ExperimentStatus:
    """All runs of an experiment."""

    experiment: str
    runs: tuple[RunStatus, ...]
    damaged: tuple[str, ...] = ()
    """Files with damaged lines, which are left out."""
    causes: tuple[Cause, ...] = ()
    """The causes of failed, interrupted and lost runs, each once."""
    notes: tuple[str, ...] = ()
    """What the schedulers did not answer, and why."""
    warnings: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Warnings in the runs' journals, each with the names of its runs."""

    @property
    def goes_on(self) -> bool:
        """Whether any run continues, or may continue, without the user."""
        return any(run.goes_on for run in self.runs)

    @property
    def is_unsure(self) -> bool:
        """Whether a second query may change the state of a run that seems to be over."""
        return any(run.may_reappear for run in self.runs)

    @property
    def poll_seconds(self) -> float:
        """Pause between two queries."""
        return max((run.poll_seconds for run in self.runs), default=Scheduler.poll_seconds)

    @property
    def counts(self) -> dict[State, int]:
        """Number of runs in each state that occurs, in the order of `STATES`."""
        count_by_state = Counter(run.state for run in self.runs)
        return {state: count_by_state[state] for state in STATES if count_by_state[state]}

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        runs = [run.as_dict() for run in self.runs]
        return {
            "experiment": self.experiment,
            "counts": self.counts,
            "runs": runs,
            "causes": [cause.as_dict() for cause in self.causes],
            "notes": list(self.notes),
            "damaged": list(self.damaged),
            "warnings": [{"message": text, "runs": list(runs)} for text, runs in self.warnings.items()],
        }


@dataclass(frozen=True)
class IndexedExperiment:
    """An experiment's rows in the index, after an update."""

    files: ExperimentFiles
    rows: Sequence[RunRow]
    senders: Mapping[str, SenderRow]
    """Submissions, by id."""
    damaged: tuple[str, ...]
    """Files with lines that could not be read."""

    @classmethod
    def read(cls, db: Connection, files: ExperimentFiles) -> IndexedExperiment:
        """Read an experiment's rows from the index."""
        from ..store import queries

        name = files.name
        return cls(
            files,
            queries.runs(db, name),
            queries.senders(db, name),
            tuple(queries.damage(db, name)),
        )

    @cached_property
    def runs(self) -> ExperimentRuns:
        """The experiment's runs, for queries to their schedulers."""
        jobs = {
            row.id: _submitted_job(row, sender)
            for row in self.rows
            if (sender := self.senders.get(row.last_submission or "")) is not None
        }
        return ExperimentRuns(self.files, {row.id: _disk_record(row) for row in self.rows}, jobs)


def _submitted_job(row: RunRow, sender: SenderRow) -> SubmittedJob:
    return SubmittedJob(
        run_id=row.id,
        submission=sender.id,
        cluster=sender.cluster,
        job_id=None if row.job is None else row.job.job_id,
        submitted=None if row.job is None else row.job.submitted,
        run_name=row.name,
        refusal=sender.refusal,
        slurm_cluster=sender.site,
    )


def _disk_record(row: RunRow) -> DiskRecord:
    reason = row.end_reason if row.end_status is not None else row.last_event_reason
    is_older = row.last_submission is not None and row.attempt_submission not in (row.last_submission, None)
    return DiskRecord(
        attempts=row.attempts,
        end=row.end_status,
        event=row.last_event,
        reason=None if reason is None else shortened(reason),
        submitted_since=is_older or row.attempts == 0,
        cancelled=row.cancelled,
    )


def status(root: Root, experiment: str, schedulers: Schedulers = SCHEDULERS) -> ExperimentStatus:
    """Return the status of an experiment's runs.

    Raises:
        UserError: there is no such experiment under the root.
    """
    names = [files.name for files in root.experiments()]
    if experiment not in names:
        raise UserError(
            f"no experiment '{experiment}' under {root.path}", _missing_experiment_hint(experiment, names)
        )
    return _read_status(root, [experiment], schedulers, detailed=True)[0]


def overview(root: Root, schedulers: Schedulers = SCHEDULERS) -> list[ExperimentStatus]:
    """Return the states of the runs of all experiments, without causes and warnings.

    Each scheduler is queried once for all experiments.
    """
    return _read_status(root, [files.name for files in root.experiments()], schedulers, detailed=False)


def outlook(root: Root, experiment: str, run_id: str) -> Outlook:
    """Return what a reader of a run's log needs to know about the run."""
    from ..store import queries

    run = next(run for run in status(root, experiment).runs if run.id == run_id)
    with _open_index(root) as store:
        jobs = queries.jobs(store.db, experiment, run_id)
    return Outlook(run.name, run.state, run.reason, run.cluster, tuple(jobs), run.goes_on, run.poll_seconds)


def _missing_experiment_hint(experiment: str, names: Sequence[str]) -> str:
    from ..problems import nearest  # and with it, YAML

    guess = nearest(experiment, names)
    names_hint = f"there are: {', '.join(names)}" if names else "nothing was submitted there; see --root"
    return f"did you mean '{guess}'?" if guess else names_hint


def _read_status(
    root: Root, experiments: Sequence[str], schedulers: Schedulers, detailed: bool
) -> list[ExperimentStatus]:
    with collector_paused(), _open_index(root) as store:
        store.sync(experiments)
        indexed = [IndexedExperiment.read(store.db, root.experiment(name)) for name in experiments]
        open_runs = [run for experiment in indexed for run in experiment.runs.open]
        answers = scheduler_states(root, open_runs, schedulers, tolerant=True)
        return [
            _experiment_status(store.db, experiment, answers, schedulers, detailed) for experiment in indexed
        ]


def _open_index(root: Root) -> Store:
    from ..store.database import open_store

    return open_store(root)


def _experiment_status(
    db: Connection,
    experiment: IndexedExperiment,
    answers: SchedulerStates,
    schedulers: Schedulers,
    detailed: bool,
) -> ExperimentStatus:
    from ..store import queries

    states = experiment.runs.states(answers)
    rejections = queries.rejections_of(db, experiment.files.name) if detailed else {}
    runs = []
    for row in experiment.rows:
        sender = experiment.senders.get(row.last_submission or "")
        scheduler = None if sender is None else schedulers.get(sender.cluster)
        runs.append(_run_status(row, states[row.id], scheduler, rejections.get(row.key, {})))
    if not detailed:
        return ExperimentStatus(experiment.files.name, tuple(runs), experiment.damaged, notes=answers.notes)
    groups = _illustrate_causes(db, experiment, failure_groups.causes(runs))
    return ExperimentStatus(
        experiment.files.name,
        tuple(runs),
        experiment.damaged,
        tuple(groups),
        answers.notes,
        _run_warnings(db, experiment),
    )


def _run_warnings(db: Connection, experiment: IndexedExperiment) -> dict[str, tuple[str, ...]]:
    """Return the warnings of the runs in the specification, each with the runs' names."""
    from ..store import queries

    names = {row.id: row.name for row in experiment.rows if row.named}
    run_ids_by_text = queries.warnings(db, experiment.files.name)
    names_by_text = {
        text: tuple(names[run] for run in runs if run in names) for text, runs in run_ids_by_text.items()
    }
    return {text: runs for text, runs in names_by_text.items() if runs}


def _illustrate_causes(db: Connection, experiment: IndexedExperiment, causes: list[Cause]) -> list[Cause]:
    """Return the causes with the hosts of their newest attempts and the end of a log."""
    from ..store import queries

    if not causes:
        return []
    jobs = {row.id: [row.job] if row.job else [] for row in experiment.rows}
    return failure_groups.illustrate(
        causes,
        queries.hosts(db, experiment.files.name),
        lambda run_id: _end_of_log(experiment.files, run_id, jobs[run_id]),
    )


def _end_of_log(files: ExperimentFiles, run_id: str, jobs: Sequence[logs.Job]) -> list[str]:
    """Return the last lines of a run's log; none if the log or the run's journal cannot be read."""
    try:
        return logs.tail(files, run_id, jobs, LOG_LINES)
    except (OSError, UserError):
        return []


def _run_status(
    row: RunRow, state: RunState, scheduler: Scheduler | None, rejected: Mapping[str, int]
) -> RunStatus:
    done = _share_done(row)
    return RunStatus(
        id=row.id,
        name=row.name,
        baseline=row.baseline,
        params=row.params,
        config=row.config,
        named=row.named,
        state=state.state,
        reason=state.reason,
        step=row.step,
        train_seconds=row.train_seconds,
        best_validation_loss=_finite_or_none(row.best_validation_loss),
        learning_rate=_finite_or_none(row.learning_rate),
        attempts=row.attempts,
        percent_done=100.0 if state.state == "completed" else round(100 * done, 1),
        last_seen=row.last_seen,
        eta_seconds=_eta_seconds(row, done) if state.state == "running" else None,
        checkpoint_step=row.checkpoint_step,
        checkpoint_bytes=row.checkpoint_bytes,
        checkpoint_seconds=row.checkpoint_seconds,
        superseded=row.superseded,
        cluster=None if scheduler is None else scheduler.name,
        job=None if row.job is None else dict(vars(row.job)),
        is_certain=state.is_certain,
        may_reappear=scheduler is not None and scheduler.may_leave_out_jobs and state.state in UNSURE,
        poll_seconds=(scheduler or Scheduler).poll_seconds,
        rejected=rejected,
    )


def _share_done(row: RunRow) -> float:
    """Return a run's progress towards its `stop`, 0 to 1; 0 if no readable submission records the stop."""
    bounds = ((row.step, row.stop.get("steps")), (row.train_seconds, row.stop.get("train_seconds")))
    shares = [done / bound for done, bound in bounds if bound]
    return min(1.0, max(shares, default=0.0))


def _eta_seconds(row: RunRow, share: float) -> float | None:
    return row.train_seconds * (1 - share) / share if share > 0 else None


def _finite_or_none(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
