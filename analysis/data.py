"""The records of one experiment, read once from the index."""

from __future__ import annotations

import difflib
import math
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ..errors import UserError
from ..store import queries
from ..store.queries import AlphaRow, AttemptRow, EvaluationRow, EventRow, RunRow, WindowRow
from .budget import Curve

FINISHED = ("completed", "diverged")


@dataclass(frozen=True)
class RunData:
    """One run with everything that was recorded of it, superseded records left out."""

    row: RunRow
    evaluations: tuple[EvaluationRow, ...] = ()
    windows: tuple[WindowRow, ...] = ()
    attempts: tuple[AttemptRow, ...] = ()
    events: tuple[EventRow, ...] = ()
    alphas: tuple[AlphaRow, ...] = ()

    @property
    def baseline(self) -> str | None:
        """The name of the baseline that this run is, if it is one."""
        return self.row.baseline

    def config_section(self, name: str) -> Mapping[str, Any]:
        """Return a section of the config; empty where the config has none."""
        section: Mapping[str, Any] = self.row.config.get(name) or {}
        return section

    @property
    def stop(self) -> Mapping[str, Any]:
        """The newest `stop` section."""
        return self.config_section("stop")

    @property
    def schedule_steps(self) -> int | None:
        """`schedule.total_steps`; None without a schedule that has it."""
        return self.config_section("schedule").get("total_steps")

    @property
    def finished(self) -> bool:
        """Whether the run completed or diverged, and was not submitted again since."""
        sent_since = self.row.attempt_submission not in (self.row.last_submission, None)
        return self.row.end_status in FINISHED and not sent_since

    @property
    def diverged(self) -> bool:
        """Whether the run ended because its loss was no longer finite."""
        return self.finished and self.row.end_status == "diverged"

    @property
    def best_loss(self) -> float | None:
        """The best validation loss over the whole length; None without a finite one."""
        return self.curve.outcome(math.inf, "steps").best_validation_loss

    @cached_property
    def curve(self) -> Curve:
        """The run as budgets see it."""
        return Curve.of(
            self.evaluations,
            self.windows,
            finished=self.finished,
            step=self.row.step,
            train_seconds=self.row.train_seconds,
        )


@dataclass(frozen=True)
class ExperimentData:
    """All runs of an experiment: those the newest spec names first, in its order."""

    experiment: str
    runs: tuple[RunData, ...]
    damaged: tuple[str, ...] = ()
    """Files with lines that could not be read and were left out."""


def load(db: sqlite3.Connection, experiment: str, *, details: bool = True) -> ExperimentData:
    """Read an experiment from the index; without `details` only what budgets need (no events, no α*).

    Raises:
        UserError: there is no such experiment.
    """
    rows = queries.runs(db, experiment)
    if not rows:
        raise _no_such_experiment(db, experiment)
    evaluations, windows = queries.evaluations_of(db, experiment), queries.windows_of(db, experiment)
    attempts = queries.attempts_of(db, experiment)
    events = queries.events_of(db, experiment) if details else {}
    alphas = queries.alphas_of(db, experiment) if details else {}
    runs = [
        RunData(
            row=row,
            evaluations=tuple(evaluations.get(row.key, ())),
            windows=tuple(windows.get(row.key, ())),
            attempts=tuple(attempts.get(row.key, ())),
            events=tuple(events.get(row.key, ())),
            alphas=tuple(alphas.get(row.key, ())),
        )
        for row in rows
    ]
    return ExperimentData(experiment, tuple(runs), tuple(queries.damage(db, experiment)))


def _no_such_experiment(db: sqlite3.Connection, name: str) -> UserError:
    experiments = queries.experiments(db)
    near = difflib.get_close_matches(name, experiments, 1)
    hint = f"did you mean {near[0]}?" if near else f"experiments here: {', '.join(experiments) or 'none'}"
    return UserError(f"there is no experiment '{name}' under this root", hint)
