"""The α* that were measured, with their intervals: over steps, and their statistics by estimator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from ..alphas import (
    SCALES,
    Scale,
    after_vanishing_rates,
    estimator_values,
    has_alphas,
    recorded_estimators,
    summarise_values,
)
from ..comparison import ReportData
from ..configurations import Configuration
from ..plots.alpha_panels import draw_alpha_panels
from ..plots.figure import Figure
from ..tables import Cell, Table
from .base import ReportSection

TITLE = "α* observations"
COLUMNS = (
    "configuration",
    "estimator",
    "α*",
    "n",
    "undefined",
    "mean",
    "median",
    "SD",
    "negative (%)",
    "mean SE",
    "batch noise (%)",
)
NOTE = "Relative: a factor on the step taken; absolute: a learning rate. Undefined values are left out."
ERRORS = (
    "SE: standard error of a single value, from the examples of its batch, by the delta method. Batch noise: "
    "the mean of SE² in per cent of SD², the share of the spread that the noise of batches explains; it may "
    "exceed 100 where curvatures come near zero."
)
BEGINNING = (
    "Steps at a rate below 1e-6 of the run's highest are left out: where a warm-up begins from nothing, "
    "relative α* means nothing."
)
SUMMED = "≈: from summaries of windows, the median of their medians."
MOST = 12
"""The maximum number of configurations drawn."""


class AlphaObservationsSection(ReportSection):
    """The section “α* observations”."""

    title = TITLE

    def applies(self, data: ReportData) -> bool:
        """Return whether any α* was recorded."""
        return bool(_configurations_with_alpha(data))

    def tables(self, data: ReportData) -> list[Table]:
        """Return the statistics of each configuration and estimator, seeds pooled."""
        marked_rows = [
            row
            for configuration in _configurations_with_alpha(data)
            for row in _statistics_rows(configuration)
        ]
        rows = [row for row, _ in marked_rows]
        left_out = any(len(after_vanishing_rates(run)) < len(run.alphas) for run in data.experiment.runs)
        notes = [NOTE, *([BEGINNING] if left_out else [])]
        if any(row[9] is not None for row in rows):
            notes.append(ERRORS)
        else:
            rows = [row[:9] for row in rows]
        table = Table.of("alpha-observations", TITLE, COLUMNS[: len(rows[0])], rows, notes)
        return [_mark_inexact_medians(table, [exact for _, exact in marked_rows])]

    def figures(self, data: ReportData) -> list[Figure]:
        """Return one panel for each configuration that measured."""
        caption = (
            "First seed of each. Dots: single values, without the outer 5 % on each side; lines: medians of "
            "the windows. Bands: ± 1 standard error (SE) of a single value, the median over the window; "
            "where only summaries of windows were recorded, ± 1 SD of their values. Absolute values where "
            "all have one, else relative ones."
        )
        return [
            Figure(
                "alpha-observations",
                TITLE,
                caption,
                partial(draw_alpha_panels, _configurations_with_alpha(data)[:MOST]),
            )
        ]


def _configurations_with_alpha(data: ReportData) -> list[Configuration]:
    return [c for c in data.configurations if any(has_alphas(run) for run in c.runs)]


def _statistics_rows(configuration: Configuration) -> list[tuple[tuple[Cell, ...], bool]]:
    """Return the rows of a configuration, each with whether its median is exact."""
    names = recorded_estimators(row for run in configuration.runs for row in run.alphas)
    rows = [_statistics_row(configuration, name, scale) for name in names for scale in SCALES]
    return [row for row in rows if row is not None]


def _statistics_row(
    configuration: Configuration, estimator: str, scale: Scale
) -> tuple[tuple[Cell, ...], bool] | None:
    rows = [row for run in configuration.runs for row in after_vanishing_rates(run)]
    alpha_values = estimator_values(rows, estimator, scale)
    summary = summarise_values(alpha_values)
    names = (configuration.label, estimator, scale)
    if summary is None:
        return ((*names, 0, len(alpha_values), *[None] * 6), True) if alpha_values else None
    noise = None if summary.noise is None else 100 * summary.noise
    described = (
        summary.mean,
        summary.median,
        summary.deviation,
        100 * summary.negative,
        summary.error,
        noise,
    )
    return (*names, summary.n, summary.undefined, *described), summary.exact


def _mark_inexact_medians(table: Table, exact: Sequence[bool]) -> Table:
    """Mark the medians that are not exact."""
    if all(exact):
        return table
    place = COLUMNS.index("median")
    shown = [
        row if is_exact else (*row[:place], f"≈ {row[place]}", *row[place + 1 :])
        for row, is_exact in zip(table.shown, exact, strict=True)
    ]
    return replace(table, shown=tuple(shown), notes=(*table.notes, SUMMED))
