"""NAdamW follows AlgoPerf's formula, and knows its direction before it steps."""

import copy
import math

import pytest
import torch
from alphagrid.trainer.optimizers import nadamw
from alphagrid.trainer.optimizers.nadamw import NAdamW, build
from alphagrid.trainer.optimizers.options import NAdamWOptions
from alphagrid.trainer.optimizers.stepper import Stepper
from torch import Tensor

SETTINGS = {
    "beta1": 0.93266073836,
    "beta2": 0.9955159689799007,
    "eps": 1e-8,
    "weight_decay": 0.08121616522670176,
}


def reference_step(
    theta: float,
    gradient: float,
    m: float,
    v: float,
    t: int,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
) -> tuple[float, float, float]:
    """One step for one scalar, written as in the paper, in Python's float64."""
    theta = theta * (1 - lr * weight_decay)
    m = beta1 * m + (1 - beta1) * gradient
    v = beta2 * v + (1 - beta2) * gradient**2
    nesterov = beta1 * m + (1 - beta1) * gradient
    theta -= lr / (1 - beta1**t) * nesterov / (math.sqrt(v) / math.sqrt(1 - beta2**t) + eps)
    return theta, m, v


def gradient_at(theta: float, t: int) -> float:
    return math.sin(3 * theta + t)


@pytest.mark.parametrize(("dtype", "rounding"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_twenty_steps_equal_the_formula_written_out(dtype: torch.dtype, rounding: float) -> None:
    parameter = torch.tensor([0.7, -1.3], dtype=dtype, requires_grad=True)
    optimizer = NAdamW([parameter], lr=0.05, **SETTINGS)
    expected = [(0.7, 0.0, 0.0), (-1.3, 0.0, 0.0)]
    for t in range(1, 21):
        parameter.grad = torch.tensor([gradient_at(theta, t) for theta in parameter.tolist()], dtype=dtype)
        expected = [
            reference_step(theta, gradient_at(theta, t), m, v, t, 0.05, **SETTINGS)
            for theta, m, v in expected
        ]
        optimizer.step()
        written_out = [theta for theta, _, _ in expected]
        assert parameter.tolist() == pytest.approx(written_out, rel=rounding, abs=rounding / 100)


def stepper_with_gradient(lr: float) -> tuple[Stepper, Tensor]:
    torch.manual_seed(0)
    parameter = torch.randn(50, requires_grad=True)
    stepper = build(NAdamWOptions(name="nadamw", lr=lr), [parameter])
    parameter.grad = torch.randn(50)
    return stepper, parameter


def test_looking_at_the_direction_first_changes_no_bit_of_the_step() -> None:
    plain, plain_parameter = stepper_with_gradient(1e-3)
    looked, looked_parameter = stepper_with_gradient(1e-3)
    plain.step()
    before = looked_parameter.detach().clone()
    direction = looked.direction()
    assert torch.equal(looked_parameter, before)
    looked.take(direction)
    assert torch.equal(plain_parameter, looked_parameter)


@pytest.mark.parametrize("keep_gradient", [True, False])
def test_a_step_that_nobody_looks_at_from_its_origin_is_the_very_same(keep_gradient: bool) -> None:
    plain, plain_parameter = stepper_with_gradient(1e-3)
    spent, spent_parameter = stepper_with_gradient(1e-3)
    looked, _ = stepper_with_gradient(1e-3)
    gradient = spent_parameter.grad
    plain.step()
    direction = spent.direction(keep_origin=False, keep_gradient=keep_gradient)
    spent.take(direction)
    assert torch.equal(plain_parameter, spent_parameter)
    assert torch.equal(direction.vector[0], looked.direction().vector[0])
    assert (direction.vector[0] is gradient) == (spent_parameter.grad is None) == (not keep_gradient)


def test_gradients_that_share_memory_are_not_written_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nadamw, "BLOCK", 64)
    shared = torch.randn(400, generator=torch.Generator().manual_seed(0))
    found = []
    for looks in (False, True):
        parameters = [torch.ones(400, requires_grad=True), torch.ones(400, requires_grad=True)]
        stepper = build(NAdamWOptions(name="nadamw", lr=0.1), parameters)
        for parameter in parameters:
            parameter.grad = shared.clone() if not looks else shared
        if looks:
            direction = stepper.direction(keep_origin=False, keep_gradient=False)
            torch.testing.assert_close(direction.vector[0], direction.vector[1], rtol=0, atol=0)
        else:
            stepper.step()
        found.append([p.detach().clone() for p in parameters])
    assert all(map(torch.equal, *found))


def test_direction_does_not_depend_on_the_learning_rate() -> None:
    tiny, _ = stepper_with_gradient(2e-14)
    large, _ = stepper_with_gradient(2e-4)
    assert torch.equal(tiny.direction().vector[0], large.direction().vector[0])


def test_parameter_without_gradient_stays_where_it_is() -> None:
    used, unused = torch.ones(3, requires_grad=True), torch.ones(2, requires_grad=True)
    stepper = build(NAdamWOptions(name="nadamw"), [used, unused])
    used.grad = torch.ones(3)
    stepper.step()
    assert torch.equal(unused, torch.ones(2))
    assert not torch.equal(used, torch.ones(3))


def test_state_survives_a_round_trip() -> None:
    stepper, parameter = stepper_with_gradient(1e-3)
    stepper.step()
    state, at = copy.deepcopy(stepper.state_dict()), parameter.detach().clone()
    stepper.step()
    expected = parameter.detach().clone()
    other = at.clone().requires_grad_()
    resumed = build(NAdamWOptions(name="nadamw", lr=1e-3), [other])
    resumed.load_state_dict(state)
    assert parameter.grad is not None
    other.grad = parameter.grad.clone()
    resumed.step()
    assert torch.equal(other, expected)


def test_large_and_oddly_laid_out_parameters_take_the_very_step_of_small_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shapes = [(1000,), (3, 5), (40, 30), (2, 7, 5, 5), (1,)]
    found = []
    for block in (10**9, 64):
        monkeypatch.setattr(nadamw, "BLOCK", block)
        torch.manual_seed(0)
        parameters = [torch.randn(shape) for shape in shapes]
        parameters[3] = parameters[3].to(memory_format=torch.channels_last)
        for parameter in parameters:
            parameter.requires_grad_()
        stepper = build(NAdamWOptions(name="nadamw", lr=0.1), parameters)
        for step in range(4):
            for parameter in parameters:
                parameter.grad = torch.randn(parameter.shape)
            if step % 2:
                stepper.take(stepper.direction())
            else:
                stepper.step()
        found.append([p.detach().clone() for p in parameters])
    for whole, cut in zip(*found, strict=True):
        torch.testing.assert_close(whole, cut, rtol=1e-6, atol=1e-7)
