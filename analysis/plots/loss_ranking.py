"""Draw configurations as dots along their loss, the best on top: for grids without a heatmap."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..comparison import Comparison, Entry
from .canvas import COLOURS, new_canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

MOST = 40
"""The maximum number of configurations drawn: the baselines, and the best of the others."""


def draw_loss_ranking(comparison: Comparison) -> Canvas:
    """Draw mean and SD of every configuration, and each seed as a small dot."""
    drawn = _drawn_entries(comparison)
    canvas = new_canvas(7.5, 0.27 * len(drawn) + 1.5)
    axes = canvas.subplots()
    for place, entry in enumerate(drawn):
        _draw_entry(axes, place, entry)
    labels = [entry.configuration.label + ("" if entry.complete else " …") for entry in drawn]
    axes.set_yticks(range(len(drawn)), labels)
    for tick, entry in zip(axes.get_yticklabels(), drawn, strict=True):
        tick.set_fontweight("bold" if entry.configuration.baseline is not None else "normal")
    axes.set_ylim(len(drawn) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("best validation loss")
    axes.ticklabel_format(axis="x", useOffset=False)
    canvas.suptitle(
        f"Best validation loss within {comparison.amount}",
        x=0.01,
        ha="left",
        fontsize=11.5,
        fontweight="bold",
    )
    canvas.supxlabel(_marks_note(comparison, drawn), x=0.01, ha="left", fontsize=8.5, color="#444444")
    return canvas


def _drawn_entries(comparison: Comparison) -> list[Entry]:
    with_loss = [entry for entry in comparison.ranked if entry.best is not None]
    room = MOST - len(comparison.baselines)
    best = {id(entry) for entry in [e for e in with_loss if e.configuration.baseline is None][: max(room, 1)]}
    return [entry for entry in with_loss if entry.configuration.baseline is not None or id(entry) in best]


def _draw_entry(axes: Axes, place: int, entry: Entry) -> None:
    assert entry.best is not None
    colour = COLOURS[1] if entry.configuration.baseline is not None else COLOURS[0]
    losses = [out.best_validation_loss for out in entry.outcomes if out.best_validation_loss is not None]
    if len(losses) > 1:
        axes.plot(
            losses, [place] * len(losses), "o", markersize=3, color=colour, alpha=0.45, markeredgewidth=0
        )
    axes.errorbar(
        entry.best.mean,
        place,
        xerr=entry.best.deviation,
        fmt="o",
        markersize=6.5,
        markerfacecolor=colour if entry.complete else "white",
        color=colour,
        elinewidth=1.5,
    )


def _marks_note(comparison: Comparison, drawn: list[Entry]) -> str:
    parts = [f"{comparison.clock} clock"] if comparison.kind == "seconds" else []
    if comparison.baselines:
        parts.append("bold, orange: baselines")
    if any(len(entry.outcomes) > 1 for entry in drawn):
        parts.append("bar: SD over seeds")
    if any(not entry.complete for entry in drawn):
        parts.append("hollow, …: incomplete")
    if hidden := len(comparison.entries) - len(drawn):
        parts.append(f"{hidden} more not drawn")
    return "   ".join(parts)
