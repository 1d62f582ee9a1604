"""How long a preempted run takes from SIGTERM to a durable checkpoint, and to being back in the queue.

    python -m benchmarks.stop_request [--parameters 1e4 1e6 1e7 5e7]

On the real Slurm of `tests/slurm/cluster`: linear least squares with so many parameters, trained by NAdamW
(so three numbers of 4 bytes per parameter are kept) on the CPU, is preempted by an urgent job. The moment of
the signal is taken in the worker's process, that of the checkpoint from the journal, which records it once
it is on disk, those of the requeue from squeue, every 50 ms. What is waited for comes in this order: the end
of the step under way, the checkpoint, `scontrol requeue`. Then the work is safe and the job's own again;
that it is pending once more comes after Slurm has killed the old processes (KillWait, 5 s on this cluster).
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from alphagrid.cluster_profiles.loader import load_profile
from alphagrid.jobs.specification.experiment import expand
from alphagrid.jobs.specification.file import read_spec
from alphagrid.jobs.submission import submit
from alphagrid.store import journal, submissions
from alphagrid.store.layout import ExperimentFiles, Root, RunFiles

from benchmarks.cluster import real_slurm, slurm
from benchmarks.harness import hardware, load, table

GRACE, DEADLINE = 120, 240.0
STEPS_BEFORE = 10
TASKS = """
import signal, time
from pathlib import Path
from alphagrid.trainer.workloads.least_squares import LeastSquares

class Timed(LeastSquares):
    def model(self):
        handle = signal.getsignal(signal.SIGTERM)
        def note(number, frame):
            Path(FOLDER, "signal").write_text(repr(time.time()))
            handle(number, frame)
        signal.signal(signal.SIGTERM, note)
        return super().model()
"""


def until(found: Callable[[], Any], pause: float = 0.05) -> Any:
    """Wait for something and return it."""
    deadline = time.monotonic() + DEADLINE
    while not (value := found()):
        if time.monotonic() > deadline:
            raise SystemExit(f"waited {DEADLINE:.0f} s in vain")
        time.sleep(pause)
    return value


def send(folder: Path, parameters: int) -> tuple[ExperimentFiles, str]:
    """Submit one run with so many parameters; return its experiment and job."""
    spec = {
        "experiment": "stop",
        "base": {
            "workload": {"name": "tasks:Timed", "features": parameters, "examples": 2, "batch_size": 1},
            "optimizer": {"name": "nadamw", "lr": 1e-3},
            "log": {"every_steps": 1},
            "stop": {"steps": 10**9},
            "device": "cpu",
        },
    }
    (folder / "tasks.py").write_text(TASKS.replace("FOLDER", repr(str(folder))))
    (folder / "spec.yaml").write_text(json.dumps(spec))
    profile = load_profile("slurm-a100", {"partition": "a100", "cpus": 1})
    root = Root(folder / "runs")
    submit(expand(read_spec(folder / "spec.yaml", [])), profile, root)
    files = root.experiment("stop")
    (job,) = submissions.read_all(files)[0].jobs.values()
    return files, job.job_id


def records(run: RunFiles, kind: str) -> list[dict[str, Any]]:
    """Return what the run's first attempt wrote of a kind."""
    path = run.journal(1)
    found = journal.read(path).records if path.exists() else []
    return [record for record in found if record["kind"] == kind]


def state(job: str) -> str:
    """Return what squeue calls the state of a job."""
    return slurm("squeue", "--noheader", f"--jobs={job}", "--format=%T").strip()


def measure(parameters: int) -> tuple[str, ...]:
    """Preempt one run; return a row of the table."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        files, job = send(folder, parameters)
        run = until(lambda: [run for run in files.runs() if len(records(run, "window")) >= STEPS_BEFORE])[0]
        urgent = ("--partition=urgent", "--gres=gpu:a100:4", "--output=/dev/null", "--wrap=sleep 600")
        slurm("sbatch", *urgent)
        until(lambda: state(job) in ("COMPLETING", "PENDING"))
        requeued = time.time()
        until(lambda: state(job) == "PENDING")
        pending = time.time()
        signalled = float((folder / "signal").read_text())
        written = records(run, "checkpoint")[-1]
        windows = records(run, "window")
        slurm("scancel", "--full", "--user=root")
        until(lambda: not slurm("squeue", "--noheader").strip())
    assert written["time"] > signalled
    step = (windows[-2]["time"] - windows[0]["time"]) / (len(windows) - 2)
    times = (step, *(moment - signalled for moment in (written["time"], requeued, pending)))
    return f"{parameters:.0e}", f"{written['bytes'] / 1e6:.1f} MB", *(f"{value:.2f} s" for value in times)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--parameters", type=float, nargs="*", default=[1e4, 1e6, 1e7, 5e7])
    options = parser.parse_args()
    head = ("parameters", "checkpoint", "a step", "SIGTERM to: on disk", "requeued", "pending")
    with real_slurm("--grace", str(GRACE)):
        rows = [measure(int(parameters)) for parameters in options.parameters]
    print(hardware() + f", load {load()}")
    print(table([head, *rows]))


if __name__ == "__main__":
    main()
