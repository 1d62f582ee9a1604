"""Law 5, and the definitions of a budget against an oracle that does it the long way."""

from __future__ import annotations

import math

from alphagrid.analysis.budget import BudgetResult, Curve, Kind
from alphagrid.store.queries import EvaluationRow, WindowRow
from hypothesis import given
from hypothesis import strategies as st

LOSSES = st.one_of(st.sampled_from([0.1, 0.2, 0.3, math.nan, math.inf, -math.inf]), st.floats(0, 3))
KINDS = st.sampled_from(["seconds", "steps"])
LIMITS = st.one_of(st.integers(0, 40).map(float), st.floats(0, 50))
GAPS = st.tuples(st.integers(1, 3), st.sampled_from([0.0, 0.5, 1.0, 2.5]))


@st.composite
def curves(draw: st.DrawFn) -> Curve:
    """Draw a run: records at growing steps, whose times do not fall; some evaluations at stops."""
    step, seconds = 0, 0.0
    evaluations, windows = [], []
    for more_steps, more_seconds in draw(st.lists(GAPS, max_size=12)):
        step, seconds = step + more_steps, seconds + more_seconds
        if draw(st.booleans()):
            losses = {"validation": draw(LOSSES), "test": draw(LOSSES)}
            evaluations.append(EvaluationRow(step, seconds, 1, 0.0, losses, {}, 0.0, draw(st.booleans())))
        if draw(st.booleans()):
            windows.append(WindowRow(step, seconds, 1, 0.0, 1, 0, 1.0, 0.1, 0.1, 0.1, {}))
    return Curve.of(evaluations, windows, finished=draw(st.booleans()), step=step, train_seconds=seconds)


@given(curves(), LIMITS, LIMITS, KINDS)
def test_more_budget_never_gives_a_worse_best(curve: Curve, one: float, other: float, kind: Kind) -> None:
    less, more = curve.outcome(min(one, other), kind), curve.outcome(max(one, other), kind)
    if less.best_validation_loss is not None:
        assert more.best_validation_loss is not None
        assert more.best_validation_loss <= less.best_validation_loss
    assert (more.steps_reached or 0) >= (less.steps_reached or 0)
    assert less.complete or not more.complete


@given(curves(), LIMITS, KINDS)
def test_an_outcome_is_what_the_definitions_say(curve: Curve, limit: float, kind: Kind) -> None:
    assert repr(curve.outcome(limit, kind)) == repr(_oracle(curve, limit, kind))


@given(curves(), LIMITS)
def test_the_order_of_the_records_does_not_matter(curve: Curve, limit: float) -> None:
    turned = Curve.of(
        curve.evaluations[::-1],
        curve.windows[::-1],
        finished=curve.finished,
        step=curve.step,
        train_seconds=curve.train_seconds,
    )
    assert repr(turned.outcome(limit, "steps")) == repr(curve.outcome(limit, "steps"))


@given(curves())
def test_evaluations_at_stops_that_were_passed_are_left_out(curve: Curve) -> None:
    assert all(row.step == curve.step for row in curve.evaluations if row.at_stop)


def _oracle(curve: Curve, limit: float, kind: Kind) -> BudgetResult:
    """Apply each sentence of the definitions by itself."""

    def at(row: EvaluationRow | WindowRow) -> float:
        return row.train_seconds if kind == "seconds" else row.step

    within = [row for row in curve.evaluations if at(row) <= limit]
    finite = [row for row in within if math.isfinite(row.losses["validation"])]
    best = min(finite, key=lambda row: (row.losses["validation"], at(row), row.step), default=None)
    ends = [row.step for row in curve.windows if at(row) <= limit]
    reached = max(ends) if ends else max((row.step for row in within), default=None)
    complete = curve.finished or (curve.train_seconds if kind == "seconds" else curve.step) >= limit
    if best is None:
        return BudgetResult(steps_reached=reached, complete=complete)
    loss, test = best.losses["validation"], best.losses["test"]
    at_best = (loss, test if math.isfinite(test) else None, best.step, best.train_seconds)
    return BudgetResult(*at_best, reached, complete)
