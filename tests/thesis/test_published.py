"""The published values: read as printed, and those that follow from one another worked out again."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from alphagrid.analysis.costs import implied_alpha_cost, steps_with_alpha
from alphagrid.analysis.dispersion import coefficient_of_variation, range_relative_deviation
from alphagrid.analysis.epochs import epochs_of_steps
from alphagrid.analysis.estimator_pairs import Decomposition
from alphagrid.analysis.reference import HEDGES, THESIS, Key, Reference, read_reference, reference_for
from alphagrid.analysis.statistics import p_of_r
from alphagrid.errors import UserError

INTERVALS, COUNTS = (1000, 2000, 5000), (10, 25, 50)
CELLS = [(interval, count) for interval in INTERVALS for count in COUNTS]
SMALL, LARGE = "exp2_time.budget_13699", "exp2_time.budget_61624"


@pytest.fixture(scope="module")
def thesis() -> Reference:
    return read_reference("thesis2025")


def value(thesis: Reference, item: str, quantity: str, cell: tuple[int, int] | None = None) -> float:
    found = thesis.value(Key(item, quantity, cell))
    assert found is not None, (item, quantity, cell)
    return found


def test_every_row_is_read_as_printed_and_says_where_it_stands(thesis: Reference) -> None:
    assert len(thesis.rows) == 284
    assert all(
        row.source and math.isfinite(row.value) and float(row.printed) == row.value for row in thesis.rows
    )
    cells = [row.key.place for row in thesis.rows if row.key.place]
    assert set(cells) == set(CELLS)


def test_a_table_goes_before_the_text_that_rounds_it(thesis: Reference) -> None:
    found = thesis.find(Key("exp2_steps.learning_rate", "mean", (5000, 10)))
    assert found is not None
    assert (found.printed, found.source) == ("0.0001365", "table B.1")
    assert Counter(row.key for row in thesis.rows)[found.key] == 2


def test_a_bound_is_found_under_its_plain_name_and_keeps_its_sign(thesis: Reference) -> None:
    share = thesis.find(Key("exp1.alpha_unbiased_minus_biased", "numerator_share"))
    assert share is not None
    assert (share.text, share.value) == ("> 98", 98.0)
    r = thesis.find(Key("exp1.alpha_rel_biased_vs_unbiased", "pearson_r"))
    assert r is not None
    assert r.text == "0.842"  # rather than the text's > 0.8
    assert not any(row.key.plain.quantity.endswith(HEDGES) for row in thesis.rows)


@pytest.mark.parametrize("name", THESIS)
def test_the_thesis_stands_beside_its_own_experiments_unasked(name: str) -> None:
    for experiment in (name, f"{name}-small"):
        found = reference_for(experiment)
        assert found is not None
        results = {part for parts in THESIS.values() for part in parts}
        assert {row.key.part for row in found.rows} & results == set(THESIS[name])
        assert reference_for(experiment, "none") is None


def test_any_other_experiment_has_it_when_it_is_asked_for() -> None:
    assert reference_for("exp3") is None
    found = reference_for("exp3", "thesis2025")
    assert found is not None
    assert len(found.rows) == 284


def test_a_reference_that_does_not_exist_is_refused_with_the_nearest() -> None:
    with pytest.raises(UserError, match="no reference 'thesis2024'") as refusal:
        reference_for("exp1-observe", "thesis2024")
    assert refusal.value.hint == "did you mean thesis2025?"


@pytest.mark.parametrize("name", ["biased", "unbiased"])
def test_the_coefficients_of_variation_follow_from_means_and_sds(thesis: Reference, name: str) -> None:
    item = f"exp1.alpha_abs_{name}"
    found = coefficient_of_variation(value(thesis, item, "mean"), value(thesis, item, "sd"))
    assert found == pytest.approx(value(thesis, item, "cv"), rel=0.003)


@pytest.mark.parametrize(("name", "formula"), [("biased", 0.160), ("unbiased", 0.092)])
def test_the_range_relative_sds_do_not_follow_from_equation_4_2(
    thesis: Reference, name: str, formula: float
) -> None:
    item = f"exp1.alpha_abs_{name}"
    found = range_relative_deviation(value(thesis, item, "sd"), value(thesis, item, "range"))
    assert found == pytest.approx(formula, abs=5e-4)
    assert value(thesis, item, "rsd_range") > 6 * formula


def test_by_the_formula_biased_alpha_spreads_more_relative_to_its_range(thesis: Reference) -> None:
    biased, unbiased = (
        value(thesis, f"exp1.alpha_abs_{name}", "sd") / value(thesis, f"exp1.alpha_abs_{name}", "range")
        for name in ("biased", "unbiased")
    )
    printed = [value(thesis, f"exp1.alpha_abs_{name}", "rsd_range") for name in ("biased", "unbiased")]
    assert biased > unbiased
    assert printed[0] < printed[1]


@pytest.mark.parametrize(
    "quantity", ["mean", "median", "sd", "range", "range_of_chunk_means", "range_of_chunk_medians"]
)
def test_the_ratios_to_unbiased_follow_within_rounding(thesis: Reference, quantity: str) -> None:
    biased, unbiased = (value(thesis, f"exp1.alpha_abs_{name}", quantity) for name in ("biased", "unbiased"))
    printed = value(thesis, "exp1.alpha_abs_biased", f"{quantity}_ratio_to_unbiased")
    assert biased / unbiased == pytest.approx(printed, rel=0.006)


@pytest.mark.parametrize("quantity", ["mean", "median"])
def test_the_ratios_to_the_highest_rate_follow_within_rounding(thesis: Reference, quantity: str) -> None:
    found = value(thesis, "exp1.alpha_abs_biased", quantity) / value(thesis, "schedule", "max")
    printed = value(thesis, "exp1.alpha_abs_biased", f"{quantity}_ratio_to_schedule_max")
    assert found == pytest.approx(printed, rel=0.005)
    assert (found > 20) == (quantity == "mean")  # "over 20-fold" holds for the mean alone


def test_the_share_of_negative_values_follows_with_either_n(thesis: Reference) -> None:
    item = "exp1.alpha_abs_unbiased"
    negative, printed = value(thesis, item, "n_negative"), value(thesis, item, "share_negative")
    assert 100 * negative / 4300 == pytest.approx(printed, abs=0.005)
    assert 100 * negative / 4299 == pytest.approx(printed, abs=0.005)


def test_the_shares_of_the_decomposition_follow_but_the_sum_of_its_parts_does_not(thesis: Reference) -> None:
    numerator = value(thesis, "exp1.alpha_hybrid_minus_biased", "mean")
    denominator = value(thesis, "exp1.alpha_unbiased_minus_hybrid", "mean")
    found = Decomposition(numerator, denominator, 4299)
    assert found.numerator_share == pytest.approx(0.9873, abs=5e-5)
    assert (found.denominator_share or 1.0) < 0.02
    means = [value(thesis, f"exp1.alpha_rel_{name}", "mean") for name in ("unbiased", "biased")]
    assert numerator + denominator - (means[0] - means[1]) == pytest.approx(0.39, abs=0.005)


@pytest.mark.parametrize("budget", ["exp2_steps.budget_85328", SMALL, LARGE])
@pytest.mark.parametrize("name", ["interval", "count", "steps"])
def test_every_p_follows_from_its_r_and_nine_cells(thesis: Reference, budget: str, name: str) -> None:
    item = f"{budget}.{name}_vs_loss"
    r = thesis.value(Key(item, "pearson_r"))
    if r is not None:
        assert p_of_r(r, 9) == pytest.approx(value(thesis, item, "p"), abs=0.0011)
    else:
        assert item == "exp2_steps.budget_85328.steps_vs_loss"  # where all cells did the same steps


@pytest.mark.parametrize(
    ("budget", "baseline"),
    [
        ("exp2_steps.budget_85328", "nadamw_schedule"),
        ("exp2_steps.budget_85328", "schedule_free_adamw"),
        ("exp2_steps.budget_half", "nadamw_schedule"),
        (SMALL, "nadamw_schedule"),
        (SMALL, "schedule_free_adamw"),
        (LARGE, "schedule_free_adamw"),
    ],
)
def test_the_differences_to_the_baselines_follow(thesis: Reference, budget: str, baseline: str) -> None:
    best = value(thesis, f"{budget}.grid", "best_validation_loss")
    other = value(thesis, f"{budget}.{baseline}", "best_validation_loss")
    printed = value(thesis, f"{budget}.grid", f"difference_to_{baseline}")
    assert best - other == pytest.approx(printed, abs=5e-7)


def test_the_parts_of_table_4_1_follow_but_for_the_last_digit(thesis: Reference) -> None:
    parts = [
        value(thesis, "pretest", f"seconds_per_step_{name}")
        for name in ("ggn_linear_operator", "other_alpha", "non_alpha")
    ]
    complete = value(thesis, "pretest", "seconds_per_step_complete")
    assert sum(parts) - complete == pytest.approx(1e-4, abs=1e-8)
    assert 100 * parts[0] / complete > value(thesis, "pretest", "share_ggn_linear_operator")
    assert 100 * (parts[0] + parts[1]) / complete > value(thesis, "pretest", "share_all_alpha")
    assert complete / parts[2] == pytest.approx(70.47, abs=0.01)


def test_the_passes_over_the_data_are_0_6665_where_0_66_is_printed(thesis: Reference) -> None:
    steps, batch = int(value(thesis, "schedule", "total_steps")), int(value(thesis, "setup", "batch_size"))
    found = epochs_of_steps(steps, batch, int(value(thesis, "criteo1tb", "train_examples")))
    assert found == pytest.approx(0.6665, abs=5e-5)
    assert value(thesis, "exp1", "train_split_passes") == 0.66


def test_the_seconds_per_step_of_the_text_do_not_follow_from_the_time_of_the_schedule(
    thesis: Reference,
) -> None:
    per_step = value(thesis, SMALL, "budget") / value(thesis, "schedule", "total_steps")
    assert per_step == pytest.approx(0.16055, abs=5e-6)
    printed = [
        value(thesis, f"{part}.nadamw_schedule", "seconds_per_step") for part in ("exp2_steps", "exp2_time")
    ]
    assert printed == [0.29, 0.13]


def test_what_an_alpha_step_cost_follows_from_the_steps_of_tables_c_1_and_c_2(thesis: Reference) -> None:
    plain = value(thesis, SMALL, "budget") / value(thesis, "schedule", "total_steps")
    usual: list[float] = []
    slow: list[float] = []
    for budget in (SMALL, LARGE):
        for cell in CELLS:
            steps = int(value(thesis, f"{budget}.grid", "steps_reached", cell))
            alpha = steps_with_alpha(steps, 2000, *cell)
            cost = implied_alpha_cost(value(thesis, budget, "budget"), steps, alpha, plain)
            assert cost is not None
            (slow if cell in ((2000, 25), (2000, 50)) else usual).append(cost)
    assert [min(usual), max(usual)] == pytest.approx([60.7, 94.5], abs=0.05)
    assert (round(min(usual) / plain), round(max(usual) / plain)) == (378, 589)
    assert max(slow) == pytest.approx(187.7, abs=0.05)
    assert min(slow) > max(usual)


def test_the_windows_are_those_of_one_rule(thesis: Reference) -> None:
    """14 of the 18 runs of tables C.1 and C.2 ended inside a window, where a step takes so long."""
    inside = [
        (int(value(thesis, f"{budget}.grid", "steps_reached", cell)) - 2000) % cell[0] < cell[1]
        for budget in (SMALL, LARGE)
        for cell in CELLS
    ]
    assert (len(inside), sum(inside)) == (18, 14)


def test_the_fewest_steps_of_the_text_are_not_the_fewest_of_table_c_2(thesis: Reference) -> None:
    steps = {cell: value(thesis, f"{LARGE}.grid", "steps_reached", cell) for cell in CELLS}
    assert min(steps, key=steps.__getitem__) == (2000, 50)
    assert value(thesis, f"{LARGE}.grid", "steps_reached_lowest") == steps[1000, 50]


def test_the_large_budget_is_4_5_times_the_time_of_the_schedule(thesis: Reference) -> None:
    multiple = value(thesis, "algoperf", "budget_external_tuning") * value(
        thesis, LARGE, "budget_multiple_of_7703"
    )
    assert multiple == value(thesis, LARGE, "budget")
    assert multiple / value(thesis, SMALL, "budget") == pytest.approx(4.5, rel=1e-3)
