"""Figures as data: a name, a caption and a function that draws; and the one look they share."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from ..printable import file_name, visible
from ..store.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure as Canvas
    from matplotlib.text import Text

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D1F")
"""Okabe and Ito's colours, told apart with every common colour blindness (their yellow darkened)."""
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.8)), (0, (1.2, 1.2)), (0, (5, 1.5, 1.2, 1.5)))
BASELINE_COLOURS = ("#000000", "#8A8A8A", "#555555", "#B5B5B5")
QUIET = "#C9C9C9"
SCALE = "viridis"
"""Perceptually even, safe for colour-blind eyes; the lower a loss, the darker."""

LOOK: dict[str, Any] = {
    "svg.hashsalt": "alphagrid",
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.5,
    "hatch.linewidth": 1.0,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}


@dataclass(frozen=True)
class Figure:
    """A figure that is drawn when it is wanted; `draw` returns matplotlib's figure."""

    name: str
    title: str
    caption: str
    draw: Callable[[], Canvas]

    @property
    def file(self) -> str:
        """The name of its files, without their ending."""
        return file_name(self.name)

    def save(self, folder: Path) -> list[Path]:
        """Write its .svg and .png; the same data give the same bytes."""
        from matplotlib import rc_context

        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / f"{self.file}.svg", folder / f"{self.file}.png"]
        svg, png = BytesIO(), BytesIO()
        with rc_context(cast(Any, LOOK)):
            canvas = self.draw()
            take_literally(canvas)
            canvas.savefig(svg, format="svg", metadata={"Date": None, "Creator": "alphagrid"})
            canvas.savefig(png, format="png", dpi=160, metadata={"Software": "alphagrid"})
        for path, image in zip(paths, (svg, png), strict=True):
            write_atomically(path, image.getvalue())
        return paths


def take_literally(canvas: Canvas) -> None:
    """Have a figure show its texts as they are: names and values may look like TeX (`$…$`) or control it."""
    from matplotlib.text import Text

    own: set[int] = set()
    for axes in canvas.axes:
        for axis in (axes.xaxis, axes.yaxis):
            own.update(id(text) for text in _texts_of_matplotlib(axis))
    for text in canvas.findobj(Text):
        if isinstance(text, Text) and id(text) not in own:
            text.set_parse_math(False)
            text.set_text(visible(text.get_text(), keep="\n"))


def _texts_of_matplotlib(axis: Axis) -> list[Text]:
    """Return the texts of an axis that matplotlib writes itself, such as powers of ten.

    Labels that we give it are written when the figure is drawn: they are made visible then.
    """
    from matplotlib.ticker import FixedFormatter, FuncFormatter

    formatter = axis.get_major_formatter()
    texts = [axis.get_offset_text(), *axis.get_ticklabels(minor=True)]
    if not isinstance(formatter, FixedFormatter | FuncFormatter):
        return [*texts, *axis.get_ticklabels()]
    axis.set_major_formatter(FuncFormatter(lambda value, place: visible(formatter(value, place))))
    return texts


def legend_label(text: str) -> str:
    """Return a name as the label of a line; matplotlib leaves what begins with `_` out of legends."""
    return f" {text}" if text.startswith("_") else text


Beside = Literal["outside right upper", "outside upper left"]


def new_canvas(width: float, height: float) -> Canvas:
    """Return an empty figure of so many inches, laid out so that nothing overlaps, with no window."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(canvas)
    return canvas


def panels(
    count: int, most_across: int, size: tuple[float, float], margin: tuple[float, float]
) -> tuple[Canvas, list[Axes]]:
    """Return a figure with `count` panels in rows of at most so many; sizes of one and of the rest [inch]."""
    across = min(most_across, count)
    down = math.ceil(count / across)
    canvas = new_canvas(size[0] * across + margin[0], size[1] * down + margin[1])
    found = list(canvas.subplots(down, across, squeeze=False).flat)
    for axes in found[count:]:
        axes.set_visible(False)
    return canvas, found[:count]


def common_legend(canvas: Canvas, found: Iterable[Axes], where: Beside, in_a_row: bool = False) -> None:
    """Give all panels one legend beside them, in which each label stands once."""
    handles = {
        label: handle
        for axes in found
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    columns = len(handles) if in_a_row else 1
    canvas.legend(handles.values(), handles.keys(), loc=where, ncols=columns)


def time_unit(seconds: float) -> tuple[float, str]:
    """Return the seconds in a unit that suits an axis up to `seconds`, and the unit's name."""
    if seconds < 300:
        return 1.0, "s"
    return (60.0, "min") if seconds < 3 * 3600 else (3600.0, "h")


def duration(seconds: float | None) -> str:
    """Return a time as people say it: 12.3 s, 4.6 min, 17.1 h."""
    if seconds is None:
        return "–"
    per_unit, unit = time_unit(seconds)
    return f"{seconds / per_unit:.3g} {unit}" if seconds < 1e6 else f"{seconds / per_unit:,.0f} {unit}"


def thousands(axis: Any) -> None:
    """Show the ticks of an axis as whole numbers with separators."""
    from matplotlib.ticker import StrMethodFormatter

    axis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))


def plain_log(axis: Any) -> None:
    """Show a logarithmic axis in plain numbers, with labels at 1, 2 and 5 if it spans little."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axis.get_view_interval()
    subs = (1.0, 2.0, 5.0) if high / max(low, 1e-300) < 300 else (1.0,)
    axis.set_major_locator(LogLocator(subs=subs, numticks=12))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
    axis.set_minor_formatter(NullFormatter())


def legend_beside(axes: Axes, columns: int = 1) -> None:
    """Put the legend to the right of the axes, where it covers nothing."""
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.02), borderaxespad=0, ncols=columns)
