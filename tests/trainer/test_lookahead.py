"""Lookahead: α* of the step just taken, from the gradient of the next step and a share of its batch."""

from __future__ import annotations

import copy
import math
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

import pytest
import torch
from alphagrid.trainer import session as training
from alphagrid.trainer.alpha.measurement import Estimate, Measurement, Step
from alphagrid.trainer.alpha.options import ApplyOptions, MedianOptions, ObserveOptions
from alphagrid.trainer.alpha.probe import Probe
from alphagrid.trainer.alpha.quadratic import Quadratic
from alphagrid.trainer.alpha.routing import Router
from alphagrid.trainer.clock import Clock
from alphagrid.trainer.config import TrainingConfig
from alphagrid.trainer.losses import loss_of
from alphagrid.trainer.optimizers import OPTIMIZERS
from alphagrid.trainer.optimizers.stepper import Stepper
from alphagrid.trainer.randomness import Generators
from alphagrid.trainer.step import take_step
from alphagrid.trainer.streams import Batch
from alphagrid.trainer.workloads.clicks import ClickStream
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor, nn

if TYPE_CHECKING:
    from tests.trainer.conftest import TrainRun


class Session:
    """A model, its optimizer and a probe, without the rest of a run."""

    def __init__(self, model: nn.Module, loss: str, optimizer: dict[str, Any], **alpha: Any) -> None:
        self.model, self.loss = model, loss_of(loss)
        options = OPTIMIZERS.entry(optimizer["name"]).options.model_validate(optimizer)
        self.stepper: Stepper = OPTIMIZERS.entry(optimizer["name"]).load()(options, list(model.parameters()))
        given = ObserveOptions(policy="observe", **alpha)
        self.second: Batch = {}
        router = Router(given, model, self.loss, pytest.fail)
        self.probe = Probe(given, router, self.stepper, lambda index: [self.second], Clock(), seed=0)

    def backward(self, batch: Batch) -> Tensor:
        self.model.zero_grad(set_to_none=True)
        value = self.loss.values(self.model(batch["inputs"]), batch["targets"]).mean()
        torch.autograd.backward(value)
        return value.detach()

    def measured(self, first: Batch, second: Batch) -> Measurement:
        """Step on `first`; return what all estimators say that look at `second` as their other batch."""
        self.second = second
        generator = Generators().state()
        value = self.backward(first)
        direction = self.stepper.direction()
        (measurement,) = self.probe.measure(0, direction, [first], value, generator)
        self.probe.diagnose(measurement, direction, 1.0, [first])
        self.stepper.take(direction)
        self.backward(second)
        assert self.probe.complete([second]) is measurement or "lookahead" not in measurement.estimators
        return measurement

    def estimates(self, first: Batch, second: Batch) -> dict[str, Estimate]:
        """Return their values."""
        measurement = self.measured(first, second)
        return {name: measurement.estimate(name) for name in measurement.estimators}


def test_a_share_whose_examples_all_weigh_nothing_is_undefined() -> None:
    nothing = Quadratic.of(torch.ones(4), torch.ones(4), torch.ones(4), torch.zeros(4))
    step = Step(index=0, scale=-0.1, learning_rate=0.1, absolute=True)
    measurement = Measurement(
        step, "lookahead", quadratics={"lookahead": nothing.with_slope(torch.ones(()), 8)}
    )
    assert not measurement.value.usable


@pytest.mark.parametrize(
    ("policy", "options"),
    [
        ("apply", {"also": ["lookahead"]}),
        ("observe", {"estimator": "biased", "repeat": 2}),
        ("observe", {"estimator": "lookahead", "repeat": 2}),
    ],
)
def test_what_would_not_be_what_it_says_is_refused(policy: str, options: dict[str, Any]) -> None:
    kind = ApplyOptions if policy == "apply" else ObserveOptions
    with pytest.raises(ValidationError, match=r"lookahead comes after it|repeat draws second batches"):
        kind.model_validate({"policy": policy, **options})


def batch_of(rows: int, features: int, outputs: int) -> dict[str, Tensor]:
    return {
        "inputs": torch.randn(rows, features).double(),
        "targets": torch.randn(rows, outputs).double(),
    }


@given(
    rows=st.integers(1, 12),
    features=st.integers(1, 6),
    outputs=st.integers(1, 3),
    optimizer=st.sampled_from(["sgd", "nadamw", "adamw"]),
    seed=st.integers(0, 10**6),
)
@settings(max_examples=30, deadline=None)
def test_on_least_squares_lookahead_equals_unbiased_on_the_same_batch(
    rows: int, features: int, outputs: int, optimizer: str, seed: int
) -> None:
    torch.manual_seed(seed)
    session = Session(
        nn.Linear(features, outputs).double(), "mse", {"name": optimizer, "lr": 1e-2},
        also=["lookahead"], curvature_fraction=1.0,
    )  # fmt: skip
    found = session.estimates(batch_of(rows, features, outputs), batch_of(rows, features, outputs))
    unbiased, lookahead = found["unbiased"], found["lookahead"]
    if unbiased.usable and unbiased.curvature > 1e-12:
        assert lookahead.slope == pytest.approx(unbiased.slope, rel=1e-7, abs=1e-10)
        assert lookahead.curvature == pytest.approx(unbiased.curvature, rel=1e-9)
        assert lookahead.alpha_rel == pytest.approx(unbiased.alpha_rel, rel=1e-6, abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("estimator", ["unbiased", "lookahead"])
@pytest.mark.parametrize("optimizer", ["nadamw", "adamw"])
def test_standard_errors_are_the_spread_over_batches(estimator: str, optimizer: str) -> None:
    torch.manual_seed(1)
    truth, found = torch.randn(6, 1).double(), []
    for draw in range(200):
        torch.manual_seed(1000)
        model = nn.Linear(6, 1).double()
        session = Session(
            model, "mse", {"name": optimizer, "lr": 1e-2}, estimator=estimator, curvature_fraction=0.5
        )
        batches = []
        for seed in (7, draw):  # the step is always the same, the second batch another
            torch.manual_seed(seed)
            inputs = torch.randn(64, 6).double()
            batches.append({"inputs": inputs, "targets": inputs @ truth + torch.randn(64, 1).double()})
        found.append(session.estimates(*batches)[estimator])
    for quantity in ("slope", "curvature", "alpha_rel"):
        spread = stdev(getattr(one, quantity) for one in found)
        told = math.sqrt(fmean(getattr(one, f"{quantity}_se") ** 2 for one in found))
        assert told == pytest.approx(spread, rel=0.25), quantity


def test_without_examples_to_tell_there_is_no_standard_error() -> None:
    torch.manual_seed(0)
    session = Session(nn.Linear(3, 1).double(), "mse", {"name": "sgd"}, route="curvlinops")
    record = session.estimates(batch_of(5, 3, 1), batch_of(5, 3, 1))["unbiased"].record()
    assert set(record) == {"alpha_rel", "alpha_abs", "slope", "curvature"}


@pytest.mark.parametrize("estimator", ["unbiased", "lookahead", "biased"])
def test_absolute_alpha_is_the_same_at_any_learning_rate_in_float32(estimator: str) -> None:
    values = []
    for rate in (2e-14, 2e-4):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 10))
        session = Session(model, "cross_entropy", {"name": "nadamw", "lr": rate}, estimator=estimator)
        first, second = (
            {"inputs": torch.randn(256, 20), "targets": torch.randint(0, 10, (256,))} for _ in range(2)
        )
        values.append(session.estimates(first, second)[estimator].alpha_abs)
    if estimator == "lookahead":  # measured at θ₁, which lies elsewhere: by a share of the step itself
        assert values[0] == pytest.approx(values[1], rel=0.01)
    else:
        assert values[0] == pytest.approx(values[1], rel=1e-5)


RUN: dict[str, Any] = {
    "workload": {"name": "digits_mlp", "hidden": [16], "batch_size": 64},
    "optimizer": {"name": "nadamw", "lr": 1e-2},
    "eval": {"every_steps": 20, "splits": ["validation"]},
    "stop": {"steps": 30},
    "log": {"every_steps": 10},
    "device": "cpu",
}


def test_a_value_is_that_of_the_step_it_judges_and_comes_with_the_next(train_run: TrainRun) -> None:
    alpha = {"policy": "observe", "estimator": "lookahead", "interval": 10, "count": 2, "start_step": 3}
    records = train_run({**RUN, "alpha": alpha}).of_kind("alpha")
    assert [record["step"] for record in records] == [3, 4, 13, 14, 23, 24]
    assert all(set(record["estimates"]) == {"lookahead"} for record in records)


def test_the_last_step_awaits_its_lookahead_until_the_run_goes_on(train_run: TrainRun) -> None:
    alpha = {"policy": "observe", "also": ["lookahead"]}
    first = train_run({**RUN, "alpha": alpha}).of_kind("alpha")
    assert [set(record["estimates"]) for record in first[-2:]] == [{"unbiased", "lookahead"}, {"unbiased"}]
    more = train_run({**RUN, "alpha": alpha, "stop": {"steps": 32}}).of_kind("alpha")[len(first) :]
    assert [record["step"] for record in more] == [29, 30, 31]
    assert set(more[0]["estimates"]) == {"unbiased", "lookahead"}
    assert more[0]["estimates"]["unbiased"] == first[-1]["estimates"]["unbiased"]


def test_a_windows_median_acts_from_the_update_after_its_last_step(train_run: TrainRun) -> None:
    alpha = {"policy": "median", "estimator": "lookahead", "interval": 10, "count": 3}
    trained = train_run({**RUN, "alpha": alpha, "log": {"every_steps": 1}})
    (first, *_) = trained.events("learning_rate")
    rates = [window["learning_rate"]["mean"] for window in trained.of_kind("window")]
    assert rates[:3] == [1e-2] * 3
    assert rates[3] == first["value"] != 1e-2
    assert first["step"] == 4  # taken during the step with index 3
    paid = [index for index, window in enumerate(trained.of_kind("window")) if window["alpha_steps"]]
    assert paid == [1, 2, 3, 11, 12, 13, 21, 22, 23]


def test_fused_and_apart_are_the_same_to_rounding(train_run: TrainRun) -> None:
    alpha = {"policy": "median", "estimator": "lookahead", "interval": 5, "count": 3}
    values = []
    for number, share in enumerate((1.0, 0.9999)):  # so large a share is the whole batch, but not fused
        config = {**RUN, "alpha": {**alpha, "curvature_fraction": share}}
        values.append(train_run(config, name=f"run{number}").of_kind("alpha"))
    for fused, apart in zip(*values, strict=True):
        one, other = (record["estimates"]["lookahead"] for record in (fused, apart))
        assert one["alpha_rel"] == pytest.approx(other["alpha_rel"], rel=1e-3, abs=1e-4)


def test_no_second_batch_is_read(train_run: TrainRun, monkeypatch: pytest.MonkeyPatch) -> None:
    from alphagrid.trainer.session import Session as TrainerSession

    monkeypatch.setattr(
        TrainerSession, "probe_batches", lambda self, index: pytest.fail("read a second batch")
    )
    alpha = {"policy": "ema", "total_steps": 30}
    assert train_run({**RUN, "alpha": alpha}).outcome.status == "completed"


def test_it_cannot_be_applied_to_the_step_it_judges() -> None:
    from alphagrid.trainer.alpha.options import ApplyOptions

    with pytest.raises(ValueError, match="comes after it"):
        ApplyOptions(policy="apply", estimator="lookahead")


def test_the_step_after_a_window_pays_for_it() -> None:
    options = MedianOptions(policy="median", estimator="lookahead", interval=10, count=2, start_step=5)
    assert [index for index in range(20) if options.pays(index)] == [6, 7, 16, 17]
    unbiased = options.model_copy(update={"estimator": "unbiased"})
    assert [index for index in range(20) if unbiased.pays(index)] == [5, 6, 15, 16]


def test_repeated_second_batches_show_the_noise_of_a_batch(train_run: TrainRun) -> None:
    alpha = {"policy": "observe", "interval": 10, "repeat": 4, "also": ["biased", "hybrid"]}
    records = train_run({**RUN, "alpha": alpha}).of_kind("alpha")
    assert [(record["step"], record.get("repeat", 0)) for record in records] == [
        (step, repeat) for step in (0, 10, 20) for repeat in range(4)
    ]
    assert [set(record["estimates"]) for record in records[:2]] == [
        {"unbiased", "biased", "hybrid"},
        {"unbiased", "hybrid"},
    ]
    values = [record["estimates"]["unbiased"]["slope"] for record in records]
    assert len(set(values)) == len(values)
    once = train_run({**RUN, "alpha": {**alpha, "repeat": 1}}, name="once").of_kind("alpha")
    assert once[0]["estimates"]["biased"] == records[0]["estimates"]["biased"]


@pytest.mark.parametrize(
    ("accumulate", "alpha"),
    [
        (1, {"policy": "observe", "repeat": 3}),
        (4, {"policy": "observe"}),
        (4, {"policy": "observe", "repeat": 3, "diagnostics": True}),
        (4, {"policy": "apply", "estimator": "unbiased", "diagnostics": True}),
    ],
)
def test_no_batch_is_drawn_twice_though_second_batches_are_read_ahead(
    accumulate: int, alpha: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = {
        "workload": {
            "name": "dlrm_synthetic",
            "table_rows": 50,
            "batch_size": 8,
            "accumulate": accumulate,
        },
        "optimizer": {"name": "nadamw"},
        "alpha": alpha,
        "stop": {"steps": 10},
        "device": "cpu",
    }
    drawn: list[tuple[ClickStream, int]] = []
    draw = ClickStream.batch

    def recorded(stream: ClickStream, index: int) -> Batch:
        drawn.append((stream, index))
        return draw(stream, index)

    monkeypatch.setattr(ClickStream, "batch", recorded)
    session = training.Session(TrainingConfig.model_validate(config), Clock())
    for _ in range(4):
        take_step(session)
    assert len(drawn) == len(set(drawn)) >= 4 * accumulate * (1 + alpha.get("repeat", 1))


def test_windowed_records_sum_up_what_single_ones_say(train_run: TrainRun) -> None:
    alpha = {"policy": "observe", "estimator": "lookahead", "interval": 2}
    single = train_run({**RUN, "alpha": alpha}, name="single").of_kind("alpha")
    summed = train_run({**RUN, "alpha": {**alpha, "record": "windowed"}}, name="summed").of_kind("alpha")
    assert [(record["first_step"], record["step"]) for record in summed] == [(0, 8), (10, 18), (20, 28)]
    for number, record in enumerate(summed):
        values = [one["estimates"]["lookahead"]["alpha_abs"] for one in single[5 * number : 5 * number + 5]]
        cosines = [one["cosine"] for one in single[5 * number : 5 * number + 5]]
        assert record["cosine"] == pytest.approx(fmean(cosines))
        found = record["estimates"]["lookahead"]
        assert (found["n"], found["alpha_abs_n"]) == (5, 5)
        assert found["alpha_abs_mean"] == pytest.approx(fmean(values))
        assert found["alpha_abs_median"] == sorted(values)[2]
        assert found["alpha_abs_sd"] == pytest.approx(stdev(values))
        assert found["alpha_abs_negative"] == sum(value < 0 for value in values) / 5


@pytest.mark.parametrize("optimizer", ["nadamw", "adamw"])
def test_norms_and_cosines_are_those_of_the_step_whatever_the_sign_of_its_vector(optimizer: str) -> None:
    torch.manual_seed(0)
    batch = batch_of(16, 4, 2)
    model = nn.Linear(4, 2).double()
    session = Session(
        model, "mse", {"name": optimizer, "lr": 1e-3, "weight_decay": 0.0}, also=["lookahead"],
        curvature_fraction=1.0,
    )  # fmt: skip
    start = [p.detach().clone() for p in model.parameters()]
    session.backward(batch)
    before = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    measurement = session.measured(batch, batch)
    step = [p.detach() - value for p, value in zip(model.parameters(), start, strict=True)]
    after = [p.grad for p in model.parameters() if p.grad is not None]
    told = {name: float(value) for name, value in measurement.scalars.items()}
    assert told["train_slope"] == pytest.approx(inner(step, before), rel=1e-6)
    assert told["train_slope"] < 0
    assert told["cosine"] == pytest.approx(inner(step, before) / length(step) / length(before), rel=1e-6)
    assert told["lookahead_cosine"] == pytest.approx(
        inner(step, after) / length(step) / length(after), rel=1e-6
    )
    assert told["lookahead_cosine"] < 0


def inner(left: list[Tensor], right: list[Tensor]) -> float:
    return float(torch.stack([(a * b).sum() for a, b in zip(left, right, strict=True)]).sum())


def length(vector: list[Tensor]) -> float:
    return math.sqrt(inner(vector, vector))


def test_the_biased_value_looks_at_its_batch_under_the_masks_of_training() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 30), nn.Dropout(0.5), nn.Linear(30, 2)).double().train()
    session = Session(model, "mse", {"name": "nadamw"}, estimator="biased")
    measurement = session.measured(batch_of(9, 4, 2), batch_of(9, 4, 2))
    assert measurement.value.slope == pytest.approx(float(measurement.scalars["train_slope"]), rel=1e-9)


@pytest.mark.parametrize("optimizer", ["nadamw", "adamw"])
def test_unbiased_makes_no_pass_over_the_batch_that_gave_the_step(optimizer: str) -> None:
    torch.manual_seed(0)
    first, second, seen = batch_of(9, 4, 2), batch_of(9, 4, 2), []
    model = nn.Linear(4, 2).double()
    session = Session(model, "mse", {"name": optimizer, "lr": 1e-3})
    model.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    session.measured(first, second)
    trained, *others = seen  # what follows measures α* and, as it is observed, a cosine; then the next step
    assert torch.equal(trained, first["inputs"])
    assert len(others) == 3
    assert all(torch.equal(inputs, second["inputs"]) for inputs in others)


@pytest.mark.parametrize(("fraction", "passes"), [(1, [128]), (0.125, [128, 16])])
def test_a_step_with_lookahead_makes_one_pass_where_its_share_is_the_whole(
    fraction: float, passes: list[int]
) -> None:
    config = {
        "workload": {"name": "digits_mlp"},
        "optimizer": {"name": "nadamw"},
        "alpha": {"policy": "ema", "estimator": "lookahead", "curvature_fraction": fraction},
        "stop": {"steps": 10},
        "device": "cpu",
    }
    session = training.Session(TrainingConfig.model_validate(config), Clock())
    take_step(session)
    seen: list[int] = []
    session.model.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    for _ in range(4):
        take_step(session)
    assert seen == passes * 4


@pytest.mark.parametrize("layer", [nn.Dropout(0.3), nn.BatchNorm1d(16)])
@pytest.mark.parametrize("chunks", [1, 4])
@pytest.mark.parametrize("estimator", ["unbiased", "biased", "lookahead"])
def test_the_reduction_ratio_of_a_short_step_is_one_with_masks_statistics_and_chunks(
    layer: nn.Module, chunks: int, estimator: str
) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 16), copy.deepcopy(layer), nn.Tanh(), nn.Linear(16, 2)).double()
    session = Session(
        model.train(), "mse", {"name": "nadamw", "lr": 1e-6}, estimator=estimator, diagnostics=True,
        chunks=chunks, curvature_fraction=0.5,
    )  # fmt: skip
    measurement = session.measured(batch_of(32, 4, 2), batch_of(32, 4, 2))
    assert float(measurement.scalars["reduction_ratio"]) == pytest.approx(1.0, abs=1e-3)


def test_the_reduction_ratio_of_a_fused_lookahead_is_taken_under_the_masks_of_training(
    train_run: TrainRun,
) -> None:
    config = {**RUN, "optimizer": {"name": "nadamw", "lr": 1e-5}}
    config["workload"] = {"name": "digits_mlp", "hidden": [16], "batch_size": 64, "dropout": 0.5}
    alpha = {"policy": "median", "estimator": "lookahead", "interval": 5, "count": 3, "scale": 1e-3}
    records = train_run(
        {**config, "alpha": {**alpha, "curvature_fraction": 1.0, "diagnostics": True}}
    ).of_kind("alpha")
    assert [record["reduction_ratio"] for record in records] == pytest.approx([1.0] * len(records), abs=0.05)


def test_the_reduction_ratio_is_one_where_the_loss_is_quadratic(train_run: TrainRun) -> None:
    config = {**RUN, "workload": {"name": "least_squares"}, "optimizer": {"name": "sgd", "lr": 0.05}}
    for estimator in ("unbiased", "biased"):
        alpha = {"policy": "apply", "estimator": estimator, "interval": 7, "diagnostics": True}
        records = train_run({**config, "alpha": alpha}, name=estimator).of_kind("alpha")
        assert [record["reduction_ratio"] for record in records[:3]] == pytest.approx([1.0] * 3, rel=1e-3)


def test_the_cosine_with_the_gradient_on_the_second_batch_is_that_of_a_backward_pass_there() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    session = Session(model, "mse", {"name": "nadamw", "lr": 0.01}, estimator="unbiased")
    first, second = batch_of(8, 4, 3), batch_of(8, 4, 3)
    session.second = second
    session.backward(second)
    expected = [gradient.clone() for gradient in session.stepper.gradients]
    value = session.backward(first)
    before = [gradient.clone() for gradient in session.stepper.gradients]
    direction = session.stepper.direction()
    (measurement,) = session.probe.measure(0, direction, [first], value, Generators(model).state())
    d, g = (torch.cat([part.reshape(-1) for part in parts]) for parts in (direction.vector, expected))
    cosine = torch.nn.functional.cosine_similarity(direction.scale * d, g, dim=0)
    assert float(measurement.scalars["probe_cosine"]) == pytest.approx(float(cosine))
    slope = measurement.estimate("unbiased").slope
    length = abs(direction.scale) * float(d.norm() * g.norm())
    assert slope / length == pytest.approx(float(cosine))
    assert all(map(torch.equal, session.stepper.gradients, before))


def test_the_whole_gradient_on_the_second_batch_is_taken_where_it_is_looked_at_only(
    train_run: TrainRun,
) -> None:
    observe = {"policy": "observe", "interval": 2}
    assert all("probe_cosine" in one for one in train_run({**RUN, "alpha": observe}).of_kind("alpha"))
    for name, alpha in (
        ("chunks", {**observe, "chunks": 2}),
        ("biased", {**observe, "estimator": "biased"}),
        ("acts", {"policy": "median", "interval": 2, "count": 1}),
    ):
        records = train_run({**RUN, "alpha": alpha}, name=name).of_kind("alpha")
        assert records
        assert not any("probe_cosine" in record for record in records)
