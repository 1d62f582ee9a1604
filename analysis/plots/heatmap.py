"""Draw the grid as a heatmap over its two axes, and the baselines beside it on the same colour scale."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ..comparison import Comparison, Entry, ReportData
from ..configurations import Axis
from ..durations import duration
from ..statistics import median
from ..tables import decimals_to_differ, fixed
from .canvas import SCALE, new_canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure as Canvas

EMPTY = "#EFEFEF"
BEST = "#D55E00"
FILLED = 0.5
"""At least this share of the rectangle must hold a configuration; a diagonal makes no map."""
LARGEST = 16
"""The maximum number of values on an axis: more leave a cell no room for its text."""


def heatmap_axes(data: ReportData, comparison: Comparison) -> tuple[Axis, Axis] | None:
    """Return (rows, columns) if exactly two axes vary and the grid fills enough of their rectangle."""
    if len(data.axes) != 2:
        return None
    rows, columns = data.axes
    size = len(rows.values) * len(columns.values)
    if max(len(rows.values), len(columns.values)) > LARGEST or len(comparison.cells) < FILLED * size:
        return None
    places = [(row, column) for row, column, _ in _placed_entries(comparison.cells, rows, columns)]
    return (rows, columns) if len(set(places)) == len(places) else None


def draw_heatmap(comparison: Comparison, rows: Axis, columns: Axis) -> Canvas:
    """Draw the cells, each with its loss and what it took, and the baselines to their right."""
    across, down = len(columns.values), len(rows.values)
    baselines = comparison.baselines
    height = max(down, len(baselines))
    canvas = new_canvas(1.25 * across + (2.9 if baselines else 0) + 2.1, max(0.78 * height, 1.6) + 1.75)
    ratios = [1.25 * across, 1.25] if baselines else [1.0]
    panels = canvas.subplots(1, len(ratios), width_ratios=ratios, squeeze=False)[0]
    colours = _loss_colours(comparison.entries)
    _draw_grid(panels[0], comparison, rows, columns, colours)
    if baselines:
        _draw_baselines(panels[1], comparison, baselines, colours)
    for panel in panels:
        panel.set_ylim(height - 0.5, -0.5)
    bar = canvas.colorbar(
        colours, ax=list(panels), shrink=0.9, pad=0.02, extend=_colourbar_extension(colours, comparison)
    )
    bar.set_label("validation loss")
    bar.ax.ticklabel_format(axis="y", useOffset=False)
    bar.outline.set_visible(False)
    canvas.suptitle(_heatmap_title(comparison), x=0.01, ha="left", fontsize=11.5, fontweight="bold")
    canvas.supxlabel(_marks_note(comparison), x=0.01, ha="left", fontsize=8.5, color="#444444")
    return canvas


def _draw_grid(
    axes: Axes, comparison: Comparison, rows: Axis, columns: Axis, colours: ScalarMappable
) -> None:
    from matplotlib.patches import Rectangle

    empty = Rectangle((-0.5, -0.5), len(columns.values), len(rows.values), facecolor=EMPTY, zorder=0)
    axes.add_patch(empty)
    for row, column, entry in _placed_entries(comparison.cells, rows, columns):
        _draw_cell(axes, column, row, entry, comparison, colours)
    _frame_axes(axes, len(columns.values))
    axes.set_xticks(range(len(columns.values)), columns.labels)
    axes.set_yticks(range(len(rows.values)), rows.labels)
    axes.set_xlabel(columns.key)
    axes.set_ylabel(rows.key)


def _placed_entries(cells: Sequence[Entry], rows: Axis, columns: Axis) -> Iterator[tuple[int, int, Entry]]:
    for entry in cells:
        params = entry.configuration.params
        row, column = rows.index(params.get(rows.key)), columns.index(params.get(columns.key))
        if row is not None and column is not None:
            yield row, column, entry


def _draw_baselines(
    axes: Axes, comparison: Comparison, entries: Sequence[Entry], colours: ScalarMappable
) -> None:
    for row, entry in enumerate(entries):
        _draw_cell(axes, 0, row, entry, comparison, colours)
    _frame_axes(axes, 1)
    axes.set_title("baselines", loc="center", fontsize=10)
    axes.set_xticks([])
    axes.set_yticks(range(len(entries)), [entry.configuration.label for entry in entries])
    axes.yaxis.tick_right()
    axes.tick_params(axis="y", length=0, pad=2)


def _frame_axes(axes: Axes, across: int) -> None:
    axes.set_xlim(-0.5, across - 0.5)
    axes.grid(visible=False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _draw_cell(
    axes: Axes, x: int, y: int, entry: Entry, comparison: Comparison, colours: ScalarMappable
) -> None:
    """Draw one cell: its colour, its text, and a frame around the lowest loss of all."""
    from matplotlib.patches import Rectangle

    best = entry.best
    colour: Any = EMPTY if best is None else _colour_of_loss(colours, best.mean)
    hatch = None if entry.complete else "////"
    axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=colour, edgecolor="white", linewidth=2))
    if hatch:
        axes.add_patch(
            Rectangle((x - 0.5, y - 0.5), 1, 1, fill=False, edgecolor="#FFFFFF4D", hatch=hatch, linewidth=0)
        )
    if entry in _lowest_entries(comparison):
        dash = "-" if entry is comparison.ranked[0] else (0, (2, 1))
        frame = Rectangle(
            (x - 0.46, y - 0.46), 0.92, 0.92, fill=False, edgecolor=BEST, linewidth=2.5, linestyle=dash
        )
        axes.add_patch(frame)
    _draw_cell_text(axes, x, y, entry, comparison, _text_colour(colour) if best is not None else "#666666")


def _lowest_entries(comparison: Comparison) -> list[Entry]:
    """Return the lowest entry of all, and that of the grid if it is another one."""
    with_loss = [entry for entry in comparison.ranked if entry.best is not None]
    grid = [entry for entry in with_loss if entry.configuration.baseline is None]
    return [*with_loss[:1], *(entry for entry in grid[:1] if entry is not with_loss[0])]


def _draw_cell_text(axes: Axes, x: int, y: int, entry: Entry, comparison: Comparison, ink: str) -> None:
    first, *rest = _cell_lines(entry, comparison)
    text: dict[str, Any] = {"ha": "center", "color": ink, "zorder": 4}
    axes.text(x, y - (0.16 if rest else 0), first, va="center", fontsize=11.5, fontweight="bold", **text)
    if rest:
        axes.text(x, y + 0.02, "\n".join(rest), va="top", fontsize=8, linespacing=1.25, **text)


def _cell_lines(entry: Entry, comparison: Comparison) -> list[str]:
    """Return the loss with its marks, its SD over seeds, and the steps (or the time) it took."""
    marks = ("" if entry.complete else " …") + (" †" if entry.diverged else "")
    if entry.best is None:
        return ["–" + marks]
    decimals = _loss_decimals(comparison)
    lines = [f"{fixed(entry.best.mean, decimals)}{marks}"]
    if entry.best.deviation is not None:
        lines.append(f"± {fixed(entry.best.deviation, decimals, entry.best.mean)}")
    if comparison.kind == "seconds" and entry.steps_reached is not None:
        lines.append(f"{entry.steps_reached.mean:,.0f} steps")
    elif entry.seconds_at_best is not None:
        lines.append(duration(entry.seconds_at_best.mean))
    return lines


def _loss_decimals(comparison: Comparison) -> int:
    return decimals_to_differ([entry.best.mean for entry in comparison.entries if entry.best], at_most=6)


def _loss_colours(entries: Sequence[Entry]) -> ScalarMappable:
    """Return the colour scale; it ends below outliers, which would hide all other differences."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    losses = [entry.best.mean for entry in entries if entry.best is not None]
    low, middle, high = min(losses), median(losses), max(losses)
    top = min(high, low + 4 * (middle - low)) if middle > low else high
    return ScalarMappable(Normalize(low, top if top > low else low + max(abs(low), 1e-12) * 1e-3), SCALE)


def _colour_of_loss(colours: ScalarMappable, loss: float) -> Any:
    norm: Any = colours.norm
    return colours.cmap(norm(loss))


def _colourbar_extension(colours: ScalarMappable, comparison: Comparison) -> str:
    top: Any = colours.norm.vmax
    beyond = any(
        entry.best is not None and top is not None and entry.best.mean > top for entry in comparison.entries
    )
    return "max" if beyond else "neither"


def _text_colour(colour: Sequence[float]) -> str:
    """Return black or white, whichever is read better on `colour` (WCAG's relative luminance)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour[:3]]
    luminance = sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
    return "white" if luminance < 0.18 else "black"


def _heatmap_title(comparison: Comparison) -> str:
    return f"Best validation loss within {comparison.amount}"


def _marks_note(comparison: Comparison) -> str:
    """Explain the marks that occur."""
    parts = [f"{comparison.clock} clock"] if comparison.kind == "seconds" else []
    parts.append(
        "framed: lowest" + (", dashed: lowest of the grid" if len(_lowest_entries(comparison)) > 1 else "")
    )
    if _has_one_seed(comparison):
        parts.append("one seed each, no ranking claimed")
    if any(not entry.complete for entry in comparison.entries):
        parts.append("…, hatched: incomplete")
    if any(entry.diverged for entry in comparison.entries):
        parts.append("† diverged, within the budget or later")
    return "   ".join(parts)


def _has_one_seed(comparison: Comparison) -> bool:
    return all(len(entry.outcomes) == 1 for entry in comparison.entries)
