"""Several batches in one step: exactly as one batch of them all, whatever α* is taken along."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
import torch
from alphagrid.trainer.clock import Clock
from alphagrid.trainer.config import TrainingConfig
from alphagrid.trainer.gradient import accumulate, forward_backward
from alphagrid.trainer.losses import loss_of
from alphagrid.trainer.session import Session
from alphagrid.trainer.step import take_step
from alphagrid.trainer.streams import Batch
from alphagrid.trainer.workloads.least_squares import LeastSquares
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor, nn

if TYPE_CHECKING:
    from tests.trainer.conftest import TrainRun

Config = dict[str, Any]


@pytest.fixture
def double(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Compute in double precision, with a model that is not linear."""

    def model(self: LeastSquares) -> nn.Module:
        return nn.Sequential(nn.Linear(self.options.features, 6), nn.Tanh(), nn.Linear(6, 1))

    monkeypatch.setattr(LeastSquares, "model", model)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def config(parts: int, **sections: Any) -> Config:
    """Return a config whose steps have 48 examples, in so many batches."""
    workload = {"name": "least_squares", "examples": 192, "batch_size": 48 // parts, "accumulate": parts}
    return {
        "workload": workload,
        "optimizer": {"name": "nadamw", "lr": 1e-2},
        "stop": {"steps": 9},
        "device": "cpu",
        **sections,
    }


def taken(made: Config) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """Take nine steps; return the parameters, and per step its loss, its rate and what was measured."""
    session = Session(TrainingConfig.model_validate(made), Clock())
    told = []
    for _ in range(9):
        found = take_step(session)
        measured = {m.step.index: {**m.record()} for m in found.measurements}
        told.append({"loss": float(found.loss), "rate": found.learning_rate, "measured": measured})
    return session.model.state_dict(), told


ALPHAS: dict[str, Config | None] = {
    "none": None,
    "observe": {
        "policy": "observe", "also": ["biased", "hybrid", "lookahead"], "curvature_fraction": 0.3,
        "diagnostics": True, "repeat": 2,
    },
    "chunks": {"policy": "observe", "also": ["biased"], "chunks": 3},
    "differences": {"policy": "observe", "also": ["lookahead"], "route": "finite_difference"},
    "fisher": {"policy": "observe", "curvature": "fisher"},
    "apply": {"policy": "apply", "estimator": "biased", "scale": 0.5, "interval": 3, "count": 2},
    "median": {"policy": "median", "estimator": "hybrid", "interval": 4, "count": 3, "start_step": 1},
    "ema": {"policy": "ema", "fill_steps": 2},
    "ema, whole batch": {"policy": "ema", "fill_steps": 2, "curvature_fraction": 1.0},
    "gen": {"policy": "gen", "interval": 3, "diagnostics": True},
}  # fmt: skip


@pytest.mark.parametrize("parts", [2, 4])
@pytest.mark.parametrize("name", ALPHAS)
@pytest.mark.usefixtures("double")
def test_several_batches_in_a_step_are_as_one_of_them_all(name: str, parts: int) -> None:
    optimizer = {"name": "nadamw"} if name.startswith("ema") else {"name": "nadamw", "lr": 1e-2}
    made = [config(count, alpha=ALPHAS[name], optimizer=optimizer) for count in (1, parts)]
    (whole, told), (in_parts, told_in_parts) = map(taken, made)
    for key, value in whole.items():
        torch.testing.assert_close(in_parts[key], value, rtol=1e-9, atol=1e-12)
    for one, other in zip(told, told_in_parts, strict=True):
        assert flat(other) == pytest.approx(flat(one), rel=1e-6, abs=1e-11)
    assert ALPHAS[name] is None or any(one["measured"] for one in told)


def flat(value: Any, name: str = "") -> dict[str, float]:
    if not isinstance(value, dict):
        return {name: float(value)}
    return {k: v for key, item in value.items() for k, v in flat(item, f"{name}.{key}").items()}


@given(st.lists(st.integers(1, 7), min_size=1, max_size=5), st.booleans(), st.integers(0, 1000))
@settings(deadline=None, max_examples=25)
def test_batches_of_any_size_and_weight_count_by_their_examples(
    sizes: list[int], weighted: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    model, loss = (
        nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double(),
        loss_of("cross_entropy"),
    )
    rows = sum(sizes)
    whole: dict[str, Tensor] = {
        "inputs": torch.randn(rows, 3).double(),
        "targets": torch.randint(0, 2, (rows,)),
    }
    if weighted:
        whole["weights"] = torch.rand(rows).double() + 0.1
    expected = forward_backward(model, loss, whole)
    gradients = [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]
    model.zero_grad()
    parts = {key: torch.split_with_sizes(tensor, sizes) for key, tensor in whole.items()}
    batches: list[Batch] = [{key: parts[key][at] for key in parts} for at in range(len(sizes))]
    torch.testing.assert_close(accumulate(model, loss, iter(batches)), expected)
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-10, atol=1e-14)


def test_a_step_reads_its_batches_one_by_one_and_keeps_none() -> None:
    session = Session(TrainingConfig.model_validate(config(4)), Clock())
    order: list[str] = []
    read, model = session.train_batch, session.model

    def reading(index: int, part: int = 0) -> Batch:
        order.append(f"read {index}.{part}")
        return read(index, part)

    session.train_batch = reading  # type: ignore[method-assign]
    model.register_forward_hook(lambda *_: order.append("pass"))
    take_step(session)
    take_step(session)
    assert order == [
        word for index in (0, 1) for part in range(4) for word in (f"read {index}.{part}", "pass")
    ]


def test_a_step_s_batches_are_the_next_ones_of_the_stream() -> None:
    session = Session(TrainingConfig.model_validate(config(4)), Clock())
    stream = session.workload.stream("train", 0)
    for index, part in ((0, 0), (0, 3), (2, 1)):
        expected = stream.batch(4 * index + part)
        assert torch.equal(session.train_batch(index, part)["inputs"], expected["inputs"])
    probe = session.workload.stream("probe", 0)
    assert torch.equal(session.probe_batches(2)[1]["inputs"], probe.batch(9)["inputs"])


def test_masks_of_dropout_are_the_same_again_for_the_biased_value() -> None:
    workload = {"name": "digits_mlp", "hidden": [16], "dropout": 0.5, "batch_size": 32, "accumulate": 3}
    alpha = {"policy": "observe", "estimator": "biased"}
    made = {**config(1), "workload": workload, "alpha": alpha}
    session = Session(TrainingConfig.model_validate(made), Clock())
    for _ in range(3):
        (measured,) = take_step(session).measurements
        record = measured.record()
        assert record["estimates"]["biased"]["slope"] == pytest.approx(record["train_slope"], rel=1e-4)


@pytest.mark.parametrize("route", ["curvlinops", "thesis"])
def test_routes_by_operators_are_refused_by_name(route: str) -> None:
    alpha = {"policy": "observe", "route": route}
    TrainingConfig.model_validate(config(1, alpha=alpha))
    with pytest.raises(ValidationError, match=rf"alpha\.route '{route}' looks at one batch alone"):
        TrainingConfig.model_validate(config(2, alpha=alpha))


def test_accumulating_is_another_run_and_one_batch_the_same() -> None:
    ids = [TrainingConfig.model_validate(config(parts)).run_id() for parts in (1, 2)]
    without = config(1)
    del without["workload"]["accumulate"]
    assert ids[0] != ids[1]
    assert TrainingConfig.model_validate(without).run_id() == ids[0]


@pytest.mark.parametrize("policy", ["ema", "median"])
def test_stopped_and_resumed_equals_uninterrupted(train_run: TrainRun, policy: str) -> None:
    alpha = {"policy": policy, "interval": 3, "count": 2}
    optimizer = {"name": "nadamw"} if policy == "ema" else {"name": "nadamw", "lr": 1e-2}
    if policy == "ema":
        alpha = {"policy": policy, "fill_steps": 2}
    workload = {"name": "digits_mlp", "hidden": [8], "dropout": 0.3, "batch_size": 16, "accumulate": 3}
    made = {**config(1), "workload": workload, "alpha": alpha, "optimizer": optimizer}
    first = train_run({**made, "stop": {"steps": 5}}, "interrupted")
    assert first.outcome.step == 5
    resumed, whole = train_run(made, "interrupted"), train_run(made, "whole")
    losses = [[record["splits"] for record in run.of_kind("evaluation")][-1] for run in (resumed, whole)]
    assert losses[0] == losses[1]
    values = [
        {record["step"]: record["estimates"] for record in run.of_kind("alpha")} for run in (resumed, whole)
    ]
    assert values[0] == values[1]
