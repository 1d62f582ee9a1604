"""How long submitting takes on a real Slurm, beside submitit's bare `map_array` of as many no-ops.

    python -m benchmarks.slurm_submit [--runs 1000] [--many 10000] [--repetitions 5]

Bars: 1,000 runs within 2 times a bare map_array of 1,000 no-ops, in one process; 10,000 runs within 15
seconds. Jobs are sent to a partition of `tests/slurm/cluster` and may not start; between two measurements
the queue is emptied. alphagrid's time goes from the specification's file to the last job released.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import submitit
from alphagrid.cluster_profiles.loader import load_profile
from alphagrid.jobs.specification.experiment import expand
from alphagrid.jobs.specification.file import read_spec
from alphagrid.jobs.submission import submit
from alphagrid.store.layout import Root

from benchmarks.cluster import real_slurm, slurm
from benchmarks.harness import hardware, load, table

BAR, BAR_MANY = 2.0, 15.0
LATER = "now+1day"
SPEC = """
experiment: large
base:
  workload: {{name: digits_mlp}}
  optimizer: {{name: nadamw, lr: 0.001}}
  stop: {{steps: 4000}}
  device: cpu
seeds: [{seeds}]
"""


def no_op(number: int) -> None:
    """Do nothing."""


def bare(folder: Path, runs: int) -> None:
    """Submit so many no-ops with submitit alone, as one array."""
    executor = submitit.SlurmExecutor(folder / "submitit")
    executor.update_parameters(partition="a100", additional_parameters={"begin": LATER})
    executor.map_array(no_op, range(runs))


def alphagrid(folder: Path, runs: int) -> None:
    """Read a specification and submit its runs."""
    spec = folder / "large.yaml"
    spec.write_text(SPEC.format(seeds=", ".join(map(str, range(runs)))))
    profile = load_profile("slurm-a100", {"partition": "a100", "sbatch": {"begin": LATER}})
    sent = submit(expand(read_spec(spec, [])), profile, Root(folder / "runs")).sent
    assert len(sent) == runs


def seconds(task: Callable[[Path, int], None], runs: int) -> float:
    """Return how long one submission takes; empty the queue after it."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        task(Path(folder), runs)
        taken = time.perf_counter() - start
        slurm("scancel", "--full", "--user=root")
        while slurm("squeue", "--noheader", "--format=%F").strip():
            time.sleep(0.2)
    return taken


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--many", type=int, default=10_000)
    parser.add_argument("--repetitions", type=int, default=5)
    options = parser.parse_args()
    found: dict[str, list[float]] = {"bare map_array": [], "alphagrid": []}
    with real_slurm():
        for repetition in range(options.repetitions + 1):  # the first warms up
            for name, task in (("bare map_array", bare), ("alphagrid", alphagrid)):
                taken = seconds(task, options.runs)
                found[name] += [taken] if repetition else []
        many = seconds(alphagrid, options.many)
    medians = {name: median(values) for name, values in found.items()}
    ratio = medians["alphagrid"] / medians["bare map_array"]
    print(hardware() + f", load {load()}")
    rows = [(f"{name}, {options.runs} jobs", f"{value:.2f} s") for name, value in medians.items()]
    print(table([("what", "median"), *rows, ("ratio", f"{ratio:.2f} x (bar {BAR} x)")]))
    print(f"{options.many} runs: {many:.1f} s (bar {BAR_MANY} s)")


if __name__ == "__main__":
    main()
