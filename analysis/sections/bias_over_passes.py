"""The bias of α*'s numerator and denominator towards the batch, over passes of the training data."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

from ..batch_bias import PARTS, EpochSpan, Part, epoch_spans
from ..comparison import ReportData
from ..configurations import Configuration
from ..plots.canvas import COLOURS, legend_label, new_canvas, put_legend_beside
from ..plots.figure import Figure
from ..statistics import deviation_of, mean_of
from ..tables import Cell, Table
from .base import ReportSection

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

TITLE = "Bias over passes of the data"
COLUMNS = (
    "configuration",
    "passes",
    "n",
    "seeds",
    *(f"{part}: {what}" for part in PARTS for what in ("biased", "unbiased", "bias (%)", "SD of the bias")),
)
DEFINITION = (
    "Numerator −dᵀg, denominator dᵀGd; biased: of the batch that gave d, unbiased: of a second one. Means "
    "over the n steps, then over seeds. Bias: the share of the biased mean that the second batch does not "
    "confirm, 1 − unbiased / biased; above 100 % the second batch says that the step goes uphill."
)
SAME_DATA = (
    "Both batches come from the same training data: from the second pass on, neither is new to the model."
)
MOST = len(COLOURS)
"""The maximum number of configurations drawn."""


class BiasOverPassesSection(ReportSection):
    """The section “Bias over passes of the data”."""

    title = TITLE

    def applies(self, data: ReportData) -> bool:
        """Return whether both estimators were recorded over two or more passes of data of known size."""
        return bool(_configurations_with_spans(data))

    def tables(self, data: ReportData) -> list[Table]:
        """Return one row for each configuration and span of passes."""
        rows = [
            _span_row(configuration, span)
            for configuration, of in _configurations_with_spans(data)
            for span in of
        ]
        return [Table.of("bias-over-passes", TITLE, COLUMNS, rows, [DEFINITION, SAME_DATA])]

    def figures(self, data: ReportData) -> list[Figure]:
        """Return the bias of both parts over passes."""
        caption = (
            "The share of the biased mean that a second batch does not confirm: mean over seeds, bars: ± 1 "
            "SD. Spans of passes double in length; each is drawn at its last pass."
        )
        return [
            Figure(
                "bias-over-passes",
                TITLE,
                caption,
                partial(_draw_bias, _configurations_with_spans(data)[:MOST]),
            )
        ]


def _configurations_with_spans(data: ReportData) -> list[tuple[Configuration, list[EpochSpan]]]:
    with_spans = [(configuration, epoch_spans(configuration)) for configuration in data.configurations]
    return [(configuration, spans) for configuration, spans in with_spans if spans]


def _span_row(configuration: Configuration, span: EpochSpan) -> tuple[Cell, ...]:
    cells: list[Cell] = [configuration.label, span.label, span.n, len(span.of_seeds["numerator"])]
    for part in PARTS:
        bias = span.bias(part)
        cells += [mean_of(span.level(part, "biased")), mean_of(span.level(part, "unbiased")), mean_of(bias)]
        cells.append(deviation_of(bias))
    return tuple(cells)


def _draw_bias(with_spans: list[tuple[Configuration, list[EpochSpan]]]) -> Canvas:
    canvas = new_canvas(9.6, 3.9)
    panels = canvas.subplots(1, 2)
    for axes, part in zip(panels, PARTS, strict=True):
        _draw_panel(axes, with_spans, part)
    put_legend_beside(panels[1])
    return canvas


def _draw_panel(axes: Axes, with_spans: list[tuple[Configuration, list[EpochSpan]]], part: Part) -> None:
    axes.set_xscale("log", base=2)
    for place, (configuration, spans) in enumerate(with_spans):
        biases = [(span.last, span.bias(part)) for span in spans]
        finite = [(last, bias) for last, bias in biases if bias is not None]
        axes.errorbar(
            [last * 1.04 ** (place - (len(with_spans) - 1) / 2) for last, _ in finite],
            [bias.mean for _, bias in finite],
            yerr=[bias.deviation or 0.0 for _, bias in finite],
            fmt="os^Dv"[place % 5] + "-",
            color=COLOURS[place],
            markersize=5,
            capsize=2.5,
            label=legend_label(configuration.label),
        )
    axes.axhline(0, color="#444444", linewidth=1)
    longest = max(spans[-1].last for _, spans in with_spans)
    ticks = [2**power for power in range(1 + math.floor(math.log2(longest)))]
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.set_title(f"{part} {'−dᵀg' if part == 'numerator' else 'dᵀGd'}")
    axes.set_xlabel("passes over the training data, up to")
    axes.set_ylabel("bias (%)")
