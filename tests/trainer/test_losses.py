"""The closed forms of slope and curvature agree with derivatives taken by torch."""

import pytest
import torch
from alphagrid.trainer.losses import CallableLoss, loss_of

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
    outputs = torch.randn(1000, 10)
    tangent = 30 + 0.003 * torch.randn(1000, 10)
    curvature = loss_of("cross_entropy").quadratic(outputs, torch.zeros(1000, dtype=torch.long), tangent)[1]
    reference = loss_of("cross_entropy").quadratic(
        outputs.double(), torch.zeros(1000, dtype=torch.long), tangent.double()
    )[1]
    assert (curvature >= 0).all()
    torch.testing.assert_close(curvature.double(), reference, rtol=0.05, atol=1e-9)


def test_targets_in_a_sequence_are_elements_of_their_own() -> None:
    outputs, targets = torch.randn(2, 3, 4), torch.randint(0, 4, (2, 3))
    values = loss_of("cross_entropy").values(outputs, targets)
    assert values.shape == (2, 3)
    flat = loss_of("cross_entropy").values(outputs.flatten(0, 1), targets.flatten())
    torch.testing.assert_close(values.flatten(), flat)
