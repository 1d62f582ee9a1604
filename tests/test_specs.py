"""The specifications that are shipped: the thesis' own numbers, and twins of one structure."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from alphagrid.jobs.specification.experiment import expand
from alphagrid.jobs.specification.file import read_spec
from alphagrid.store.journal import Journal
from alphagrid.store.journal import read as read_journal
from alphagrid.store.layout import RunFiles
from alphagrid.trainer.config import TrainingConfig
from alphagrid.trainer.loop import train
from alphagrid.trainer.optimizers.options import NAdamWOptions
from alphagrid.trainer.resume import prepare
from alphagrid.trainer.schedules import learning_rate
from alphagrid.trainer.stopping import StopRequest

SPECS = Path(__file__).parent.parent / "specs"
SMALL = "-small"
FULL = sorted(path.stem.removesuffix(SMALL) for path in SPECS.glob(f"*{SMALL}.yaml"))
THESIS = ("sanity", "pretest", "exp1-observe", "exp2-steps", "exp2-time")
SMALL_ONLY = {"device", "log"}
"""What a small run may have besides: it means the CPU, and writes windows more often."""
SIZES = {"train_seconds", "steps", "every_steps", "every_seconds", "splits"}
"""Keys in which a twin may differ by more than their values."""

Content = dict[str, Any]


def content(name: str) -> Content:
    return read_spec(SPECS / f"{name}.yaml").file.model_dump(mode="json", exclude_unset=True)


def configs(name: str) -> list[TrainingConfig]:
    return [run.config for run in expand(read_spec(SPECS / f"{name}.yaml")).runs]


def structure(value: Any, key: str = "") -> Any:
    """Return what a twin shares: keys, names and policies, but no numbers and no workload."""
    if key.rpartition(".")[2] in ("workload", "seeds", "profile", "experiment"):
        return None
    if isinstance(value, dict):
        kept = {
            name: structure(part, name)
            for name, part in value.items()
            if name not in SMALL_ONLY | {"resources"}
        }
        return {name: part for name, part in kept.items() if name not in SIZES | {"warmup_steps"}}
    if isinstance(value, list) and key != "also":
        return [structure(part, key) for part in value] if any(isinstance(p, dict) for p in value) else "axis"
    return value if isinstance(value, str) or value is None else "number"


def test_every_full_spec_has_a_twin_and_every_twin_a_full_one() -> None:
    shipped = {path.stem for path in SPECS.glob("*.yaml")} - {"quickstart", "robustness"}
    assert shipped == {*FULL, *(name + SMALL for name in FULL)}
    assert set(THESIS) <= set(FULL)


@pytest.mark.parametrize("name", FULL)
def test_twins_have_one_structure(name: str) -> None:
    full, small = content(name), content(name + SMALL)
    if name == "future-widen":  # other rates and workloads on its axes, but the same optimizers on each
        for whole in (full, small):
            for grid in whole["grids"]:
                grid["grid"]["optimizer"] = [one["name"] for one in grid["grid"]["optimizer"]]
    assert structure(full) == structure(small)
    assert small["seeds"] == [0, 1, 2]
    assert (full["profile"], small["profile"]) == ("slurm-a100", "local")
    assert small["base"]["device"] == "cpu"


@pytest.mark.parametrize("name", [name + end for name in FULL for end in ("", SMALL)])
def test_a_spec_begins_with_its_question_and_its_one_command(name: str) -> None:
    comment = (SPECS / f"{name}.yaml").read_text().partition("experiment:")[0]
    assert comment.startswith("# ")
    command = rf"^#     alphagrid submit specs/{name}\.yaml --wait && alphagrid report {name} --all"
    assert re.search(command, comment, re.MULTILINE)


@pytest.mark.parametrize("name", FULL)
def test_full_specs_train_on_criteo_with_the_thesis_batch_unless_that_is_the_question(name: str) -> None:
    if name == "sanity":
        return
    for config in configs(name):
        workload = config.workload.model_dump()
        if workload["name"] == "char_transformer":
            assert name == "future-widen"
            continue
        assert workload["name"] == "criteo1tb"
        assert re.fullmatch(r"\$\{CRITEO\w+_DIR\}", workload["data_dir"])
        assert workload["table_rows"] == 4_194_304
        assert workload["batch_size"] == 32_768 or name in ("future-batch", "future-epochs")


@pytest.mark.parametrize("name", FULL)
def test_no_full_spec_trains_nadamw_at_a_rate_that_is_meant_for_a_batch_eight_times_as_large(
    name: str,
) -> None:
    nadamw = [config for config in configs(name) if config.optimizer.name == "nadamw"]
    for config in nadamw if name != "sanity" else ():
        assert config.optimizer.lr != NAdamWOptions(name="nadamw").lr or config.workload.name != "criteo1tb"


def test_the_schedule_is_algoperfs_stretched_by_eight_at_an_eighth_of_its_rate() -> None:
    for name in ("pretest", "exp1-observe", "exp2-steps", "exp2-time"):
        config = next(config for config in configs(name) if config.schedule is not None)
        assert config.optimizer.lr is not None
        assert config.optimizer.lr == pytest.approx(0.0017486387539278373 / 8, rel=1e-15)
        assert config.optimizer == NAdamWOptions(name="nadamw", lr=config.optimizer.lr)
        assert config.schedule is not None
        assert config.schedule.model_dump() == {
            "name": "warmup_cosine", "total_steps": 8 * 10_666, "warmup_fraction": 0.02
        }  # fmt: skip
        assert learning_rate(config.schedule, config.optimizer.lr, 0) == pytest.approx(2.1858e-14, rel=1e-4)
        assert learning_rate(config.schedule, config.optimizer.lr, 2000) == pytest.approx(
            2.18573e-4, rel=1e-5
        )


def test_the_pretest_measures_at_every_one_of_5000_steps() -> None:
    found = configs("pretest")
    assert all(config.stop.steps == 5000 for config in found)
    measuring = [config.alpha for config in found if config.alpha is not None]
    assert len(measuring) == len(found) - 1
    assert all(sum(map(alpha.measures, range(5000))) == 5000 for alpha in measuring)
    assert [(alpha.route, alpha.estimator) for alpha in measuring] == [
        ("thesis", "biased"), ("curvlinops", "biased"), ("jvp", "biased")
    ]  # fmt: skip


def test_experiment_1_observes_4300_values_by_all_estimators() -> None:
    (config,) = configs("exp1-observe")
    assert config.alpha is not None
    assert config.alpha.policy == "observe"
    assert sum(map(config.alpha.measures, range(85_328))) == 4300
    assert set(config.alpha.estimators) == {"biased", "unbiased", "hybrid", "lookahead"}
    assert (config.eval.every_steps, config.stop.steps) == (2000, 85_328)


REACHED = {
    1000: ((16789, 72002), (9726, 38005), (5005, 16025)),
    2000: ((26009, 104005), (8002, 26006), (4975, 14031)),
    5000: ((41885, 207009), (22023, 127005), (12032, 57005)),
}
"""Steps reached within 13,699 s and 61,624 s (tables C.1 and C.2), for N = 10, 25, 50."""
OUTSIDE = {16789, 9726, 4975, 41885}
"""Those of them that fall between windows."""


@pytest.mark.parametrize("name", ["exp2-steps", "exp2-time"])
def test_experiment_2_has_the_thesis_grid_windows_and_baselines(name: str) -> None:
    found = configs(name)
    cells = {(c.alpha.interval, c.alpha.count): c.alpha for c in found if c.alpha is not None}
    assert sorted(cells) == [(i, n) for i in (1000, 2000, 5000) for n in (10, 25, 50)]
    for (interval, count), alpha in cells.items():
        assert (alpha.policy, alpha.estimator, alpha.start_step) == ("median", "unbiased", 2000)
        assert not any(map(alpha.measures, range(2000)))
        assert [i for i in range(2000, 2000 + interval) if alpha.measures(i)] == list(
            range(2000, 2000 + count)
        )
        for reached in REACHED[interval][(10, 25, 50).index(count)]:
            assert alpha.measures(reached) == (reached not in OUTSIDE)
    nadamw, free = (config for config in found if config.alpha is None)
    assert nadamw.schedule is not None
    assert (free.optimizer.name, free.optimizer.lr, free.schedule) == ("schedule_free_adamw", 0.0025, None)


def test_experiment_2_stops_and_evaluates_as_the_thesis_did() -> None:
    for config in configs("exp2-steps"):
        assert (config.eval.every_steps, config.stop.steps, config.stop.train_seconds) == (1000, 85_328, None)
    for config in configs("exp2-time"):
        is_baseline = config.alpha is None and config.schedule is not None
        assert config.eval.every_seconds == 960
        assert config.stop.model_dump() == {
            "steps": 85_328 if is_baseline else None,
            "train_seconds": None if is_baseline else 8 * 7703,
        }


def test_schedule_free_gets_an_eighth_of_the_batchs_due() -> None:
    rates = {c.optimizer.lr for c in configs("future-schedule-free") if c.schedule is None}
    assert sorted(map(float, filter(None, rates))) == pytest.approx([0.0025 / 8, 0.0025 / 8**0.5, 0.0025])
    axes = content("future-schedule-free")["grid"]
    assert axes["optimizer.warmup_steps"] == [159, 8 * 159]


@pytest.mark.slow
@pytest.mark.parametrize("name", FULL)
def test_a_run_of_every_kind_in_a_twin_trains_until_it_has_measured(name: str, tmp_path: Path) -> None:
    kinds = {str(kind(config)): config for config in configs(name + SMALL)}
    for number, config in enumerate(kinds.values()):
        first = getattr(config.alpha, "start_step", 0)
        short = {**config.model_dump(mode="json"), "stop": {"steps": first + 3}}
        run = RunFiles(tmp_path / str(number))
        run.path.mkdir()
        journal = Journal.create(run.journal(1))
        task = TrainingConfig.model_validate(short)
        outcome = train(task, run, journal, 1, prepare(run), StopRequest())
        journal.close()
        assert (outcome.status, outcome.reason) == ("completed", None)
        kinds_of_records = {record["kind"] for record in read_journal(run.journal(1)).records}
        assert {"window", "evaluation"} <= kinds_of_records
        assert ("alpha" in kinds_of_records) == (config.alpha is not None)


def kind(config: TrainingConfig) -> list[Any]:
    """Return what makes runs take other ways through the trainer: all names, but no number."""
    sections = config.model_dump(mode="json")
    named = [
        sections["workload"]["name"],
        sections["optimizer"]["name"],
        (sections["schedule"] or {}).get("name"),
    ]
    alpha = sections["alpha"] or {}
    return [*named, *(alpha.get(key) for key in ("policy", "estimator", "also", "route", "record"))]
