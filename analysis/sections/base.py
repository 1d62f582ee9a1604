"""The shape of a section of the report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from ..comparison import ReportData
from ..plots.figure import Figure
from ..tables import Table
from ..thesis.compared_statistics import Statistic


class ReportSection:
    """A section of the report: whether it applies to an experiment, its tables and its figures."""

    title: ClassVar[str]

    def applies(self, data: ReportData) -> bool:
        """Return whether the store holds what the section needs."""
        raise NotImplementedError

    def tables(self, data: ReportData) -> Sequence[Table]:
        """Return the tables of the section; none by default."""
        return []

    def figures(self, data: ReportData) -> Sequence[Figure]:
        """Return the figures of the section, not drawn yet; none by default."""
        return []

    def statistics(self, data: ReportData) -> Sequence[Statistic]:
        """Return the statistics of the section that a reference may print; none by default."""
        return []

    def has_values(self, data: ReportData) -> bool:
        """Return whether any statistic of the section has a value."""
        return any(statistic.value is not None for statistic in self.statistics(data))
