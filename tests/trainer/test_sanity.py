"""The thesis' sanity check (its section 4.1.1): where the model is quadratic, one α* step is exact."""

from typing import Any

import pytest
import torch
from alphagrid.trainer.alpha.measurement import Estimate
from alphagrid.trainer.alpha.options import ApplyOptions, Estimator, Route
from alphagrid.trainer.alpha.policies.apply import Apply
from alphagrid.trainer.alpha.probe import Probe
from alphagrid.trainer.alpha.routing import Router
from alphagrid.trainer.clock import Clock
from alphagrid.trainer.losses import loss_of
from alphagrid.trainer.optimizers import OPTIMIZERS
from alphagrid.trainer.streams import Batch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-12}


def applied_step(
    model: nn.Module,
    batch: Batch,
    optimizer: dict[str, Any],
    route: Route,
    estimator: Estimator = "unbiased",
) -> Estimate:
    """Take one step of the optimizer with its length replaced by α*; B₁ is the batch itself."""
    options = OPTIMIZERS.entry(optimizer["name"]).options.model_validate(optimizer)
    stepper = OPTIMIZERS.entry(optimizer["name"]).load()(options, list(model.parameters()))
    alpha = ApplyOptions(policy="apply", route=route, estimator=estimator)
    loss = loss_of("mse")
    router = Router(alpha, model, loss, pytest.fail)
    probe = Probe(alpha, router, stepper, lambda index: [batch], Clock(), seed=0)
    value = loss.values(model(batch["inputs"]), batch["targets"]).mean()
    torch.autograd.backward(value)
    direction = stepper.direction()
    (measurement,) = probe.measure(0, direction, [batch], value.detach(), router.generators.state())
    stepper.take(direction, Apply(alpha).factor(measurement))
    return measurement.value


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("route", ["jvp", "curvlinops"])
@pytest.mark.parametrize("optimizer", ["sgd", "nadamw", "adam"])
def test_one_parameter_one_point_is_solved_by_one_step(
    dtype: torch.dtype, route: Route, optimizer: str
) -> None:
    x, y, theta = 1.7, -0.6, 0.9
    model = nn.Linear(1, 1, bias=False).to(dtype)
    with torch.no_grad():
        model.weight.fill_(theta)
    batch = {"inputs": torch.full((1, 1), x, dtype=dtype), "targets": torch.full((1, 1), y, dtype=dtype)}
    settings_of = {"name": optimizer, "lr": 1e-2}
    applied_step(model, batch, settings_of, route)
    with torch.no_grad():
        assert model.weight.item() == pytest.approx(y / x, abs=TOLERANCE[dtype])
        assert model(batch["inputs"]).item() == pytest.approx(y, abs=TOLERANCE[dtype])
        assert (model(batch["inputs"]) - y).square().item() <= TOLERANCE[dtype]


def test_relative_alpha_of_one_parameter_is_the_distance_over_the_step() -> None:
    model = nn.Linear(1, 1, bias=False).double()
    with torch.no_grad():
        model.weight.fill_(2.0)
    batch = {"inputs": torch.tensor([[3.0]]).double(), "targets": torch.tensor([[0.0]]).double()}
    value = applied_step(model, batch, {"name": "sgd", "lr": 1e-3}, "jvp")
    step = 1e-3 * 2 * (3 * 2.0) * 3  # η · ∂(3θ)²/∂θ
    assert value.alpha_rel == pytest.approx(2.0 / step)
    assert value.alpha_abs == pytest.approx(1e-3 * 2.0 / step)


@given(
    rows=st.integers(1, 12),
    features=st.integers(1, 6),
    outputs=st.integers(1, 3),
    optimizer=st.sampled_from(["sgd", "nadamw", "adamw"]),
    seed=st.integers(0, 10**6),
)
@settings(max_examples=40, deadline=None)
def test_full_batch_least_squares_reaches_the_minimum_along_any_direction(
    rows: int, features: int, outputs: int, optimizer: str, seed: int
) -> None:
    torch.manual_seed(seed)
    model = nn.Linear(features, outputs).double()
    batch = {
        "inputs": torch.randn(rows, features).double(),
        "targets": torch.randn(rows, outputs).double(),
    }
    before = [p.detach().clone() for p in model.parameters()]
    value = applied_step(model, batch, {"name": optimizer, "lr": 1e-2}, "jvp")
    if not (value.usable and value.alpha_rel > 0):
        return  # the optimizer's direction (weight decay, say) does not descend: the plain step was kept
    loss = loss_of("mse").values(model(batch["inputs"]), batch["targets"]).mean()
    gradient = torch.autograd.grad(loss, list(model.parameters()))
    step = [after.detach() - start for after, start in zip(model.parameters(), before, strict=True)]
    slope = torch.stack([(g * d).sum() for g, d in zip(gradient, step, strict=True)]).sum()
    lengths = [torch.stack([t.square().sum() for t in tensors]).sum().sqrt() for tensors in (gradient, step)]
    assert abs(slope) <= 1e-9 * (1 + lengths[0] * lengths[1])


@pytest.mark.parametrize("estimator", ["biased", "hybrid"])
def test_on_one_batch_every_estimator_is_the_same(estimator: Estimator) -> None:
    values = []
    for name in ("unbiased", estimator):
        torch.manual_seed(3)
        model = nn.Linear(4, 2).double()
        batch = {"inputs": torch.randn(9, 4).double(), "targets": torch.randn(9, 2).double()}
        values.append(applied_step(model, batch, {"name": "nadamw"}, "jvp", name))
    assert values[0].alpha_abs == pytest.approx(values[1].alpha_abs, rel=1e-12)
