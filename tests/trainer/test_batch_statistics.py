"""An optimizer that evaluates an average of its parameters evaluates with the running statistics there."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest
import torch
from alphagrid.trainer import batch_statistics
from alphagrid.trainer.clock import Clock
from alphagrid.trainer.config import TrainingConfig
from alphagrid.trainer.evaluation import EvaluationAborted, evaluate
from alphagrid.trainer.session import Session
from alphagrid.trainer.step import take_step
from alphagrid.trainer.stopping import StopRequest
from alphagrid.trainer.workloads.least_squares import LeastSquares
from torch import Tensor, nn

if TYPE_CHECKING:
    from tests.trainer.conftest import TrainRun

Config = dict[str, Any]
FREE = {"name": "schedule_free_adamw", "lr": 0.05, "warmup_steps": 2}
RUN: Config = {
    "workload": {"name": "least_squares", "examples": 120, "features": 3, "batch_size": 20},
    "optimizer": FREE,
    "eval": {"every_steps": 4, "splits": ["validation"]},
    "stop": {"steps": 13},
    "device": "cpu",
}


class Averaged(nn.Module):
    """A normalisation of one's own: by a running mean of the inputs, which it assigns anew."""

    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(8))

    def forward(self, inputs: Tensor) -> Tensor:
        if self.training:
            self.mean = 0.5 * self.mean + 0.5 * inputs.detach().mean(0)
        return inputs - self.mean


class Frozen(nn.BatchNorm1d):
    """A layer with the statistics of another training, which it keeps."""

    def __init__(self, features: int) -> None:
        super().__init__(features)
        other_statistics(self)

    def train(self, mode: bool = True) -> Frozen:
        super().train(False)
        return self


class OnlyInEvaluation(nn.Module):
    """Has a layer for training and another for evaluation, as models with auxiliary statistics do."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.trained, self.other = nn.BatchNorm1d(features), nn.BatchNorm1d(features)
        other_statistics(self.other)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = (self.trained if self.training else self.other)(inputs)
        return outputs


class Instances(nn.Module):
    """Instance normalisation over the features, with running statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.InstanceNorm1d(1, track_running_stats=True)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.norm(inputs.unsqueeze(1)).squeeze(1)
        return outputs


def other_statistics(layer: nn.BatchNorm1d) -> None:
    assert layer.running_mean is not None
    assert layer.running_var is not None
    layer.running_mean.fill_(0.5)
    layer.running_var.fill_(4.0)


def network(kind: str) -> nn.Module:
    layer = {
        "batch": lambda: nn.BatchNorm1d(8, momentum=0.05),
        "own": Averaged,
        "none": nn.Identity,
        "frozen": lambda: Frozen(8),
        "only in evaluation": lambda: OnlyInEvaluation(8),
        "instance": Instances,
    }[kind]()
    return nn.Sequential(nn.Linear(3, 8), layer, nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 1))


@pytest.fixture(params=["batch", "own"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    name: str = request.param
    monkeypatch.setattr(LeastSquares, "model", lambda workload: network(name))
    return name


def session(steps: int = 9, **sections: Any) -> Session:
    made = Session(TrainingConfig.model_validate({**RUN, **sections}), Clock())
    for _ in range(steps):
        take_step(made)
    return made


def layer(made: Session, index: int) -> nn.Module:
    assert isinstance(made.model, nn.Sequential)
    return made.model[index]


def loss(made: Session, stop: StopRequest | None = None) -> float:
    found = evaluate(
        made.workload, made.model, made.loss, made.stepper, ["validation"], made.device,
        stop or StopRequest(), made.batches_for_statistics(),
    )  # fmt: skip
    return found["validation"]["loss"]


def expected(made: Session, statistics: list[Tensor] | None) -> float:
    """Return the loss of the averaged parameters with other running statistics, computed by hand."""
    model = copy.deepcopy(made.model).eval()
    with made.stepper.evaluation(), torch.no_grad():
        for mine, theirs in zip(model.parameters(), made.model.parameters(), strict=True):
            mine.copy_(theirs)
        for buffer, values in zip(model.buffers(), statistics or made.model.buffers(), strict=True):
            buffer.copy_(values)
        (batch,) = made.workload.split("validation")
        return float(made.loss.values(model(batch["inputs"]), batch["targets"]).mean())


def test_statistics_are_those_of_the_last_batches_at_the_averaged_parameters(kind: str) -> None:
    made = session()
    with made.stepper.evaluation():
        inputs = [layer(made, 0)(made.train_batch(index)["inputs"]).detach() for index in range(9)]
    if kind == "batch":
        mean = torch.stack([rows.mean(0) for rows in inputs]).mean(0)
        variance = torch.stack([rows.var(0) for rows in inputs]).mean(0)
        statistics = [mean, variance, torch.tensor(9)]
    else:
        (mean,) = made.model.buffers()
        for rows in inputs:
            mean = 0.5 * mean + 0.5 * rows.mean(0)
        statistics = [mean]
    found = loss(made)
    assert found == pytest.approx(expected(made, statistics), rel=1e-5)
    assert found != pytest.approx(expected(made, None), rel=1e-3)


@pytest.mark.parametrize("name", ["frozen", "only in evaluation"])
def test_a_layer_that_no_training_pass_updates_keeps_its_statistics(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(LeastSquares, "model", lambda workload: network(name))
    made = session()
    assert loss(made) == pytest.approx(expected(made, None), rel=1e-6)


def test_statistics_of_instance_normalisation_are_averaged_as_in_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(LeastSquares, "model", lambda workload: network("instance"))
    made = session()
    mean, variance, count = (buffer.clone() for buffer in made.model.buffers())
    with made.stepper.evaluation():
        for index in range(9):
            rows = layer(made, 0)(made.train_batch(index)["inputs"]).detach()
            mean = 0.9 * mean + 0.1 * rows.mean(1).mean()
            variance = 0.9 * variance + 0.1 * rows.var(1).mean()
    assert loss(made) == pytest.approx(expected(made, [mean, variance, count]), rel=1e-5)


def test_only_so_many_batches_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_statistics, "BATCHES", 4)
    made = session(workload={**RUN["workload"], "accumulate": 3})
    read = [batch["inputs"] for batch in made.batches_for_statistics()]
    trained = [made.train_batch(8, part)["inputs"] for part in range(3)]
    assert len(read) == 4
    assert all(map(torch.equal, read[1:], trained))
    assert not list(session(2, optimizer={"name": "adamw", "lr": 0.01}).batches_for_statistics())


def test_an_evaluation_leaves_no_trace(kind: str) -> None:
    made = session()
    before, generators = copy.deepcopy(made.state_dict()), made.generators.state()
    tensors = [id(buffer) for buffer in made.model.buffers()]
    loss(made)
    stopped = StopRequest()
    stopped.request("the test says so")
    with pytest.raises(EvaluationAborted):
        loss(made, stopped)
    after = made.state_dict()
    for part in ("model", "optimizer"):
        torch.testing.assert_close(after[part], before[part], rtol=0, atol=0)
    assert not made.generators.drawn_since(generators)
    assert [id(buffer) for buffer in made.model.buffers()] == tensors
    assert made.model.training
    assert getattr(layer(made, 1), "momentum", 0.05) == 0.05


def test_evaluating_often_changes_no_step_and_no_other_evaluation(kind: str, train_run: TrainRun) -> None:
    seldom = train_run(RUN, "seldom")
    often = train_run({**RUN, "eval": {"every_steps": 1, "splits": ["train", "validation"]}}, "often")
    assert [r["loss"] for r in seldom.of_kind("window")] == [r["loss"] for r in often.of_kind("window")]
    found = {r["step"]: r["splits"]["validation"] for r in often.of_kind("evaluation")}
    assert [found[r["step"]] for r in seldom.of_kind("evaluation")] == [
        r["splits"]["validation"] for r in seldom.of_kind("evaluation")
    ]


class Seconds:
    """A clock that stands still but for what costs time on purpose."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Slow(nn.Module):
    """Takes a second a pass in training mode, and no time in an evaluation."""

    def __init__(self, seconds: Seconds) -> None:
        super().__init__()
        self.seconds = seconds

    def forward(self, inputs: Tensor) -> Tensor:
        self.seconds.now += self.training
        return inputs


def test_statistics_are_computed_outside_the_training_clock(
    train_run: TrainRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each step pays for its one pass; an evaluation makes one for each batch before it."""
    seconds = Seconds()
    monkeypatch.setattr(
        LeastSquares, "model", lambda workload: nn.Sequential(Slow(seconds), *network("batch").children())
    )
    trained = train_run({**RUN, "log": {"every_steps": 1}}, now=seconds)
    assert [record["train_seconds"] for record in trained.of_kind("window")] == list(range(1, 14))
    evaluations = trained.of_kind("evaluation")
    assert [record["step"] for record in evaluations] == [1, 5, 9, 13]
    assert [record["train_seconds"] for record in evaluations] == [1, 5, 9, 13]
    charged = sum(record["seconds"]["evaluation"] for record in trained.of_kind("window"))
    assert charged == 1 + 5 + 9  # the last one comes after the last window


def test_a_resumed_run_evaluates_to_the_same_bits(kind: str, train_run: TrainRun) -> None:
    whole = train_run(RUN, "whole")
    train_run({**RUN, "stop": {"steps": 7}}, "cut")
    cut = train_run(RUN, "cut")
    found = {r["step"]: r["splits"] for r in cut.of_kind("evaluation")}
    assert [found[r["step"]] for r in whole.of_kind("evaluation")] == [
        r["splits"] for r in whole.of_kind("evaluation")
    ]


def test_a_run_that_was_evaluated_otherwise_before_says_so(kind: str) -> None:
    made, state = session(0), session(3).state_dict()
    made.load_state_dict(copy.deepcopy(state))
    assert made.warnings == []
    del state["evaluation"]["computes_statistics"]
    made.load_state_dict(state)
    (message,) = made.warnings
    assert "up to step 3" in message


def test_a_model_without_running_statistics_makes_no_pass_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LeastSquares, "model", lambda workload: network("none"))
    made = session()
    generators, calls = made.generators.state(), []
    made.model.register_forward_pre_hook(lambda module, inputs: calls.append(module.training))
    loss(made)
    assert calls == [False]
    made.model.register_buffer("constant", torch.ones(1))
    loss(made)
    assert calls == [False, True, False]
    assert not made.generators.drawn_since(generators)
