"""How well the quadratic predicts the effect of a step, and cosines of directions and gradients."""

from __future__ import annotations

import math
from collections.abc import Iterator

from ..comparison import ReportData
from ..configurations import Configuration
from ..statistics import MeanAndSD, median
from ..tables import Cell, Table
from .base import ReportSection

TITLE = "Diagnostics of α*"
COLUMNS = ("configuration", "quantity", "n", "mean", "median", "SD")
QUANTITIES = {
    "reduction_ratio": "reduction ratio",
    "cosine": "cosine of d and the gradient of its own batch",
    "lookahead_cosine": "cosine of d and the gradient of the next batch",
}
RATIO = (
    "Reduction ratio: the decrease of the loss on the acting batch over the one that the quadratic predicts; "
    "1 where the quadratic is exact."
)
COSINE = "Cosines: −1 is steepest descent on that batch."


class AlphaDiagnosticsSection(ReportSection):
    """The section “Diagnostics of α*”."""

    title = TITLE

    def applies(self, data: ReportData) -> bool:
        """Return whether any diagnostics were recorded."""
        return bool(_diagnostic_rows(data))

    def tables(self, data: ReportData) -> list[Table]:
        """Return one row for each configuration and quantity, seeds pooled."""
        rows = _diagnostic_rows(data)
        quantities = {row[1] for row in rows}
        ratio = QUANTITIES["reduction_ratio"]
        notes = [
            text
            for text, is_there in ((RATIO, ratio in quantities), (COSINE, quantities - {ratio}))
            if is_there
        ]
        return [Table.of("alpha-diagnostics", TITLE, COLUMNS, rows, notes)]


def _diagnostic_rows(data: ReportData) -> list[tuple[Cell, ...]]:
    return [row for configuration in data.configurations for row in _quantity_rows(configuration)]


def _quantity_rows(configuration: Configuration) -> Iterator[tuple[Cell, ...]]:
    rows = [row for run in configuration.runs for row in run.alphas]
    for name, text in QUANTITIES.items():
        measured = [getattr(row, name) for row in rows]
        finite = [value for value in measured if value is not None and math.isfinite(value)]
        summary = MeanAndSD.of(finite)
        if summary is not None:
            yield (configuration.label, text, summary.n, summary.mean, median(finite), summary.deviation)
