"""Whether training learns what made-up clicks hold: DLRM-small at full width, its table small.

Bar: at least 90 % of the gap between the best constant and the planted truth, on the validation split. The
logs are made up, prepared and read as anybody's are; the run is the trainer's own, one pass over the data.
Run: python -m benchmarks.criteo_learning [--rows N]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

from alphagrid.store.journal import Journal, read
from alphagrid.store.layout import RunFiles
from alphagrid.trainer.config import TrainingConfig
from alphagrid.trainer.loop import train
from alphagrid.trainer.resume import prepare as resume
from alphagrid.trainer.stopping import StopRequest
from alphagrid.trainer.workloads.criteo.prepare import prepare
from alphagrid.trainer.workloads.criteo.synthesis import synthesize

from benchmarks.harness import hardware, load, table

BAR = 0.9
BATCH = 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        logs, prepared = Path(folder) / "logs", Path(folder) / "prepared"
        losses = synthesize(logs, options.rows)["losses"]["validation"]
        prepare(logs, prepared, options.threads)
        steps = options.rows * 23 // 24 // BATCH
        start = time.perf_counter()
        found = learn(prepared, steps, options.lr, options.threads, Path(folder) / "run")
        seconds = time.perf_counter() - start
    print(f"{hardware()}; load {load()}; {steps} steps of {BATCH} in {seconds:.0f} s")
    gap = losses["constant"] - losses["planted"]
    rows = [("steps", "validation loss", "of the gap")]
    rows += [(f"{step}", f"{loss:.6f}", f"{(losses['constant'] - loss) / gap:.1%}") for step, loss in found]
    print(
        table(
            [
                *rows,
                ("constant", f"{losses['constant']:.6f}", ""),
                ("planted", f"{losses['planted']:.6f}", ""),
            ]
        )
    )
    print(f"bar: {BAR:.0%} of the gap")


def learn(data: Path, steps: int, lr: float, threads: int, folder: Path) -> list[tuple[int, float]]:
    """Train one run; return its evaluations, as steps and validation loss."""
    config: dict[str, Any] = {
        "workload": {"name": "criteo1tb", "data_dir": str(data), "batch_size": BATCH, "table_rows": 2**14},
        "optimizer": {"name": "nadamw", "lr": lr},
        "schedule": {"name": "warmup_cosine", "total_steps": steps},
        "stop": {"steps": steps},
        "eval": {"every_steps": max(steps // 5, 1), "splits": ["validation"]},
        "device": "cpu",
        "threads": threads,
    }
    folder.mkdir()
    run = RunFiles(folder)
    journal = Journal.create(run.journal(1))
    train(TrainingConfig.model_validate(config), run, journal, 1, resume(run), StopRequest())
    journal.close()
    records = read(run.journal(1)).records
    return [(r["step"], r["splits"]["validation"]["loss"]) for r in records if r["kind"] == "evaluation"]


if __name__ == "__main__":
    main()
