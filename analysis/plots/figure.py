"""Figures as data: a name, a caption and a function that draws; and how their files are written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ...printable import file_name, visible
from ...store.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure as Canvas
    from matplotlib.text import Text

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
    """A figure that is drawn when it is saved; `draw` returns matplotlib's figure."""

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

    matplotlib_texts: set[int] = set()
    for axes in canvas.axes:
        for axis in (axes.xaxis, axes.yaxis):
            matplotlib_texts.update(id(text) for text in _texts_of_matplotlib(axis))
    for text in canvas.findobj(Text):
        if isinstance(text, Text) and id(text) not in matplotlib_texts:
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
