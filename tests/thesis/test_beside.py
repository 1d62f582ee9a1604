"""What the report says of the thesis' experiments: its numbers beside one's own, from the store alone."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean, median, pstdev, stdev
from typing import TYPE_CHECKING, Any, cast

import pytest
from alphagrid.analysis.comparison import ReportData
from alphagrid.analysis.report import report_json, report_tables, write_report
from alphagrid.analysis.report_warnings import warnings
from alphagrid.analysis.sections import applicable_sections
from alphagrid.analysis.sections.alpha_beginning import AlphaBeginningSection
from alphagrid.analysis.sections.alpha_components import AlphaComponentsSection
from alphagrid.analysis.sections.alpha_dispersion import AlphaDispersionSection
from alphagrid.analysis.sections.alpha_observations import AlphaObservationsSection
from alphagrid.analysis.sections.baseline_differences import BaselineDifferencesSection
from alphagrid.analysis.sections.best_and_worst import BestAndWorstSection
from alphagrid.analysis.sections.budget import BudgetSection
from alphagrid.analysis.sections.correlations import CorrelationsSection
from alphagrid.analysis.sections.loss_splits import LossSplitsSection
from alphagrid.analysis.sections.published import PublishedSection
from alphagrid.analysis.sections.rates_within_budget import RatesWithinBudgetSection
from alphagrid.analysis.sections.schedules import SchedulesSection
from alphagrid.analysis.sections.step_timings import StepTimingsSection
from alphagrid.analysis.sections.throughput import ThroughputSection
from alphagrid.analysis.tables import Table
from alphagrid.cli import app
from alphagrid.store.queries import AlphaRow
from typer.testing import CliRunner

if TYPE_CHECKING:
    from tests.thesis.conftest import Twin, Workshop

TOTAL, PLAIN, WAIT, ALPHA = 2000, 0.15, 0.05, 4.0
Rows = list[dict[str, Any]]


def rows(table: Table) -> Rows:
    return [dict(zip(table.raw_columns, row, strict=True)) for row in table.rows]


def table(tables: Sequence[Table], name: str) -> Table:
    return next(one for one in tables if one.name == name)


def beside(data: ReportData) -> Rows:
    (found,) = PublishedSection().tables(data)
    return rows(found)


def pick(found: Rows, item: str, quantity: str) -> dict[str, Any]:
    return next(row for row in found if (row["item"], row["quantity"]) == (item, quantity))


def fact(tables: Sequence[Table], name: str, of: str, quantity: str) -> dict[str, Any]:
    ends = re.compile(rf"\b{re.escape(of)}$" if of else "")  # "biased" ends "unbiased", too
    found = rows(table(tables, name))
    return next(row for row in found if ends.search(row["of"]) and row["quantity"] == quantity)


@pytest.mark.parametrize("name", ["observed", "by_steps", "by_time"])
def test_every_printed_number_of_an_experiment_has_yours_beside_it(
    name: str, request: pytest.FixtureRequest
) -> None:
    data = request.getfixturevalue(name)
    found = beside(data)
    assert len(found) > 40
    assert [row for row in found if row["yours"] is None] == []
    assert all(row["thesis"] is not None and row["where the thesis has it"] for row in found)


@pytest.mark.parametrize("experiment", ["exp1-observe", "exp2-steps-small", "exp2-time"])
def test_without_records_yours_is_empty_and_the_print_stays(
    empty: Workshop,
    make_grid: Callable[..., list[Twin]],
    make_observing: Callable[..., Twin],
    experiment: str,
) -> None:
    stop = {"stop": {"train_seconds": 100.0}} if "time" in experiment else {}
    twins = [make_observing()] if "observe" in experiment else make_grid(**stop)
    empty.write(experiment, twins, journals=False)
    data = empty.report(experiment)
    found = beside(data)
    assert len(found) > 40
    known = [row for row in found if row["yours"] is not None]
    assert {row["quantity"] for row in known} <= {"total_steps"}  # of the config, which is no result
    assert all(row["thesis"] is not None for row in found)
    for one in report_tables(data):
        if "yours" in one.columns and one.name != "schedule":
            told = [row["yours"] for row in rows(one) if row["quantity"] != "total_steps"]
            assert set(told) == {None}


def test_another_experiment_has_no_thesis_beside_it_unless_it_is_asked_for(
    empty: Workshop, make_grid: Callable[..., list[Twin]]
) -> None:
    empty.write("mine", make_grid()[-4:])
    data = empty.report("mine")
    assert not PublishedSection().applies(data)
    assert not any("thesis" in column for one in report_tables(data) for column in one.columns)
    assert [c.budget.label for c in data.comparisons] == ["until:nadamw", "all"]
    asked = empty.report("mine", reference="thesis2025")
    assert {row["item"].split(".")[0] for row in beside(asked)} == {"exp2_steps", "schedule"}


def test_evaluations_at_the_stop_are_left_out_beside_the_thesis_only(workshop: Workshop) -> None:
    beside_it = workshop.report("exp2-steps-small", steps=("2000",))
    alone = workshop.report("exp2-steps-small", steps=("2000",), reference="none")
    last = [max(row.step for row in run.evaluations) for run in beside_it.experiment.runs]
    assert set(last) == {1901}
    assert {max(row.step for row in run.evaluations) for run in alone.experiment.runs} == {TOTAL}
    assert any(
        "left out beside the thesis" in note for note in BestAndWorstSection().tables(beside_it)[0].notes
    )
    assert not any("left out" in note for note in BestAndWorstSection().tables(alone)[0].notes)


def test_the_budgets_are_the_thesis(by_steps: ReportData, by_time: ReportData) -> None:
    assert [(c.kind, c.budget.value) for c in by_steps.comparisons] == [("steps", 1000.0), ("steps", 2000.0)]
    assert [c.budget.label for c in by_time.comparisons] == ["until:nadamw", "all"]
    assert pick(beside(by_steps), "exp2_steps.budget_85328", "budget")["yours"] == TOTAL
    time = pick(beside(by_time), "exp2_time.budget_13699", "budget")["yours"]
    assert time == pytest.approx(TOTAL * (PLAIN + WAIT))


def test_a_budget_in_numbers_means_the_same_as_one_in_words(workshop: Workshop) -> None:
    for steps in (("1000", "2000"), ("1000", "1999"), ("50%", "all")):
        data = workshop.report("exp2-steps-small", steps=steps)
        assert all(row["yours"] is not None for row in beside(data)), steps
    other = workshop.report("exp2-steps-small", steps=("1500",))
    assert pick(beside(other), "exp2_steps.budget_half.grid", "best_validation_loss")["yours"] is None


def test_best_and_worst_cells_are_told_with_their_differences(by_steps: ReportData) -> None:
    comparison = by_steps.comparisons[-1]
    losses = {e.configuration.label: e.best.mean for e in comparison.entries if e.best}
    cells = {e.configuration.label: losses[e.configuration.label] for e in comparison.cells}
    found = [row for row in rows(BestAndWorstSection().tables(by_steps)[0]) if row["of"] == comparison.title]
    told = {row["quantity"]: row for row in found}
    best, worst = min(cells, key=cells.__getitem__), max(cells, key=cells.__getitem__)
    assert (told["best cell"]["at"], told["worst cell"]["at"]) == (best, worst)
    assert told["worst − best"]["yours"] == pytest.approx(cells[worst] - cells[best])
    assert told["best cell − nadamw"]["yours"] == pytest.approx(cells[best] - losses["nadamw"])
    assert told["best cell − nadamw"]["thesis"] == 0.000086
    assert told["best cell − schedule-free"]["thesis"] == -0.000234
    assert told["best cell"]["thesis"] == 0.124372


def test_cells_of_several_workloads_have_no_best_and_worst(
    empty: Workshop, make_grid: Callable[..., list[Twin]]
) -> None:
    cells = make_grid()[:2]
    empty.write("mine", cells)
    assert BestAndWorstSection().applies(empty.report("mine"))
    cells[0].workload = "digits_mlp"
    empty.write("other", cells)
    assert not BestAndWorstSection().applies(empty.report("other"))


def test_correlations_have_r_and_p_of_the_thesis_beside_them(by_time: ReportData) -> None:
    (found,) = CorrelationsSection().tables(by_time)
    small = [row for row in rows(found) if "until:nadamw" in row["budget"]]
    assert [(row["r, thesis"], row["p, thesis"], row["n"]) for row in small] == [
        (-0.573, 0.107, 9),
        (0.721, 0.028, 9),
        (-0.830, 0.006, 9),
        *[(None, None, 9)] * 3,  # on the normalised clock, of which the thesis has none
    ]
    assert ["normalised clock" in row["budget"] for row in small] == [False] * 3 + [True] * 3
    assert found.shown[0][5] == "-0.573"


def test_learning_rates_within_a_budget_are_those_of_the_runs(by_steps: ReportData) -> None:
    found = table(RatesWithinBudgetSection().tables(by_steps), "learning-rates-steps-until-nadamw")
    told = {row["configuration"]: row for row in rows(found)}
    run = by_steps.experiment.runs[0]
    medians = [event for event in run.events if event.event == "learning_rate"]
    acting: list[float] = []
    for event, later in zip(medians, [*medians[1:], None], strict=True):
        begin = event.details["window_start"] + event.details["of"]
        end = TOTAL if later is None else later.details["window_start"] + later.details["of"]
        acting += [event.details["value"]] * (end - begin)
    mine = told["interval 100, count 5"]
    assert mine["SD"] == pytest.approx(pstdev(acting))
    assert mine["range"] == pytest.approx(max(acting) - min(acting))
    windows = run.windows
    assert mine["mean"] == pytest.approx(sum(w.lr_mean * w.steps for w in windows) / TOTAL)
    assert (mine["mean, thesis"], mine["range, thesis"]) == (0.000225, 0.0005658)
    assert told["nadamw"]["SD, thesis"] == 0.0000770
    assert told["nadamw"]["median"] == pytest.approx(1.0929e-4, rel=0.005)
    assert told["schedule-free"]["mean, thesis"] is None


def test_rates_end_with_the_budget_of_time(by_time: ReportData) -> None:
    small, normalised, large, _ = RatesWithinBudgetSection().tables(by_time)
    assert all(one["steps"] <= other["steps"] for one, other in zip(rows(small), rows(large), strict=True))
    assert rows(small)[0]["SD, thesis"] == 2.40e-5
    assert rows(small)[0]["range, thesis"] is None  # not legible in table C.4
    assert rows(large)[6]["SD, thesis"] == 2.12e-4
    slow = [{row["configuration"]: row["steps"] for row in rows(table)} for table in (small, normalised)]
    assert [told["interval 200, count 10"] for told in slow] == [550, 1000]
    assert "SD, thesis" not in normalised.columns


def test_steps_within_a_time_show_the_other_clock_and_name_the_slow_node(by_time: ReportData) -> None:
    small, _, waiting = ThroughputSection().tables(by_time)
    told = {row["configuration"]: row for row in rows(small)}
    slow = told["interval 200, count 10"]
    assert (slow["steps"], slow["… on the normalised clock"]) == (550, 1000)
    assert told["nadamw"]["steps, thesis"] == 85_328
    assert slow["steps, thesis"] == 8002
    assert any("snail (+100 %)" in note for note in (*small.notes, *waiting.notes))
    assert told["interval 100, count 5"]["implied cost of one (s)"] == pytest.approx(ALPHA, rel=0.1)
    assert slow["implied cost, thesis"] == pytest.approx(161.2, abs=0.05)


def test_differences_and_targets_are_told_on_both_clocks(by_time: ReportData) -> None:
    on_the_slow_node = ("interval 200, count 10", "interval 200, count 25")
    found = [
        row
        for row in rows(BaselineDifferencesSection().tables(by_time)[0])
        if (row["baseline"], row["configuration"]) == ("nadamw", on_the_slow_node[0])
        and "until:nadamw" in row["budget"]
    ]
    assert [row["steps in the baseline's (%)"] for row in found] == [27.5, 50]
    assert found[1]["difference of the best loss"] < found[0]["difference of the best loss"]
    (targets,) = LossSplitsSection().tables(by_time)
    for row in rows(targets):
        measured, normalised = row["first at seconds"], row["first at seconds, normalised clock"]
        if row["configuration"] in on_the_slow_node:
            assert normalised < 0.6 * measured, row
        else:
            assert normalised == (None if measured is None else pytest.approx(measured, rel=0.1)), row


def test_the_wait_for_data_of_every_run_is_told(by_time: ReportData) -> None:
    waiting = {row["run"]: row for row in rows(ThroughputSection().tables(by_time)[-1])}
    plain = waiting["nadamw-seed0"]
    assert plain["waiting for data (%)"] == pytest.approx(100 * WAIT / (PLAIN + WAIT))
    assert plain["time without it (s)"] == pytest.approx(TOTAL * PLAIN)
    assert plain["passes over the data"] == pytest.approx(TOTAL * 32768 / 4_195_197_692)


def test_a_clock_without_the_wait_for_data_reads_every_budget_from_it(workshop: Workshop) -> None:
    data = workshop.report("exp2-time-small", clock="without-data-wait")
    comparison = data.comparisons[0]
    assert comparison.budget.value == pytest.approx(TOTAL * PLAIN)
    assert comparison.on_other_clock is not None
    assert comparison.on_other_clock.budget.value == pytest.approx(TOTAL * (PLAIN + WAIT))
    found = BudgetSection().tables(data)[0]
    assert "without-data-wait clock" in found.title
    assert any("On the measured clock the budget is" in note for note in found.notes)
    assert report_json(data)["clock"] == "without-data-wait"
    assert "… on the measured clock" in found.columns


def test_observed_alpha_spreads_as_its_values_do(observed: ReportData) -> None:
    (run,) = observed.experiment.runs
    values = [row.estimates["unbiased"].alpha_abs or math.nan for row in run.alphas if row.step > 0]
    tables = AlphaDispersionSection().tables(observed)
    name = "alpha-dispersion"

    def told(quantity: str) -> Any:
        return fact(tables, name, "unbiased", f"absolute, {quantity}")["yours"]

    windows = [
        [
            row.estimates["unbiased"].alpha_abs or math.nan
            for row in run.alphas
            if row.step // 100 == k and row.step > 0
        ]
        for k in range(20)
    ]
    means, medians = [fmean(w) for w in windows], [median(w) for w in windows]
    assert told("values") == len(values) == 199
    assert told("mean") == pytest.approx(fmean(values))
    assert told("median") == pytest.approx(median(values))
    assert told("SD") == pytest.approx(stdev(values))
    assert told("range") == pytest.approx(max(values) - min(values))
    assert told("range of the windows' means") == pytest.approx(max(means) - min(means))
    assert told("range of the windows' medians") == pytest.approx(max(medians) - min(medians))
    assert told("negative (%)") == pytest.approx(100 * sum(v < 0 for v in values) / 199)
    assert told("CV: SD / mean") == pytest.approx(stdev(values) / fmean(values))
    assert told("SD / range (equation 4.2)") == pytest.approx(stdev(values) / (max(values) - min(values)))
    printed = fact(tables, name, "unbiased", "absolute, SD / range (equation 4.2)")
    assert printed["thesis"] == 3.56
    assert any("0.092" in note for note in tables[0].notes)


def test_the_first_step_counts_in_no_statistic_of_alpha(observed: ReportData) -> None:
    (found,) = AlphaObservationsSection().tables(observed)
    assert {row["n"] for row in rows(found)} == {199}
    assert any("warm-up begins from nothing" in note for note in found.notes)


def test_components_cosines_and_the_decomposition_have_the_thesis_beside_them(observed: ReportData) -> None:
    tables = AlphaComponentsSection().tables(observed)
    numerator = fact(tables, "alpha-components", "biased", "numerator, mean")
    assert numerator["thesis"] == 3.65e-4
    cosine = fact(tables, "alpha-components", "seed0", "mean cosine of d₂ and g₁")
    assert (cosine["yours"], cosine["thesis"]) == (pytest.approx(-0.0063), -0.0063)
    share = fact(tables, "alpha-pairs", "biased and unbiased", "numerator's share (%)")
    assert share["yours"] > 90
    index = table(tables, "alpha-pairs").columns.index("thesis")
    assert "> 98" in [row[index] for row in table(tables, "alpha-pairs").shown]
    r = fact(tables, "alpha-pairs", "biased and unbiased", "denominators, r")
    assert (r["yours"], r["thesis"], r["n"]) == (pytest.approx(1.0), 0.9998, 199)


def test_the_beginning_tells_the_first_step_and_the_first_windows(observed: ReportData) -> None:
    tables = AlphaBeginningSection().tables(observed)
    first = fact(tables, "alpha-beginning", "seed0", "first step, norm of d")
    assert (first["yours"], first["thesis"]) == (pytest.approx(2.19e-12, rel=0.01), 3.76e-12)
    second = fact(tables, "alpha-beginning", "unbiased", "second window, mean absolute α*")
    assert second["thesis"] == 0.000104


def test_the_parts_of_an_alpha_step_are_those_of_table_4_1(workshop: Workshop) -> None:
    data = workshop.report("pretest-small")
    tables = StepTimingsSection().tables(data)

    def told(quantity: str) -> dict[str, Any]:
        return fact(tables, "alpha-step", "", quantity)

    assert told("products with G (s)")["yours"] == pytest.approx(0.87 * ALPHA)
    assert told("the rest of α* (s)")["yours"] == pytest.approx(0.13 * ALPHA)
    assert told("complete step (s)")["yours"] == pytest.approx(PLAIN + WAIT + ALPHA)
    assert told("complete step (s)")["thesis"] == 43.1561
    assert told("complete step over one without α*")["yours"] == pytest.approx(21)
    items = {row["item"] for row in beside(data)}
    assert items == {"pretest"}


def test_without_its_parts_only_the_whole_of_alpha_is_known(
    empty: Workshop, make_observing: Callable[..., Twin]
) -> None:
    empty.write("pretest", [make_observing(stop={"steps": 200})])
    tables = StepTimingsSection().tables(empty.report("pretest"))
    assert fact(tables, "alpha-step", "", "products with G (s)")["yours"] is None
    assert fact(tables, "alpha-step", "", "complete step (s)")["yours"] == pytest.approx(PLAIN + WAIT + ALPHA)


def test_the_schedule_stands_beside_the_unscaled_one(observed: ReportData, workshop: Workshop) -> None:
    (figure,) = SchedulesSection().figures(observed)
    (axes,) = figure.draw().axes
    applied, before = ([list(cast(Any, part)) for part in line.get_data()] for line in axes.lines)
    assert max(before[1]) == pytest.approx(8 * max(applied[1]))
    assert max(before[0]) == pytest.approx(max(applied[0]) / 8)
    (alone,) = SchedulesSection().figures(workshop.report("exp1-observe-small", reference="none"))
    assert len(alone.draw().axes[0].lines) == 1


def test_targets_are_those_of_the_workload(by_steps: ReportData) -> None:
    (found,) = LossSplitsSection().tables(by_steps)
    assert {row["target"] for row in rows(found)} == {0.123735, 0.126041}
    nadamw = next(row for row in rows(found) if row["configuration"] == "nadamw")
    assert nadamw["seeds that reached it"] == "1 of 1"
    assert 1000 < nadamw["first at step"] < TOTAL


@pytest.mark.parametrize("name", ["observed", "by_steps", "by_time"])
def test_every_figure_of_the_thesis_is_drawn_and_named(
    name: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    data = request.getfixturevalue(name)
    captions = " ".join(
        figure.caption for section in applicable_sections(data) for figure in section.figures(data)
    )
    numbers = set(re.findall(r"Thesis, figure ([\w.–]+?)\.?(?=\s|$|,)", captions)) | (
        {"4.1"} if "figure 4.1:" in captions else set()
    )
    expected = {
        "observed": {"4.1", "4.3", "4.4", "4.5", "4.6", "4.7"},
        "by_steps": {"4.1", "4.9", "4.10", "B.1", "B.2–B.4"},
        "by_time": {"4.1", "4.11", "4.12", "4.13", "4.14", "C.1", "C.2"},
    }
    assert expected[name] <= numbers


def test_figures_of_observed_alpha_show_the_means_of_its_windows(observed: ReportData) -> None:
    run = next(run for run in observed.experiment.runs if run.alphas)
    (vanishing, *rows_of_alpha), interval = run.alphas, run.row.config["alpha"]["interval"]
    assert vanishing.learning_rate == pytest.approx(0, abs=1e-6)
    windows: dict[int, list[AlphaRow]] = {}
    for row in rows_of_alpha:
        windows.setdefault(row.step // interval, []).append(row)

    def means(name: str, part: str) -> list[float]:
        found = [[getattr(row.estimates[name], part) for row in window] for window in windows.values()]
        return [fmean(values) for values in found]

    drawn = {figure.name: figure.draw() for figure in [
        *AlphaDispersionSection().figures(observed), *AlphaComponentsSection().figures(observed)
    ]}  # fmt: skip
    for name in ("biased", "unbiased", "hybrid"):
        lines = {line.get_label(): line for line in drawn["alpha-relative-means"].axes[0].lines}
        assert list(cast(Any, lines[name].get_ydata())) == pytest.approx(means(name, "alpha_rel"))
        bars = cast(Any, drawn[f"alpha-absolute-{name}"].axes[0].containers[0])
        assert list(bars.lines[0].get_ydata()) == pytest.approx(means(name, "alpha_abs"))
        panel = next(axes for axes in drawn["alpha-components"].axes if axes.get_title() == name)
        numerator, denominator = panel.lines[:2]
        assert list(cast(Any, numerator.get_ydata())) == pytest.approx([-v for v in means(name, "slope")])
        assert list(cast(Any, denominator.get_ydata())) == pytest.approx(means(name, "curvature"))


def test_lines_of_rates_end_with_their_budget_and_are_marked_at_the_smaller_one(by_time: ReportData) -> None:
    figures = {figure.name: figure for figure in RatesWithinBudgetSection().figures(by_time)}
    (axes,) = figures["learning-rates-seconds-all-interval200"].draw().axes
    steps = [list(cast(Any, line.get_xdata())) for line in axes.lines]
    assert [max(line) for line in steps if len(line) > 1][1:] == [6004, 2299, 1404]
    assert [line[0] for line in steps if len(line) == 1] == [1350, 550, 400]
    assert axes.get_legend_handles_labels()[1][1:] == [
        "interval 200, count 5",
        "interval 200, count 10",
        "interval 200, count 25",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["observed", "by_steps", "by_time"])
def test_the_whole_report_is_written(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    data = request.getfixturevalue(name)
    paths = write_report(data, tmp_path)
    assert all(path.stat().st_size for path in paths)
    text = paths[0].read_text()
    assert "## Beside the thesis" in text
    written = list(csv.DictReader((tmp_path / "tables" / "published.csv").open()))
    assert all(row["yours"] and row["thesis"] for row in written)


def test_the_command_takes_a_reference_and_refuses_another(workshop: Workshop) -> None:
    root = ["--root", str(workshop.root.path)]
    table = CliRunner().invoke(app, ["report", "pretest-small", *root, "--format", "markdown"])
    assert "## Beside the thesis" in table.stdout
    none = CliRunner().invoke(
        app, ["report", "pretest-small", *root, "--format", "markdown", "--reference", "none"]
    )
    assert none.exit_code == 0
    assert "thesis" not in none.stdout
    refused = CliRunner().invoke(app, ["report", "pretest-small", *root, "--reference", "thesis"])
    assert refused.exit_code == 2
    clock = CliRunner().invoke(
        app, ["report", "pretest-small", *root, "--json", "--clock", "without-data-wait"]
    )
    assert json.loads(clock.stdout)["clock"] == "without-data-wait"


def test_warnings_of_slow_nodes_stand_above_the_report(by_time: ReportData) -> None:
    assert any("Slow nodes" in warning and "snail" in warning for warning in warnings(by_time))
