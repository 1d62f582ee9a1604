"""Parts of the variance of α*: the noise of batches, and the movement of θ from step to step.

`observe` with `repeat: k` measures α* on k independent second batches at one θ₀ and one direction.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from ..alphas import SCALES, AlphaValue, Scale, estimator_values, recorded_estimators
from ..comparison import ReportData
from ..configurations import Configuration
from ..data import RunData
from ..statistics import variance_components
from ..tables import Cell, Table
from .base import ReportSection

TITLE = "Batch noise and movement of θ"
COLUMNS = (
    "configuration",
    "estimator",
    "α*",
    "steps",
    "n",
    "mean",
    "variance within a step",
    "variance between steps",
    "within (%)",
    "mean SE²",
)
COMPONENTS = (
    "One-way components of variance over the repetitions at each step. Within a step: the noise of the "
    "second batch alone. Between steps: θ moves, and so does the direction, with the noise of the batch that "
    "it came from."
)
SQUARES = "Mean SE²: what the examples of each batch say of the variance within a step."


class AlphaNoiseSection(ReportSection):
    """The section “Batch noise and movement of θ”."""

    title = TITLE

    def applies(self, data: ReportData) -> bool:
        """Return whether any α* was measured several times at one step."""
        return bool(_noise_rows(data))

    def tables(self, data: ReportData) -> list[Table]:
        """Return one row for each configuration and estimator with repetitions, seeds pooled."""
        return [Table.of("alpha-noise", TITLE, COLUMNS, _noise_rows(data), [COMPONENTS, SQUARES])]


def _noise_rows(data: ReportData) -> list[tuple[Cell, ...]]:
    return [row for configuration in data.configurations for row in _configuration_rows(configuration)]


def _configuration_rows(configuration: Configuration) -> Iterator[tuple[Cell, ...]]:
    if not any(row.repeat for run in configuration.runs for row in run.alphas):
        return
    for estimator in recorded_estimators(row for run in configuration.runs for row in run.alphas):
        for scale in SCALES:
            row = _noise_row(configuration, estimator, scale)
            if row is not None:
                yield row


def _noise_row(configuration: Configuration, estimator: str, scale: Scale) -> tuple[Cell, ...] | None:
    steps = [step for run in configuration.runs for step in _values_by_step(run, estimator, scale)]
    parts = variance_components([value.mean for value in step] for step in steps)
    if parts is None:
        return None
    share = None if parts.share_within is None else 100 * parts.share_within
    squares = [value.error**2 for step in steps for value in step if value.error == value.error]
    error = sum(squares) / len(squares) if squares else None
    place = (configuration.label, estimator, scale, parts.groups, parts.n)
    return (*place, parts.mean, parts.within, parts.between, share, error)


def _values_by_step(run: RunData, estimator: str, scale: Scale) -> list[list[AlphaValue]]:
    """Return the defined values of each step."""
    by_step = groupby(estimator_values(run.alphas, estimator, scale), key=lambda value: value.step)
    return [[value for value in step if value.n] for _, step in by_step]
