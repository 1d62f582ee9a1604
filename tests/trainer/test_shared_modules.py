"""Models that reach one module, parameter or buffer by several names are measured rightly, and stay whole."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from alphagrid.trainer.alpha.routes import ROUTES, Line
from alphagrid.trainer.alpha.routes.forward_mode import train_and_look
from alphagrid.trainer.clock import Clock
from alphagrid.trainer.config import TrainingConfig
from alphagrid.trainer.losses import loss_of
from alphagrid.trainer.session import Session
from alphagrid.trainer.step import take_step
from alphagrid.trainer.workloads.least_squares import LeastSquares
from torch import Tensor, nn


class TwoNames(nn.Module):
    """A layer that is registered twice, and used by both names."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.second = self.first
        self.last = nn.Linear(4, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.last(torch.tanh(self.second(torch.tanh(self.first(inputs)))))
        return outputs


class SharedBlock(nn.Module):
    """A block that occurs twice in a list, and once more beside it."""

    def __init__(self) -> None:
        super().__init__()
        block = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Tanh())
        self.layers = nn.ModuleList([block, nn.Linear(4, 4), block])
        self.head = nn.ModuleDict({"block": block, "last": nn.Linear(4, 1)})

    def forward(self, inputs: Tensor) -> Tensor:
        for layer in self.layers:
            inputs = layer(inputs)
        outputs: Tensor = self.head["last"](self.head["block"](inputs))
        return outputs


class TiedWeights(nn.Module):
    """Two layers with one weight, which the model holds a third time, and two norms with one mean."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 1)
        self.norm, self.other = nn.BatchNorm1d(4), nn.BatchNorm1d(4)
        self.second.weight = self.first.weight
        self.weight = self.first.weight
        self.other.running_mean = self.norm.running_mean

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.second(torch.tanh(self.norm(self.first(inputs))))
        outputs: Tensor = self.last(self.other(hidden) @ self.weight)
        return outputs


MODELS = (TwoNames, SharedBlock, TiedWeights)


def measured_at(name: str, line: Line, batch: dict[str, Tensor]) -> tuple[float, float]:
    """Return slope and curvature on one route, or from the pass that trains, too."""
    found = train_and_look(line, batch)[1] if name == "fused" else ROUTES[name](line, batch)
    reading = found.read()
    return reading.slope, reading.curvature


def dense(line: Line, batch: dict[str, Tensor]) -> tuple[float, float]:
    """Return vᵀg and vᵀGv of the mean squared error from the whole Jacobian, by backpropagation alone."""
    parameters = list(line.parameters.values())
    outputs = line.model(batch["inputs"]).flatten()
    rows = [torch.autograd.grad(one, parameters, retain_graph=True) for one in outputs]
    jacobian = torch.stack([torch.cat([part.flatten() for part in row]) for row in rows])
    vector = torch.cat([part.flatten() for part in line.vector])
    residual, count = outputs.detach() - batch["targets"].flatten(), len(outputs)
    gradient = 2 / count * jacobian.T @ residual
    ggn = 2 / count * jacobian.T @ jacobian
    return float(vector @ gradient), float(vector @ ggn @ vector)


def example(kind: Callable[[], nn.Module]) -> tuple[Line, dict[str, Tensor]]:
    torch.manual_seed(0)
    model = kind().double()
    vector = [torch.randn_like(p) for p in model.parameters()]
    batch = {
        "inputs": torch.randn(7, 4, dtype=torch.float64),
        "targets": torch.randn(7, 1, dtype=torch.float64),
    }
    return Line(model, loss_of("mse"), vector), batch


@pytest.mark.parametrize("route", ["jvp", "finite_difference", "fused", "curvlinops"])
@pytest.mark.parametrize("kind", MODELS)
def test_slope_and_curvature_are_those_of_the_dense_matrix_each_time(
    kind: Callable[[], nn.Module], route: str
) -> None:
    line, batch = example(kind)
    if route == "curvlinops":
        line.model.eval()  # its vmap cannot update running statistics
    expected = dense(line, batch)
    for _ in range(3):
        assert measured_at(route, line, batch) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("route", ["jvp", "finite_difference", "parabola", "fused", "curvlinops", "gradient"])
@pytest.mark.parametrize("kind", MODELS)
def test_a_look_leaves_the_model_the_tensors_that_it_had(kind: Callable[[], nn.Module], route: str) -> None:
    line, batch = example(kind)
    if route == "curvlinops":
        line.model.eval()

    def held() -> list[tuple[str, int]]:
        tensors = line.model.state_dict(keep_vars=True)
        return [(name, id(tensor)) for name, tensor in tensors.items()]

    before = held()
    if route == "gradient":
        line.gradient([batch])
    else:
        measured_at(route, line, batch)
    assert held() == before


class SharedLayers(LeastSquares):
    def model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(self.options.features, 4), TwoNames())


@pytest.mark.parametrize("policy", ["observe", "ema"])
def test_every_parameter_of_a_shared_module_is_trained(policy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    alpha = {"policy": policy, "estimator": "lookahead"}
    config = {
        "workload": {"name": "least_squares", "batch_size": 16},
        "optimizer": {"name": "nadamw", "lr": 1e-3},
        "stop": {"steps": 10},
        "device": "cpu",
    }
    monkeypatch.setattr("alphagrid.trainer.workloads.least_squares.LeastSquares", SharedLayers)
    session = Session(TrainingConfig.model_validate({**config, "alpha": alpha}), Clock())
    plain = Session(TrainingConfig.model_validate(config), Clock())
    before = [p.detach().clone() for p in plain.model.parameters()]
    for _ in range(4):
        take_step(session)
        take_step(plain)
    found, expected = list(session.model.parameters()), list(plain.model.parameters())
    assert len(found) == len(expected)
    assert not any(torch.equal(p, old) for p, old in zip(found, before, strict=True))
    if policy == "observe":
        assert all(torch.equal(p, other) for p, other in zip(found, expected, strict=True))
