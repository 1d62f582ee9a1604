"""How the runs of an experiment are doing: the index, joined with what their schedulers say.

Reading changes nothing but the index.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import UserError
from ..problems import nearest
from ..store import submissions
from ..store.layout import Root
from ..store.queries import RunRow
from .standing import Standing, is_open, newest, standings
from .states import STATES, Account, State


@dataclass(frozen=True)
class RunStatus:
    """One run; losses and rates are None where there is none, or no finite one."""

    id: str
    name: str
    baseline: str | None
    params: dict[str, Any]
    config: dict[str, Any]
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
    job: dict[str, Any] | None

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON values, without the config."""
        return {key: value for key, value in asdict(self).items() if key != "config"}


@dataclass(frozen=True)
class ExperimentStatus:
    """All runs of an experiment."""

    experiment: str
    runs: tuple[RunStatus, ...]
    damaged: tuple[str, ...] = ()
    """Files with lines that could not be read and were left out."""

    @property
    def counts(self) -> dict[State, int]:
        """How many runs are in each state that occurs, in the order of `STATES`."""
        found = Counter(run.state for run in self.runs)
        return {state: found[state] for state in STATES if found[state]}

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        runs = [run.as_dict() for run in self.runs]
        found = {"experiment": self.experiment, "counts": self.counts, "runs": runs}
        return {**found, "damaged": list(self.damaged)}


def status(root: Root, experiment: str) -> ExperimentStatus:
    """Return how the runs of an experiment stand.

    Raises:
        UserError: there is no such experiment under the root.
    """
    names = [files.name for files in root.experiments()]
    if experiment not in names:
        raise UserError(f"no experiment '{experiment}' under {root.path}", _hint(experiment, names))
    rows, damaged = _read(root, experiment)
    found = _standings(root, experiment, rows)
    runs = tuple(_run_status(row, found[row.id]) for row in rows)
    return ExperimentStatus(experiment, runs, tuple(damaged))


def _hint(experiment: str, names: Sequence[str]) -> str:
    guess = nearest(experiment, names)
    known = f"there are: {', '.join(names)}" if names else "nothing was submitted there; see --root"
    return f"did you mean '{guess}'?" if guess else known


def _read(root: Root, experiment: str) -> tuple[list[RunRow], list[str]]:
    from ..store import queries
    from ..store.database import open_store

    with open_store(root) as store:
        store.sync([experiment])
        return queries.runs(store.db, experiment), queries.damage(store.db, experiment)


def _standings(root: Root, experiment: str, rows: Sequence[RunRow]) -> Mapping[str, Standing]:
    files = root.experiment(experiment)
    accounts = {row.id: _account(row) for row in rows}
    anything_open = any(is_open(account) for account in accounts.values())
    sent = newest(submissions.read_all(files)) if anything_open else {}
    return standings(root, files, sent, accounts, tolerant=True)


def _account(row: RunRow) -> Account:
    sent_since = row.last_submission is not None and row.attempt_submission not in (row.last_submission, None)
    return Account(
        attempts=row.attempts,
        end=row.end_status,
        event=row.last_event,
        reason=row.end_reason if row.end_status is not None else row.last_event_reason,
        sent_since=sent_since or row.attempts == 0,
        cancelled=row.cancelled,
    )


def _run_status(row: RunRow, standing: Standing) -> RunStatus:
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
        job=None if row.job is None else asdict(row.job),
    )


def _share_done(row: RunRow) -> float:
    """Return how much of its `stop` a run has done; 0 where no submission tells its stop any more."""
    stop = row.config.get("stop") or {}
    bounds = ((row.step, stop.get("steps")), (row.train_seconds, stop.get("train_seconds")))
    shares = [done / bound for done, bound in bounds if bound is not None]
    return min(1.0, max(shares, default=0.0))


def _eta(row: RunRow, share: float) -> float | None:
    return row.train_seconds * (1 - share) / share if share > 0 else None


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
