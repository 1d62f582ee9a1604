"""A model may hold sparse buffers, such as a graph's adjacency matrix."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from alphagrid.trainer import checkpoint_writer
from alphagrid.trainer.checkpoint import available, read
from alphagrid.trainer.state_copy import size
from alphagrid.trainer.tensors import components, is_same
from alphagrid.trainer.workloads.least_squares import LeastSquares
from torch import Tensor, nn

if TYPE_CHECKING:
    from tests.trainer.conftest import Trained, TrainRun

Config = dict[str, Any]
RUN: Config = {
    "workload": {"name": "least_squares", "examples": 60, "features": 4, "batch_size": 12},
    "optimizer": {"name": "nadamw", "lr": 0.01},
    "eval": {"every_steps": 2, "splits": ["validation"]},
    "checkpoint": {"every_seconds": 1e-9},
    "stop": {"steps": 6},
    "device": "cpu",
}
MATRIX = torch.eye(4) + torch.eye(4).roll(1, 0)
LAYOUTS = [torch.sparse_coo, torch.sparse_csr, torch.sparse_csc, torch.sparse_bsr]
FREE: Config = {"optimizer": {"name": "schedule_free_adamw", "lr": 0.01, "warmup_steps": 2}}
WAYS: list[Config] = [
    {},
    {"alpha": {"policy": "observe"}},
    {"alpha": {"policy": "ema", "curvature_fraction": 1.0}},
    FREE,
]


def sparse(layout: torch.layout) -> Tensor:
    blocks = (2, 2) if layout is torch.sparse_bsr else None
    return MATRIX.to_sparse(layout=layout, blocksize=blocks)


class Graph(nn.Module):
    """Averages over neighbours; `grows`: an edge appears in the first pass, another buffer in its place."""

    edges: Tensor

    def __init__(self, layout: torch.layout, grows: bool = False) -> None:
        super().__init__()
        self.grows = grows
        self.layer = nn.Linear(4, 1)
        self.register_buffer("edges", sparse(layout))

    def forward(self, inputs: Tensor) -> Tensor:
        if self.grows and self.training:
            more = MATRIX + torch.eye(4).roll(2, 0)
            self.edges = more.to_sparse(layout=self.edges.layout)
        outputs: Tensor = self.layer((self.edges @ inputs.t()).t())
        return outputs


def newest(trained: Trained) -> dict[str, Any]:
    state = read(available(trained.run)[-1])
    return {part: state[part] for part in ("model", "modules", "optimizer", "policy", "step")}


def leaves(value: Any) -> list[Any]:
    if isinstance(value, dict | list | tuple):
        items = value.values() if isinstance(value, dict) else value
        return [leaf for item in items for leaf in leaves(item)]
    return [value]


def are_equal(left: Any, right: Any) -> bool:
    pairs = list(zip(leaves(left), leaves(right), strict=True))
    return all(is_same(*pair) if isinstance(pair[0], Tensor) else pair[0] == pair[1] for pair in pairs)


@pytest.mark.parametrize("background", [False, True], ids=["at once", "behind training"])
@pytest.mark.parametrize("sections", WAYS, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_a_run_completes_and_resumes_bit_for_bit(
    monkeypatch: pytest.MonkeyPatch,
    train_run: TrainRun,
    layout: torch.layout,
    sections: Config,
    background: bool,
) -> None:
    monkeypatch.setattr(checkpoint_writer, "BACKGROUND_BYTES", 0 if background else 1 << 40)
    monkeypatch.setattr(LeastSquares, "model", lambda workload: Graph(layout))
    config = {**RUN, **sections}
    whole = train_run(config, "whole")
    assert whole.outcome.status == "completed"
    train_run({**config, "stop": {"steps": 3}}, "cut")
    assert are_equal(newest(train_run(config, "cut")), newest(whole))


@pytest.mark.parametrize("layout", LAYOUTS[:3], ids=str)
def test_a_matrix_that_has_grown_resumes_with_all_its_values(
    monkeypatch: pytest.MonkeyPatch, train_run: TrainRun, layout: torch.layout
) -> None:
    monkeypatch.setattr(LeastSquares, "model", lambda workload: Graph(layout, grows=True))
    whole = train_run(RUN, "whole")
    train_run({**RUN, "stop": {"steps": 3}}, "cut")
    assert are_equal(newest(train_run(RUN, "cut")), newest(whole))


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_all_bytes_of_a_sparse_tensor_count(layout: torch.layout) -> None:
    matrix = sparse(layout)
    assert size({"a": [matrix]}) == sum(part.nbytes for part in components(matrix)) > 8 * 4
