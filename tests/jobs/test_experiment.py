"""Expansion: which runs a specification stands for, their identity and their names."""

import json
import math
import random
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from alphagrid.cluster_profiles.loader import load_profile
from alphagrid.errors import UserError
from alphagrid.jobs.dry_run import choose_profile, dry_run, dry_run_warnings
from alphagrid.jobs.specification.experiment import Experiment, expand
from alphagrid.jobs.specification.file import read_spec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

BASE: dict[str, Any] = {
    "workload": {"name": "digits_mlp"},
    "optimizer": {"name": "nadamw"},
    "alpha": {"policy": "median", "interval": 1000, "count": 1},
    "stop": {"steps": 100},
}

Expand = Callable[..., Experiment]
lenient = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture
def grid(tmp_path: Path) -> Expand:
    """Expand a specification with the base above; JSON is YAML."""

    def expanded(**keys: Any) -> Experiment:
        path = tmp_path / "spec.yaml"
        path.write_text(json.dumps({"experiment": "trial", "base": BASE, **keys}, indent=1))
        return expand(read_spec(path))

    return expanded


def names(experiment: Experiment) -> list[str]:
    return [run.name for run in experiment.runs]


def ids(experiment: Experiment) -> list[str]:
    return [run.id for run in experiment.runs]


AXES = st.fixed_dictionaries(
    {},
    optional={
        "alpha.interval": st.lists(st.integers(100, 9999), min_size=1, max_size=4, unique=True),
        "alpha.count": st.lists(st.integers(1, 99), min_size=1, max_size=4, unique=True),
        "optimizer.lr": st.lists(st.floats(1e-6, 1.0), min_size=1, max_size=3, unique=True),
        "workload.hidden": st.lists(
            st.lists(st.integers(1, 9), min_size=1, max_size=2), min_size=1, max_size=3, unique_by=tuple
        ),
    },
).filter(bool)
SEEDS = st.lists(st.integers(0, 99), min_size=1, max_size=3, unique=True)


@lenient
@given(AXES, SEEDS)
def test_the_number_of_runs_is_the_product(
    grid: Expand, axes: dict[str, list[Any]], seeds: list[int]
) -> None:
    experiment = grid(grid=axes, seeds=seeds, baselines={"plain": {"alpha": None}})
    cells = math.prod(len(values) for values in axes.values())
    assert len(experiment.runs) == (cells + 1) * len(seeds)
    assert len(set(ids(experiment))) == len(experiment.runs)
    assert len(set(names(experiment))) == len(experiment.runs)
    assert all(set(run.params) == {*axes, "seed"} for run in experiment.runs if not run.baseline)


@lenient
@given(AXES, SEEDS, st.randoms(use_true_random=False))
def test_the_order_of_keys_changes_no_run(
    grid: Expand, axes: dict[str, Any], seeds: list[int], shuffle: random.Random
) -> None:
    def shuffled(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        keys = list(value)
        shuffle.shuffle(keys)
        return {key: shuffled(value[key]) for key in keys}

    keys = {
        "grid": axes,
        "seeds": seeds,
        "baselines": {"a": {"alpha": None}, "b": {"alpha": None, "threads": 2}},
    }
    assert set(ids(grid(**keys))) == set(ids(grid(**shuffled({**keys, "base": BASE}))))


@lenient
@given(st.integers(1, 10**6), st.floats(1, 1e6), st.integers(1, 9), AXES)
def test_stop_and_checkpoint_do_not_belong_to_identity(
    grid: Expand, steps: int, seconds: float, keep: int, axes: Any
) -> None:
    changed = {**BASE, "stop": {"steps": steps}, "checkpoint": {"every_seconds": seconds, "keep": keep}}
    assert ids(grid(grid=axes)) == ids(grid(grid=axes, base=changed))


def test_defaults_written_out_and_numbers_written_otherwise_are_the_same_run(grid: Expand) -> None:
    written = {**BASE, "threads": 1, "eval": {}, "optimizer": {"name": "nadamw", "eps": 1e-8}}
    assert ids(grid()) == ids(grid(base=written))
    one = {**BASE, "optimizer": {"name": "sgd", "lr": 1}}
    assert ids(grid(base=one)) == ids(grid(base={**BASE, "optimizer": {"name": "sgd", "lr": 1.0}}))


# Merging


def test_names_come_from_what_varies(grid: Expand) -> None:
    experiment = grid(
        grid={"alpha.interval": [2000, 5000], "alpha.count": [10], "alpha.start_step": [0, 5]},
        seeds=[0],
        baselines={"nadamw": {"alpha": None}},
    )
    assert names(experiment)[0] == "interval2000-start_step0-seed0"
    assert names(experiment)[-1] == "nadamw-seed0"
    assert experiment.runs[0].params == {
        "alpha.interval": 2000,
        "alpha.count": 10,
        "alpha.start_step": 0,
        "seed": 0,
    }
    assert experiment.runs[-1].params == {"seed": 0}


def test_seed_is_a_param_only_if_seeds_are_given(grid: Expand) -> None:
    experiment = grid(grid={"alpha.count": [1, 2]}, baselines={"plain": {"alpha": None}})
    assert [run.params for run in experiment.runs] == [{"alpha.count": 1}, {"alpha.count": 2}, {}]
    assert names(experiment) == ["count1", "count2", "plain"]


def test_names_without_anything_that_varies_hold_every_key(grid: Expand) -> None:
    assert names(grid(grid={"alpha.interval": [50], "alpha.count": [10]})) == ["interval50-count10"]
    assert names(grid(seeds=[0, 1])) == ["seed0", "seed1"]


def test_names_are_safe_for_files_and_tell_equal_ends_apart(grid: Expand) -> None:
    experiment = grid(
        grid={
            "optimizer.weight_decay": [0.0, 0.1],
            "optimizer.name": ["adamw", "sgd"],
            "workload.hidden": [[8], [8, 4]],
            "workload.name": ["digits_mlp"],
            "alpha.policy": ["observe", "median"],
            "optimizer.lr": [1e-5, 0.1],
            "device": ["cpu", "auto"],
        }
    )
    assert names(experiment)[0] == "weight_decay0.0-optimizer_adamw-hidden8-alpha_observe-lr1e-05-device_cpu"
    assert all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name) for name in names(experiment))
    base = {**BASE, "schedule": {"name": "warmup_cosine", "total_steps": 10}, "alpha": None}
    twins = grid(base=base, grid={"optimizer.beta1": [0.5, 0.9], "seed": [1, 2]})
    assert names(twins)[0] == "beta1_0.5-seed1"


def test_equal_leaf_names_show_more_of_their_key(grid: Expand) -> None:
    axes = {"eval.every_steps": [5, 6], "log.every_steps": [5, 6]}
    assert names(grid(grid=axes))[1] == "eval.every_steps5-log.every_steps6"


def test_a_mapping_replaces_its_section_a_dotted_key_one_leaf_and_null_switches_off(grid: Expand) -> None:
    base = {**BASE, "optimizer": {"name": "nadamw", "lr": 0.5, "beta1": 0.8}}
    experiment = grid(
        base=base,
        baselines={
            "replaced": {"optimizer": {"name": "nadamw", "lr": 0.5}},
            "leaf": {"optimizer.lr": 0.25},
            "off": {"alpha": None},
            "both": {"optimizer.lr": 0.125, "optimizer": {"name": "sgd"}},
        },
    )
    runs = {run.baseline: run.config for run in experiment.runs}
    optimizers = {name: config.as_dict()["optimizer"] for name, config in runs.items()}
    assert optimizers["replaced"]["beta1"] != 0.8
    assert (optimizers["leaf"]["beta1"], optimizers["leaf"]["lr"]) == (0.8, 0.25)
    assert runs["off"].alpha is None
    assert (optimizers["both"]["name"], optimizers["both"]["lr"]) == ("sgd", 0.125)


def test_zip_varies_together_and_multiplies_with_the_grid(grid: Expand) -> None:
    experiment = grid(
        grid={"alpha.count": [1, 2]}, zip={"optimizer.lr": [0.1, 0.2], "optimizer.beta1": [0.8, 0.9]}
    )
    assert [tuple(run.params.values()) for run in experiment.runs] == [
        (1, 0.1, 0.8),
        (1, 0.2, 0.9),
        (2, 0.1, 0.8),
        (2, 0.2, 0.9),
    ]


def test_several_grids_share_baselines_and_seeds(grid: Expand) -> None:
    experiment = grid(
        grids=[
            {"grid": {"alpha.interval": [10, 20]}},
            {"zip": {"optimizer.lr": [0.1, 0.2]}, "base": {"alpha": {"policy": "apply"}, "threads": 2}},
        ],
        seeds=[0, 1],
        baselines={"plain": {"alpha": None}},
    )
    assert len(experiment.runs) == (2 + 2 + 1) * 2
    assert [run.config.threads for run in experiment.runs] == [1] * 4 + [2] * 4 + [1] * 2
    assert names(experiment)[::2] == [
        "interval10-seed0",
        "interval20-seed0",
        "lr0.1-seed0",
        "lr0.2-seed0",
        "plain-seed0",
    ]


def test_grids_that_differ_in_their_base_alone_have_names_of_their_own(grid: Expand) -> None:
    part = {"alpha.interval": [10, 20]}
    experiment = grid(grids=[{"grid": part}, {"grid": part, "base": {"threads": 2}}])
    assert names(experiment) == [
        "grid1-interval10",
        "grid1-interval20",
        "grid2-interval10",
        "grid2-interval20",
    ]


def test_axes_of_whole_mappings_are_named_by_name_or_position(grid: Expand) -> None:
    optimizers = [{"name": "nadamw"}, {"name": "sgd", "lr": 0.1}]
    alphas = [{"policy": "median", "interval": 9, "count": 3}, {"policy": "apply"}, None]
    experiment = grid(
        grid={"optimizer": optimizers, "alpha": alphas}, exclude=[{"optimizer": "sgd", "alpha": 0}]
    )
    assert [tuple(run.params.values()) for run in experiment.runs] == [
        ("nadamw", 0),
        ("nadamw", 1),
        ("nadamw", None),
        ("sgd", 1),
        ("sgd", None),
    ]
    assert names(experiment)[:3] == [
        "optimizer_nadamw-alpha0",
        "optimizer_nadamw-alpha1",
        "optimizer_nadamw-alpha_null",
    ]
    assert experiment.runs[3].config.optimizer.lr == 0.1


def test_a_leaf_axis_changes_the_sections_of_a_mapping_axis_in_any_order(grid: Expand) -> None:
    axes = {"optimizer.lr": [0.5], "optimizer": [{"name": "nadamw"}, {"name": "sgd", "lr": 0.1}]}
    assert [run.config.optimizer.lr for run in grid(grid=axes).runs] == [0.5, 0.5]


# Exclusion


def test_excluded_cells_are_neither_run_nor_validated(grid: Expand) -> None:
    axes = {"alpha.interval": [10, 100], "alpha.count": [5, 50]}
    experiment = grid(grid=axes, exclude=[{"alpha.interval": 10, "alpha.count": 50.0}], seeds=[0, 1])
    assert names(experiment)[::2] == [
        "interval10-count5-seed0",
        "interval100-count5-seed0",
        "interval100-count50-seed0",
    ]
    assert experiment.warnings == []


def test_an_exclude_that_matches_nothing_is_a_warning(grid: Expand) -> None:
    experiment = grid(grid={"alpha.count": [5, 6]}, exclude=[{"alpha.cuont": 5}, {"alpha.count": 7}])
    first, second = experiment.warnings
    assert first.endswith("exclude.0: matches no run: alpha.cuont is no axis; did you mean 'alpha.count'?")
    assert second.endswith("exclude.1: matches no run")
    assert re.search(r"spec\.yaml:\d+: ", second)


# Refusals


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"grid": {"stop.steps": [1, 2]}}, "grid.stop.steps: 'stop' cannot be an axis"),
        ({"grid": {"checkpoint.keep": [1, 2]}}, "'checkpoint' cannot be an axis"),
        ({"zip": {"stop": [{"steps": 1}]}}, "zip.stop: 'stop' cannot be an axis"),
        ({"grid": {"alpha.count": [1]}, "zip": {"alpha.count": [2]}}, "stands in grid too"),
        ({"zip": {"alpha.count": [1, 2], "optimizer.lr": [1]}}, "alpha.count has 2, optimizer.lr has 1"),
        ({"grid": {"seed": [1, 2]}, "seeds": [0]}, "seed is an axis of the grid already"),
        ({"grid": {"alpha.count": [1, 1]}}, "the run 'count1' is there twice"),
        ({"seeds": [3, 3]}, "the run 'seed3' is there twice"),
        ({"baselines": {"a": {"alpha": None}, "b": {"alpha": None}}}, "'a' and 'b' are the same run"),
        ({"baselines": {"a": {"stop": {"steps": 3}}}}, "'base' and 'a' are the same run"),
        (
            {"grid": {"alpha.count": [1, 2]}, "exclude": [{"alpha.count": 1}, {"alpha.count": 2}]},
            "leaves nothing",
        ),
        ({"grid": {"alpha.count": [1, 2000]}}, "alpha.count: count (2000) is larger than interval (1000)"),
        ({"grid": {"alpha.inteval": [1]}}, "alpha.inteval: unknown key; did you mean 'interval'?"),
        ({"grid": {"aplha.interval": [1]}}, "aplha: unknown key; did you mean 'alpha'?"),
        ({"grid": {"alpha.": [1]}}, "is no dotted key"),
        ({"grid": {"alpha.interval": [{"a": 1}]}}, "should be a whole number, not a mapping"),
        (
            {
                "grid": {"workload.hidden.0": [1]},
                "base": {**BASE, "workload": {"name": "digits_mlp", "hidden": [1]}},
            },
            "hidden is a list, so it has no key '0'",
        ),
        ({"baselines": {"sf": {"optimizer": {"name": "schedule_free_adamw"}}}}, "(baseline 'sf')"),
    ],
)
def test_what_makes_no_experiment_is_refused(grid: Expand, keys: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as refused:
        grid(**keys)
    assert said in refused.value.message


# Dry run


def test_dry_run_tells_runs_calls_and_gpu_hours(grid: Expand) -> None:
    experiment = grid(
        grid={"alpha.count": [1, 2]},
        baselines={"plain": {"alpha": None}},
        profile="slurm-a100",
        resources={"hours": 5},
    )
    plan = dry_run(experiment, choose_profile(experiment))
    assert set(plan) == {"experiment", "runs", "sbatch_calls", "gpu_hours"}
    assert (plan["experiment"], plan["sbatch_calls"], plan["gpu_hours"]) == ("trial", 1, 15.0)
    assert set(plan["runs"][0]) == {"id", "name", "baseline", "params", "config"}
    assert plan["runs"][0]["config"]["stop"] == {"steps": 100, "train_seconds": None}
    assert [run["baseline"] for run in plan["runs"]] == [None, None, "plain"]
    json.dumps(plan, allow_nan=False)


def test_dry_run_counts_arrays_and_gpus(grid: Expand) -> None:
    experiment = grid(grid={"alpha.count": [1, 2, 3, 4, 5]})
    profile = load_profile("slurm-a100", {"max_array": 2, "gres": "gpu:a100:4", "hours": 0.5})
    plan = dry_run(experiment, profile)
    assert (plan["sbatch_calls"], plan["gpu_hours"]) == (3, 10.0)
    limited = dry_run(experiment, profile, limit=3)
    assert (limited["sbatch_calls"], limited["gpu_hours"], len(limited["runs"])) == (2, 6.0, 5)
    plan = dry_run(experiment, load_profile("local", {"gres": "gpu:4", "hours": 3}))
    assert (plan["sbatch_calls"], plan["gpu_hours"]) == (0, 0.0)
    assert dry_run(experiment, load_profile("slurm-a100", {"gres": None}))["gpu_hours"] == 0.0


def test_the_profile_of_the_spec_must_exist_even_if_another_is_used(grid: Expand) -> None:
    assert choose_profile(grid(profile="slurm-a100"), "local").cluster == "local"
    with pytest.raises(UserError, match=r"spec\.yaml:\d+: there is no profile 'slurm-a10'"):
        choose_profile(grid(profile="slurm-a10"), "local")
    with pytest.raises(
        UserError, match=r"spec\.yaml:\d+: resources\.huors: unknown key; did you mean 'hours'"
    ):
        choose_profile(grid(resources={"huors": 3}))


def test_unset_variables_are_warnings_of_a_dry_run(grid: Expand, tmp_path: Path) -> None:
    (tmp_path / "with_directory.py").write_text(
        "from alphagrid.trainer.workloads.options import WorkloadOptions\n"
        "class Options(WorkloadOptions):\n    data_dir: str\n"
        "class Task:\n    Options = Options\n"
    )
    workload = {"name": "with_directory:Task", "data_dir": "${DATA}/criteo"}
    experiment = grid(base={**BASE, "workload": workload})
    assert experiment.variables == ["DATA"]
    assert dry_run_warnings(experiment, {}) == ["${DATA} is not set here"]
    assert dry_run_warnings(experiment, {"DATA": "/d"}) == []
    assert experiment.runs[0].config.as_dict()["workload"]["data_dir"] == "${DATA}/criteo"


def test_runs_share_validated_sections_but_not_across_different_values(grid: Expand) -> None:
    first, second = grid(grid={"alpha.count": [1, 2]}).runs
    assert first.config.workload is second.config.workload
    assert [run.config.as_dict()["alpha"]["count"] for run in (first, second)] == [1, 2]


def test_a_rate_left_to_ema_stays_a_default_in_runs_that_share_the_optimizer_as_written(grid: Expand) -> None:
    optimizer = {"name": "nadamw"}
    experiment = grid(
        base={**BASE, "optimizer": optimizer},
        grids=[
            {"base": {"alpha": {"policy": "ema", "total_steps": 100}}, "grid": {"alpha.scale": [1.5]}},
            {"base": {"alpha": None}, "grid": {"workload.batch_size": [32]}},
        ],
    )
    rates = [run.config.optimizer.lr for run in experiment.runs]
    assert rates == [None, 0.0017486387539278373]


def test_planning_ten_times_the_runs_takes_about_ten_times_as_long(grid: Expand) -> None:
    def planned(starts: int) -> float:
        axes = {"alpha.start_step": list(range(starts)), "alpha.count": list(range(1, 101))}
        began = time.process_time()
        plan = json.dumps(dry_run(grid(grid=axes), load_profile("local")))
        taken = time.process_time() - began
        assert len(json.loads(plan)["runs"]) == 100 * starts
        return taken

    assert planned(100) < 30 * min(planned(10) for _ in range(3))
