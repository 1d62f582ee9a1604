"""The guard of the warm-up pass: an α* that would be wrong is said to be, and no other is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from alphagrid.errors import UserError
from alphagrid.trainer.alpha.guard import Precision
from alphagrid.trainer.clock import Clock
from alphagrid.trainer.config import TrainingConfig
from alphagrid.trainer.session import Session
from alphagrid.trainer.warm_up import warm_up
from alphagrid.trainer.workloads import WORKLOADS
from torch import Tensor
from torch.nn.attention.flex_attention import flex_attention

from tests.trainer.guarded_tasks import SHARE

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.trainer.conftest import Trained, TrainRun

EXACT: list[dict[str, Any]] = [
    {"policy": "observe"},
    {"policy": "observe", "estimator": "lookahead"},
    {"policy": "observe", "estimator": "lookahead", "curvature_fraction": 1.0},
    {"policy": "ema", "curvature_fraction": 1.0},
    {"policy": "observe", "estimator": "biased", "chunks": 3},
    {"policy": "observe", "curvature": "fisher"},
]
DIFFERENCES: list[dict[str, Any]] = [{"policy": "gen"}, {"policy": "observe", "route": "finite_difference"}]
OPERATORS: list[dict[str, Any]] = [
    {"policy": "observe", "route": "curvlinops"},
    {"policy": "observe", "route": "curvlinops", "curvature": "hessian"},
    {"policy": "observe", "route": "thesis"},
]
MISSED_BY_THE_ROUTE = [
    "ListedParameter",
    "ClosedOver",
    "BehindAProperty",
    "CompiledListed",
    "ListedAndHalved",
]
NO_DERIVATIVE = ["StatisticsWithoutGradient", "Detached", "Data", "Items", "ThroughNumpy", "StraightThrough"]
CUSTOM = ["CustomJvp", "CustomBackward", "DetachedLowPrecision"]
RIGHT = [
    "Net", "Dead", "Constant", "Tied", "Jumping", "Gaps", "CustomRight", "LowPrecision", "Padding",
    "ByKernel", "OnTheEdge", "Compiled", "Halved",
]  # fmt: skip
PEAKS = """
import json, sys
from alphagrid.trainer.clock import Clock
from alphagrid.trainer.config import TrainingConfig
from alphagrid.trainer.warm_up import warm_up
from alphagrid.trainer.session import Session
from alphagrid.trainer.step import take_step

def peak():  # of this program alone: ru_maxrss is also that of the process that started it
    (line,) = [line for line in open("/proc/self/status") if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024

session = Session(TrainingConfig.model_validate(json.loads(sys.argv[1])), Clock())
size = sum(p.nbytes for p in session.model.parameters())
start = peak()
warm_up(session)
warm_up = peak()
take_step(session), take_step(session)
print(json.dumps([(warm_up - start) / size, (peak() - start) / size]))
"""
TF32 = """
import json, torch
from alphagrid.trainer.alpha.guard import Precision

class OnGpu(torch.Tensor):
    is_cuda = True

def rounding(operation, *inputs):
    precision = Precision()
    precision.__torch_dispatch__(operation, (), inputs)
    return precision.rounding

{setting}
image = torch.ones(1, 3, 3, 3).as_subclass(OnGpu)
convolution = image, image, None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1
print(json.dumps([
    rounding(torch.ops.aten.mm.default, image[0, 0], image[0, 0]),
    rounding(torch.ops.aten.convolution.default, *convolution),
]))
"""


@pytest.fixture(autouse=True)
def tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


def config(model: str, alpha: dict[str, Any], batch_size: int = 32, **options: Any) -> dict[str, Any]:
    return {
        "workload": {
            "name": "guarded_tasks:Guarded", "model": model, "batch_size": batch_size, **options,
        },
        "optimizer": {"name": "nadamw", "lr": 1e-3},
        "alpha": alpha,
        "eval": {"every_steps": 1000, "splits": ["validation"]},
        "stop": {"steps": 2},
        "device": "cpu",
    }  # fmt: skip


def verdict(config: dict[str, Any]) -> str | None:
    """Return what the guard says of a run."""
    session = Session(TrainingConfig.model_validate(config), Clock())
    try:
        warm_up(session)
    except UserError as error:
        if "α* would be wrong" not in error.message:
            raise
        return error.message
    said = ("not to be trusted", "α* is not checked")
    warnings = [text for text in session.warnings if any(part in text for part in said)]
    return warnings[0] if warnings else None


@pytest.mark.parametrize("model", MISSED_BY_THE_ROUTE + NO_DERIVATIVE + CUSTOM)
@pytest.mark.parametrize("alpha", EXACT, ids=str)
def test_a_model_that_forward_mode_gets_wrong_is_found(model: str, alpha: dict[str, Any]) -> None:
    assert verdict(config(model, alpha)) is not None


@pytest.mark.parametrize("model", MISSED_BY_THE_ROUTE)
@pytest.mark.parametrize("alpha", DIFFERENCES, ids=str)
def test_a_model_that_differences_get_wrong_is_found(model: str, alpha: dict[str, Any]) -> None:
    said = verdict(config(model, alpha))
    assert said is not None
    assert "read through a list" in said


@pytest.mark.parametrize("model", ["StatisticsWithoutGradient", "CustomBackward"])
@pytest.mark.parametrize("alpha", [*DIFFERENCES, EXACT[0]], ids=str)
def test_a_gradient_that_is_not_the_derivative_is_found(model: str, alpha: dict[str, Any]) -> None:
    said = verdict(config(model, alpha))
    assert said is not None
    assert "is not the loss' derivative" in said


@pytest.mark.parametrize("model", ["ListedParameter", "StatisticsWithoutGradient", "Data"])
@pytest.mark.parametrize("alpha", OPERATORS, ids=str)
def test_a_model_that_an_operator_gets_wrong_is_found(model: str, alpha: dict[str, Any]) -> None:
    assert verdict(config(model, alpha)) is not None


@pytest.mark.parametrize("model", ["ListedParameter", "StatisticsWithoutGradient", "Data", "CustomJvp"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("batch_size", [4, 200])
def test_it_is_found_in_any_precision_and_on_few_examples(model: str, dtype: str, batch_size: int) -> None:
    assert verdict(config(model, EXACT[0], batch_size, dtype=dtype)) is not None


@pytest.mark.parametrize(
    ("alpha", "sees_others"),
    [
        ({"estimator": "lookahead", "curvature_fraction": SHARE / 32}, False),
        ({"estimator": "lookahead", "curvature_fraction": SHARE / 32, "chunks": 2}, False),
        ({"estimator": "lookahead", "curvature_fraction": 1.0}, True),
        ({"estimator": "unbiased", "curvature_fraction": SHARE / 32}, True),
        ({"estimator": "lookahead", "curvature_fraction": SHARE / 32, "also": ["unbiased"]}, True),
        ({"estimator": "unbiased", "curvature_fraction": SHARE / 32, "also": ["lookahead"]}, True),
    ],
    ids=str,
)
def test_for_lookahead_the_examples_of_its_share_are_compared(
    alpha: dict[str, Any], sees_others: bool
) -> None:
    """The first 8 of 32; a model that is wrong for the others alone is right where lookahead looks."""
    alpha = {"policy": "observe", **alpha}
    if "chunks" not in alpha:  # a chunk is a pass, and has first rows of its own
        assert verdict(config("ListedForTheFirst", alpha)) is not None
    assert (verdict(config("ListedForTheOthers", alpha)) is not None) is sees_others


@pytest.mark.parametrize("alpha", [EXACT[0], DIFFERENCES[1]], ids=str)
def test_random_numbers_that_cannot_be_replayed_are_found(alpha: dict[str, Any]) -> None:
    said = verdict(config("HiddenGenerator", alpha))
    assert said is not None
    assert "different losses" in said


@pytest.mark.parametrize("model", RIGHT)
@pytest.mark.parametrize("alpha", EXACT + DIFFERENCES, ids=str)
def test_a_right_model_passes(model: str, alpha: dict[str, Any]) -> None:
    assert verdict(config(model, alpha)) is None


@pytest.mark.parametrize("alpha", [*EXACT, *DIFFERENCES], ids=str)
def test_a_wrong_model_is_found_where_its_parameters_cannot_be_moved_far(alpha: dict[str, Any]) -> None:
    said = verdict(config("ListedOnTheEdge", alpha))
    assert said is not None
    assert "read through a list" in said


@pytest.mark.parametrize("alpha", EXACT + DIFFERENCES, ids=str)
@pytest.mark.parametrize(("model", "wrong"), [("Net", False), ("Gaps", False), ("ListedParameter", True)])
def test_a_loss_that_draws_random_numbers_is_checked_with_the_same_ones(
    model: str, wrong: bool, alpha: dict[str, Any]
) -> None:
    said = verdict(config(model, alpha, name="guarded_tasks:DrawingLoss"))
    assert (said is not None) == wrong


def test_a_fault_of_the_second_look_counts_where_the_first_had_another_one() -> None:
    said = verdict(config("Turns", EXACT[0], dtype="float64"))
    assert said is not None
    assert "hides a dependence" in said


@pytest.mark.parametrize("alpha", [EXACT[0], EXACT[3]], ids=str)
def test_a_loss_that_is_not_finite_is_said_not_to_be_checked(alpha: dict[str, Any]) -> None:
    said = verdict(config("Infinite", alpha))
    assert said is not None
    assert "not checked" in said


@pytest.mark.parametrize("alpha", [EXACT[0], EXACT[3]], ids=str)
def test_outputs_without_finite_differences_are_said_not_to_be_checked(alpha: dict[str, Any]) -> None:
    said = verdict(config("AtTheVeryEdge", alpha))
    assert said is not None
    assert "not checked" in said


@pytest.mark.parametrize("model", ["Net", "Dead", "Tied"])
@pytest.mark.parametrize("alpha", OPERATORS, ids=str)
def test_a_right_model_passes_by_an_operator(model: str, alpha: dict[str, Any]) -> None:
    assert verdict(config(model, alpha)) is None


@pytest.mark.parametrize("model", ["Net", "Gaps", "Padding"])
@pytest.mark.parametrize(
    ("dtype", "empty"),
    [("float64", False), ("float32", False), ("bfloat16", False), ("float64", True), ("float32", True)],
)
@pytest.mark.parametrize("batch_size", [2, 200])
def test_a_right_model_passes_in_any_precision_on_few_examples_and_on_empty_ones(
    model: str, dtype: str, batch_size: int, empty: bool
) -> None:
    for alpha in (EXACT[0], *DIFFERENCES):
        assert verdict(config(model, alpha, batch_size, dtype=dtype, empty=empty)) is None


def test_a_policy_that_acts_fails_with_the_reason(train_run: TrainRun) -> None:
    with pytest.raises(UserError, match="also read through a list") as caught:
        train_run(config("ListedParameter", {"policy": "apply"}))
    assert caught.value.hint is not None
    assert "observe" in caught.value.hint


def test_a_run_that_observes_records_a_warning(train_run: TrainRun) -> None:
    trained = train_run(config("ListedParameter", {"policy": "observe"}))
    assert trained.outcome.status == "completed"
    (warning,) = trained.events("warning")
    assert "not to be trusted" in warning["message"]


@pytest.mark.parametrize(
    "operation",
    [lambda z: torch.cond(z.sum() > 0, torch.sin, torch.cos, (z,)), lambda z: flex_attention(z, z, z)],
)
def test_the_precision_of_operators_of_higher_order_is_seen(operation: Callable[[Tensor], Tensor]) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        precision = Precision()  # type: ignore[no-untyped-call]
        with torch.no_grad(), torch.compiler.set_stance("force_eager"), precision:
            operation(torch.ones(1, 2, 16, 16, dtype=dtype))
        assert precision.rounding == torch.finfo(dtype).eps


@pytest.mark.parametrize(
    ("setting", "matmul", "convolution"),
    [
        ("pass", 2**-23, 2**-10),
        ("torch.backends.cuda.matmul.allow_tf32 = True", 2**-10, 2**-10),
        ("torch.backends.cuda.matmul.fp32_precision = 'tf32'", 2**-10, 2**-10),
        ("torch.backends.fp32_precision = 'ieee'", 2**-23, 2**-23),
    ],
)
def test_float32_that_a_gpu_takes_for_tf32_is_seen(setting: str, matmul: float, convolution: float) -> None:
    command = [sys.executable, "-c", TF32.format(setting=setting)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [matmul, convolution]


@pytest.mark.parametrize(("model", "alpha"), [("Table", EXACT[3]), ("ListedTable", EXACT[0])], ids=str)
def test_the_warm_up_needs_less_memory_than_training(model: str, alpha: dict[str, Any]) -> None:
    command = [sys.executable, "-c", PEAKS, json.dumps(config(model, alpha))]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    warm_up, training = json.loads(done.stdout)
    assert warm_up < min(training, 4.2)  # steps of policy ema take 4.5 times the parameters' size


@pytest.mark.slow
@pytest.mark.parametrize("name", WORKLOADS.entries)
@pytest.mark.parametrize("alpha", [*EXACT, *DIFFERENCES, OPERATORS[0]], ids=str)
def test_bundled_workloads_pass(name: str, alpha: dict[str, Any]) -> None:
    options = WORKLOADS.entry(name).options.model_fields
    clicks = str(Path(__file__).parents[1] / "data" / "prepared_clicks")
    small = {"data_dir": clicks, "batch_size": 50, "examples": 400, "table_rows": 30, "shuffle_rows": 70}
    workload = {"name": name, **{key: value for key, value in small.items() if key in options}}
    assert verdict({**config("Net", alpha), "workload": workload}) is None


WAYS: dict[str, dict[str, dict[str, Any]]] = {
    "one pass": {},
    "chunks": {"alpha": {"chunks": 3}},
    "accumulate": {"workload": {"accumulate": 2, "batch_size": 16}},
    "differences": {"alpha": {"route": "finite_difference"}},
    "differences in chunks": {"alpha": {"route": "finite_difference", "chunks": 3}},
    "accumulated differences": {
        "alpha": {"route": "finite_difference"}, "workload": {"accumulate": 2, "batch_size": 16},
    },
}  # fmt: skip
"""In which the batches of a step are read more than once."""
LOOKING: dict[str, Any] = {"policy": "observe", "estimator": "biased", "also": ["unbiased", "lookahead"]}


def trained(
    train_run: TrainRun, name: str, model: str, way: str, label: str = "", **sections: Any
) -> Trained:
    more = WAYS[way]
    base = config(model, {**LOOKING, **more.get("alpha", {})})
    own = {"name": f"guarded_tasks:{name}", "dtype": "float64"}  # as differences cancel in float32
    workload = {**base["workload"], **own, **more.get("workload", {})}
    return train_run({**base, "workload": workload, "stop": {"steps": 6}, **sections}, name=f"{name} {label}")


@pytest.mark.parametrize(
    ("changing", "leaving"),
    [
        (("Guarded", "ShiftsInputs"), ("Guarded", "ShiftedInputs")),
        (("ShiftsTargets", "Net"), ("ShiftedTargets", "Net")),
        (("SameTensors", "ShiftsInputs"), ("SameTensors", "ShiftedInputs")),
    ],
)
@pytest.mark.parametrize("way", WAYS)
def test_a_batch_that_a_pass_changes_in_place_is_read_as_it_was(
    train_run: TrainRun, changing: tuple[str, str], leaving: tuple[str, str], way: str
) -> None:
    run = trained(train_run, *changing, way, "changing")
    assert len(run.of_kind("alpha")) == 6
    for record in run.of_kind("alpha"):  # dᵀg by the route, and by the gradient that training computed
        rel = 1e-2 if "differences" in way else 1e-6
        assert record["estimates"]["biased"]["slope"] == pytest.approx(record["train_slope"], rel=rel)
    assert run.events("warning") == []
    other = trained(train_run, *leaving, way, "leaving")
    for kind, field in (("alpha", "estimates"), ("window", "loss")):
        assert [r[field] for r in run.of_kind(kind)] == [r[field] for r in other.of_kind(kind)]


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("Guarded", "ShiftsInputs"),
        ("ShiftsTargets", "Net"),
        ("SameTensors", "ShiftsInputs"),
        ("Guarded", "ShiftsInputsInEvaluations"),
    ],
)
@pytest.mark.parametrize("way", WAYS)
def test_evaluations_and_alpha_leave_a_batch_as_it_was(
    train_run: TrainRun, name: str, model: str, way: str
) -> None:
    splits = ["train", "validation"]
    often = trained(train_run, name, model, way, "often", eval={"every_steps": 1, "splits": splits})
    seldom = {"eval": {"every_steps": 6, "splits": splits}, "alpha": None}
    plain = trained(train_run, name, model, way, "plain", **seldom)
    last = [run.of_kind("evaluation")[-1]["splits"] for run in (often, plain)]
    assert last[0] == last[1]
