"""Dependence of methods on their starting rate: best loss over rates, and regret to a tuned schedule."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from ..comparison import Comparison, ReportData
from ..plots.figure import Figure
from ..plots.loss_by_rate import draw_losses_by_rate
from ..regret import (
    FEWEST_RATES,
    Best,
    Method,
    RateComparison,
    Regret,
    Trial,
    percent_above,
    rate_comparisons,
    spread_over_rates,
)
from ..statistics import deviation_of, mean_of
from ..tables import Cell, Table, decimals_to_differ, significant
from .base import ReportSection
from .budget import loss_text

TITLE = "Robustness against the starting rate"
COLUMNS = (
    "workload",
    "method",
    "rates",
    "best rate",
    "best validation loss",
    "regret (%)",
    "regret (SDs)",
    "at the median rate (%)",
    "at the worst rate (%)",
    "notes",
)
RAW_COLUMNS = (
    "workload",
    "method",
    "rates",
    "best_rate",
    "best_validation_loss",
    "best_validation_loss_sd",
    "n",
    "regret_percent",
    "regret_sds",
    "regret_at_median_rate_percent",
    "regret_at_worst_rate_percent",
    "reference",
    "reference_n",
    "notes",
)
RIGHT = (False, False, *[True] * 7, False)
REGRET = (
    "Regret: how much higher the best validation loss is than that of the reference at its best rate, in per "
    "cent and in the larger of the two seeds' SDs. Median and worst: the same at the median and the worst of "
    "a method's own rates. Mean ± SD (n) over seeds."
)


@dataclass(frozen=True)
class _Scope:
    """The full runs, or a budget: what is compared."""

    slug: str
    within: str
    rate_comparisons: list[RateComparison]


@dataclass(frozen=True)
class _Row:
    """One method on one workload, with its rates or without one."""

    comparison: RateComparison
    method: Method
    trial: Trial

    @property
    def free(self) -> bool:
        return self.trial.rate is None

    @property
    def name(self) -> str:
        return f"{self.method.name}, no rate" if self.free else self.method.name

    @property
    def regret(self) -> Regret | None:
        best = None if self.comparison.reference is None else self.comparison.reference.best
        return None if best is None else Regret.of(self.trial, best)

    @property
    def spread(self) -> tuple[float | None, float | None]:
        """The regrets at the median and at the worst of its rates [%]."""
        best = None if self.comparison.reference is None else self.comparison.reference.best
        losses = None if self.free else spread_over_rates(self.method)
        if best is None or losses is None:
            return None, None
        return percent_above(losses[0], best.loss), percent_above(losses[1], best.loss)

    @property
    def notes(self) -> str:
        marks = [
            ("reference", self.method is self.comparison.reference and not self.free),
            ("best at the edge of its rates", self.method.at_edge and not self.free),
            ("a seed without a finite loss", None in self.trial.losses),
        ]
        return ", ".join(text for text, applies in marks if applies)


class RobustnessSection(ReportSection):
    """The section “Robustness against the starting rate”."""

    title = TITLE

    def applies(self, data: ReportData) -> bool:
        """Return whether several methods were run, one of them at three or more starting rates."""
        return bool(_comparison_scopes(data)[0].rate_comparisons)

    def tables(self, data: ReportData) -> list[Table]:
        """Return the regrets over the full runs, and within each requested budget."""
        return [_regret_table(data, scope) for scope in _comparison_scopes(data) if scope.rate_comparisons]

    def figures(self, data: ReportData) -> list[Figure]:
        """Return one figure for each table, with one panel for each workload."""
        return [_scope_figure(scope) for scope in _comparison_scopes(data) if scope.rate_comparisons]


def _comparison_scopes(data: ReportData) -> list[_Scope]:
    full_runs = rate_comparisons(data.experiment.runs, lambda run: run.best_loss)
    scopes = [_Scope("robustness", "over the full runs", full_runs)]
    for comparison in data.on_both_clocks if data.explicit_budgets else ():
        methods = rate_comparisons(comparison.runs, _best_loss_within(comparison))
        scopes.append(_Scope(f"robustness-{comparison.slug}", f"within {comparison.title}", methods))
    return scopes


def _best_loss_within(comparison: Comparison) -> Best:
    budget = comparison.budget
    return lambda run: run.curve.outcome(budget.limit(run), budget.kind).best_validation_loss


def _regret_table(data: ReportData, scope: _Scope) -> Table:
    rows = [row for comparison in scope.rate_comparisons for row in _ranked_rows(comparison)]
    decimals = decimals_to_differ(
        [row.trial.loss for row in rows if math.isfinite(row.trial.loss)], at_most=6
    )
    return Table(
        name=scope.slug,
        title=_scope_title(scope),
        columns=COLUMNS,
        shown=tuple(_shown_row(row, decimals) for row in rows),
        raw_columns=RAW_COLUMNS,
        rows=tuple(_raw_row(row) for row in rows),
        right=RIGHT,
        notes=(
            REGRET,
            *(note for comparison in scope.rate_comparisons for note in _reference_notes(comparison)),
            *_unfinished_note(data),
        ),
    )


def _scope_title(scope: _Scope) -> str:
    return TITLE if scope.slug == "robustness" else f"{TITLE}, {scope.within}"


def _ranked_rows(comparison: RateComparison) -> list[_Row]:
    """Return the methods on a workload, the lowest loss first."""
    rows = [
        _Row(comparison, method, trial)
        for method in comparison.methods
        for trial in (method.best, method.free)
        if trial is not None
    ]
    return sorted(rows, key=lambda row: row.trial.loss)


def _shown_row(row: _Row, decimals: int) -> tuple[str, ...]:
    regret = row.regret
    deviations = None if regret is None else regret.deviations
    return (
        row.comparison.workload,
        row.name,
        "–" if row.free else str(len(row.method.trials)),
        "–" if row.trial.rate is None else f"{row.trial.rate:g}",
        loss_text(row.trial.summary, decimals),
        _percent_text(None if regret is None else regret.percent),
        "–" if deviations is None else f"{deviations:+.2f}",
        *map(_percent_text, row.spread),
        row.notes,
    )


def _percent_text(value: float | None) -> str:
    """Return per cents with their sign; very large ones without rounding."""
    if value is None or not math.isfinite(value):
        return "–" if value is None else f"{value:g}"
    return f"{value:+.1f}" if abs(value) < 1e4 else "+" * (value > 0) + significant(value, 2)


def _raw_row(row: _Row) -> tuple[Cell, ...]:
    summary, regret, reference = row.trial.summary, row.regret, row.comparison.reference
    best = None if reference is None or reference.best is None else reference.best.summary
    return (
        row.comparison.workload,
        row.name,
        None if row.free else len(row.method.trials),
        row.trial.rate,
        mean_of(summary),
        deviation_of(summary),
        0 if summary is None else summary.n,
        None if regret is None else regret.percent,
        None if regret is None else regret.deviations,
        *row.spread,
        None if reference is None else reference.name,
        0 if best is None else best.n,
        row.notes,
    )


def _reference_notes(comparison: RateComparison) -> Iterator[str]:
    """Return a note that names the reference, and what it means for the regrets."""
    reference = comparison.reference
    if reference is None or reference.best is None:
        yield f"{comparison.workload}: no method has a loss yet."
        return
    name = f"{comparison.workload}: the reference {reference.name}"
    if reference.schedule is None:
        yield f"{name} is the best tuned method: none of those with a rate has a schedule that acts."
    if len(reference.trials) < FEWEST_RATES:
        yield f"{name} had {len(reference.trials)} rates only: it is hardly tuned, and regrets may be larger."
    elif reference.at_edge:
        yield (
            f"{name} is best at the edge of its rates ({reference.best.rate:g}): tuned further it may be "
            "better, and regrets larger."
        )


def _unfinished_note(data: ReportData) -> list[str]:
    waiting = sum(not run.finished for run in data.experiment.runs)
    return [f"{waiting} of {len(data.experiment.runs)} runs have not finished."] if waiting else []


def _scope_figure(scope: _Scope) -> Figure:
    caption = (
        f"Best validation loss against the starting rate, {scope.within}: mean over seeds, bars: ± 1 SD. "
        "Dashed levels: methods that were given no rate, shaded by ± 1 SD. Dotted, circled: the best of the "
        "reference. Equal rates are drawn a little apart."
    )
    return Figure(
        scope.slug, _scope_title(scope), caption, partial(draw_losses_by_rate, scope.rate_comparisons)
    )
