"""Make canvases, axes and legends: the colours and the layout that all figures share."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D1F")
"""Okabe and Ito's colours, safe for every common colour blindness (with a darker yellow)."""
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.8)), (0, (1.2, 1.2)), (0, (5, 1.5, 1.2, 1.5)))
BASELINE_COLOURS = ("#000000", "#8A8A8A", "#555555", "#B5B5B5")
QUIET = "#C9C9C9"
SCALE = "viridis"
"""Perceptually even, safe for colour-blind eyes; the lower a loss, the darker."""


def legend_label(text: str) -> str:
    """Return a name as the label of a line; matplotlib leaves what begins with `_` out of legends."""
    return f" {text}" if text.startswith("_") else text


Beside = Literal["outside right upper", "outside upper left"]


def new_canvas(width: float, height: float) -> Canvas:
    """Return an empty figure of a size in inches, with a constrained layout and no window."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(canvas)
    return canvas


def make_panels(
    count: int, most_across: int, size: tuple[float, float], margin: tuple[float, float]
) -> tuple[Canvas, list[Axes]]:
    """Return a figure with `count` panels, at most `most_across` in a row; `size` of a panel [inch]."""
    across = min(most_across, count)
    down = math.ceil(count / across)
    canvas = new_canvas(size[0] * across + margin[0], size[1] * down + margin[1])
    axes_list = list(canvas.subplots(down, across, squeeze=False).flat)
    for axes in axes_list[count:]:
        axes.set_visible(False)
    return canvas, axes_list[:count]


def add_common_legend(
    canvas: Canvas, panel_axes: Iterable[Axes], where: Beside, in_a_row: bool = False
) -> None:
    """Add one legend for all panels beside them, each label once."""
    handles = {
        label: handle
        for axes in panel_axes
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    columns = len(handles) if in_a_row else 1
    canvas.legend(handles.values(), handles.keys(), loc=where, ncols=columns)


def label_rates_over_steps(axes: Any) -> None:
    """Label and scale the axes of learning rates over steps."""
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.ticklabel_format(axis="y", scilimits=(-3, 4))
    axes.set_xlabel("step")
    axes.set_ylabel("learning rate")
    format_thousands(axes.xaxis)


def format_thousands(axis: Any) -> None:
    """Show the ticks of an axis as whole numbers with separators."""
    from matplotlib.ticker import StrMethodFormatter

    axis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))


def format_plain_log(axis: Any) -> None:
    """Show a logarithmic axis in plain numbers, with labels at 1, 2 and 5 if it spans little."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axis.get_view_interval()
    subs = (1.0, 2.0, 5.0) if high / max(low, 1e-300) < 300 else (1.0,)
    axis.set_major_locator(LogLocator(subs=subs, numticks=12))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
    axis.set_minor_formatter(NullFormatter())


def put_legend_beside(axes: Axes, columns: int = 1) -> None:
    """Put the legend to the right of the axes, where it covers nothing."""
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.02), borderaxespad=0, ncols=columns)
