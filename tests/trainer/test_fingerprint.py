"""Fingerprints of data: equal for equal values, different for different ones, tolerant of rounding alone."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from alphagrid.store.data_identity import compare, differing_splits, groups
from alphagrid.trainer.workloads import char_transformer
from alphagrid.trainer.workloads.char_transformer import CharTransformer
from alphagrid.trainer.workloads.digits import Digits
from alphagrid.trainer.workloads.fingerprint import fingerprint
from alphagrid.trainer.workloads.least_squares import LeastSquares
from alphagrid.trainer.workloads.options import CharTransformerOptions, DigitsOptions
from torch import Tensor

if TYPE_CHECKING:
    from tests.trainer.conftest import TrainRun

CLICKS = Path(__file__).parents[1] / "data" / "made_up_clicks"


def tensors() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(3000, 7, generator=generator)
    return {"inputs": inputs, "targets": torch.randint(0, 5, (3000,), generator=generator)}


def changed(change: Callable[[dict[str, Tensor]], Any]) -> dict[str, Tensor]:
    found = {name: tensor.clone() for name, tensor in tensors().items()}
    return change(found) or found


def swap_rows(data: dict[str, Tensor]) -> None:
    data["inputs"][[5, 6]] = data["inputs"][[6, 5]]


def set_last(data: dict[str, Tensor]) -> None:
    data["inputs"][-1, -1] += 0.5


def flip_label(data: dict[str, Tensor]) -> None:
    data["targets"][17] += 1


def test_the_same_values_have_one_fingerprint_however_they_lie_in_memory() -> None:
    transposed = changed(lambda data: {**data, "inputs": data["inputs"].t().contiguous().t()})
    reordered = changed(lambda data: dict(reversed(data.items())))
    whole = fingerprint({"train": tensors()})
    assert len(whole["fingerprint"]) == 16
    assert fingerprint({"train": transposed}) == fingerprint({"train": reordered}) == whole


def test_a_fingerprint_is_the_same_on_every_platform() -> None:
    data = {"inputs": torch.arange(6.0).reshape(2, 3), "targets": torch.tensor([True, False])}
    assert fingerprint({"train": data})["fingerprint"] == "32b612a19d7e30bb"


@pytest.mark.parametrize(
    "change",
    [
        swap_rows,
        set_last,
        flip_label,
        lambda data: {**data, "inputs": data["inputs"].double()},
        lambda data: {**data, "inputs": data["inputs"].reshape(3000, 7, 1)},
        lambda data: {**data, "targets": data["targets"].int()},
        lambda data: {"inputs": data["inputs"], "labels": data["targets"]},
        lambda data: {name: tensor[:-1] for name, tensor in data.items()},
        lambda data: {**data, "weights": torch.ones(3000)},
        lambda data: {**data, "inputs": torch.full((3000, 7), torch.nan)},
    ],
)
def test_other_data_have_another_fingerprint(change: Callable[[dict[str, Tensor]], Any]) -> None:
    before, now = fingerprint({"train": tensors()}), fingerprint({"train": changed(change)})
    assert before["fingerprint"] != now["fingerprint"]
    assert compare(before, now) == compare(now, before) == "different"
    assert differing_splits(before, now) == ["train"]


def test_the_names_of_splits_count() -> None:
    one = fingerprint({"train": tensors(), "test": changed(set_last)})
    other = fingerprint({"test": tensors(), "train": changed(set_last)})
    assert one["fingerprint"] != other["fingerprint"]
    assert differing_splits(one, other) == ["test", "train"]


def test_last_digits_of_another_processor_are_no_other_data() -> None:
    noise = torch.randn(3000, 7, generator=torch.Generator().manual_seed(1))
    rounded = changed(lambda data: {**data, "inputs": data["inputs"] * (1 + 3e-7 * noise)})
    before, now = fingerprint({"train": tensors()}), fingerprint({"train": rounded})
    assert before["fingerprint"] != now["fingerprint"]
    assert compare(before, now) == "rounded"
    assert groups([before, now, fingerprint({"train": changed(set_last)})]) == [0, 0, 2]


def test_sixty_thousand_runs_are_grouped_while_one_waits() -> None:
    data = [{"fingerprint": "a"}, {"fingerprint": "b"}] * 30_000
    start = time.monotonic()
    assert groups(data) == [0, 1] * 30_000
    assert time.monotonic() - start < 5


def test_runs_that_evaluate_other_splits_are_compared_by_those_they_share() -> None:
    one = fingerprint({"train": tensors(), "test": tensors()})
    other = fingerprint({"train": tensors(), "validation": changed(set_last)})
    assert one["fingerprint"] != other["fingerprint"]
    assert compare(one, other) == "same"


def test_what_is_no_tensor_has_no_fingerprint() -> None:
    assert fingerprint({"train": {"inputs": [1, 2]}}) == {}  # type: ignore[dict-item]
    assert fingerprint({"train": {"inputs": torch.eye(3).to_sparse()}}) == {}
    assert compare({"fingerprint": None}, {"fingerprint": "a"}) == "unknown"


@pytest.mark.parametrize("empty", [torch.zeros(0), torch.tensor(1.5), torch.zeros(0, 4, dtype=torch.int64)])
def test_tensors_without_rows_have_fingerprints_too(empty: Tensor) -> None:
    found = fingerprint({"train": {"inputs": empty}})
    assert compare(found, fingerprint({"train": {"inputs": empty.clone()}})) == "same"


def test_half_precision_and_complex_values_are_sketched() -> None:
    for dtype in (torch.bfloat16, torch.float16, torch.complex64, torch.float64):
        data = {"inputs": torch.randn(50, 100, generator=torch.Generator().manual_seed(0)).to(dtype)}
        other = {"inputs": data["inputs"].flip(0)}
        assert compare(fingerprint({"train": data}), fingerprint({"train": other})) == "different"


def test_bundled_data_sets_that_come_with_a_package_have_fingerprints(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    digits = Digits(DigitsOptions(name="digits_mlp")).data_fingerprint(["train", "test"])
    assert digits["split_fingerprints"].keys() == {"train", "test"}
    characters = CharTransformer(CharTransformerOptions(name="char_transformer"))
    before = characters.data_fingerprint(["validation"])
    monkeypatch.setattr(char_transformer, "_read_text", lambda split: torch.zeros(9, dtype=torch.uint8))
    assert compare(before, characters.data_fingerprint(["validation"])) == "different"


class Drawing(LeastSquares):
    """Data that draw from the global random generators as they are read."""

    def data(self, split: str) -> dict[str, Tensor]:
        return {**super().data(split), "weights": torch.rand(256)}


def test_reading_the_data_for_their_fingerprint_leaves_no_trace(
    train_run: TrainRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "drawing_task", sys.modules[__name__])
    config = {
        "workload": {"name": "drawing_task:Drawing"},
        "optimizer": {"name": "sgd"},
        "stop": {"steps": 3},
        "device": "cpu",
    }
    states = []
    for name in ("0000000000", "0000000001"):
        assert train_run(config, name).outcome.status == "completed"
        states.append(torch.get_rng_state())
        monkeypatch.setattr(Drawing, "data_fingerprint", lambda self, splits: {})
    assert torch.equal(*states)


def test_hashing_the_data_lies_outside_the_training_clock(
    train_run: TrainRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    find = LeastSquares.data_fingerprint

    def slowly(workload: LeastSquares, splits: Iterable[str]) -> dict[str, Any]:
        nonlocal now
        now += 1000
        return find(workload, splits)

    monkeypatch.setattr(LeastSquares, "data_fingerprint", slowly)
    config: dict[str, Any] = {
        "workload": {"name": "least_squares"},
        "optimizer": {"name": "sgd"},
        "stop": {"steps": 3},
        "log": {"every_steps": 1},
        "device": "cpu",
    }
    train_run(config, now=lambda: now)
    trained = train_run({**config, "stop": {"steps": 6}}, now=lambda: now)
    assert now == 2000
    assert [event["verification"] for event in trained.events("data")] == ["recorded", "same"]
    windows = trained.of_kind("window")
    assert len(windows) == 6
    assert {record["train_seconds"] for record in trained.records} == {0.0}
    assert not any(seconds for record in windows for seconds in record["seconds"].values())
