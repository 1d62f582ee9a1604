"""Validation loss over steps."""

from __future__ import annotations

from functools import partial

from ..comparison import ReportData
from ..plots.figure import Figure
from ..plots.loss_curves import draw_losses, has_losses
from ..tables import Table

TITLE = "Validation loss over steps"


def applies(data: ReportData) -> bool:
    """Tell whether any run was evaluated on the validation split."""
    return has_losses(data)


def tables(data: ReportData) -> list[Table]:
    """Return none: the curves say it all."""
    return []


def figures(data: ReportData) -> list[Figure]:
    """Return the curves of all configurations."""
    caption = "Mean over seeds at each evaluation, shaded from the lowest to the highest seed."
    if data.most_seeds == 1:
        caption = "One seed each."
    return [Figure("loss-over-steps", TITLE, caption, partial(draw_losses, data, "steps"))]
