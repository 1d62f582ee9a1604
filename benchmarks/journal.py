"""What one journal record costs, beside `json.dumps` + `os.write` and beside sqlite-utils' insert of one row.

    python -m benchmarks.journal [--json] [--records 2000] [--repetitions 25]

Ratios are of medians over interleaved repetitions in one run, so that whatever else the machine does meets
all three alike.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from alphagrid.store.journal import Journal

from benchmarks.harness import hardware

BAR = 1.5
"""A record may cost this many times what plain `json.dumps` + `os.write` costs."""

FIELDS: dict[str, Any] = {
    "steps": 100,
    "alpha_steps": 10,
    "loss": 0.12437231905758381,
    "learning_rate": {"min": 1.1e-4, "mean": 2.1857984424097966e-4, "max": 3.3e-4},
    "seconds": {
        "data": 0.25173, "forward_backward": 8.91235, "optimizer": 1.23456, "alpha": 6.124,
        "diagnostics": 0.0, "evaluation": 0.0, "checkpoint": 0.0,
    },
}  # fmt: skip

Write = Callable[[int], None]


def journal_record(folder: Path) -> Write:
    journal = Journal.create(folder / "journal-0001.jsonl")
    return lambda step: journal.append("window", step, step * 0.16, **FIELDS)


def plain_json(folder: Path) -> Write:
    descriptor = os.open(folder / "plain.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def write(step: int) -> None:
        record = {"kind": "window", "step": step, "train_seconds": step * 0.16, **FIELDS, "time": time.time()}
        os.write(descriptor, (json.dumps(record) + "\n").encode())

    return write


def sqlite_row(folder: Path) -> Write:
    from sqlite_utils import Database

    table = Database(folder / "rows.db").table("window", pk="step")
    flat = {"steps": 100, "alpha_steps": 10, "loss": FIELDS["loss"]}
    flat |= {f"lr_{name}": rate for name, rate in FIELDS["learning_rate"].items()}
    flat |= {f"{name}_seconds": seconds for name, seconds in FIELDS["seconds"].items()}

    def write(step: int) -> None:
        table.insert({"step": step, "train_seconds": step * 0.16, "time": time.time(), **flat})

    return write


WRITERS = {"journal": journal_record, "json.dumps + os.write": plain_json, "sqlite-utils insert": sqlite_row}
SHARE = {"sqlite-utils insert": 20}
"""It is so slow that it writes fewer records per repetition."""


def measure(folder: Path, records: int, repetitions: int) -> dict[str, float]:
    """Return the median time per record of each way to write [s]."""
    writers = {name: make(folder) for name, make in WRITERS.items()}
    seconds: dict[str, list[float]] = {name: [] for name in writers}
    for repetition in range(repetitions):
        for name, write in writers.items():
            number = max(1, records // SHARE.get(name, 1))
            start = time.perf_counter()
            for step in range(repetition * number, (repetition + 1) * number):
                write(step)
            seconds[name].append((time.perf_counter() - start) / number)
    return {name: median(values) for name, values in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--records", type=int, default=2000)
    parser.add_argument("--repetitions", type=int, default=25)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        seconds = measure(Path(folder), options.records, options.repetitions)
    ratio = seconds["journal"] / seconds["json.dumps + os.write"]
    if options.json:
        rows = {
            name: {"microseconds": 1e6 * s, "of_plain": s / seconds["json.dumps + os.write"]}
            for name, s in seconds.items()
        }
        print(
            json.dumps(
                {"hardware": hardware(), "bar": BAR, "met": ratio <= BAR, "ratio": ratio, "rows": rows}
            )
        )
        return
    print(hardware())
    print(f"{'one record':24}{'µs':>10}{'× plain':>10}")
    for name, value in seconds.items():
        print(f"{name:24}{1e6 * value:10.1f}{value / seconds['json.dumps + os.write']:10.2f}")
    print(f"bar: journal ≤ {BAR} × plain: {'met' if ratio <= BAR else 'MISSED'}")


if __name__ == "__main__":
    main()
