"""Criteo's click logs and DLRM-small: the workload of the thesis."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ...errors import UserError
from ..streams import Batch, Stream, derive
from .base import Workload
from .criteo import splits
from .criteo.columns import Rows, inputs_of
from .criteo.direct import TextRows
from .criteo.order import BlockOrder
from .criteo.shards import MANIFEST, Dataset, ShardRows
from .criteo.sources import SourceFile, find, missing_days, remarks_on_days
from .criteo.synthesis import read_provenance
from .dlrm import DLRM
from .options import Criteo1TBOptions

Positions = NDArray[np.int64]

log = logging.getLogger("alphagrid")


class RowSource(Protocol):
    """All rows of a log, by number."""

    def __len__(self) -> int: ...

    def take(self, rows: Positions) -> tuple[Rows, NDArray[np.bool_] | None]:
        """Return rows, and which of them are sound (None: all)."""


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
        """Return what the rows are, how many, and whether they were made up."""
        found, splits_ = self._data, self._splits
        sizes = {name: sum(map(len, splits_.pieces(name))) for name in ("train", "validation", "test")}
        return {**found.provenance, "rows": {"training": len(splits_.training), **sizes}}

    def data_fingerprint(self, splits: Iterable[str]) -> dict[str, Any]:
        """Return a hash of the text, where it is read as it is."""
        rows = self._data.rows
        return {"fingerprint": rows.fingerprint} if isinstance(rows, TextRows) else {}

    def batch(self, rows: Positions) -> Batch:
        """Return rows by their numbers as a batch; a row that could not be read weighs nothing."""
        found, sound = self._data.rows.take(rows)
        inputs = inputs_of(found, self.options.float32_categories)
        batch = {
            "inputs": torch.from_numpy(inputs),
            "targets": torch.from_numpy(found[:, 0].astype(np.float32)),
        }
        if sound is not None:
            batch["weights"] = torch.from_numpy(sound.astype(np.float32))
        return batch

    @property
    def training_rows(self) -> int:
        """Rows of the training days; they come first."""
        return len(self._splits.training)

    @cached_property
    def _data(self) -> _Data:
        folder = Path(self.options.data_dir)
        if (folder / MANIFEST).exists() or any(folder.glob("day_*-*.npy")):
            return _Data.prepared(Dataset.read(folder))
        return _Data.as_it_is(folder, self.options.max_bad_share)

    @cached_property
    def _splits(self) -> splits.Splits:
        return splits.split(list(self._data.days.values()))


@dataclass(frozen=True)
class _Data:
    """The rows of a folder, how many each day has, and where they come from."""

    rows: RowSource
    days: dict[int, int]
    provenance: dict[str, Any]

    @classmethod
    def prepared(cls, dataset: Dataset) -> _Data:
        provenance = {
            "mode": "prepared",
            "fingerprint": dataset.fingerprint,
            "bad_rows": dataset.bad_rows,
            "missing_days": list(dataset.missing_days),
            "synthetic": dataset.synthetic is not None,
            "made_by": _maker(dataset.synthetic),
        }
        return cls(ShardRows(dataset), dataset.days, provenance)

    @classmethod
    def as_it_is(cls, folder: Path, max_bad_share: float) -> _Data:
        """Take plain text as it is.

        Raises:
            UserError: there is none.
        """
        files = _files(folder)
        log.info("%s is not prepared: its text is read as it is", folder)
        for remark in remarks_on_days(file.day for file in files):
            log.warning("%s: %s", folder, remark)
        rows, synthetic = TextRows(files, max_bad_share), read_provenance(folder)
        for warning in rows.warnings(synthetic):
            log.warning("%s: %s", folder, warning)
        provenance = {
            "mode": "direct",
            "missing_days": missing_days(file.day for file in files),
            "synthetic": synthetic is not None,
            "made_by": _maker(synthetic),
        }
        return cls(rows, rows.days, provenance)


def _files(folder: Path) -> list[SourceFile]:
    try:
        return find(folder)
    except UserError as error:
        raise UserError(
            f"workload.data_dir: {error.message}",
            "prepare the logs with: alphagrid data prepare criteo1tb LOGS PREPARED; or make some up with: "
            "alphagrid data synthesize criteo1tb LOGS --rows 1000000",
        ) from error


def _maker(synthetic: dict[str, Any] | None) -> str | None:
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
