"""Whether a plain step costs the same however often one evaluates: real runs of the trainer, side by side.

Bar: within 5 %. The seconds are the clock's own (`train_seconds`), as medians over windows of 50 steps.
Run: python -m benchmarks.evaluation_cadence
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from statistics import median

from alphagrid.store.journal import Journal, read
from alphagrid.store.layout import RunFiles
from alphagrid.trainer.clock import COUNTED
from alphagrid.trainer.config import TrainingConfig
from alphagrid.trainer.loop import train
from alphagrid.trainer.resume import prepare
from alphagrid.trainer.stopping import StopRequest

from benchmarks.harness import hardware, table

CADENCES = (1000, 50, 10)
REPETITIONS = 5
BAR = 0.05
CONFIG = {
    "workload": {"name": "digits_mlp", "hidden": [512, 512], "batch_size": 256},
    "optimizer": {"name": "nadamw"},
    "stop": {"steps": 1000},
    "log": {"every_steps": 50},
    "device": "cpu",
}


def seconds_per_step(every_steps: int) -> list[float]:
    """Train one run; return the seconds per step of each of its windows."""
    with tempfile.TemporaryDirectory() as folder:
        run = RunFiles(Path(folder))
        journal = Journal.create(run.journal(1))
        config = TrainingConfig.model_validate({**CONFIG, "eval": {"every_steps": every_steps}})
        train(config, run, journal, 1, prepare(run), StopRequest())
        journal.close()
        windows = [record for record in read(run.journal(1)).records if record["kind"] == "window"]
    return [sum(w["seconds"][category] for category in COUNTED) / w["steps"] for w in windows[1:]]


def main() -> None:
    seconds_per_step(CADENCES[0])  # warm-up
    found: dict[int, list[float]] = {every: [] for every in CADENCES}
    for _ in range(REPETITIONS):
        for every in CADENCES:
            found[every] += seconds_per_step(every)
    base = median(found[CADENCES[0]])
    rows = [("evaluation every", "plain step", "ratio")]
    rows += [
        (f"{every} steps", f"{1000 * median(values):.3f} ms", f"{median(values) / base:.3f}")
        for every, values in found.items()
    ]
    print(hardware())
    print(table(rows))
    print(f"bar: within {BAR:.0%}")


if __name__ == "__main__":
    main()
