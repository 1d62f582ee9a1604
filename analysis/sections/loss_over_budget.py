"""Validation loss over time and over steps."""

from __future__ import annotations

from functools import partial
from typing import ClassVar

from ..budget import Kind
from ..comparison import ReportData
from ..plots.figure import Figure
from ..plots.loss_curves import draw_losses, has_losses
from .base import ReportSection


class _LossCurvesSection(ReportSection):
    """Curves of the validation loss of all configurations, along one axis."""

    axis: ClassVar[Kind]
    figure: ClassVar[str]

    def applies(self, data: ReportData) -> bool:
        """Return whether any run was evaluated on the validation split."""
        return has_losses(data)

    def figures(self, data: ReportData) -> list[Figure]:
        """Return the curves of all configurations."""
        caption = "Mean over seeds at each evaluation, shaded from the lowest to the highest seed."
        if data.most_seeds == 1:
            caption = "One seed each."
        if self.axis == "seconds":
            caption += f" Times are on the {data.clock} clock."
        return [Figure(self.figure, self.title, caption, partial(draw_losses, data, self.axis))]


class LossOverTimeSection(_LossCurvesSection):
    """Validation loss over time."""

    title = "Validation loss over time"
    axis = "seconds"
    figure = "loss-over-time"


class LossOverStepsSection(_LossCurvesSection):
    """Validation loss over steps."""

    title = "Validation loss over steps"
    axis = "steps"
    figure = "loss-over-steps"
