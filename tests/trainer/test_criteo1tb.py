"""Workload criteo1tb: splits, the order of rows, reading shards, and what a wrong folder is told."""

from __future__ import annotations

import gzip
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from alphagrid.errors import UserError
from alphagrid.trainer.workloads.criteo.order import BlockOrder, permuted
from alphagrid.trainer.workloads.criteo.prepare import prepare
from alphagrid.trainer.workloads.criteo.splits import PIECE, split
from alphagrid.trainer.workloads.criteo1tb import Criteo1TB
from alphagrid.trainer.workloads.dlrm import DLRM
from alphagrid.trainer.workloads.options import Criteo1TBOptions
from hypothesis import given, settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    from tests.trainer.conftest import TrainRun

DATA = Path(__file__).parents[1] / "data"
MADE_UP, PREPARED = DATA / "made_up_clicks", DATA / "prepared_clicks"
SMALL = {
    "batch_size": 32,
    "table_rows": 50,
    "embedding_dim": 4,
    "bottom": [8],
    "top": [8],
    "shuffle_rows": 70,
}


def workload(data_dir: Path, **options: Any) -> Criteo1TB:
    return Criteo1TB(
        Criteo1TBOptions.model_validate({"name": "criteo1tb", "data_dir": str(data_dir), **SMALL, **options})
    )


def inputs_of(made: Criteo1TB, name: str) -> torch.Tensor:
    return torch.cat([batch["inputs"] for batch in made.split(name)])


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    prepare(MADE_UP, tmp_path / "prepared", 1)
    return tmp_path / "prepared"


def test_the_splits_of_criteo_1tb_are_algoperfs() -> None:
    day = 4_195_197_692 // 23
    days = [day] * 22 + [4_195_197_692 - 22 * day, 178_274_637]
    found = split(days)
    assert len(found.training) == 4_195_197_692
    assert (len(found.test), len(found.validation)) == (95_000_000, 83_274_637)
    assert found.test.start == 4_195_197_692
    assert found.validation.stop == sum(days)
    sample = found.pieces("train")
    assert sum(map(len, sample)) == 83_279_872
    assert all(piece.stop <= 4_195_197_692 for piece in sample)
    assert len({piece.start for piece in sample}) == len(sample)
    assert max(piece.start for piece in sample) > 0.999 * 4_195_197_692


@given(st.lists(st.integers(1, 30_000), min_size=1, max_size=4), st.integers(1, 30_000))
@settings(deadline=None, max_examples=30)
def test_splits_cover_every_row_once_and_thinned_ones_are_as_large_as_was_said(
    days: list[int], most: int
) -> None:
    found = split(days)
    assert [*found.training, *found.test, *found.validation] == list(range(sum(days)))
    for name, whole in (("test", found.test), ("validation", found.validation)):
        rows = [row for piece in found.pieces(name) for row in piece]
        assert rows == list(whole)
        thin = [row for piece in found.pieces(name, most) for row in piece]
        assert len(thin) == min(most, len(whole)) or len(thin) < most < len(whole) <= len(thin) + PIECE
        assert set(thin) <= set(rows)
    sample = [row for piece in found.pieces("train") for row in piece]
    assert set(sample) <= set(found.training)
    assert len(set(sample)) == len(sample)


def test_a_single_day_lends_its_end() -> None:
    found = split([1000])
    assert (found.training, found.test, found.validation) == (range(959), range(959, 980), range(980, 1000))


@given(st.integers(1, 3000), st.integers(0, 2**63 - 1))
@settings(deadline=None)
def test_a_permutation_hits_every_row_once(size: int, seed: int) -> None:
    numbers = np.arange(size)
    whole = permuted(numbers, size, seed)
    assert sorted(whole.tolist()) == numbers.tolist()
    assert permuted(numbers[::7], size, seed).tolist() == whole[::7].tolist()


def test_permutations_look_like_chance() -> None:
    size, cells = 5_000, 10
    table = np.zeros((cells, cells))
    follows = 0
    for seed in range(40):
        found = permuted(np.arange(size), size, seed)
        np.add.at(table, (np.arange(size) * cells // size, found * cells // size), 1)
        follows += int((np.diff(found) == 1).sum())
    expected = 40 * size / cells**2
    chi_square = float(((table - expected) ** 2 / expected).sum())
    assert chi_square < 81 + 5 * np.sqrt(2 * 81)
    assert follows < 100  # 40 are expected


@given(st.integers(1, 300), st.integers(1, 100), st.integers(0, 5))
@settings(deadline=None, max_examples=50)
def test_an_epoch_is_every_row_once_block_by_block(rows: int, block: int, epoch: int) -> None:
    order = BlockOrder(rows, block, seed=3)
    found = order.rows(epoch, 0, rows)
    assert sorted(found.tolist()) == list(range(rows))
    assert sum(np.diff(found // block) != 0) == -(-rows // block) - 1
    assert order.rows(epoch, rows // 3, rows).tolist() == found[rows // 3 :].tolist()


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    orders = [BlockOrder(200, 50, seed).rows(epoch, 0, 200) for seed in (0, 1) for epoch in (0, 1)]
    assert len({tuple(order.tolist()) for order in orders}) == 4


def test_preparing_gives_the_rows_that_the_other_tests_read(shards: Path) -> None:
    for name in ("train", "validation", "test"):
        assert torch.equal(inputs_of(workload(shards), name), inputs_of(workload(PREPARED), name))


def test_the_last_day_is_never_trained_on() -> None:
    made = workload(PREPARED)
    trained = {
        tuple(row) for index in range(12) for row in made.stream("train", 0).batch(index)["inputs"].tolist()
    }
    assert trained <= {tuple(row) for row in inputs_of(made, "train").tolist()}
    assert not trained & {
        tuple(row) for name in ("test", "validation") for row in inputs_of(made, name).tolist()
    }
    assert made.provenance()["rows"] == {"training": 200, "train": 200, "test": 106, "validation": 94}


def test_the_model_has_the_options_sizes_and_variants() -> None:
    model = workload(PREPARED, layer_norm=True, embedding_init=1.0).model()
    assert isinstance(model, DLRM)
    assert model.table.shape == (50, 4)
    assert float(model.table.detach().max()) > 0.9
    assert isinstance(model.bottom[2], torch.nn.LayerNorm)
    assert model(next(iter(workload(PREPARED).split("test")))["inputs"]).shape == (106,)


def test_by_default_it_is_algoperfs() -> None:
    options = Criteo1TBOptions(name="criteo1tb", data_dir="anywhere")
    assert (options.batch_size, options.shuffle_rows) == (32_768, 5_000_000)
    with torch.device("meta"):  # no memory is taken
        model = Criteo1TB(options).model()
    assert sum(parameter.numel() for parameter in model.parameters()) == 539_267_457


def test_fewer_examples_can_be_evaluated() -> None:
    assert len(inputs_of(workload(PREPARED, evaluation_examples=50), "validation")) == 50


def test_a_wrong_folder_is_told_what_to_do(tmp_path: Path) -> None:
    for folder in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(
            UserError, match=r"workload.data_dir: .*nowhere does not exist|holds no click logs"
        ) as error:
            workload(folder).stream("train", 0)
        assert "alphagrid data prepare" in str(error.value.hint)


def test_a_batch_larger_than_what_there_is_to_train_on_is_refused() -> None:
    with pytest.raises(UserError, match=r"batch_size: 201, but .* has 200 rows to train on"):
        workload(PREPARED, batch_size=201).stream("train", 0)


def test_a_folder_that_is_not_prepared_to_its_end_is_told_so(shards: Path) -> None:
    (shards / "dataset.json").unlink()
    with pytest.raises(UserError, match="not prepared") as error:
        workload(shards).stream("train", 0)
    assert "alphagrid data prepare" in str(error.value.hint)


@pytest.mark.parametrize("name", ["day_0", "day_0.gz"])
def test_logs_have_to_be_prepared_first(tmp_path: Path, name: str) -> None:
    text = (MADE_UP / "day_0").read_bytes()
    (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    with pytest.raises(UserError, match="holds click logs that are not prepared") as error:
        workload(tmp_path).stream("train", 0)
    assert f"alphagrid data prepare {tmp_path} PREPARED" in str(error.value.hint)


def test_a_run_tells_its_journal_what_it_trained_on(train_run: TrainRun, shards: Path) -> None:
    config = {
        "workload": {"name": "criteo1tb", "data_dir": str(shards), **SMALL},
        "optimizer": {"name": "nadamw"},
        "stop": {"steps": 2},
        "device": "cpu",
    }
    (event,) = train_run(config).events("data")
    assert event["synthetic"] is True
    assert event["made_by"] == "alphagrid data synthesize, 400 rows, seed 0"
    assert event["rows"]["training"] == 200
    assert len(event["fingerprint"]) == 16


def test_preparing_needs_no_torch() -> None:
    modules = "alphagrid.trainer.workloads.criteo.prepare, alphagrid.trainer.workloads.criteo.workers"
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
