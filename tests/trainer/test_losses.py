"""The closed forms of slope and curvature agree with derivatives taken by torch."""

import pytest
import torch
from alphagrid.errors import UserError
from alphagrid.trainer.alpha.quadratic import Quadratic, Reading
from alphagrid.trainer.losses import CallableLoss, loss_of, mean
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

TARGETS = {
    "cross_entropy": lambda: torch.randint(0, 5, (7,)),
    "bce_with_logits": lambda: torch.rand(7),
    "mse": lambda: torch.randn(7, 5),
}
OUTPUTS = {"cross_entropy": (7, 5), "bce_with_logits": (7,), "mse": (7, 5)}


@pytest.mark.parametrize("name", TARGETS)
def test_closed_forms_are_the_first_and_second_derivative_along_the_tangent(name: str) -> None:
    torch.manual_seed(0)
    loss, targets = loss_of(name), TARGETS[name]()
    outputs = torch.randn(OUTPUTS[name], dtype=torch.float64)
    targets = targets.double() if targets.is_floating_point() else targets
    tangent = torch.randn_like(outputs)
    closed = loss.quadratic(outputs, targets, tangent)
    automatic = CallableLoss(loss.values).quadratic(outputs, targets, tangent)
    for ours, reference in zip(closed, automatic, strict=True):
        torch.testing.assert_close(ours, reference, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", TARGETS)
def test_the_mean_of_the_values_is_torchs_loss(name: str) -> None:
    torch.manual_seed(1)
    loss, targets = loss_of(name), TARGETS[name]()
    outputs = torch.randn(OUTPUTS[name])
    assert loss.reference is not None
    torch.testing.assert_close(loss.values(outputs, targets).mean(), loss.reference()(outputs, targets))


def test_softmax_curvature_stays_positive_where_the_difference_of_moments_cancels() -> None:
    torch.manual_seed(0)
    outputs = torch.randn(1000, 10)
    tangent = 30 + 0.003 * torch.randn(1000, 10)
    curvature = loss_of("cross_entropy").quadratic(outputs, torch.zeros(1000, dtype=torch.long), tangent)[1]
    reference = loss_of("cross_entropy").quadratic(
        outputs.double(), torch.zeros(1000, dtype=torch.long), tangent.double()
    )[1]
    assert (curvature >= 0).all()
    torch.testing.assert_close(curvature.double(), reference, rtol=0.05, atol=1e-9)


def test_targets_in_a_sequence_are_elements_of_their_own() -> None:
    torch.manual_seed(0)
    outputs, targets = torch.randn(2, 3, 4), torch.randint(0, 4, (2, 3))
    values = loss_of("cross_entropy").values(outputs, targets)
    assert values.shape == (2, 3)
    flat = loss_of("cross_entropy").values(outputs.flatten(0, 1), targets.flatten())
    torch.testing.assert_close(values.flatten(), flat)


PER_EXAMPLE = {
    "huber": lambda z, y: F.huber_loss(z, y, reduction="none").mean(-1),
    "soft_margin": lambda z, y: F.soft_margin_loss(z, y.sign(), reduction="none").mean(-1),
    "hinge": lambda z, y: F.relu(1 - z * y.sign()).mean(-1),
    "smooth_l1 per output": lambda z, y: F.smooth_l1_loss(z, y, reduction="none"),
    "cosine": lambda z, y: 1 - F.cosine_similarity(z, y),
}


@pytest.mark.parametrize("name", PER_EXAMPLE)
def test_any_loss_that_torch_can_differentiate_twice_has_slope_and_curvature(name: str) -> None:
    torch.manual_seed(2)
    outputs, targets, tangent = torch.randn(3, 6, 4, dtype=torch.float64)
    loss, h = CallableLoss(PER_EXAMPLE[name]), 1e-4
    with torch.no_grad():
        slope, curvature = loss.quadratic(outputs, targets, tangent)
        below, middle, above = (loss.values(outputs + t * tangent, targets) for t in (-h, 0.0, h))
    torch.testing.assert_close(slope, (above - below) / (2 * h), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(curvature, (above - 2 * middle + below) / h**2, atol=1e-5, rtol=1e-5)


def multi_margin(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.multi_margin_loss(outputs, targets.argmax(-1), reduction="none")


def test_a_loss_that_torch_cannot_differentiate_twice_is_named() -> None:
    outputs, targets, tangent = torch.randn(3, 6, 4)
    with pytest.raises(UserError, match="second derivative of the loss multi_margin "):
        CallableLoss(multi_margin).quadratic(outputs, targets, tangent)


def test_a_loss_of_the_whole_batch_is_refused() -> None:
    with pytest.raises(UserError, match="one number for the whole batch"):
        CallableLoss(F.mse_loss).values(torch.randn(4, 3), torch.randn(4, 3))


def test_a_target_that_torch_would_ignore_is_refused() -> None:
    with pytest.raises(UserError, match="no index of a class"):
        loss_of("cross_entropy").values(torch.randn(4, 3), torch.tensor([0, 1, -100, 2]))


def test_weights_of_another_shape_than_the_losses_are_refused() -> None:
    values = loss_of("bce_with_logits").values(torch.randn(5, 1), torch.rand(5, 1))
    with pytest.raises(UserError, match=r"of shape \[5\].*of shape \[5, 1\]"):
        mean(values, torch.rand(5))
    with pytest.raises(UserError, match="of shape"):
        Quadratic.of(values, values, values, torch.rand(5))


def test_the_errors_of_weighted_means_weigh_examples_by_their_weights() -> None:
    torch.manual_seed(0)
    slopes, curvatures, losses, weights = torch.rand(4, 30, dtype=torch.float64)
    found = Quadratic.of(slopes, curvatures, losses, weights).read()
    share = weights / weights.sum()
    rest, bend = slopes - (share * slopes).sum(), curvatures - (share * curvatures).sum()
    assert found.slope_variance == pytest.approx(30 / 29 * float((share * rest).square().sum()))
    assert found.covariance == pytest.approx(30 / 29 * float((share.square() * rest * bend).sum()))
    assert found.curvature_variance == pytest.approx(30 / 29 * float((share * bend).square().sum()))


def test_a_slope_of_the_whole_batch_scales_what_is_known_of_it_to_that_batch() -> None:
    torch.manual_seed(0)
    slopes, curvatures, losses = torch.rand(3, 10, dtype=torch.float64)
    quadratic = Quadratic.of(slopes, curvatures, losses, None)
    own, whole = quadratic.read(), quadratic.with_slope(torch.tensor(0.5), 40).read()
    assert whole.slope == 0.5
    assert whole.slope_variance == pytest.approx(own.slope_variance / 4)
    assert whole.covariance == pytest.approx(own.covariance / 4)
    assert whole.curvature_variance == own.curvature_variance


@given(scale=st.floats(-5, 5))
def test_a_parabola_followed_back_and_forth_is_the_same_with_its_errors(scale: float) -> None:
    reading = Reading(1.0, 2.0, 0.1, 0.3, 0.05, 0.2)
    again = reading.moved_back(scale).moved_back(-scale)
    for name, value in vars(reading).items():
        assert getattr(again, name) == pytest.approx(value, abs=1e-9), name
