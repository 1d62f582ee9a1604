"""Data as a function of name, seed and index."""

import threading
from typing import Any, NamedTuple

import pytest
import torch
from alphagrid.trainer.clock import Clock
from alphagrid.trainer.config import TrainingConfig
from alphagrid.trainer.session import Session
from alphagrid.trainer.step import take_step
from alphagrid.trainer.streams import (
    Batch,
    Prefetched,
    ShuffledStream,
    Stream,
    are_same,
    copied,
    derive,
    share,
    to_device,
)
from alphagrid.trainer.warm_up import warm_up
from alphagrid.trainer.workloads.least_squares import LeastSquares
from hypothesis import given
from hypothesis import strategies as st
from torch import nn


def stream(rows: int = 20, batch_size: int = 6, seed: int = 0) -> ShuffledStream:
    return ShuffledStream({"inputs": torch.arange(rows), "targets": torch.arange(rows)}, batch_size, seed)


@given(st.lists(st.integers(0, 40), min_size=1, max_size=20))
def test_a_batch_does_not_depend_on_what_was_read_before(indices: list[int]) -> None:
    whole = stream()
    for index in indices:
        assert torch.equal(whole.batch(index)["inputs"], stream().batch(index)["inputs"])


def test_an_epoch_holds_no_row_twice_and_the_next_has_another_order() -> None:
    whole = stream()
    assert whole.batches_per_epoch == 3
    epochs = [
        torch.cat([whole.batch(3 * epoch + i)["inputs"] for i in range(3)]).tolist() for epoch in (0, 1)
    ]
    assert all(len(set(epoch)) == 18 for epoch in epochs)
    assert epochs[0] != epochs[1]


def test_inputs_and_targets_stay_together() -> None:
    batch = stream().batch(5)
    assert torch.equal(batch["inputs"], batch["targets"])


def test_a_batch_larger_than_the_data_is_all_of_it() -> None:
    assert sorted(stream(rows=4, batch_size=100).batch(3)["inputs"].tolist()) == [0, 1, 2, 3]


def test_purposes_share_no_random_numbers() -> None:
    seeds = {derive(seed, *names) for seed in range(5) for names in [("train",), ("probe",), ("epoch", 1)]}
    assert len(seeds) == 15


class Recorded:
    """A stream that remembers which batches were read, and can be held up."""

    def __init__(self) -> None:
        self.read: list[int] = []
        self.ahead = threading.Event()

    def batch(self, index: int) -> Batch:
        self.read.append(index)
        if len(self.read) == 3:
            self.ahead.set()
        return {"inputs": index}


def test_prefetching_reads_on_while_nobody_asks_and_changes_nothing() -> None:
    source = Recorded()
    prefetched = Prefetched(source, ahead=2)
    assert prefetched.batch(10)["inputs"] == 10
    assert source.ahead.wait(120)  # an evaluation, say: 11 and 12 are read meanwhile
    assert source.read == [10, 11, 12]
    assert [prefetched.batch(i)["inputs"] for i in (11, 12, 40, 41)] == [11, 12, 40, 41]
    assert source.read.count(11) == source.read.count(12) == source.read.count(41) == 1


def test_an_error_while_reading_ahead_is_raised_where_the_batch_is_used() -> None:
    class Broken:
        def batch(self, index: int) -> Batch:
            if index == 1:
                raise ValueError("row 17")
            return {"inputs": index}

    prefetched = Prefetched(Broken(), ahead=1)
    prefetched.batch(0)
    with pytest.raises(ValueError, match="row 17"):
        prefetched.batch(1)


class Pair(NamedTuple):
    left: torch.Tensor
    right: tuple[torch.Tensor, ...]


def test_named_tuples_stay_what_they_are() -> None:
    batch: Batch = {"inputs": Pair(torch.arange(4), (torch.ones(4, 2),)), "targets": torch.arange(4)}
    copies = [copied(batch), to_device(batch, torch.device("cpu")), share([batch], 0.5)[0]]
    assert all(isinstance(copy["inputs"], Pair) for copy in copies)
    assert are_same(copies[0], batch)
    assert copies[0]["inputs"].left is not batch["inputs"].left
    assert copies[2]["inputs"].right[0].shape == (2, 2)


class PairOfInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 1)

    def forward(self, inputs: Pair) -> torch.Tensor:
        outputs: torch.Tensor = self.layer(torch.cat([inputs.left, *inputs.right], 1))
        return outputs


class PairsOf:
    """Gives the rows of another stream as pairs."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream

    def batch(self, index: int) -> Batch:
        batch = self.stream.batch(index)
        return {**batch, "inputs": Pair(batch["inputs"], (batch["inputs"][:, :2],))}


@pytest.mark.parametrize("alpha", [None, {"policy": "observe"}, {"policy": "ema"}], ids=str)
def test_a_run_may_have_named_tuples_as_inputs(monkeypatch: pytest.MonkeyPatch, alpha: Any) -> None:
    stream = LeastSquares.stream
    monkeypatch.setattr(LeastSquares, "stream", lambda *given: PairsOf(stream(*given)))
    monkeypatch.setattr(LeastSquares, "model", lambda workload: PairOfInputs())
    config = {
        "workload": {"name": "least_squares", "examples": 60, "features": 4, "batch_size": 12},
        "optimizer": {"name": "nadamw", "lr": 0.01},
        "alpha": alpha,
        "eval": {"every_steps": 100},
        "stop": {"steps": 3},
        "device": "cpu",
    }
    session = Session(TrainingConfig.model_validate(config), Clock())
    warm_up(session)
    for _ in range(3):
        take_step(session)
    assert session.step == 3
