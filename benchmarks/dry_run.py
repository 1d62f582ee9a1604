"""How long `alphagrid submit --dry-run --json` of a 10,000-run grid takes, as a whole process.

Bar: 2 seconds. Printed beside `alphagrid --help`, the same process without a grid.
Run: python -m benchmarks.dry_run
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from benchmarks.harness import command, hardware, interleaved, table

REPETITIONS = 5
BAR = 2.0
SPEC = """
experiment: large
base:
  workload: {name: digits_mlp}
  optimizer: {name: nadamw}
  schedule: {name: warmup_cosine, total_steps: 4000}
  alpha: {policy: median, start_step: 200}
  stop: {steps: 4000}
grid:
  alpha.interval: [100, 200, 300, 400, 500, 600, 700, 800, 900, 1000]
  alpha.count: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
  optimizer.lr: [1e-4, 2e-4, 3e-4, 4e-4, 5e-4, 6e-4, 7e-4, 8e-4, 9e-4, 1e-3]
seeds: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
"""


def main() -> None:
    alphagrid = str(Path(sys.executable).with_name("alphagrid"))
    with tempfile.TemporaryDirectory() as folder:
        spec = Path(folder) / "large.yaml"
        spec.write_text(SPEC)
        seconds = interleaved(
            {
                "alphagrid --help": command(alphagrid, "--help"),
                "dry run of 10,000 runs": command(alphagrid, "submit", str(spec), "--dry-run", "--json"),
            },
            REPETITIONS,
        )
    print(hardware())
    print(table([("command", "median"), *((name, f"{value:.2f} s") for name, value in seconds.items())]))
    print(f"bar: {BAR} s")


if __name__ == "__main__":
    main()
