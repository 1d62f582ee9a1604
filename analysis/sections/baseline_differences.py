"""Every configuration compared with each baseline: its share of the steps, and the difference of losses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from ..budget import BudgetResult
from ..comparison import Comparison, Entry, ReportData
from ..plots.canvas import COLOURS, QUIET, new_canvas
from ..plots.figure import Figure
from ..significance import LEVEL, Difference, holm
from ..statistics import MeanAndSD, mean_of
from ..tables import Cell, Table
from .base import ReportSection

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

TITLE = "Beside the baselines"
COLUMNS = (
    "budget",
    "baseline",
    "configuration",
    "steps in the baseline's (%)",
    "difference of the best loss",
    "SD",
    "n",
    "p",
    "p (Holm)",
    "told apart",
)
PAIRS = (
    "Difference: best validation loss minus the baseline's, seed by seed (a seed has one order of batches "
    "and one initial model); below 0 is better than the baseline."
)
TEST = (
    "p: Student's paired test, two-sided; Holm's correction over the configurations beside one baseline "
    f"within one budget. Significant: Holm-corrected p < {LEVEL}. With few seeds only large differences are."
)
ONE_SEED = "One seed each: no difference can be tested for significance."
CAPTION = (
    "Difference of the best validation loss to the baseline's, seed by seed: mean and 95 % interval "
    f"(Student's t, not corrected for their number). Grey: not significant (Holm-corrected p ≥ {LEVEL})."
)
MOST = 40
"""The maximum number of configurations drawn."""


@dataclass(frozen=True)
class _Pairing:
    """A configuration and a baseline within a budget."""

    entry: Entry
    share: float | None
    difference: Difference
    corrected: float | None = None

    @property
    def verdict(self) -> str:
        if self.corrected is None or self.corrected >= LEVEL:
            return "no"
        return "better" if self.difference.mean < 0 else "worse"


class BaselineDifferencesSection(ReportSection):
    """The section “Beside the baselines”."""

    title = TITLE

    def applies(self, data: ReportData) -> bool:
        """Return whether a configuration shares a seed with a baseline."""
        return any(_ranked_pairings(c, b) for c in data.comparisons for b in c.baselines)

    def tables(self, data: ReportData) -> list[Table]:
        """Return one row for each budget and clock, baseline and configuration, the best first."""
        rows = [
            _difference_row(comparison, baseline, pairing)
            for comparison in data.on_both_clocks
            for baseline in comparison.baselines
            for pairing in _ranked_pairings(comparison, baseline)
        ]
        notes = [PAIRS, TEST] if data.most_seeds > 1 else [PAIRS, ONE_SEED]
        table = Table.of("baseline-differences", TITLE, COLUMNS, rows, notes)
        return [replace(table, columns=(*COLUMNS[:-1], "significant"))]

    def figures(self, data: ReportData) -> list[Figure]:
        """Return one figure for each budget: the differences to each baseline, with their intervals."""
        return [
            Figure(
                f"baseline-differences-{comparison.slug}",
                f"{TITLE}, within {comparison.title}",
                CAPTION,
                partial(_draw_differences, comparison),
            )
            for comparison in data.comparisons
            if any(_ranked_pairings(comparison, baseline) for baseline in comparison.baselines)
        ]


def _ranked_pairings(comparison: Comparison, baseline: Entry) -> list[_Pairing]:
    """Pair all others with a baseline; the lowest difference first."""
    others = [entry for entry in comparison.entries if entry is not baseline]
    pairings = [pairing for entry in others for pairing in _pair_with_baseline(entry, baseline)]
    corrected = holm([pairing.difference.p for pairing in pairings])
    tested = [replace(pairing, corrected=p) for pairing, p in zip(pairings, corrected, strict=True)]
    return sorted(tested, key=lambda pairing: pairing.difference.mean)


def _pair_with_baseline(entry: Entry, baseline: Entry) -> Iterator[_Pairing]:
    baseline_results = _results_by_seed(baseline)
    pairs = [
        (result, baseline_results[seed])
        for seed, result in _results_by_seed(entry).items()
        if seed in baseline_results
    ]
    difference = Difference.of(
        [
            result.best_validation_loss - baseline_result.best_validation_loss
            for result, baseline_result in pairs
            if result.best_validation_loss is not None and baseline_result.best_validation_loss is not None
        ]
    )
    shares = MeanAndSD.of(
        100 * result.steps_reached / baseline_result.steps_reached
        for result, baseline_result in pairs
        if result.steps_reached is not None and baseline_result.steps_reached
    )
    if difference is not None:
        yield _Pairing(entry, mean_of(shares), difference)


def _results_by_seed(entry: Entry) -> dict[object, BudgetResult]:
    runs = entry.configuration.runs
    return {run.row.config.get("seed"): out for run, out in zip(runs, entry.outcomes, strict=True)}


def _difference_row(comparison: Comparison, baseline: Entry, pairing: _Pairing) -> tuple[Cell, ...]:
    difference = pairing.difference
    return (
        comparison.title,
        baseline.configuration.label,
        pairing.entry.configuration.label,
        pairing.share,
        difference.mean,
        difference.deviation,
        difference.n,
        difference.p,
        pairing.corrected,
        pairing.verdict,
    )


def _draw_differences(comparison: Comparison) -> Canvas:
    baselines = [baseline for baseline in comparison.baselines if _ranked_pairings(comparison, baseline)]
    order = [pairing.entry for pairing in _ranked_pairings(comparison, baselines[0])][:MOST]
    order += [baselines[0]] if len(baselines) > 1 else []
    canvas = new_canvas(4.2 * len(baselines) + 2.4, 0.27 * len(order) + 1.4)
    panels = canvas.subplots(1, len(baselines), sharey=True, squeeze=False)[0]
    for axes, baseline in zip(panels, baselines, strict=True):
        _draw_panel(axes, comparison, baseline, order)
    panels[0].set_yticks(range(len(order)), [entry.configuration.label for entry in order])
    panels[0].set_ylim(len(order) - 0.4, -0.6)
    return canvas


def _draw_panel(axes: Axes, comparison: Comparison, baseline: Entry, order: list[Entry]) -> None:
    places = {id(entry): place for place, entry in enumerate(order)}
    for pairing in _ranked_pairings(comparison, baseline):
        if id(pairing.entry) in places:
            colour = {"no": "#8A8A8A", "better": COLOURS[0], "worse": COLOURS[1]}[pairing.verdict]
            axes.errorbar(
                pairing.difference.mean,
                places[id(pairing.entry)],
                xerr=pairing.difference.half_width,
                fmt="o",
                color=colour,
                markersize=5.5,
                elinewidth=1.3,
                capsize=2.5,
            )
    axes.axvline(0, color="#444444", linewidth=1)
    axes.grid(visible=False, axis="y")
    axes.hlines(range(len(order)), *axes.get_xlim(), color=QUIET, linewidth=0.4, zorder=0)
    axes.margins(x=0)
    axes.locator_params(axis="x", nbins=5)
    axes.set_title(f"minus {baseline.configuration.label}")
    axes.set_xlabel("difference of the best validation loss")
