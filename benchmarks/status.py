"""How long `alphagrid status` of 10,000 runs takes, with their files warm and Slurm asked about every one.

    python -m benchmarks.status [--runs 10000] [--repetitions 5] [--no-slurm]

Bar: 1 second; where other processes compete, processor time tells how long it would take without them.
Every run has what a real run left in its folder (it is trained once, here) but for the end: so squeue is
asked about all of them, which really are tasks of held arrays. Nothing is new to the index when the clock
runs. Printed beside it: what squeue alone takes, and a look that finds no news in the index.
"""

from __future__ import annotations

import argparse
import io
import shutil
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from alphagrid.jobs.specification.experiment import Experiment, expand
from alphagrid.jobs.specification.file import read_spec
from alphagrid.jobs.status import status
from alphagrid.store import submissions
from alphagrid.store.database import open_store
from alphagrid.store.layout import ExperimentFiles, Root, RunFiles
from alphagrid.store.submissions import JobRef, RunEntry, Submission, Title

from benchmarks.cluster import real_slurm, slurm
from benchmarks.harness import command, hardware, interleaved, load, processor_seconds, table

BAR = 1.0
ARRAY = 1000
SPEC = """
experiment: large
base:
  workload: {{name: digits_mlp}}
  optimizer: {{name: nadamw, lr: 0.001}}
  alpha: {{policy: median, interval: 1000, count: 10}}
  eval: {{every_steps: 500}}
  stop: {{steps: 4000}}
  device: cpu
seeds: [{seeds}]
"""


def experiment(folder: Path, runs: int) -> Experiment:
    """Return a grid of so many runs."""
    spec = folder / "large.yaml"
    spec.write_text(SPEC.format(seeds=", ".join(map(str, range(runs)))))
    return expand(read_spec(spec, []))


def trained(folder: Path, spec: Path) -> tuple[str, RunFiles]:
    """Train the first run here; return the submission that sent it, and its folder."""
    alphagrid = str(Path(sys.executable).with_name("alphagrid"))
    options = ["--set", "seeds=[0]", "--profile", "debug", "--root", str(folder)]
    subprocess.run([alphagrid, "submit", str(spec), *options], check=True, capture_output=True)
    (files,) = Root(folder).experiments()
    (run,) = files.runs()
    return submissions.read_all(files)[0].id, run


def fill(files: ExperimentFiles, grid: Experiment, sender: str, model: RunFiles, jobs: list[str]) -> None:
    """Make an experiment of which every run has the files of `model`, without the record of its end."""
    lines = model.journal(1).read_bytes().splitlines(keepends=True)
    entries = [
        RunEntry(id=run.id, name=run.name, params=dict(run.params), config=run.config.as_dict())
        for run in grid.runs
    ]
    for entry in entries:
        shutil.copytree(model.path, files.run(entry.id).path)
        files.run(entry.id).journal(1).write_bytes(b"".join(lines[:-1]))
    references = [JobRef(cluster="slurm", job_id=job, submitted=0.0) for job in jobs]
    submission = Submission(
        id=sender,
        created=0.0,
        experiment=files.name,
        profile={"name": "slurm-a100", "cluster": "slurm"},
        runs=entries,
        named={run.id: Title(name=run.name, params=dict(run.params)) for run in grid.runs},
        jobs={entry.id: job for entry, job in zip(entries, references, strict=True)},
    )
    submissions.write(files, submission)


def arrays(runs: int, sender: str, are_real: bool) -> list[str]:
    """Return the ids of so many array tasks; real ones are held, and known by the submission's comment."""
    found: list[str] = []
    while len(found) < runs:
        size = min(ARRAY, runs - len(found))
        given = ("--parsable", "--hold", f"--array=0-{size - 1}", f"--comment=alphagrid:{sender}")
        rest = ("--partition=a100", "--output=/dev/null", "--wrap=true")
        number = slurm("sbatch", *given, *rest).strip() if are_real else str(len(found) + 1)
        found += [f"{number}_{task}" for task in range(size)]
    return found


def look(root: Root, name: str) -> None:
    """Do what `alphagrid status` does, in this process."""
    from alphagrid.terminal import status_view
    from rich.console import Console

    Console(file=io.StringIO(), width=120).print(status_view(status(root, name)))


def sync(root: Root, name: str) -> None:
    """Find that there is nothing new."""
    with open_store(root) as store:
        store.sync([name])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--no-slurm", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place, ExitStack() as stack:
        if not options.no_slurm:
            stack.enter_context(real_slurm())
        folder = Path(place)
        grid = experiment(folder, options.runs)
        sender, model = trained(folder / "one", folder / "large.yaml")
        jobs = arrays(options.runs, sender, not options.no_slurm)
        root = Root(folder / "runs")
        files = root.experiment(grid.name)
        fill(files, grid, sender, model, jobs)
        sync(root, grid.name)
        counts = status(root, grid.name).counts
        measure(root, grid.name, options.repetitions, asks=not options.no_slurm)
    kept = ", ".join(f"{count} {state}" for state, count in counts.items())
    print(f"{options.runs} runs ({kept}); bar: {BAR} s")


def measure(root: Root, name: str, repetitions: int, asks: bool) -> None:
    alphagrid = str(Path(sys.executable).with_name("alphagrid"))
    tasks = {
        "alphagrid status": command(alphagrid, "status", name, "--root", str(root.path)),
        "the same in process": lambda: look(root, name),
        "of that, a look for news": lambda: sync(root, name),
        "alphagrid --help": command(alphagrid, "--help"),
    }
    if asks:
        tasks["squeue alone"] = command("squeue", "--noheader", "--array", "--format=%F|%K|%T|%r|%k")
    seconds = interleaved(tasks, repetitions)
    print(hardware() + f", load {load()}")
    rows = [
        (
            what,
            f"{seconds[what]:.2f} s",
            f"{median(processor_seconds(task) for _ in range(repetitions)):.2f} s",
        )
        for what, task in tasks.items()
    ]
    print(table([("what", "median", "processor time"), *rows]))


if __name__ == "__main__":
    main()
