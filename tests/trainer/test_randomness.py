"""The generators of random numbers: Python's, NumPy's, torch's, and those that a model holds."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from alphagrid.errors import UserError
from alphagrid.trainer.alpha.routes import Line, by_curvlinops, by_finite_difference, by_jvp, by_parabola
from alphagrid.trainer.losses import loss_of
from alphagrid.trainer.randomness import Generators, held_generators
from torch import Tensor, nn

if TYPE_CHECKING:
    from tests.trainer.conftest import TrainRun


class Noisy(nn.Module):
    """Holds a generator as an attribute, and two in containers."""

    def __init__(self) -> None:
        super().__init__()
        self.own = torch.Generator()
        self.listed = [None, self.own, torch.Generator()]
        self.named = {"mask": (torch.Generator(),)}


def test_the_generators_of_all_modules_are_found_once_and_by_name() -> None:
    inner = Noisy()
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5), inner)
    found = dict(held_generators(model))
    assert list(found) == ["2.own", "2.listed.2", "2.named.mask.0"]
    assert found["2.own"] is inner.own
    assert [place for place, _ in held_generators(inner)] == ["own", "listed.2", "named.mask.0"]
    assert not list(held_generators(nn.Linear(2, 2)))


def test_a_generator_that_has_no_state_is_left_alone() -> None:
    """Python's SystemRandom draws from the system: nothing could be saved or put back."""
    model, system = nn.Linear(2, 2), random.SystemRandom()
    model.__dict__["system"] = system
    assert not list(held_generators(model))
    with Generators(model).preserved():
        system.random()


class Drawing(nn.Module):
    """Adds noise to its inputs, from a generator of one kind; the noise makes most of its loss."""

    def __init__(self, draw: Callable[[], float], own: Any = None) -> None:
        super().__init__()
        self.draw = draw
        self.own = own
        self.linear = nn.Linear(3, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        noise = torch.tensor([self.draw() for _ in inputs], dtype=inputs.dtype)
        outputs: Tensor = self.linear(inputs * noise.unsqueeze(1))
        return outputs


def drawing(kind: str) -> Drawing:
    torch.manual_seed(0)
    if kind == "python":
        model = Drawing(lambda: random.gauss(0, 1))
    elif kind == "numpy":
        model = Drawing(lambda: float(np.random.standard_normal()))
    elif kind == "own torch":
        own = torch.Generator()
        model = Drawing(lambda: float(torch.randn((), generator=own)), own)
    elif kind == "own python":
        held = random.Random(0)
        model = Drawing(lambda: held.gauss(0, 1), [held])
    else:
        numbers = np.random.default_rng(0)
        model = Drawing(lambda: float(numbers.standard_normal()), {"noise": numbers})
    return model.double()


KINDS = ["python", "numpy", "own torch", "own python", "own numpy"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_passes_of_a_route_draw_the_same_numbers_from_any_generator(kind: str) -> None:
    model = drawing(kind)
    batch = {"inputs": torch.randn(8, 3).double(), "targets": torch.randn(8, 2).double()}
    line = Line(model, loss_of("mse"), [torch.randn_like(p) for p in model.parameters()], step=0.1)
    start = line.generators.state()
    found = []
    for route in (by_jvp, by_finite_difference, by_parabola):
        with line.generators.replayed(start):
            found.append(route(line, batch).read())
    assert not line.generators.drawn_since(start)
    for other in found[1:]:
        assert other.slope == pytest.approx(found[0].slope, rel=1e-6)
        assert other.curvature == pytest.approx(found[0].curvature, rel=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_replays_every_generator_and_another_seed_draws_other_numbers(kind: str) -> None:
    model = drawing(kind)
    inputs, generators = torch.ones(4, 3).double(), Generators(model)

    def drawn(seed: int) -> Tensor:
        with generators.replayed(seed):
            outputs: Tensor = model(inputs).detach()
        return outputs

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))


@pytest.mark.parametrize("kind", KINDS)
def test_curvlinops_refuses_a_model_that_draws_from_any_generator(kind: str) -> None:
    model = drawing(kind)
    batch = {"inputs": torch.randn(8, 3).double(), "targets": torch.randn(8, 2).double()}
    line = Line(model, loss_of("mse"), [torch.randn_like(p) for p in model.parameters()])
    with pytest.raises(UserError, match="draws random numbers"):
        by_curvlinops(line, batch)


@pytest.mark.parametrize("source", ["own", "python", "numpy"])
@pytest.mark.parametrize(("route", "tolerance"), [("jvp", 1e-4), ("finite_difference", 1e-2)])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_biased_looks_at_the_training_batch_under_the_noise_that_it_was_trained_with(
    train_run: TrainRun,
    monkeypatch: pytest.MonkeyPatch,
    source: str,
    route: str,
    tolerance: float,
    accumulate: int,
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "laws"))
    trained = train_run(
        {
            "workload": {
                "name": "held_state_task:HeldState",
                "batch_size": 20,
                "held": source,
                "accumulate": accumulate,
            },
            "optimizer": {"name": "nadamw", "lr": 1e-3},
            "alpha": {"policy": "observe", "estimator": "biased", "route": route},
            "eval": {"every_steps": 1000, "splits": ["validation"]},
            "stop": {"steps": 5},
            "device": "cpu",
        }
    )
    records = trained.of_kind("alpha")
    assert len(records) == 5
    for record in records:  # dᵀg by the route, and by the gradient that training computed
        assert record["estimates"]["biased"]["slope"] == pytest.approx(record["train_slope"], rel=tolerance)
