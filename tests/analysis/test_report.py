"""The report, from real journals through a real store."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import random
import re
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from alphagrid.analysis.compare_runs import compare
from alphagrid.analysis.data import ExperimentData, load
from alphagrid.analysis.report import report_csv, report_json, report_markdown, report_tables, write_report
from alphagrid.analysis.report_warnings import warnings
from alphagrid.analysis.sections.best_and_worst import BestAndWorstSection
from alphagrid.analysis.sections.budget import BudgetSection
from alphagrid.analysis.sections.expected_best import ExpectedBestSection
from alphagrid.analysis.sections.time_to_result import TimeToResultSection
from alphagrid.cli import app
from alphagrid.errors import SystemRefused, UserError
from alphagrid.store import submissions
from alphagrid.store.database import open_store
from alphagrid.store.journal import Journal, open_next
from alphagrid.store.layout import Root
from alphagrid.store.submissions import RunEntry, Submission
from typer.testing import CliRunner

EXPERIMENT = "exp"
LOSSES = {(100, 5): 0.118, (100, 10): 0.1213, (100, 25): 0.1302, (200, 5): 0.1121, (200, 10): 0.1149,
          (200, 25): 0.1188, (400, 5): 0.1093, (400, 10): 0.1107, (400, 25): 0.1139}  # fmt: skip
SCHEDULE = {"name": "warmup_cosine", "total_steps": 1000}
PLAIN, ALPHA = 0.02, 0.05
"""Seconds of a plain step, and those that one α* adds."""


@dataclass(frozen=True)
class Run:
    """A run to be written: what it is, how far it goes, and the loss that it tends to."""

    name: str
    floor: float
    params: dict[str, Any] = field(default_factory=dict)
    baseline: str | None = None
    seed: int = 0
    steps: int = 1000
    stop: dict[str, Any] = field(default_factory=lambda: {"steps": 1000, "train_seconds": None})
    schedule: dict[str, Any] | None = None
    end: str | None = "completed"
    diverges_at: float = math.inf
    resume_step: int = 0
    host: str = "node1"
    gpu: str | None = None
    slow: float = 1.0
    """Its node takes so many times as long for everything."""
    costs: bool = True
    """Whether its journal tells what a step costs."""

    @property
    def id(self) -> str:
        return hashlib.sha256(f"{self.name} {self.seed}".encode()).hexdigest()[:10]

    @property
    def alpha(self) -> dict[str, Any] | None:
        given = {
            key.removeprefix("alpha."): value
            for key, value in self.params.items()
            if key.startswith("alpha.")
        }
        return {"policy": "median", "start_step": 100, **given} if given else None

    def entry(self) -> RunEntry:
        config = {"seed": self.seed, "stop": self.stop, "schedule": self.schedule, "alpha": self.alpha}
        params = {**self.params, "seed": self.seed}
        name = f"{self.name}-seed{self.seed}"
        return RunEntry(id=self.id, name=name, baseline=self.baseline, params=params, config=config)

    def loss(self, step: int) -> float:
        return math.nan if step >= self.diverges_at else self.floor + 2.2 * math.exp(-step / 120)

    def measures(self, index: int) -> bool:
        alpha = self.alpha
        return alpha is not None and index >= 100 and (index - 100) % alpha["interval"] < alpha["count"]

    def seconds(self, step: int) -> float:
        """The measuring steps before `step`, counted window by window."""
        if self.alpha is None:
            return self.slow * PLAIN * step
        windows, rest = divmod(max(step - 100, 0), self.alpha["interval"])
        measured = windows * self.alpha["count"] + min(rest, self.alpha["count"])
        return self.slow * (PLAIN * step + ALPHA * int(measured))


def write_runs(root: Root, runs: list[Run], created: float = 1e9) -> None:
    """Write a submission of these runs, and a journal of the next attempt of each."""
    files = root.experiment(EXPERIMENT)
    entries = [run.entry() for run in runs]
    submission = Submission(
        id=submissions.new_id(created), created=created, experiment=EXPERIMENT, runs=entries,
        profile={"name": "local", "cluster": "local"}, named={entry.id: entry for entry in entries},
    )  # fmt: skip
    submissions.write(files, submission)
    for run in runs:
        ticks = count(int(created))
        _, journal = open_next(files.run(run.id), clock=lambda ticks=ticks: float(next(ticks)))  # type: ignore[misc]
        _write(journal, run, submission.id)
        journal.close()


def _write(journal: Journal, run: Run, submission: str) -> None:
    """Write evaluations after steps 1, 101, … and at the stop, and windows of 100 steps."""
    start = {
        "attempt": 1,
        "resume_step": run.resume_step,
        "fresh": False,
        "submission": submission,
        "host": run.host,
        "gpu": run.gpu,
        "device": "cuda" if run.gpu else "cpu",
        "stop": run.stop,
    }
    journal.append("start", run.resume_step, run.seconds(run.resume_step), **start)
    noise = random.Random(f"{run.name}{run.seed}")
    for step in range(run.resume_step + 1, run.steps + 1):
        last = step == run.steps or math.isnan(run.loss(step))
        if step % 100 == 0 or last:
            _write_window(journal, run, step, noise)
        if step % 100 == 1 or last:
            _write_evaluation(journal, run, step)
        if last:
            break
    if run.end is not None:
        journal.append("end", step, run.seconds(step), status=run.end, reason=None)


def _write_evaluation(journal: Journal, run: Run, step: int) -> None:
    shifts = {"train": -0.01, "validation": 0.0, "test": 0.002}
    splits = {name: {"loss": run.loss(step) + shift, "examples": 100} for name, shift in shifts.items()}
    at_stop = step % 100 != 1
    journal.append("evaluation", step, run.seconds(step), splits=splits, seconds=0.03, at_stop=at_stop)


def _write_window(journal: Journal, run: Run, step: int, noise: random.Random) -> None:
    """Write the window that ends at `step`, what it measured, and the median that it accepted."""
    steps, seconds = step % 100 or 100, run.seconds(step)
    measured = [index for index in range(step - steps, step) if run.measures(index)]
    rate = 1e-3 * (1.5 + math.sin(step / 300 + run.floor * 100))
    for index in measured:
        value = rate * noise.gauss(1.2, 0.8)
        estimate = {"alpha_rel": value / rate, "alpha_abs": value, "slope": -1.0, "curvature": 1.0}
        estimates = {"unbiased": estimate}
        journal.append(
            "alpha", index, run.seconds(index), learning_rate=rate, estimates=estimates, cosine=0.1
        )
    if measured:
        accepted = {"value": rate, "median": rate, "used": len(measured), "of": len(measured)}
        journal.append("event", step, seconds, event="learning_rate", window_start=measured[0], **accepted)
    plain = PLAIN * steps * run.slow
    costs = {"plain": 0.9 * PLAIN * run.slow, "data": 0.1 * PLAIN * run.slow}
    if measured:
        costs["alpha"] = costs["plain"] + ALPHA * run.slow
    window = {
        "steps": steps,
        "alpha_steps": len(measured),
        "loss": run.loss(step),
        "learning_rate": {"min": rate, "mean": rate, "max": rate},
        "seconds": {
            "data": 0.1 * plain,
            "forward_backward": 0.7 * plain,
            "optimizer": 0.2 * plain,
            "alpha": ALPHA * len(measured) * run.slow,
            "diagnostics": 0.0,
            "evaluation": 0.03,
            "checkpoint": 0.01,
        },
    }
    if run.costs:
        window["costs"] = costs
    journal.append("window", step, seconds, **window)


def thesis_grid(seeds: int = 1) -> list[Run]:
    """Return the thesis' grid in small, and its two baselines."""
    runs = []
    for seed in range(seeds):
        shift = 0.0013 * seed
        for (interval, number), floor in LOSSES.items():
            params = {"alpha.interval": interval, "alpha.count": number}
            runs.append(Run(f"interval{interval}-count{number}", floor + shift, params, seed=seed))
        runs.append(Run("nadamw", 0.1081 + shift, baseline="nadamw", schedule=SCHEDULE, seed=seed))
        runs.append(Run("schedule-free", 0.1130 - shift, baseline="schedule-free", seed=seed))
    return runs


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return Root(tmp_path / "root")


def read(root: Root) -> ExperimentData:
    with open_store(root) as store:
        store.sync()
        return load(store.db, EXPERIMENT)


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> ExperimentData:
    """The grid with three seeds: one run diverged, one is on its way, one ran elsewhere."""
    root = Root(tmp_path_factory.mktemp("root"))
    runs = thesis_grid(seeds=3)
    runs[2] = replace(runs[2], diverges_at=730, end="diverged")
    runs[4] = replace(runs[4], steps=700, end=None)
    runs[5] = replace(runs[5], host="node2")
    write_runs(root, runs)
    return read(root)


def outcomes(root: Root, *seconds: str, steps: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """Return the budgets of the JSON report."""
    found: list[dict[str, Any]] = report_json(compare(read(root), seconds, steps))["budgets"]
    return found


def test_json_has_what_the_contract_says(root: Root) -> None:
    run = Run("interval100-count5", 0.2, {"alpha.interval": 100, "alpha.count": 5})
    write_runs(root, [run])
    report = report_json(compare(read(root), ["10"]))
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert report["experiment"] == EXPERIMENT
    (asked,) = report["budgets"]
    assert (asked["kind"], asked["label"], asked["value"]) == ("seconds", "10", 10.0)
    (found,) = asked["runs"]
    best = {"best_validation_loss": run.loss(401), "test_loss_at_best": run.loss(401) + 0.002}
    expected = {
        "id": run.id,
        "name": "interval100-count5-seed0",
        "baseline": None,
        "params": {"alpha.interval": 100, "alpha.count": 5, "seed": 0},
        **best,
        "step_at_best": 401,
        "train_seconds_at_best": run.seconds(401),
        "steps_reached": 400,
        "complete": True,
    }
    assert {key: found[key] for key in expected} == expected


def test_a_run_with_nothing_within_the_budget_has_nulls(root: Root) -> None:
    write_runs(root, [Run("a", 0.2)])
    (asked,) = outcomes(root, "0.001")
    keys = (
        "best_validation_loss",
        "test_loss_at_best",
        "step_at_best",
        "train_seconds_at_best",
        "steps_reached",
    )
    assert [asked["runs"][0][key] for key in keys] == [None] * 5


def test_without_a_budget_the_first_baselines_schedule_and_the_whole_time_are_compared(root: Root) -> None:
    write_runs(root, thesis_grid())
    until, whole = outcomes(root)
    assert (until["label"], until["value"]) == ("until:nadamw", pytest.approx(1000 * PLAIN))
    assert (whole["label"], whole["value"]) == (
        "all",
        pytest.approx(Run("", 0, thesis_grid()[2].params).seconds(1000)),
    )


def test_without_a_schedule_only_the_whole_time_is_compared(root: Root) -> None:
    write_runs(root, [Run("a", 0.2), Run("sf", 0.1, baseline="sf")])
    assert [asked["label"] for asked in outcomes(root)] == ["all"]


def test_until_is_the_median_over_seeds_and_null_while_one_is_on_its_way(root: Root) -> None:
    base = Run("b", 0.1, baseline="b", schedule={"total_steps": 950})
    write_runs(root, [base, replace(base, seed=1, steps=940, end=None)])
    assert [asked["value"] for asked in outcomes(root, "until:b", steps=("until:b",))] == [None, None]
    assert outcomes(root, "until:b")[0]["runs"][0]["best_validation_loss"] is None


def test_until_counts_the_schedules_steps_wherever_windows_end(root: Root) -> None:
    base = Run("b", 0.1, baseline="b", schedule={"total_steps": 950})
    write_runs(
        root, [base, replace(base, seed=1), replace(base, seed=2, steps=500)]
    )  # the last stopped early
    seconds, scaled, steps = outcomes(root, "until:b", "4.5*until:b", steps=("0.5*until:b",))
    assert seconds["value"] == pytest.approx(950 * PLAIN)
    assert scaled["value"] == pytest.approx(4.5 * 950 * PLAIN)
    assert (steps["kind"], steps["value"]) == ("steps", 475.0)


def test_a_share_is_of_each_runs_own_stop(root: Root) -> None:
    write_runs(root, [Run("a", 0.2), Run("b", 0.2, {"x": 1}, stop={"steps": 500}, steps=500)])
    (asked,) = outcomes(root, steps=("50%",))
    assert asked["value"] is None
    assert [(run["budget"], run["steps_reached"]) for run in asked["runs"]] == [(500.0, 500), (250.0, 200)]


@pytest.mark.parametrize(
    "label", ["-1", "nan", "inf", "soon", "1_000", "0*until:nadamw", "x*until:nadamw", "-5%", ""]
)
def test_a_budget_that_is_no_amount_is_refused(grid: ExperimentData, label: str) -> None:
    with pytest.raises(UserError, match="is not valid") as refusal:
        compare(grid, [label])
    assert "a budget is a number" in (refusal.value.hint or "")


@pytest.mark.parametrize(
    ("label", "hint"),
    [
        ("until:nadam", "did you mean until:nadamw?"),
        ("until:other-thing", "baselines here: nadamw, schedule-free"),
        ("until:schedule-free", "name a baseline with a schedule"),
        ("50%", "set stop.train_seconds"),
    ],
)
def test_a_budget_that_means_nothing_here_is_refused_with_a_hint(
    grid: ExperimentData, label: str, hint: str
) -> None:
    with pytest.raises(UserError) as refusal:
        compare(grid, [label])
    assert hint in (refusal.value.hint or "")


def test_an_experiment_that_does_not_exist_is_refused_with_the_nearest_name(root: Root) -> None:
    write_runs(root, [Run("a", 0.2)])
    with open_store(root) as store:
        store.sync()
        with pytest.raises(UserError, match="no experiment 'expp'") as refusal:
            load(store.db, "expp")
    assert refusal.value.hint == "did you mean exp?"


def test_a_run_that_diverges_keeps_its_best_and_is_marked(root: Root) -> None:
    run = Run("a", 0.2, diverges_at=730, end="diverged")
    write_runs(root, [run])
    (found,) = outcomes(root, "100")[0]["runs"]
    assert (found["best_validation_loss"], found["step_at_best"]) == (run.loss(701), 701)
    assert found["complete"]
    assert found["diverged"]


def test_a_run_on_its_way_is_complete_only_up_to_where_it_is(root: Root) -> None:
    write_runs(root, [Run("a", 0.2, steps=500, end=None)])
    reached, not_reached = outcomes(root, "10", "10.5")
    assert reached["runs"][0]["complete"]
    assert not not_reached["runs"][0]["complete"]


def test_a_larger_stop_drops_the_evaluation_at_the_old_one(root: Root) -> None:
    short = Run("a", 0.2, steps=550, stop={"steps": 550})
    write_runs(root, [short])
    assert outcomes(root, "100")[0]["runs"][0]["step_at_best"] == 550
    write_runs(root, [replace(short, steps=590, resume_step=550, stop={"steps": 590}, end=None)], created=2e9)
    (found,) = outcomes(root, "100")[0]["runs"]
    assert (found["step_at_best"], found["complete"]) == (590, False)  # 590: its last record, at a stop again


def test_runs_that_the_spec_no_longer_names_are_kept_and_said(root: Root) -> None:
    write_runs(root, [Run("a", 0.2, {"x": 1})])
    write_runs(root, [Run("b", 0.2, {"x": 2})], created=2e9)
    data = compare(read(root), ["5"])
    assert [(run.row.name, run.row.named) for run in data.experiment.runs] == [
        ("b-seed0", True),
        ("a-seed0", False),
    ]
    assert warnings(data) == ["1 of 2 runs are no longer named by the spec."]


def test_different_gpus_nodes_and_devices_are_warned_of(root: Root) -> None:
    runs = [
        Run("a", 0.2, {"x": 1}, gpu="A100"),
        Run("b", 0.2, {"x": 2}, gpu="H100"),
        Run("c", 0.2, {"x": 3}, host="n2"),
    ]
    write_runs(root, runs)
    assert warnings(compare(read(root), ["5"])) == [
        "Runs used 2 devices (cpu, cuda): seconds are not comparable.",
        "Runs used 2 GPU models (A100, H100): seconds are not comparable.",
        "Runs used 2 nodes (n2, node1): their speed may differ.",
    ]


def slow_grid() -> list[Run]:
    """Return two cells with three seeds each; one run was on a node that is three times as slow."""
    runs = [
        Run(f"x{x}", 0.2 + x / 100, {"alpha.interval": 100, "alpha.count": x}, seed=seed)
        for x in (5, 10)
        for seed in range(3)
    ]
    return [*runs[:4], replace(runs[4], slow=3.0, host="snail"), runs[5]]


def test_on_the_normalised_clock_a_slow_node_loses_nothing(root: Root) -> None:
    write_runs(root, slow_grid())
    data = read(root)
    budget = [str(Run("", 0, slow_grid()[4].params).seconds(601))]
    measured = report_json(compare(data, budget))["budgets"][0]["runs"]
    normalised = report_json(compare(data, budget, clock="normalised"))["budgets"][0]["runs"]
    assert [run["steps_reached"] for run in measured[3:]] == [600, 200, 600]
    assert [run["steps_reached"] for run in normalised[3:]] == [600, 600, 600]
    at_best = [run["train_seconds_at_best"] for run in normalised[3:]]
    assert at_best == pytest.approx([at_best[0]] * 3)
    assert at_best[0] == pytest.approx(measured[3]["train_seconds_at_best"], rel=0.01)


def test_every_table_of_time_names_its_clock_and_shows_the_other_one_beside(root: Root) -> None:
    write_runs(root, slow_grid())
    for clock, other in (("measured", "normalised"), ("normalised", "measured")):
        data = compare(read(root), ["10"], ["500"], clock=clock)  # type: ignore[arg-type]
        time, steps = BudgetSection().tables(data)
        assert f"{clock} clock" in time.title
        assert time.columns.count(f"… on the {other} clock") == 2
        assert f"at {clock} time" in steps.columns
        assert f"{other} clock" not in " ".join(steps.columns)
        assert report_json(data)["clock"] == clock
        figures = BudgetSection().figures(data)
        assert f"{clock} clock" in figures[0].title
        assert f"Times are on the {clock} clock" in report_markdown(data)


def test_what_searches_and_results_cost_is_told_on_both_clocks(root: Root) -> None:
    baseline = Run("plain", 0.3, baseline="plain", schedule=SCHEDULE, slow=2.0, host="snail")
    write_runs(root, [*slow_grid(), *(replace(baseline, seed=seed) for seed in range(3))])
    data = compare(read(root), ["10"])
    (costs,) = ExpectedBestSection().tables(data)
    (ends,) = BestAndWorstSection().tables(data)
    both = {"10 s, measured clock", "10 s, normalised clock"}
    assert {row[0] for row in costs.shown} == both == {row[0] for row in ends.shown}
    (table,) = TimeToResultSection().tables(data)
    found = {row[1]: dict(zip(table.raw_columns, row, strict=True)) for row in table.rows}
    row = found["warmup_cosine"]
    assert row["seconds_of_all_runs"] == pytest.approx(1000 * 2 * PLAIN)
    # medians over the runs of all methods say what a plain step costs; most ran on the faster node
    assert row["other_clock"] == "normalised"
    assert row["seconds_of_all_runs_on_it"] == pytest.approx(1000 * PLAIN)
    assert f"time of all runs, {data.other_clock} clock" in table.columns


def test_without_a_slow_node_both_clocks_agree(root: Root) -> None:
    write_runs(root, thesis_grid())
    data = read(root)
    one, other = (report_json(compare(data, clock=clock))["budgets"] for clock in ("measured", "normalised"))
    assert [asked["value"] for asked in one] == pytest.approx([asked["value"] for asked in other])
    for left, right in zip(one[1]["runs"], other[1]["runs"], strict=True):
        assert left["best_validation_loss"] == right["best_validation_loss"]
        assert left["train_seconds_at_best"] == pytest.approx(right["train_seconds_at_best"], rel=0.02)


def test_the_command_line_takes_the_clock_and_refuses_another(root: Root) -> None:
    write_runs(root, slow_grid())
    command = ["report", EXPERIMENT, "--root", str(root.path), "--json", "--clock"]
    told = CliRunner().invoke(app, [*command, "normalised"])
    assert json.loads(told.stdout)["clock"] == "normalised"
    assert CliRunner().invoke(app, [*command, "wall"]).exit_code == 2


def test_slow_nodes_are_named(root: Root) -> None:
    write_runs(root, slow_grid())
    told = warnings(compare(read(root), ["5"]))
    assert any("Slow nodes" in text and "snail (+200 %)" in text and "node1" not in text for text in told)


def test_a_journal_without_costs_has_no_normalised_clock_and_says_so(root: Root) -> None:
    write_runs(root, [replace(run, costs=False) for run in slow_grid()])
    data = read(root)
    assert compare(data, ["5"]).comparisons[0].on_other_clock is None
    assert "… on the normalised clock" not in BudgetSection().tables(compare(data, ["5"]))[0].columns
    with pytest.raises(UserError, match="unknown for 6 of 6 runs") as refusal:
        compare(data, ["5"], clock="normalised")
    assert refusal.value.hint == "use --clock measured"


def test_a_run_that_measured_time_has_stopped_is_said_to_end_before_the_normalised_budget(root: Root) -> None:
    runs = [replace(run, stop={"train_seconds": 20.0}) for run in slow_grid()]
    runs[4] = replace(runs[4], steps=300)
    write_runs(root, runs)
    notes = BudgetSection().tables(compare(read(root), ["20"]))[0].notes
    assert any("stopped by measured time" in note for note in notes)


def test_seeds_are_summarised_and_one_seed_claims_no_ranking(grid: ExperimentData, root: Root) -> None:
    several = report_tables(compare(grid))[0]
    assert several.shown[0][:2] == ("nadamw (baseline)", "0.1099 ± 0.0013 (3)")
    assert "claims no ranking" not in " ".join(several.notes)
    write_runs(root, thesis_grid())
    assert "claims no ranking" in " ".join(report_tables(compare(read(root)))[0].notes)


def test_csv_has_one_row_for_each_budget_and_configuration(grid: ExperimentData) -> None:
    rows = list(csv.DictReader(io.StringIO(report_csv(compare(grid, ["5", "10"])))))
    assert len(rows) == 22
    assert rows[0]["budget"] == "5"
    assert float(rows[0]["best_validation_loss"]) < float(rows[1]["best_validation_loss"])


def test_markdown_says_what_is_incomplete_or_diverged(grid: ExperimentData) -> None:
    text = report_markdown(compare(grid))
    assert "| interval 100, count 25 |" in text
    assert "1 of 3 diverged" in text
    assert "1 of 3 incomplete" in text
    assert "> Runs used 2 nodes" in text


@pytest.mark.slow
def test_the_written_report_has_every_figure_it_links_beside_it(grid: ExperimentData, tmp_path: Path) -> None:
    paths = write_report(compare(grid), tmp_path)
    assert paths[0] == tmp_path / "report.md"
    assert all(path.stat().st_size for path in paths)
    linked = re.findall(r"\(figures/(.*)\)", paths[0].read_text())
    assert sorted(path.name for path in paths if path.suffix == ".svg") == sorted(linked)


def test_the_same_data_give_the_same_picture_to_the_byte(grid: ExperimentData, tmp_path: Path) -> None:
    figure = BudgetSection().figures(compare(grid))[0]
    first, second = (figure.save(tmp_path / name) for name in ("1", "2"))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_a_folder_that_cannot_be_written_is_refused(grid: ExperimentData, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemRefused, match="cannot write the report"):
        write_report(compare(grid), tmp_path / "file" / "report")
