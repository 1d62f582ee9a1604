"""How methods depend on their starting rate: what the report says of them, and when it stays away."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from alphagrid.analysis.compare_runs import compare
from alphagrid.analysis.comparison import ReportData
from alphagrid.analysis.data import ExperimentData, RunData
from alphagrid.analysis.methods import method_names
from alphagrid.analysis.report import report_tables
from alphagrid.analysis.report_warnings import warnings
from alphagrid.analysis.sections.robustness import RobustnessSection
from alphagrid.store.queries import EvaluationRow, RunRow

RATES = (1e-3, 1e-2, 1e-1)
COSINE: dict[str, Any] = {"schedule": {"name": "warmup_cosine", "total_steps": 100}, "alpha": None}
CONSTANT: dict[str, Any] = {"schedule": None, "alpha": None}
EMA: dict[str, Any] = {"schedule": None, "alpha": {"policy": "ema", "scale": 1.5}}
SPREAD = 0.01
"""Half the distance of the two seeds' losses, so that their SD is √2 times this."""


def runs(
    method: dict[str, Any],
    losses: dict[float | None, float],
    *,
    workload: str = "digits",
    optimizer: str = "nadamw",
    options: dict[float | None, dict[str, Any]] | None = None,
    seeds: int = 2,
    **fields: Any,
) -> list[RunData]:
    """Return a finished run for each rate and seed, whose best loss is at step 50 of 100."""
    found = []
    for rate, loss in losses.items():
        for seed in range(seeds):
            section = {"name": optimizer, "lr": rate, **(options or {}).get(rate, {})}
            config = {"workload": {"name": workload}, "optimizer": section, "seed": seed, **method}
            shift = SPREAD * (2 * seed - 1) if seeds == 2 else 0.0
            found.append(_run(config, loss + shift, {"optimizer.lr": rate, "seed": seed}, **fields))
    return found


def _run(config: dict[str, Any], loss: float, params: dict[str, Any], **fields: Any) -> RunData:
    name = f"{config['workload']['name']}-{config['optimizer']}-{config['seed']}"
    given = {"id": name, "name": name, "params": params, "config": config, "named": True, "attempts": 1}
    given |= {"superseded": 0, "step": 100, "train_seconds": 10.0, "end_status": "completed", **fields}
    row = RunRow(**cast(Any, dict.fromkeys(RunRow.__dataclass_fields__) | given))
    later = loss + 0.1
    evaluations = [(1, 9.0), (50, loss), (100, later)]
    return RunData(
        row,
        tuple(EvaluationRow(s, s / 10, 1, 0.0, {"validation": of}, {}, 0.1, False) for s, of in evaluations),
    )


def test_schedule_free_is_a_method_by_itself_and_never_constant() -> None:
    free = {**CONSTANT, "optimizer": {"name": "schedule_free_adamw"}}
    assert method_names([free, free, {**CONSTANT, "optimizer": {"name": "sgd"}}]) == [
        "schedule_free_adamw", "schedule_free_adamw", "sgd"
    ]  # fmt: skip
    assert method_names([{**CONSTANT, "optimizer": {"name": "sgd"}}]) == ["constant"]


def report(*groups: list[RunData], steps: tuple[str, ...] = ()) -> ReportData:
    every = [run for group in groups for run in group]
    numbered = [replace(one, row=replace(one.row, key=key)) for key, one in enumerate(every)]
    return compare(ExperimentData("exp", tuple(numbered)), steps=steps)


def rows(data: ReportData, table: int = 0) -> dict[str, dict[str, Any]]:
    """Return the raw rows of a table by method."""
    found = RobustnessSection().tables(data)[table]
    return {cast(str, row[1]): dict(zip(found.raw_columns, row, strict=True)) for row in found.rows}


def tuned() -> list[RunData]:
    return runs(COSINE, dict(zip(RATES, (1.0, 0.5, 0.8), strict=True)))


def test_regret_is_against_the_best_tuned_warmup_cosine_in_per_cent_and_in_the_seeds_spread() -> None:
    found = rows(report(tuned(), runs(CONSTANT, dict(zip(RATES, (0.9, 0.7, 0.6), strict=True)))))
    assert found["warmup_cosine"]["regret_percent"] == 0
    constant = found["constant"]
    assert (constant["best_rate"], constant["rates"], constant["n"]) == (1e-1, 3, 2)
    assert constant["regret_percent"] == pytest.approx(20.0)
    assert constant["regret_sds"] == pytest.approx(0.1 / (SPREAD * math.sqrt(2)))
    assert constant["regret_at_median_rate_percent"] == pytest.approx(40.0)
    assert constant["regret_at_worst_rate_percent"] == pytest.approx(80.0)
    assert constant["reference"] == "warmup_cosine"


def test_the_larger_of_the_two_spreads_is_the_unit_and_one_seed_gives_none() -> None:
    wide = runs(CONSTANT, {1e-2: 0.6}, seeds=1) + [
        replace(run, row=replace(run.row, config={**run.row.config, "seed": 1}))
        for run in runs(CONSTANT, {1e-2: 0.8}, seeds=1)
    ]
    assert rows(report(tuned(), wide))["constant"]["regret_sds"] == pytest.approx(0.2 / math.sqrt(0.02))
    one = rows(report(tuned(), runs(EMA, {None: 0.6}, seeds=1)))["ema, no rate"]
    assert (one["n"], one["regret_sds"]) == (1, None)


def test_a_method_without_a_rate_has_a_row_and_a_level_of_its_own() -> None:
    data = report(tuned(), runs(EMA, {None: 0.52}))
    found = rows(data)["ema, no rate"]
    assert (found["best_rate"], found["rates"], found["regret_at_worst_rate_percent"]) == (None, None, None)
    assert found["regret_percent"] == pytest.approx(4.0)
    (panel,) = RobustnessSection().figures(data)[0].draw().axes
    level = next(line for line in panel.lines if line.get_label() == "ema, no rate")
    assert list(cast(Any, level.get_ydata())) == pytest.approx([0.52, 0.52])
    assert panel.get_xscale() == "log"


def test_a_policy_given_a_rate_and_given_none_are_told_apart() -> None:
    with_rates = runs(EMA, dict(zip(RATES, (0.7, 0.6, 0.65), strict=True)))
    found = rows(report(tuned(), with_rates, runs(EMA, {None: 0.52})))
    assert found["ema"]["regret_percent"] == pytest.approx(20.0)
    assert found["ema, no rate"]["regret_percent"] == pytest.approx(4.0)


@pytest.mark.parametrize(("losses", "is_said"), [((1.0, 0.5, 0.8), False), ((1.0, 0.8, 0.5), True)])
def test_a_tuned_optimum_at_the_edge_of_its_rates_is_said(losses: tuple[float, ...], is_said: bool) -> None:
    data = report(runs(COSINE, dict(zip(RATES, losses, strict=True))), runs(EMA, {None: 0.6}))
    (table,) = RobustnessSection().tables(data)
    assert any("at the edge of its rates" in note for note in table.notes) == is_said
    assert ("edge" in rows(data)["warmup_cosine"]["notes"]) == is_said


@pytest.mark.parametrize(
    "groups",
    [
        [tuned()],  # one method
        [runs(COSINE, {1e-3: 1.0, 1e-2: 0.5}), runs(EMA, {None: 0.6})],  # two rates
        [runs(COSINE, {1e-3: 1.0}), runs(EMA, {None: 0.6}), runs(CONSTANT, {1e-3: 1.0})],
    ],
)
def test_without_several_methods_and_three_rates_there_is_nothing_to_say(groups: list[list[RunData]]) -> None:
    assert not RobustnessSection().applies(report(*groups))


def test_each_workload_has_its_own_reference_and_panel() -> None:
    other = runs(COSINE, dict(zip(RATES, (2.0, 4.0, 3.0), strict=True)), workload="clicks")
    data = report(tuned(), runs(EMA, {None: 0.6}), other, runs(EMA, {None: 3.0}, workload="clicks"))
    (table,) = RobustnessSection().tables(data)
    regrets = {(row[0], row[1]): row[7] for row in table.rows}
    assert regrets["digits", "ema, no rate"] == pytest.approx(20.0)
    assert regrets["clicks", "ema, no rate"] == pytest.approx(50.0)
    assert "Runs train 2 workloads (clicks, digits): their losses are not comparable." in warnings(data)
    panels = RobustnessSection().figures(data)[0].draw().axes
    assert [panel.get_title() for panel in panels] == ["digits", "clicks"]


def test_a_budget_that_is_asked_for_has_a_table_of_its_own_beside_the_full_runs() -> None:
    early = runs(CONSTANT, dict(zip(RATES, (0.9, 0.7, 0.6), strict=True)))
    assert len(RobustnessSection().tables(report(tuned(), early))) == 1
    whole, within = RobustnessSection().tables(report(tuned(), early, steps=("10",)))
    assert within.name == "robustness-steps-10"
    assert whole.rows[0][4] != within.rows[0][4] == 9.0  # the evaluation after the first step


def test_options_that_go_with_the_rate_make_no_other_method_but_those_that_do_not_do() -> None:
    zipped: dict[float | None, dict[str, Any]] = {rate: {"beta1": 0.8 + rate} for rate in RATES}
    together = runs(CONSTANT, dict.fromkeys(RATES, 0.6), options=zipped)
    assert list(rows(report(tuned(), together))) == ["warmup_cosine", "constant"]
    crossed = []
    for beta in (0.8, 0.9):
        options: dict[float | None, dict[str, Any]] = {rate: {"beta1": beta} for rate in RATES}
        crossed += runs(CONSTANT, dict.fromkeys(RATES, 0.6), options=options)
    assert {"constant (beta1 0.8)", "constant (beta1 0.9)"} < set(rows(report(tuned(), crossed)))


def test_another_optimizer_is_another_method() -> None:
    free = runs(CONSTANT, dict(zip(RATES, (0.9, 0.7, 0.6), strict=True)), optimizer="schedule_free_adamw")
    assert set(rows(report(tuned(), free))) == {"warmup_cosine", "schedule_free_adamw"}


def test_a_rate_at_which_a_seed_never_had_a_finite_loss_is_never_best() -> None:
    wreck = runs(CONSTANT, {1e-3: 0.9, 1e-2: 0.7})
    lost = replace(wreck[2], evaluations=(replace(wreck[2].evaluations[0], losses={"validation": math.nan}),))
    found = rows(report(tuned(), [*wreck[:2], lost, wreck[3]]))["constant"]
    assert found["best_rate"] == 1e-3
    assert found["regret_at_worst_rate_percent"] == math.inf


def test_a_schedule_stays_the_reference_where_others_do_better_and_under_a_policy_it_is_none() -> None:
    median = {"schedule": COSINE["schedule"], "alpha": {"policy": "median"}}
    better = runs(CONSTANT, dict(zip(RATES, (0.9, 0.4, 0.6), strict=True)))
    found = rows(report(tuned(), better, runs(median, dict(zip(RATES, (0.3, 0.3, 0.3), strict=True)))))
    assert {row["reference"] for row in found.values()} == {"warmup_cosine"}
    assert found["constant"]["regret_percent"] == pytest.approx(-20.0)
    assert found["median"]["regret_percent"] == pytest.approx(-40.0)


def test_without_a_schedule_the_best_tuned_method_is_the_reference() -> None:
    data = report(runs(CONSTANT, dict(zip(RATES, (0.9, 0.5, 0.6), strict=True))), runs(EMA, {None: 0.6}))
    (table,) = RobustnessSection().tables(data)
    assert rows(data)["ema, no rate"]["reference"] == "constant"
    assert any("none of those with a rate has a schedule" in note for note in table.notes)


def test_grids_that_differ_in_their_base_are_not_one_configuration(tmp_path: Path) -> None:
    data = report(
        tuned(), runs(CONSTANT, dict(zip(RATES, (0.9, 0.7, 0.6), strict=True))), runs(EMA, {None: 0.6})
    )
    labels = [configuration.label for configuration in data.configurations]
    assert labels[:2] == ["warmup_cosine, lr 0.001", "warmup_cosine, lr 0.01"]
    assert labels[-2:] == ["constant, lr 0.1", "ema, lr none"]
    assert all(len(configuration.runs) == 2 for configuration in data.configurations)
    assert report_tables(data)
    assert tmp_path / "robustness.png" in RobustnessSection().figures(data)[0].save(tmp_path)
