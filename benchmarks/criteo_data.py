"""Criteo's logs, from text to batches: preparing, reading, memory, and waiting for data.

Bars: preparing at least 1 × `pandas.read_csv` for each core; reading at least 20 × a per-row Dataset with a
DataLoader on the same shards; memory that does not grow with the file; at most 5 % of a step spent waiting.
Rates are rows per second of processor time, which others on the machine do not change; all in one run.
Run: python -m benchmarks.criteo_data [--rows N]
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from alphagrid.store.journal import Journal, read
from alphagrid.store.layout import RunFiles
from alphagrid.trainer.clock import COUNTED
from alphagrid.trainer.config import TrainingConfig
from alphagrid.trainer.loop import train
from alphagrid.trainer.resume import prepare as resume
from alphagrid.trainer.stopping import StopRequest
from alphagrid.trainer.workloads.criteo.columns import DENSE
from alphagrid.trainer.workloads.criteo.prepare import prepare
from alphagrid.trainer.workloads.criteo.shards import Dataset, ShardRows
from alphagrid.trainer.workloads.criteo.synthesis import synthesize
from alphagrid.trainer.workloads.criteo1tb import Criteo1TB
from alphagrid.trainer.workloads.options import Criteo1TBOptions
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from benchmarks.harness import hardware, load, processor_seconds, table

BATCH = 2048
REPETITIONS = 3
PER_ROW_SHARE = 20
"""The Dataset of rows is given a twentieth of the rows, so that it ends."""


class PerRow(TorchDataset[dict[str, Tensor]]):
    """The shards as most people would read them: a row an item, collated by the DataLoader."""

    def __init__(self, folder: Path, rows: int) -> None:
        self._rows = np.load(folder / Dataset.read(folder).shards[0].name, mmap_mode="r")[:rows]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        row = np.array(self._rows[index])
        dense = torch.from_numpy(row[1 : 1 + DENSE].view(np.float32))
        categories = torch.from_numpy(row[1 + DENSE :].astype(np.int64))
        return {"dense": dense, "categories": categories, "targets": torch.tensor(float(row[0]))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    rows = parser.parse_args().rows
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for label, count in (("day", rows), ("tenth", rows // 10)):
            synthesize(folder / f"{label}-logs", count, days=1)
        print(f"{hardware()}; load {load()}")
        print(table([("what", "rows/s", "beside", "rows/s", "ratio", "bar"), *rates(folder, rows)]))
        memory(folder)
        print(f"waiting for data: {waiting(folder):.2%} of a training step (bar: at most 5 %)")
        print(f"load at the end {load()}")


def rates(folder: Path, rows: int) -> list[tuple[str, ...]]:
    """Time both pairs in turn; return a row for each."""
    import pandas as pd

    logs, shards = folder / "day-logs", folder / "shards"
    counter = itertools.count()
    found = [
        _pair(
            "prepare",
            lambda: prepare(logs, folder / f"again-{next(counter)}", 1),
            rows,
            "pandas.read_csv",
            lambda: pd.read_csv(logs / "day_0", sep="\t", header=None),
            rows,
            "1",
        )
    ]
    prepare(logs, shards, 1)
    few = rows // PER_ROW_SHARE
    made = Criteo1TB(Criteo1TBOptions(name="criteo1tb", data_dir=str(shards), batch_size=BATCH))
    found.append(
        _pair(
            "read, shuffled",
            partial(_read_batches, made, rows // BATCH),
            rows // BATCH * BATCH,
            "a Dataset of rows",
            partial(_read_rows, shards, few),
            few,
            "20",
        )
    )
    found.append(
        _pair(
            "read, in order",
            partial(_read_all, shards),
            rows,
            "a Dataset of rows",
            partial(_read_rows, shards, few),
            few,
            "20",
        )
    )
    return found


def _pair(
    name: str, task: Callable[[], object], rows: int,
    other_name: str, other: Callable[[], object], other_rows: int, bar: str,
) -> tuple[str, ...]:  # fmt: skip
    pairs = [(processor_seconds(task), processor_seconds(other)) for _ in range(REPETITIONS)]
    rate = rows / median(first for first, _ in pairs)
    other_rate = other_rows / median(second for _, second in pairs)
    return name, f"{rate:,.0f}", other_name, f"{other_rate:,.0f}", f"{rate / other_rate:.1f}", f"≥ {bar}"


def _read_batches(made: Criteo1TB, count: int) -> None:
    stream = made.stream("train", 0)
    for index in range(count):
        stream.batch(index)


def _read_all(shards: Path) -> None:
    rows = ShardRows(Dataset.read(shards))
    for start in range(0, len(rows), BATCH):
        rows.take(np.arange(start, min(start + BATCH, len(rows))))


def _read_rows(shards: Path, count: int) -> None:
    for _ in DataLoader(PerRow(shards, count), batch_size=BATCH, shuffle=True):
        pass


def memory(folder: Path) -> None:
    """Print the peak memory of preparing a tenth of the rows, and of preparing them all."""
    for label in ("tenth", "day"):
        size = (folder / f"{label}-logs" / "day_0").stat().st_size
        print(f"peak memory of preparing {size / 1e6:.0f} MB: {_peak(folder, label) / 1e6:.0f} MB")


def _peak(folder: Path, label: str) -> int:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_prepare_apart, args=(theirs, folder, label))
    process.start()
    peak: int = ours.recv()
    process.join()
    return peak


def _prepare_apart(connection: Any, folder: Path, label: str) -> None:
    Path("/proc/self/clear_refs").write_text("5")  # the peak is that of the process it was forked from, else
    before = _status("VmRSS")
    prepare(folder / f"{label}-logs", folder / f"{label}-apart", 1)
    connection.send(_status("VmHWM") - before)


def _status(key: str) -> int:
    """Return what Linux says of this process' memory, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(key)).split()[1])


def waiting(folder: Path) -> float:
    """Train a little; return the share of train_seconds spent waiting for data, as the journal tells."""
    config = {
        "workload": {
            "name": "criteo1tb", "data_dir": str(folder / "shards"), "batch_size": BATCH, "table_rows": 2**17,
            "evaluation_examples": 1000,
        },
        "optimizer": {"name": "nadamw", "lr": 1e-3},
        "stop": {"steps": 30},
        "log": {"every_steps": 10},
        "eval": {"splits": ["validation"]},
        "device": "cpu",
    }  # fmt: skip
    (folder / "run").mkdir()
    run = RunFiles(folder / "run")
    journal = Journal.create(run.journal(1))
    train(TrainingConfig.model_validate(config), run, journal, 1, resume(run), StopRequest())
    journal.close()
    windows = [record["seconds"] for record in read(run.journal(1)).records if record["kind"] == "window"]
    counted = sum(w[category] for w in windows for category in COUNTED)
    return float(sum(w["data"] for w in windows) / counted)


if __name__ == "__main__":
    main()
