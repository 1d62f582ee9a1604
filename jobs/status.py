"""How the runs of an experiment are doing: the index, joined with what their schedulers say.

Reading changes nothing but the index.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from ..store.layout import Root
from ..store.rows import RunRow, SenderRow
from . import causes, logs
from .causes import Cause
from .collector import collector_paused
from .known import Known
from .logs import Outlook
from .standing import Answers, Standing, ask, stand
from .states import ACTIVE, STATES, UNSURE, State

if TYPE_CHECKING:
    from sqlite3 import Connection

    from ..store.database import Store

LOG_LINES = 5
"""How much of a log is shown with a cause."""


@dataclass(frozen=True)
class RunStatus:
    """One run; losses and rates are None where there is none, or no finite one."""

    id: str
    name: str
    baseline: str | None
    params: dict[str, Any]
    config: Mapping[str, Any]
    named: bool
    """Whether the newest specification names it."""
    state: State
    reason: str | None
    step: int
    train_seconds: float
    best_validation_loss: float | None
    learning_rate: float | None
    attempts: int
    percent_done: float
    """Of its `stop`, 0 to 100: the further of steps and train_seconds."""
    last_seen: float | None
    """Unix time of its newest record."""
    eta_seconds: float | None
    """Training time that is left at its present pace, while it runs."""
    checkpoint_step: int | None
    checkpoint_bytes: int | None
    checkpoint_seconds: float | None
    """How long writing the last one took."""
    superseded: int
    cluster: str | None
    """slurm, local or debug: where its newest submission sent it."""
    job: dict[str, Any] | None
    is_certain: bool = True
    """Whether everybody could be asked who may know of it."""
    rejected: Mapping[str, int] = field(default_factory=dict)
    """How many α*, or windows of them, its policy rejected, by the reason."""

    @property
    def goes_on(self) -> bool:
        """Whether it will go on by itself, or may, as far as can be told."""
        return self.state in ACTIVE or (self.state in UNSURE and not self.is_certain)

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON values, without the config."""
        return {key: value for key, value in vars(self).items() if key != "config"}


@dataclass(frozen=True)
class ExperimentStatus:
    """All runs of an experiment."""

    experiment: str
    runs: tuple[RunStatus, ...]
    damaged: tuple[str, ...] = ()
    """Files with lines that could not be read and were left out."""
    causes: tuple[Cause, ...] = ()
    """Why runs failed, were interrupted or are lost, each cause once."""
    notes: tuple[str, ...] = ()
    """What the schedulers did not say, and why."""
    warnings: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """What runs warn of in their journals, each with the names of the runs."""

    @property
    def goes_on(self) -> bool:
        """Whether anything of it will go on by itself, or may."""
        return any(run.goes_on for run in self.runs)

    @property
    def is_unsure(self) -> bool:
        """Whether another look may tell otherwise of a run that seems to be over: squeue leaves out jobs."""
        return any(run.cluster == "slurm" and run.state in UNSURE for run in self.runs)

    @property
    def counts(self) -> dict[State, int]:
        """How many runs are in each state that occurs, in the order of `STATES`."""
        found = Counter(run.state for run in self.runs)
        return {state: found[state] for state in STATES if found[state]}

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


def status(root: Root, experiment: str) -> ExperimentStatus:
    """Return how the runs of an experiment stand.

    Raises:
        UserError: there is no such experiment under the root.
    """
    names = [files.name for files in root.experiments()]
    if experiment not in names:
        raise UserError(f"no experiment '{experiment}' under {root.path}", _hint(experiment, names))
    return _look(root, [experiment])[0]


def overview(root: Root) -> list[ExperimentStatus]:
    """Return how the runs of all experiments stand; Slurm is asked once for all."""
    return _look(root, [files.name for files in root.experiments()])


def outlook(root: Root, experiment: str, run_id: str) -> Outlook:
    """Return what a reader of a run's log has to know of the run."""
    from ..store import queries

    run = next(run for run in status(root, experiment).runs if run.id == run_id)
    with _open(root) as store:
        jobs = queries.jobs(store.db, experiment, run_id)
    return Outlook(run.name, run.state, run.reason, run.cluster, tuple(jobs), run.goes_on)


def _hint(experiment: str, names: Sequence[str]) -> str:
    from ..problems import nearest  # and with it, YAML

    guess = nearest(experiment, names)
    known = f"there are: {', '.join(names)}" if names else "nothing was submitted there; see --root"
    return f"did you mean '{guess}'?" if guess else known


def _look(root: Root, experiments: Sequence[str]) -> list[ExperimentStatus]:
    with collector_paused(), _open(root) as store:
        store.sync(experiments)
        known = [Known.read(store.db, root.experiment(name)) for name in experiments]
        answers = ask([one.party for one in known], tolerant=True)
        return [_joined(root, store.db, one, answers) for one in known]


def _open(root: Root) -> Store:
    from ..store.database import open_store

    return open_store(root)


def _joined(root: Root, db: Connection, known: Known, answers: Answers) -> ExperimentStatus:
    standing = stand(root, known.party, answers)
    runs = tuple(
        _run_status(
            row,
            standing[row.id],
            known.senders.get(row.last_submission or ""),
            known.rejections.get(row.key, {}),
        )
        for row in known.rows
    )
    found = _illustrated(db, known, causes.causes(runs))
    warnings = _warnings(db, known)
    return ExperimentStatus(known.files.name, runs, known.damaged, tuple(found), answers.notes, warnings)


def _warnings(db: Connection, known: Known) -> dict[str, tuple[str, ...]]:
    """Return what runs warn of that the specification names, with the runs' names."""
    from ..store import queries

    names = {row.id: row.name for row in known.rows if row.named}
    found = queries.warnings(db, known.files.name)
    named = {text: tuple(names[run] for run in runs if run in names) for text, runs in found.items()}
    return {text: runs for text, runs in named.items() if runs}


def _illustrated(db: Connection, known: Known, found: list[Cause]) -> list[Cause]:
    """Add where the runs of a cause ran last, and the end of a log."""
    from ..store import queries

    if not found:
        return []
    jobs = {row.id: [row.job] if row.job else [] for row in known.rows}
    return causes.illustrate(
        found,
        queries.hosts(db, known.files.name),
        lambda run_id: _end_of_log(known, run_id, jobs[run_id]),
    )


def _end_of_log(known: Known, run_id: str, jobs: Sequence[logs.Job]) -> list[str]:
    """Return the last lines of a run's log; none where it, or a journal that names it, cannot be read."""
    try:
        return logs.tail(known.files, run_id, jobs, LOG_LINES)
    except (OSError, UserError):
        return []


def _run_status(
    row: RunRow, standing: Standing, sender: SenderRow | None, rejected: Mapping[str, int]
) -> RunStatus:
    done = _share_done(row)
    return RunStatus(
        id=row.id,
        name=row.name,
        baseline=row.baseline,
        params=row.params,
        config=row.config,
        named=row.named,
        state=standing.state,
        reason=standing.reason,
        step=row.step,
        train_seconds=row.train_seconds,
        best_validation_loss=_finite(row.best_validation_loss),
        learning_rate=_finite(row.learning_rate),
        attempts=row.attempts,
        percent_done=100.0 if standing.state == "completed" else round(100 * done, 1),
        last_seen=row.last_seen,
        eta_seconds=_eta(row, done) if standing.state == "running" else None,
        checkpoint_step=row.checkpoint_step,
        checkpoint_bytes=row.checkpoint_bytes,
        checkpoint_seconds=row.checkpoint_seconds,
        superseded=row.superseded,
        cluster=None if sender is None else sender.cluster,
        job=None if row.job is None else dict(vars(row.job)),
        is_certain=standing.is_certain,
        rejected=rejected,
    )


def _share_done(row: RunRow) -> float:
    """Return how much of its `stop` a run has done; 0 where no submission tells its stop any more."""
    bounds = ((row.step, row.stop.get("steps")), (row.train_seconds, row.stop.get("train_seconds")))
    shares = [done / bound for done, bound in bounds if bound]
    return min(1.0, max(shares, default=0.0))


def _eta(row: RunRow, share: float) -> float | None:
    return row.train_seconds * (1 - share) / share if share > 0 else None


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
