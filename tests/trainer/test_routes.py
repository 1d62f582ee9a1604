"""Slope and curvature along a direction: jvp, curvlinops, and a dense matrix agree."""

import pytest
import torch
from alphagrid.errors import UserError
from alphagrid.trainer.alpha.routes import by_curvlinops, by_jvp
from alphagrid.trainer.losses import Loss, loss_of
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn


def make(
    name: str, batch_size: int, hidden: int, seed: int
) -> tuple[nn.Module, Loss, dict[str, Tensor], list[Tensor]]:
    """A small network, a batch and a vector for one loss, in float64."""
    torch.manual_seed(seed)
    outputs = {"cross_entropy": 4, "bce_with_logits": 1, "mse": 3}[name]
    model = nn.Sequential(nn.Linear(5, hidden), nn.Tanh(), nn.Linear(hidden, outputs)).double()
    targets = {
        "cross_entropy": lambda: torch.randint(0, 4, (batch_size,)),
        "bce_with_logits": lambda: torch.rand(batch_size, dtype=torch.float64),
        "mse": lambda: torch.randn(batch_size, 3, dtype=torch.float64),
    }[name]()
    batch = {"inputs": torch.randn(batch_size, 5, dtype=torch.float64), "targets": targets}
    vector = [torch.randn_like(p) for p in model.parameters()]
    return model.eval(), loss_of(name), batch, vector


def dense(
    model: nn.Module, loss: Loss, batch: dict[str, Tensor], vector: list[Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradient and the GGN matrix, explicitly: JᵀHJ with the Hessian of the mean loss."""
    parameters = {name: p.detach() for name, p in model.named_parameters()}

    def outputs(at: dict[str, Tensor]) -> Tensor:
        found: Tensor = torch.func.functional_call(model, at, (batch["inputs"],))
        return found

    z = outputs(parameters)
    jacobian = torch.cat([j.flatten(z.dim()) for j in torch.func.jacrev(outputs)(parameters).values()], -1)
    jacobian = jacobian.reshape(z.numel(), -1)

    def mean_loss(flat: Tensor) -> Tensor:
        return loss.values(flat.view_as(z), batch["targets"]).mean()

    hessian = torch.func.hessian(mean_loss)(z.flatten())
    gradient = jacobian.T @ torch.func.grad(mean_loss)(z.flatten())
    v = torch.cat([part.flatten() for part in vector])
    return v @ gradient, v @ jacobian.T @ hessian @ jacobian @ v, gradient.norm() * v.norm()


@given(
    name=st.sampled_from(["cross_entropy", "bce_with_logits", "mse"]),
    batch_size=st.integers(1, 9),
    hidden=st.integers(1, 6),
    seed=st.integers(0, 10**6),
)
@settings(max_examples=30, deadline=None)
def test_jvp_curvlinops_and_the_dense_matrix_agree(
    name: str, batch_size: int, hidden: int, seed: int
) -> None:
    model, loss, batch, vector = make(name, batch_size, hidden, seed)
    slope, curvature, scale = dense(model, loss, batch, vector)
    routes = [by_jvp(model, loss, batch, vector)]
    routes.append(by_curvlinops(model, loss, batch, vector, check_deterministic=True))
    for route in routes:
        assert abs(route.slope - slope) <= 1e-9 * scale
        assert abs(route.curvature - curvature) <= 1e-9 * max(1.0, float(curvature))


def test_weights_weigh_slope_and_curvature() -> None:
    model, loss, batch, vector = make("mse", 6, 4, 0)
    weights = torch.tensor([1.0, 1, 1, 0, 0, 0], dtype=torch.float64)
    half = {key: value[:3] for key, value in batch.items()}
    weighted, expected = (
        by_jvp(model, loss, {**batch, "weights": weights}, vector),
        by_jvp(model, loss, half, vector),
    )
    torch.testing.assert_close(weighted.slope, expected.slope)
    torch.testing.assert_close(weighted.curvature, expected.curvature)


def test_curvlinops_refuses_what_it_would_get_wrong() -> None:
    model, loss, batch, vector = make("mse", 6, 4, 0)
    with pytest.raises(UserError, match="weights"):
        by_curvlinops(model, loss, {**batch, "weights": torch.ones(6)}, vector)
    normalised = nn.Sequential(nn.Linear(5, 3), nn.BatchNorm1d(3)).double().train()
    with pytest.raises(UserError, match="cannot differentiate"):
        by_curvlinops(normalised, loss, batch, [torch.ones_like(p) for p in normalised.parameters()])


def test_probing_in_training_mode_leaves_buffers_and_gradients_alone() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Dropout(0.5), nn.Linear(4, 3))
    model = model.double().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    batch = {"inputs": torch.randn(8, 5).double(), "targets": torch.randint(0, 3, (8,))}
    quadratic = by_jvp(
        model, loss_of("cross_entropy"), batch, [torch.ones_like(p) for p in model.parameters()]
    )
    assert quadratic.curvature > 0
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
