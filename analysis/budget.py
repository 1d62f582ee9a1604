"""The definitions of a comparison within a budget.

* **Best loss within budget b**: the least validation loss over the evaluations with train_seconds ≤ b
  (or step ≤ b), the earlier on ties. A non-finite evaluation is never best. A run that diverges later
  keeps its earlier best, and is complete. Means over seeds leave out seeds without a value; notes count them.
* **Test loss**: the one of that same evaluation.
* **Steps reached**: the step of the last window end within b. Where no window has ended yet, the step of
  the last evaluation within b: at least so many steps were done.
* **Complete**: the run reached b, or it finished earlier.
* **Left out**: an evaluation that took place only because of a stop which was later raised; otherwise a
  run that was continued would have more chances under its minimum than one that ran through.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Generic, Literal, TypeVar

from ..store.queries import EvaluationRow, WindowRow

Kind = Literal["seconds", "steps"]
"""What a budget counts: train_seconds, or steps done."""
KINDS: tuple[Kind, ...] = ("seconds", "steps")

Row = TypeVar("Row", EvaluationRow, WindowRow)
Folded = TypeVar("Folded")


@dataclass(frozen=True)
class BudgetResult:
    """The result of one run within a budget; None where there is no value."""

    best_validation_loss: float | None = None
    test_loss_at_best: float | None = None
    step_at_best: int | None = None
    train_seconds_at_best: float | None = None
    steps_reached: int | None = None
    complete: bool = False


@dataclass(frozen=True)
class Curve:
    """One run as budgets see it: its evaluations, window ends, position, and whether it has finished.

    `step` and `train_seconds` say how far the run got; `finished` that it will not go further by itself.
    """

    evaluations: tuple[EvaluationRow, ...]
    windows: tuple[WindowRow, ...]
    step: int
    train_seconds: float
    finished: bool

    @classmethod
    def of(
        cls,
        evaluations: Iterable[EvaluationRow],
        windows: Iterable[WindowRow],
        *,
        finished: bool,
        step: int = 0,
        train_seconds: float = 0.0,
    ) -> Curve:
        """Return the curve, without evaluations at stops that were later raised."""
        evaluated, ended = tuple(evaluations), tuple(windows)
        records: list[EvaluationRow | WindowRow] = [*evaluated, *ended]
        points = [(row.step, row.train_seconds) for row in records]
        last_step = max([step, *(point[0] for point in points)])
        last_seconds = max([train_seconds, *(point[1] for point in points)])
        rows = tuple(row for row in evaluated if not (row.at_stop and row.step < last_step))
        return cls(rows, ended, last_step, last_seconds, finished)

    def outcome(self, limit: float | None, kind: Kind) -> BudgetResult:
        """Return what was reached within `limit` seconds or steps; no values for None, an unknown budget."""
        if limit is None:
            return BudgetResult(complete=self.finished)
        best = self._best_evaluations[kind].within(limit)
        return BudgetResult(
            best_validation_loss=None if best is None else best.losses["validation"],
            test_loss_at_best=None if best is None else _finite_or_none(best.losses.get("test")),
            step_at_best=None if best is None else best.step,
            train_seconds_at_best=None if best is None else best.train_seconds,
            steps_reached=self.steps_reached(limit, kind),
            complete=self.finished or position(self, kind) >= limit,
        )

    def steps_reached(self, limit: float, kind: Kind) -> int | None:
        """Return the step of the last window end (else of the last evaluation) within `limit`."""
        windows, evaluations = self._steps_done[kind]
        reached = windows.within(limit)
        return evaluations.within(limit) if reached is None else reached

    def seconds_at(self, step: int) -> float | None:
        """Return the train_seconds at which `step` steps were done; None while they are not.

        Between two records the time is interpolated linearly; before the first it counts from 0.
        """
        before = (0, 0.0)
        for point in self._step_times:
            if point[0] >= step:
                share = (step - before[0]) / max(point[0] - before[0], 1)
                return point[1] if point[0] == step else before[1] + share * (point[1] - before[1])
            before = point
        return None

    def seconds_within(self, limit: float, kind: Kind) -> float:
        """Return the train_seconds spent within `limit`."""
        if kind == "seconds":
            return min(limit, self.train_seconds)
        reached = self.seconds_at(math.floor(limit)) if limit <= self.step else None
        return self.train_seconds if reached is None else reached

    @cached_property
    def _step_times(self) -> list[tuple[int, float]]:
        """Every recorded (step, train_seconds), in order, one per step."""
        rows: list[EvaluationRow | WindowRow] = [*self.evaluations, *self.windows]
        seconds_by_step = {row.step: row.train_seconds for row in rows} | {self.step: self.train_seconds}
        return sorted(seconds_by_step.items())

    @cached_property
    def _best_evaluations(self) -> dict[Kind, RunningFold[EvaluationRow | None]]:
        return {kind: _fold_rows(self.evaluations, kind, _better_evaluation, None) for kind in KINDS}

    @cached_property
    def _steps_done(self) -> dict[Kind, tuple[RunningFold[int], RunningFold[int]]]:
        return {
            kind: (
                _fold_rows(self.windows, kind, _later_step, 0),
                _fold_rows(self.evaluations, kind, _later_step, 0),
            )
            for kind in KINDS
        }


@dataclass(frozen=True)
class RunningFold(Generic[Folded]):
    """What holds after each record along an axis: twenty budgets then cost twenty bisections."""

    positions: Sequence[float]
    values: Sequence[Folded]

    def within(self, limit: float) -> Folded | None:
        """Return what holds after the records at positions ≤ `limit`; None before the first."""
        count = bisect_right(self.positions, limit)
        return self.values[count - 1] if count else None


def _fold_rows(
    rows: Iterable[Row], kind: Kind, fold: Callable[[Folded, Row], Folded], start: Folded
) -> RunningFold[Folded]:
    """Return every intermediate value of a fold over the rows in the order of `kind`, then of steps."""
    ordered = sorted(rows, key=lambda row: (position(row, kind), row.step))
    stages, stage = [], start
    for row in ordered:
        stage = fold(stage, row)
        stages.append(stage)
    return RunningFold([position(row, kind) for row in ordered], stages)


def position(row: EvaluationRow | WindowRow | Curve, kind: Kind) -> float:
    """Return the position of `row` on the axis that the budget counts."""
    return row.train_seconds if kind == "seconds" else row.step


def _better_evaluation(best: EvaluationRow | None, row: EvaluationRow) -> EvaluationRow | None:
    """Return `row` if its validation loss is finite and less than that of `best`."""
    loss = _finite_or_none(row.losses.get("validation"))
    if loss is None:
        return best
    return row if best is None or loss < best.losses["validation"] else best


def _later_step(step: int, row: EvaluationRow | WindowRow) -> int:
    return max(step, row.step)


def _finite_or_none(loss: float | None) -> float | None:
    return loss if loss is not None and math.isfinite(loss) else None
