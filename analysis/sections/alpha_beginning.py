"""How observed α* begins: its very first step, and the means of its first two windows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from ...store.queries import AlphaRow
from ..alphas import after_vanishing_rates, estimator_values, group_by_window
from ..comparison import ReportData
from ..configurations import Configuration
from ..data import RunData
from ..observed_alphas import estimator_names, observed_configurations, over_seeds, window_mean
from ..reference import Key
from ..tables import Table
from ..thesis.compared_statistics import Statistic, statistics_table
from .base import ReportSection

TITLE = "How α* begins"
SCALARS = {
    "direction_norm": ("norm of d", "direction_norm"),
    "probe_cosine": ("cosine of d₂ and g₁", "cosine_d2_g1"),
    "cosine": ("cosine of d₂ and g₂", "cosine_d2_g2"),
}
WINDOWS = ("mean_steps_0_49", "mean_steps_1000_1049")
"""The first window and the second, as the thesis names their means."""
NOTE = (
    "First step: 0-based step 0, where a warm-up begins from nothing; the statistics elsewhere leave it out. "
    "Means over seeds."
)
FIRST_WINDOW = (
    "The thesis' code multiplied by the learning rate of the next step, and took d as a difference of "
    "float32 parameters: its first step (α* above 1e14) and the means of its first window (0.000268 and "
    "0.000267) are not to be expected here."
)


class AlphaBeginningSection(ReportSection):
    """The section “How α* begins”."""

    title = TITLE

    def applies(self, data: ReportData) -> bool:
        """Return whether α* was observed, or should be according to a reference."""
        return self.has_values(data) or bool(data.reference and observed_configurations(data))

    def tables(self, data: ReportData) -> list[Table]:
        """Return the first step and the first windows."""
        notes = [NOTE, *([FIRST_WINDOW] if data.reference is not None else [])]
        return [statistics_table("alpha-beginning", TITLE, self.statistics(data), data.reference, notes)]

    def statistics(self, data: ReportData) -> list[Statistic]:
        """Return the statistics of the configurations that measure their first step."""
        statistics: list[Statistic] = []
        for configuration in observed_configurations(data):
            if not configuration.runs[0].config_section("alpha").get("start_step"):
                statistics += _first_step_statistics(configuration)
                statistics += _first_window_statistics(configuration)
        return statistics


def _first_step_statistics(configuration: Configuration) -> Iterator[Statistic]:
    def statistic(
        subject: str, words: str, read: Callable[[AlphaRow], float | None], quantity: str
    ) -> Statistic:
        value = over_seeds(configuration, partial(_value_at_first_step, read))
        return Statistic(subject, f"first step, {words}", value, key=Key("exp1.first_step", quantity))

    for name in estimator_names(configuration):
        subject = f"{configuration.label}, {name}"
        yield statistic(subject, "relative α*", partial(_estimate_field, name, "alpha_rel"), "alpha_rel")
        yield statistic(subject, "denominator", partial(_estimate_field, name, "curvature"), "denominator")
    for scalar, (words, quantity) in SCALARS.items():
        yield statistic(configuration.label, words, partial(_scalar_value, scalar), quantity)


def _value_at_first_step(read: Callable[[AlphaRow], float | None], run: RunData) -> float | None:
    row = next((row for row in run.alphas if row.step == 0 and row.repeat == 0), None)
    return None if row is None else read(row)


def _estimate_field(name: str, field: str, row: AlphaRow) -> float | None:
    return getattr(row.estimates[name], field) if name in row.estimates else None


def _scalar_value(name: str, row: AlphaRow) -> float | None:
    value: float | None = getattr(row, name)
    return value


def _first_window_statistics(configuration: Configuration) -> Iterator[Statistic]:
    for name in estimator_names(configuration):
        for place, quantity in enumerate(WINDOWS):
            value = over_seeds(configuration, partial(_mean_of_window, name, place))
            subject = f"{configuration.label}, {name}"
            words = f"{'first' if place == 0 else 'second'} window, mean absolute α*"
            yield Statistic(subject, words, value, key=Key(f"exp1.alpha_abs_{name}", quantity))


def _mean_of_window(name: str, place: int, run: RunData) -> float | None:
    windows = group_by_window(estimator_values(after_vanishing_rates(run), name, "absolute"), run)
    return window_mean(windows[place]) if place < len(windows) else None
