"""The losses on all evaluated splits, and the targets of the benchmark."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from ..comparison import ReportData
from ..configurations import Configuration
from ..data import RunData
from ..plots.canvas import COLOURS, DASHES, format_thousands, legend_label, new_canvas, put_legend_beside
from ..plots.figure import Figure
from ..tables import Cell, Table
from ..targets import Target, first_within, target_of
from .base import ReportSection

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

TITLE = "Losses on all splits"
TARGET_TITLE = "Targets of the benchmark"
SPLITS = ("train", "test", "validation")
MOST = 4
"""The maximum number of configurations drawn, one panel each."""
FEW = 5
"""With more evaluations than this, the first one may be above the frame."""
NEAR = 1.5
"""A target is drawn where a loss comes within this factor of it."""
COLUMNS = (
    "configuration",
    "split",
    "target",
    "best loss",
    "best − target",
    "seeds that reached it",
    "first at step",
    "first at seconds",
)
NOTE = (
    "Targets are those of AlgoPerf for its own data, model and 8 GPUs. First: the median over the seeds that "
    "reached it."
)
THESIS = "In the thesis no run reached either target (sections 4.3.3, 4.6.1)."


class LossSplitsSection(ReportSection):
    """The section “Losses on all splits”."""

    title = TITLE

    def applies(self, data: ReportData) -> bool:
        """Return whether several splits were evaluated, or the workload has a target."""
        return bool(_configurations_with_splits(data)) or target_of(data) is not None

    def tables(self, data: ReportData) -> list[Table]:
        """Return, where the workload has targets, how near each configuration came to them."""
        target = target_of(data)
        if target is None:
            return []
        rows = [row for configuration in data.configurations for row in _target_rows(configuration, target)]
        columns: tuple[str, ...] = COLUMNS
        if data.on_other_clock is not None:
            other_rows = [
                row for configuration in data.on_other_clock for row in _target_rows(configuration, target)
            ]
            rows = [(*row, other[-1]) for row, other in zip(rows, other_rows, strict=True)]
            columns = (*COLUMNS, f"{COLUMNS[-1]}, {data.other_clock} clock")
        notes = [
            NOTE,
            f"Seconds are on the {data.clock} clock where no other is named.",
            *([THESIS] if data.reference else []),
        ]
        return [Table.of("targets", TARGET_TITLE, columns, rows, notes)]

    def figures(self, data: ReportData) -> list[Figure]:
        """Return the losses over steps, a panel for each of the first configurations."""
        configurations = _configurations_with_splits(data)[:MOST]
        if not configurations:
            return []
        thesis = "" if data.reference is None else " Thesis, figure 4.7 (its training split was a sample)."
        caption = (
            f"First seed of each; at most {MOST} configurations. The first evaluation may lie above the "
            f"frame.{thesis}"
        )
        return [Figure("loss-splits", TITLE, caption, partial(_draw_splits, configurations, target_of(data)))]


def _configurations_with_splits(data: ReportData) -> list[Configuration]:
    """Return the configurations with curves of at least two splits: those that observe α*, then baselines."""
    configurations = [
        configuration
        for configuration in data.configurations
        if len(_split_curves(configuration.runs[0])) > 1
    ]
    return sorted(
        configurations,
        key=lambda configuration: (not _only_observes(configuration), configuration.baseline is None),
    )


def _only_observes(configuration: Configuration) -> bool:
    return bool(configuration.runs[0].config_section("alpha").get("policy") == "observe")


def _split_curves(run: RunData) -> dict[str, list[tuple[int, float]]]:
    """Return the finite losses of each split that has at least two, by step."""
    curves = {}
    for split in SPLITS:
        losses = [(row.step, row.losses.get(split, math.nan)) for row in run.curve.evaluations]
        points = [(step, loss) for step, loss in losses if math.isfinite(loss)]
        if len(points) > 1:
            curves[split] = points
    return curves


def _target_rows(configuration: Configuration, target: Target) -> Iterator[tuple[Cell, ...]]:
    for split, aim in (("validation", target.validation), ("test", target.test)):
        losses = [loss for run in configuration.runs for _, loss in _split_curves(run).get(split, [])]
        best = min(losses, default=None)
        reached = first_within(configuration.runs, split, aim)
        beyond = None if best is None else best - aim
        yield (
            configuration.label,
            split,
            aim,
            best,
            beyond,
            f"{reached.seeds} of {len(configuration.runs)}",
            reached.step,
            reached.seconds,
        )


def _without_first_point(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """Leave out the untrained model's loss, if there are others enough: it would flatten all the rest."""
    return points[1:] if len(points) > FEW else points


def _draw_splits(configurations: list[Configuration], target: Target | None) -> Canvas:
    across = min(2, len(configurations))
    down = math.ceil(len(configurations) / across)
    canvas = new_canvas(4.6 * across + (1.7 if across > 1 else 3.4), 3.1 * down + 0.5)
    panels = list(canvas.subplots(down, across, squeeze=False).flat)
    for axes, configuration in zip(panels, configurations, strict=False):
        _draw_panel(axes, configuration, target)
    for axes in panels[len(configurations) :]:
        axes.set_visible(False)
    if len(configurations) > 1:
        canvas.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper")
    else:
        put_legend_beside(panels[0])
    return canvas


def _draw_panel(axes: Axes, configuration: Configuration, target: Target | None) -> None:
    curves = _split_curves(configuration.runs[0])
    for place, (split, points) in enumerate(curves.items()):
        axes.plot(
            [step for step, _ in points],
            [loss for _, loss in points],
            color=COLOURS[place],
            linestyle=DASHES[place],
            label=legend_label(split),
        )
    losses = [loss for points in curves.values() for _, loss in _without_first_point(points)]
    if target is not None and min(losses) < NEAR * target.validation:
        style: dict[str, Any] = {"color": "#444444", "linewidth": 0.9, "linestyle": ":"}
        axes.axhline(target.validation, label="validation target", **style)
        losses.append(target.validation)
    room = 0.06 * (max(losses) - min(losses)) or 0.01 * abs(max(losses))
    axes.set_ylim(min(losses) - room, max(losses) + room)
    axes.ticklabel_format(axis="y", useOffset=False)
    axes.set_title(configuration.label, fontsize=10)
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    axes.set_xlim(left=0)
    axes.locator_params(axis="x", nbins=5)
    format_thousands(axes.xaxis)
