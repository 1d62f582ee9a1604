"""The α* that policies rejected, counted by the reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from ..comparison import ReportData
from ..configurations import Configuration
from ..data import RunData
from ..tables import Cell, Table
from .base import ReportSection

TITLE = "Rejected α*"
COLUMNS = ("configuration", "reason", "count", "runs", "first step", "last step")
NOTE = (
    "A value that is rejected, or left out of a window, and a window that is rejected count one each, under "
    "their own reasons; the learning rate stays as it was."
)


class RejectionsSection(ReportSection):
    """The section “Rejected α*”."""

    title = TITLE

    def applies(self, data: ReportData) -> bool:
        """Return whether any policy rejected a value."""
        return any(True for run in data.experiment.runs for _ in _rejected_medians(run))

    def tables(self, data: ReportData) -> list[Table]:
        """Return one row for each configuration and reason, seeds pooled, the most frequent reason first."""
        rows = [row for configuration in data.configurations for row in _rejection_rows(configuration)]
        return [Table.of("rejections", TITLE, COLUMNS, rows, [NOTE])]


def _rejection_rows(configuration: Configuration) -> Iterator[tuple[Cell, ...]]:
    counts: Counter[str] = Counter()
    steps: dict[str, list[int]] = {}
    runs: Counter[str] = Counter()
    for run in configuration.runs:
        rejections = list(_rejected_medians(run))
        runs.update({reason for reason, _, _ in rejections})
        for reason, count, step in rejections:
            counts[reason] += count
            steps.setdefault(reason, []).append(step)
    for reason, count in counts.most_common():
        yield configuration.label, reason, count, runs[reason], min(steps[reason]), max(steps[reason])


def _rejected_medians(run: RunData) -> Iterator[tuple[str, int, int]]:
    """Yield reason, count and step of each event of rejected medians."""
    for event in run.events:
        if event.event == "rejected":
            yield str(event.details.get("reason")), 1, event.step
        if event.event in ("rejected", "learning_rate"):
            left_out = event.details.get("left_out")
            for reason, count in left_out.items() if isinstance(left_out, dict) else ():
                if isinstance(count, int):
                    yield reason, count, event.step
