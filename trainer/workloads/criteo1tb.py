"""Criteo's click logs and DLRM-small: the workload of the thesis."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ...errors import UserError
from ..streams import Batch, Stream, derive
from .base import Workload
from .criteo import splits
from .criteo.columns import inputs_of
from .criteo.order import BlockOrder
from .criteo.shards import MANIFEST, Dataset, ShardRows
from .criteo.sources import find
from .dlrm import DLRM
from .options import Criteo1TBOptions

Positions = NDArray[np.int64]


class Criteo1TB(Workload):
    """Clicks on Criteo's advertisements: 13 logarithms and 26 hashed categories each, to a click or none."""

    Options = Criteo1TBOptions
    loss = "bce_with_logits"
    prefetch = 2
    options: Criteo1TBOptions

    def model(self) -> nn.Module:
        """Return DLRM-small with the options' sizes."""
        return DLRM.of(self.options)

    def stream(self, name: str, seed: int) -> Stream:
        """Return rows of the training days, in an order of the stream's own."""
        if not len(self._splits.training):
            raise UserError(f"{self.options.data_dir} has no rows to train on")
        return RowStream(self, derive(seed, name))

    def split(self, name: str) -> Iterable[Batch]:
        """Yield the rows of a split in order; `train` is a fixed sample of the training days (eval_train)."""
        for piece in self._splits.pieces(name, self.options.evaluation_examples):
            yield self.batch(np.arange(piece.start, piece.stop))

    @property
    def train_examples(self) -> int:
        """The rows of the training days."""
        return len(self._splits.training)

    def provenance(self) -> dict[str, Any]:
        """Return what the rows are, how many, and whether they are synthetic."""
        dataset = self._dataset
        sizes = {name: sum(map(len, self._splits.pieces(name))) for name in ("train", "validation", "test")}
        return {
            "mode": "prepared",
            "fingerprint": dataset.fingerprint,
            "bad_rows": dataset.bad_rows,
            "missing_days": list(dataset.missing_days),
            "synthetic": dataset.synthetic is not None,
            "made_by": _data_source(dataset.synthetic),
            "rows": {"training": len(self._splits.training), **sizes},
        }

    def batch(self, rows: Positions) -> Batch:
        """Return rows by their numbers as a batch."""
        values = self._rows.take(rows)
        return {
            "inputs": torch.from_numpy(inputs_of(values, self.options.float32_categories)),
            "targets": torch.from_numpy(values[:, 0].astype(np.float32)),
        }

    @property
    def training_rows(self) -> int:
        """Rows of the training days; they come first."""
        return len(self._splits.training)

    @cached_property
    def _dataset(self) -> Dataset:
        return _prepared_dataset(Path(self.options.data_dir))

    @cached_property
    def _rows(self) -> ShardRows:
        return ShardRows(self._dataset)

    @cached_property
    def _splits(self) -> splits.Splits:
        return splits.split(list(self._dataset.days.values()))


def _prepared_dataset(folder: Path) -> Dataset:
    """Read the description of a folder that `alphagrid data prepare` has made.

    Raises:
        UserError: the folder is not prepared; the hint is the command to run.
    """
    if (folder / MANIFEST).exists() or any(folder.glob("day_*-*.npy")):
        return Dataset.read(folder)
    try:
        find(folder)
    except UserError as error:
        raise UserError(
            f"workload.data_dir: {error.message}",
            "prepare the logs with: alphagrid data prepare LOGS PREPARED; or generate synthetic ones with: "
            "alphagrid data synthesize LOGS --rows 1000000",
        ) from error
    raise UserError(
        f"workload.data_dir: {folder} holds click logs that are not prepared",
        f"run: alphagrid data prepare {folder} PREPARED, and give that folder as data_dir",
    )


def _data_source(synthetic: dict[str, Any] | None) -> str | None:
    if synthetic is None:
        return None
    return f"alphagrid data synthesize, {synthetic['rows']} rows, seed {synthetic['seed']}"


class RowStream:
    """Batches of the training rows; those that fill no whole batch wait for another epoch."""

    def __init__(self, workload: Criteo1TB, seed: int) -> None:
        self._workload = workload
        rows, options = workload.training_rows, workload.options
        self._batch_size = size = options.batch_size
        if rows < size:
            raise UserError(
                f"workload.batch_size: {size}, but {options.data_dir} has {rows} rows to train on",
                "give more rows, or a smaller batch",
            )
        self._batches = rows // self._batch_size
        self._order = BlockOrder(rows, options.shuffle_rows, seed)

    def batch(self, index: int) -> Batch:
        """Return batch `index`, counted over all epochs."""
        epoch, position = divmod(index, self._batches)
        start = position * self._batch_size
        return self._workload.batch(self._order.rows(epoch, start, start + self._batch_size))
