"""The sections of a report: files of one shape, listed here in the order of the report.

A section is a module with

* `TITLE: str`
* `applies(data: ReportData) -> bool`: whether the store holds what it needs,
* `tables(data: ReportData) -> list[Table]`,
* `figures(data: ReportData) -> list[Figure]`.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Protocol, cast

from ..comparison import ReportData
from ..plots.figure import Figure
from ..tables import Table

NAMES = (
    "budget",
    "baseline_differences",
    "best_and_worst",
    "published",
    "expected_best",
    "time_to_result",
    "robustness",
    "optimizers",
    "loss_over_time",
    "loss_over_steps",
    "loss_splits",
    "schedules",
    "learning_rates",
    "rejections",
    "rates_within_budget",
    "correlations",
    "alpha_observations",
    "alpha_dispersion",
    "alpha_components",
    "alpha_beginning",
    "alpha_noise",
    "alpha_diagnostics",
    "batch_scaling",
    "bias_over_passes",
    "throughput",
    "step_timings",
    "attempts",
)


class Section(Protocol):
    """What each module in this folder provides."""

    TITLE: str

    def applies(self, data: ReportData) -> bool:
        """Tell whether the store holds what the section needs."""

    def tables(self, data: ReportData) -> Sequence[Table]:
        """Return its tables."""

    def figures(self, data: ReportData) -> Sequence[Figure]:
        """Return its figures; nothing is drawn yet."""


def applying(data: ReportData) -> list[Section]:
    """Return the sections that have something to say about `data`."""
    sections = [cast(Section, import_module(f".{name}", __name__)) for name in NAMES]
    return [section for section in sections if section.applies(data)]
