"""What is written behind training does not change while it is written."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from alphagrid.store.layout import RunFiles
from alphagrid.trainer import checkpoint_writer
from alphagrid.trainer.checkpoint import available, read
from alphagrid.trainer.checkpoint_writer import CheckpointWriter
from alphagrid.trainer.config import CheckpointOptions
from alphagrid.trainer.state_copy import Uncopied, copy_state, size
from torch import nn


class Own:
    def __init__(self, history: list[int]) -> None:
        self.history = history


class Pair(NamedTuple):
    left: torch.Tensor
    right: list[int]


def state() -> dict[str, Any]:
    return {
        "tuple": (torch.zeros(2), [1]),
        "nested": {"a": [(torch.zeros(1), {"b": [0]})]},
        "pair": Pair(torch.zeros(1), [1]),
        "default": defaultdict(list, {"a": [1]}),
        "counter": Counter("aab"),
        "bytes": bytearray(b"a"),
        "model": nn.BatchNorm1d(2).state_dict(),
    }


def change(kept: dict[str, Any]) -> None:
    """Change every container and tensor of a state in place."""
    kept["tuple"][0].add_(1)
    kept["tuple"][1].append(2)
    kept["nested"]["a"][0][0].add_(1)
    kept["nested"]["a"][0][1]["b"].append(1)
    kept["nested"]["a"].append(())
    kept["pair"].left.add_(1)
    kept["pair"].right.append(2)
    kept["default"]["a"].append(2)
    kept["counter"]["a"] += 1
    kept["bytes"].extend(b"b")
    kept["model"]["running_mean"].add_(1)
    kept["model"]._metadata[""]["version"] = 99


def test_nothing_that_changes_the_state_changes_its_copy() -> None:
    kept = state()
    copy = copy_state(kept)
    change(kept)
    assert repr(copy) == repr(state())
    assert copy["default"].default_factory is list
    assert copy["model"]._metadata == nn.BatchNorm1d(2).state_dict()._metadata  # type: ignore[attr-defined]


def test_what_the_state_holds_twice_the_copy_holds_twice() -> None:
    weight = torch.zeros(3)
    copy = copy_state({"model": OrderedDict(inner=weight, outer=weight)})
    assert copy["model"]["inner"] is copy["model"]["outer"]


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(50, 4)
        self.scores = nn.Linear(4, 50, bias=False)
        self.scores.weight = self.table.weight


def test_a_tied_parameter_is_copied_once_and_written_once(tmp_path: Path) -> None:
    model = Tied()
    copy = copy_state(model.state_dict())
    assert copy["table.weight"] is copy["scores.weight"]
    torch.save(copy, tmp_path / "copy")
    torch.save(model.state_dict(), tmp_path / "state")
    assert (tmp_path / "copy").stat().st_size <= (tmp_path / "state").stat().st_size


@pytest.mark.parametrize(
    "other",
    [lambda x: x.t(), lambda x: x[:2], lambda x: x[1:], lambda x: x.view(torch.int64), lambda x: x.conj()],
    ids=["transposed", "beginning", "rest", "bits", "conjugate"],
)
def test_other_views_of_the_same_memory_are_other_tensors(
    other: Callable[[torch.Tensor], torch.Tensor],
) -> None:
    whole = torch.randn(3, 3, dtype=torch.complex64)
    copy = copy_state([whole, other(whole)])
    torch.testing.assert_close(copy, [whole, other(whole)], rtol=0, atol=0)


def test_tensors_in_every_container_count() -> None:
    one = torch.zeros(1)
    assert size({"a": [one, (one, [one])], "b": {"c": Pair(one, [0])}}) == 4 * one.nbytes


@pytest.mark.parametrize(
    "value", [object(), np.zeros(2), Own([1]), deque([1])], ids=["object", "array", "own class", "deque"]
)
def test_what_cannot_be_copied_whole_is_not_copy_state(value: Any) -> None:
    with pytest.raises(Uncopied):
        copy_state({"a": [value]})


@pytest.mark.parametrize("how", ["a tuple's list", "an object of one's own"])
def test_a_checkpoint_is_of_one_moment_although_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(checkpoint_writer, "BACKGROUND_BYTES", 0)
    changed, save = threading.Event(), torch.save

    def later(*args: Any) -> None:
        if threading.current_thread() is not threading.main_thread():
            assert changed.wait(60)
        save(*args)

    monkeypatch.setattr(torch, "save", later)
    history = [1]
    held: Any = (history,) if how == "a tuple's list" else Own(history)
    writer = CheckpointWriter(RunFiles(tmp_path), 1, CheckpointOptions(), lambda: 0.0)
    writer.write(1, 0.0, {"model": torch.zeros(3), "extra": held})
    history.append(2)
    changed.set()
    writer.finished(wait=True)
    writer.close()
    (file,) = available(RunFiles(tmp_path))
    with torch.serialization.safe_globals([Own]):
        extra = read(file)["extra"]
    assert (extra[0] if isinstance(extra, tuple) else extra.history) == [1]
