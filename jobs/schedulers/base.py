"""The interface of schedulers: check, reconcile, submit, states, cancel, log files.

A scheduler executes runs. There are three: Slurm, this machine (`local`) and the submitting process
(`debug`). Code outside this package never compares a cluster's name; it reads a scheduler's attributes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ...store.layout import ExperimentFiles, Root, RunFiles
from ..runs.disk_record import DiskRecord
from ..runs.states import SchedulerState
from ..runs.submitted_job import RunKey, SubmittedJob

if TYPE_CHECKING:  # reading commands import this module, and do without the models of profiles
    from ...cluster_profiles.loader import Profile
    from ...store.locks import FileLock
    from ...store.submissions import Submission


@dataclass(frozen=True)
class OpenRun:
    """A run that a scheduler may still have a job for."""

    files: ExperimentFiles
    job: SubmittedJob
    record: DiskRecord

    @property
    def run(self) -> RunFiles:
        """The run's files."""
        return self.files.run(self.job.run_id)


@dataclass(frozen=True)
class SchedulerStates:
    """The schedulers' states of runs; a run that its scheduler does not know is left out."""

    states: Mapping[RunKey, SchedulerState] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    """Queries that failed, and why."""

    def __or__(self, other: SchedulerStates) -> SchedulerStates:
        """Return both together."""
        return SchedulerStates({**self.states, **other.states}, (*self.notes, *other.notes))


@dataclass(frozen=True)
class SubmitResult:
    """The result of submitting to a scheduler, as run ids."""

    sent: tuple[str, ...] = ()
    unsent: tuple[str, ...] = ()
    """Runs that the cluster did not accept for now; the next `submit` sends them."""
    limit: str | None = None
    """The cluster's message about the unsent runs."""

    def __add__(self, other: SubmitResult) -> SubmitResult:
        """Return both together."""
        return SubmitResult(self.sent + other.sent, self.unsent + other.unsent, self.limit or other.limit)


@dataclass(frozen=True)
class SubmitRequest:
    """A submission for a scheduler to record and execute."""

    files: ExperimentFiles
    submission: Submission
    profile: Profile
    lock: FileLock
    """The experiment's lock, held until the last job is submitted, even if this process dies."""
    earlier: Sequence[Submission] = ()
    """The submissions that were read before the runs were chosen, oldest first."""
    replaced_jobs: Sequence[str] = ()
    """Held jobs that the submission replaces; they are cancelled."""


class Scheduler(ABC):
    """A scheduler: it executes runs."""

    name: ClassVar[str]
    """The value of a profile's `cluster`."""
    poll_seconds: ClassVar[float] = 1.0
    """Pause between two queries of a command that watches runs."""
    may_leave_out_jobs: ClassVar[bool] = False
    """Whether a job that it does not list may still exist, so that a second query is needed."""
    has_disk_queue: ClassVar[bool] = False
    """Whether the submissions' files are its queue, so that a recorded run needs no second submission."""
    has_nodes: ClassVar[bool] = False
    """Whether runs go to nodes that a user can exclude."""
    grants_gpus: ClassVar[bool] = False
    """Whether a job gets the GPUs that its profile asks for."""
    assigns_gpus: ClassVar[bool] = False
    """Whether it sets CUDA_VISIBLE_DEVICES for each run."""
    preempts: ClassVar[bool] = False
    """Whether it may kill a job and start it again for reasons outside the run."""
    uses_run_locks: ClassVar[bool] = True
    """Whether a worker has to lock its run, because nothing else prevents a second worker."""
    uses_slots: ClassVar[bool] = False
    """Whether a worker waits for one of this machine's slots."""
    sets_environment: ClassVar[bool] = False
    """Whether a job's script sets the profile's variables before the worker starts."""
    checks_code_origin: ClassVar[bool] = True
    """Whether the worker imports the user's code again and must check that it comes from the snapshot."""

    @abstractmethod
    def check(self, root: Root, environ: Mapping[str, str]) -> None:
        """Refuse a submission that could not work here. Nothing is written to the root.

        Raises:
            UserError: why it could not work.
        """

    def warnings(
        self, profile: Profile, root: Root, environ: Mapping[str, str], variables: Iterable[str]
    ) -> tuple[str, ...]:
        """Return warnings about a submission; `variables` are the `${NAME}` that its configs use."""
        return ()

    def check_imports(
        self, files: ExperimentFiles, profile: Profile, code: Any, modules: Sequence[str]
    ) -> tuple[str, ...]:
        """Import what a job will import, and return warnings.

        Raises:
            UserError: the import fails.
        """
        return ()

    def recorded_variables(
        self, names: Iterable[str], environ: Mapping[str, str]
    ) -> Mapping[str, str] | None:
        """Return the variables whose values a submission records for its workers; None for no record."""
        return None

    def reconcile(
        self, submissions: Sequence[Submission], run_ids: Collection[str] | None = None
    ) -> dict[str, str]:
        """Complete or undo the work of a killed submitter; return the jobs to replace, by run.

        With `run_ids`, the jobs of other runs are left unchanged.

        Raises:
            SystemRefused: the scheduler does not answer.
        """
        return {}

    @abstractmethod
    def submit(self, request: SubmitRequest) -> SubmitResult:
        """Record a submission and submit its runs.

        Raises:
            SystemRefused: the file system or the cluster refused.
        """

    def start(self, root: Root, files: ExperimentFiles, submission: Submission, is_due: bool) -> None:
        """Start the submitted runs, after the experiment's lock is released.

        `is_due` says whether any run of the experiment is due or active.

        Raises:
            SystemRefused: they cannot be started.
        """
        return None

    def submit_calls(self, runs: int, profile: Profile) -> int:
        """Return the number of sbatch calls that `runs` runs take."""
        return 0

    @abstractmethod
    def states(self, root: Root, runs: Sequence[OpenRun], *, tolerant: bool) -> SchedulerStates:
        """Return the scheduler's states of runs.

        With `tolerant`, runs are `silent` if the scheduler does not answer.

        Raises:
            SystemRefused: the scheduler does not answer, and not `tolerant`.
        """

    def cancel(self, submissions: Sequence[Submission], run_ids: Collection[str]) -> None:
        """End the jobs of runs that already have a cancel marker.

        Raises:
            SystemRefused: the scheduler refused, or does not answer.
        """
        return None

    def own_job_id(self) -> str | None:
        """Return the id of this process' job; None if this scheduler did not start the process."""
        return None

    def restarts_crashed_runs(self, profile: Mapping[str, Any]) -> bool:
        """Return whether it restarts crashed runs, given a profile as a submission records it."""
        return False

    def log_folder(self, files: ExperimentFiles, run_id: str) -> Path:
        """Return the folder of a run's log files."""
        return files.submitit

    @property
    def log_absence(self) -> str | None:
        """Why runs have no log at all; None if runs have a log after they start."""
        return None
