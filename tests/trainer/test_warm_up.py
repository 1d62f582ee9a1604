"""The warm-up pass before training: what only a process' first passes cost is paid there, without a trace."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from alphagrid.errors import UserError
from alphagrid.trainer.clock import Clock
from alphagrid.trainer.config import TrainingConfig
from alphagrid.trainer.randomness import Generators
from alphagrid.trainer.session import Session
from alphagrid.trainer.step import take_step
from alphagrid.trainer.warm_up import warm_up
from alphagrid.trainer.workloads.least_squares import LeastSquares
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

CONFIG: dict[str, Any] = {
    "workload": {"name": "digits_mlp", "hidden": [8], "dropout": 0.3, "batch_norm": True, "batch_size": 20},
    "optimizer": {"name": "nadamw", "lr": 1e-3},
    "eval": {"every_steps": 1000, "splits": ["validation"]},
    "stop": {"steps": 10},
    "device": "cpu",
}
WAYS: list[dict[str, Any] | None] = [
    None,
    {"policy": "observe", "also": ["biased", "hybrid", "lookahead"]},
    {"policy": "ema", "curvature_fraction": 1.0},
    {"policy": "gen"},
    {"policy": "observe", "route": "finite_difference", "chunks": 3},
]


def tensors(value: Any) -> Iterator[Tensor]:
    """Yield every tensor in nested mappings and lists."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (dict, list, tuple)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from tensors(item)


@contextmanager
def passes(model: nn.Module) -> Iterator[list[bool]]:
    """Note for every pass through a model whether it was for a gradient."""
    seen: list[bool] = []
    hook = model.register_forward_pre_hook(lambda module, inputs: seen.append(torch.is_grad_enabled()))
    yield seen
    hook.remove()


@pytest.mark.parametrize("alpha", WAYS, ids=str)
def test_it_makes_the_passes_of_the_config_and_leaves_no_trace(alpha: dict[str, Any] | None) -> None:
    session = Session(TrainingConfig.model_validate({**CONFIG, "alpha": alpha}), Clock())
    for _ in range(3):  # in the middle of a run, as after a resume: a lookahead is awaited, say
        take_step(session)
    before = [tensor.clone() for tensor in tensors(session.state_dict())]
    generators = Generators()
    clock, start = session.clock.state_dict(), generators.state()
    with passes(session.model) as seen:
        warm_up(session)
    assert len(seen) >= 1 + (alpha is not None)
    after = list(tensors(session.state_dict()))
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    assert session.clock.state_dict() == clock
    assert not generators.drawn_since(start)
    assert all(p.grad is None for p in session.model.parameters())


def test_what_a_model_cannot_do_is_said_before_training_begins() -> None:
    alpha = {"policy": "observe", "route": "curvlinops", "start_step": 5}
    session = Session(TrainingConfig.model_validate({**CONFIG, "alpha": alpha}), Clock())
    with pytest.raises(UserError, match="curvlinops"):
        warm_up(session)


class Checkpointed(nn.Module):
    """Computes activations again in the backward pass."""

    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.reentrant = reentrant
        self.first, self.inner = nn.Linear(4, 8), nn.Sequential(nn.Tanh(), nn.Linear(8, 8))
        self.last = nn.Linear(8, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.last(checkpoint(self.inner, self.first(inputs), use_reentrant=self.reentrant))
        return outputs


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize(
    "alpha",
    [
        {"policy": "observe", "also": ["biased", "lookahead"]},
        {"policy": "median", "interval": 1, "count": 1, "diagnostics": True},
    ],
    ids=str,
)
def test_a_gradient_that_torch_cannot_compute_is_left_out_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, alpha: dict[str, Any], reentrant: bool
) -> None:
    monkeypatch.setattr(LeastSquares, "model", lambda workload: Checkpointed(reentrant))
    workload = {"name": "least_squares", "examples": 60, "features": 4, "batch_size": 12}
    session = Session(
        TrainingConfig.model_validate({**CONFIG, "workload": workload, "alpha": alpha}), Clock()
    )
    warm_up(session)
    assert any("probe_cosine is not recorded" in warning for warning in session.warnings) == reentrant
    taken = [take_step(session) for _ in range(3)]
    measurements = [measurement for step in taken for measurement in step.measurements]
    assert measurements
    assert all(("probe_cosine" in found.scalars) != reentrant for found in measurements)


CODE = """
import json, sys
from alphagrid.trainer.clock import Clock
from alphagrid.trainer.config import TrainingConfig
from alphagrid.trainer.warm_up import warm_up
from alphagrid.trainer.session import Session
session = Session(TrainingConfig.model_validate(json.loads(sys.argv[1])), Clock())
assert "curvlinops" not in sys.modules
warm_up(session)
assert "curvlinops" in sys.modules
"""


@pytest.mark.slow
def test_the_import_of_curvlinops_is_paid_for_there() -> None:
    config = {**CONFIG, "workload": {"name": "digits_mlp", "hidden": [8]}}
    config["alpha"] = {"policy": "observe", "route": "curvlinops"}
    subprocess.run([sys.executable, "-c", CODE, json.dumps(config)], check=True)
