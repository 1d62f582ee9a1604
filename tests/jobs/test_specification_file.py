"""Specification files: their keys, `--set`, and mistakes in them."""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest
from alphagrid.errors import UserError
from alphagrid.jobs.specification.experiment import Experiment, expand
from alphagrid.jobs.specification.file import read_spec
from alphagrid.jobs.specification.variables import expand_variables, variables_in
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

BASE = """\
experiment: trial
base:
  workload: {name: digits_mlp}
  optimizer: {name: nadamw, lr: 1e-3}
  alpha: {policy: median, interval: 20, count: 3}
  stop: {steps: 100}
"""


Expand = Callable[..., Experiment]
Refusal = Callable[..., str]


@pytest.fixture
def spec(tmp_path: Path) -> Expand:
    def write(more: str = "", *options: str, text: str = BASE) -> Experiment:
        path = tmp_path / "spec.yaml"
        path.write_text(text + dedent(more))
        return expand(read_spec(path, options))

    return write


@pytest.fixture
def refused(spec: Expand, tmp_path: Path) -> Refusal:
    def refusal(more: str = "", *options: str, text: str = BASE) -> str:
        with pytest.raises(UserError) as error:
            spec(more, *options, text=text)
        assert not re.search(r"Input should|Value error|valid (integer|number|dict)", error.value.message)
        return error.value.message.replace(f"{tmp_path}/", "")

    return refusal


def test_a_base_alone_is_one_run(spec: Expand) -> None:
    experiment = spec()
    assert experiment.name == "trial"
    assert [(run.name, run.baseline, run.params) for run in experiment.runs] == [("base", None, {})]
    assert experiment.profile == "local"
    assert experiment.spec_folder.is_absolute()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("grd: {}", "spec.yaml:7: grd: unknown key; did you mean 'grid'?"),
        ("optimizer: {name: sgd}", "spec.yaml:7: optimizer: unknown key; did you mean 'base.optimizer'?"),
        ("grid:", "spec.yaml:7: grid: should be a mapping, not nothing (null)"),
        ("grid: {}", "spec.yaml:7: grid: is empty"),
        ("grid:\n  alpha.count: []", "spec.yaml:8: grid.alpha.count: is empty"),
        ("grid: {alpha.count: 3}", "spec.yaml:7: grid.alpha.count: should be a list, not 3; write [3]"),
        ("seeds: [a]", "spec.yaml:7: seeds.0: should be a whole number, not 'a' (text)"),
        ("seeds: [-1]", "spec.yaml:7: seed: should be at least 0, not -1"),
        ("baselines: {a/b: {}}", "spec.yaml:7: baselines.a/b: 'a/b' cannot name a baseline"),
        ("baselines: {sgd: }", "spec.yaml:7: baselines.sgd: should be a mapping, not nothing (null)"),
        ("grids: []", "spec.yaml:7: grids: is empty"),
        ("grids: [{gird: {}}]", "spec.yaml:7: grids.0.gird: unknown key; did you mean 'grid'?"),
        ("exclude: [{}]", "spec.yaml:7: exclude.0: is empty"),
        ("profile: 3", "spec.yaml:7: profile: should be text, not 3; put it in quotes"),
    ],
)
def test_mistakes_in_the_keys_of_the_file_name_line_and_key(refused: Refusal, more: str, said: str) -> None:
    assert refused(more).startswith(said)


@pytest.mark.parametrize("name", ["a/b", "..", "a..b", "-a", "A", "", ".a", "a b", "ä"])
def test_experiment_names_are_folder_names(refused: Refusal, name: str) -> None:
    message = refused(text=BASE.replace("trial", f"'{name}'"))
    assert message.startswith("spec.yaml:1: experiment: ")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("count: 3", "count: '3'", "5: alpha.count: should be a whole number, not '3' (text)"),
        ("count: 3", "count: 0", "5: alpha.count: should be at least 1, not 0"),
        ("interval: 20", "interval: -5", "5: alpha.interval: should be at least 1, not -5"),
        ("count: 3", "count: 30", "5: alpha.count: count (30) is larger than interval (20)"),
        ("count: 3", "cuont: 3", "5: alpha.cuont: unknown key; did you mean 'count'?"),
        ("policy: median", "policy: meddian", "5: alpha.policy: unknown alpha policy 'meddian'"),
        ("policy: median, ", "", "5: alpha: needs the key 'policy'"),
        ("1e-3", ".nan", "4: optimizer.lr: should be a finite number, not nan"),
        ("nadamw", "nadamww", "4: optimizer.name: unknown optimizer 'nadamww'"),
        ("digits_mlp", "no.such:Task", "3: workload.name: cannot import the workload 'no.such:Task'"),
        ("  stop: {steps: 100}\n", "", "2: stop: is missing"),
        ("stop:", "stopp:", "6: stopp: unknown key; did you mean 'stop'?"),
        ("digits_mlp", "'${X-1}'", "3: base.workload.name: '${' must begin a variable"),
        ("{name: digits_mlp}", "digits_mlp", "3: workload: should be a mapping with the key 'name'"),
    ],
)
def test_mistakes_in_a_run_name_line_and_key(refused: Refusal, old: str, new: str, said: str) -> None:
    assert f"spec.yaml:{said}" in refused(text=BASE.replace(old, new))


def test_mistakes_are_found_where_they_were_written(refused: Refusal) -> None:
    message = refused("""\
        grid:
          alpha.count: [3,
            x]
        baselines:
          plain: {alpha: null, optimizer: {name: sgd,
             momentum: 2}}
        """)
    assert message.splitlines() == [
        "spec.yaml:9: alpha.count: should be a whole number, not 'x' (text)",
        "spec.yaml:12: optimizer.momentum: should be less than 1.0, not 2 (baseline 'plain')",
    ]


def test_one_mistake_in_the_base_is_told_once(refused: Refusal) -> None:
    message = refused("grid: {alpha.count: [1, 2, 3]}", text=BASE.replace("1e-3", "x"))
    assert message == "spec.yaml:4: optimizer.lr: should be a number, not 'x' (text)"


# --set


def ids(experiment: Experiment) -> list[str]:
    return [run.id for run in experiment.runs]


GRID = "grid: {alpha.count: [1, 2]}\nbaselines: {plain: {alpha: null}}\n"


def test_set_changes_a_leaf_in_every_run_that_has_its_section(spec: Expand) -> None:
    experiment = spec(GRID, "alpha.route=curvlinops", "stop.steps=7", "eval.every_steps=5")
    assert [run.config.alpha and run.config.alpha.route for run in experiment.runs] == [
        "curvlinops",
        "curvlinops",
        None,
    ]
    assert {run.config.stop.steps for run in experiment.runs} == {7}
    assert {run.config.eval.every_steps for run in experiment.runs} == {5}


@pytest.mark.parametrize(
    ("option", "old", "new"),
    [
        ("optimizer.lr=0.5", "1e-3", "0.5"),
        ("optimizer.beta1=0.5", "lr: 1e-3", "lr: 1e-3, beta1: 0.5"),
        ("base.optimizer.lr=5e-1", "1e-3", "0.5"),
        ("base.alpha.interval=40", "interval: 20", "interval: 40"),
        ("grid.alpha.count=[1, 4]", "[1, 2]", "[1, 4]"),
        ("baselines.plain.seed=3", "plain: {alpha: null}", "plain: {alpha: null, seed: 3}"),
        ("baselines.other.seed=3", "plain: {alpha: null}", "plain: {alpha: null}, other: {seed: 3}"),
        ("seeds=[1, 2]", "grid:", "seeds: [1, 2]\ngrid:"),
        ("workload={name: least_squares}", "digits_mlp", "least_squares"),
        ("stop={train_seconds: 3}", "{steps: 100}", "{train_seconds: 3}"),
    ],
)
def test_set_equals_editing_the_file(spec: Expand, option: str, old: str, new: str) -> None:
    edited = (BASE + GRID).replace(old, new)
    assert edited != BASE + GRID
    assert spec(GRID, option).runs == spec(text=edited).runs


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.floats(1e-9, 1e3), st.integers(0, 10**9), st.integers(1, 512))
def test_set_on_any_leaf_equals_editing_the_file(spec: Expand, lr: float, start: int, batch: int) -> None:
    options = [f"optimizer.lr={lr}", f"alpha.start_step={start}", f"workload.batch_size={batch}"]
    edited = BASE.replace("1e-3", str(lr)).replace("count: 3", f"count: 3, start_step: {start}")
    edited = edited.replace("digits_mlp", f"digits_mlp, batch_size: {batch}")
    assert ids(spec("", *options)) == ids(spec(text=edited))


def test_set_values_are_yaml_1_2_and_the_last_one_wins(spec: Expand) -> None:
    (run,) = spec("", "optimizer.lr=1", "optimizer.lr=1e-2", "alpha=null").runs
    assert run.config.optimizer.lr == 0.01
    assert run.config.alpha is None


def test_set_reaches_into_lists_of_the_file(spec: Expand) -> None:
    experiment = spec("grids: [{grid: {alpha.count: [1, 2]}}]", "grids.0.grid.alpha.count=[4]")
    assert [run.params for run in experiment.runs] == [{"alpha.count": 4}]


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("alpha.count", "--set alpha.count: should be KEY=VALUE"),
        ("=3", "--set =3: should be KEY=VALUE"),
        ("alpha..count=3", "--set alpha..count=3: should be KEY=VALUE"),
        ("alpha.route=", "--set alpha.route=: has no value"),
        ("alpha.route=[", "--set alpha.route=[:1: not valid YAML"),
        ("aplha.route=jvp", "--set aplha.route=jvp: unknown key 'aplha.route'; did you mean 'alpha.route'?"),
        ("interval=3", "--set interval=3: unknown key 'interval'; did you mean 'alpha.interval'?"),
        ("alpha.rout=jvp", "--set alpha.rout=jvp: alpha.rout: unknown key; did you mean 'route'?"),
        ("optimizer.lr='1'", "--set optimizer.lr='1': optimizer.lr: should be a number, not '1' (text)"),
        ("schedule.name=constant", "no run has the section 'schedule'"),
        (
            "alpha.count=3",
            "alpha.count varies between the runs; to change its values, --set 'grid.alpha.count=[…]'",
        ),
        ("alpha=null", "alpha.count varies between the runs"),
        (
            "alpha.interval.x=3",
            "--set alpha.interval.x=3: alpha.interval.x: interval is 20, so it has no key 'x'",
        ),
        ("grid={}", "--set grid={}: grid: is empty"),
        ("seeds.3=1", "--set seeds.3=1: '3' is no position in a list of 1"),
        ("seed=1", "seed varies between the runs; to change its values, --set 'seeds=[…]'"),
        ("experiment.x=1", "--set experiment.x=1: there is no 'x' in 'trial' (text)"),
    ],
)
def test_mistakes_in_set_are_told_as_such(refused: Refusal, option: str, said: str) -> None:
    assert said in refused(f"{GRID}seeds: [0]", option)


@pytest.mark.parametrize(
    ("axes", "where"),
    [
        ("zip: {alpha.count: [1, 2]}", "zip.alpha.count"),
        ("grids: [{grid: {optimizer.lr: [1]}}, {grid: {alpha.count: [1, 2]}}]", "grids.1.grid.alpha.count"),
        ("grids: [{zip: {alpha.count: [1, 2]}}]", "grids.0.zip.alpha.count"),
    ],
)
def test_the_hint_names_the_place_where_an_axis_stands_and_works(
    spec: Expand, refused: Refusal, axes: str, where: str
) -> None:
    assert f"--set '{where}=[…]'" in refused(axes, "alpha.count=3")
    counts = [run.params.get("alpha.count") for run in spec(axes, f"{where}=[4, 5]").runs]
    assert counts[-2:] == [4, 5]


def test_import_path_workloads_are_found_beside_the_spec(spec: Expand, tmp_path: Path) -> None:
    (tmp_path / "beside_the_spec.py").write_text(
        "from alphagrid.trainer.workloads.options import WorkloadOptions\n"
        "class Options(WorkloadOptions):\n    width: int = 3\n"
        "class Task:\n    Options = Options\n"
    )
    before = list(sys.path)
    text = BASE.replace("digits_mlp", "'beside_the_spec:Task', width: 5")
    (run,) = spec(text=text).runs
    named = {"name": "beside_the_spec:Task", "batch_size": 128, "accumulate": 1, "width": 5}
    assert run.config.as_dict()["workload"] == named
    assert sys.path == before


def test_variables_are_expanded_in_string_values_only() -> None:
    config = {"extra": {"dir": "${A}/x", "${A}": ["$B $$ ${B_1}", 3]}}
    assert variables_in([config]) == ["A", "B_1"]
    expanded = expand_variables(config, {"A": "a", "B_1": "b"})
    assert expanded["extra"] == {"dir": "a/x", "${A}": ["$B $$ b", 3]}
    with pytest.raises(UserError, match=r"\$\{B_1\} is not set"):
        expand_variables(config, {"A": "a"})
