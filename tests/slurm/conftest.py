"""The real Slurm of the tests: it comes up with the session and goes down with it."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
from alphagrid.cli import app
from alphagrid.jobs.runs.attempts import Attempt, read
from alphagrid.store import journal, submissions
from alphagrid.store.layout import ExperimentFiles, Root, RunFiles
from typer.testing import CliRunner

from tests.slurm import fault_table, paused
from tests.slurm.waiting import SECONDS, until

HERE = Path(__file__).parent
PATH = os.environ["PATH"]
KILL_WAIT = 10
"""Seconds from SIGTERM to SIGKILL (Slurm's own: 30): enough to stop in, however busy this machine is."""
PROGRAMS = ("munged", "mariadbd", "slurmdbd", "slurmctld", "slurmd", "sbatch", "sacct")


@dataclass(frozen=True)
class Slurm:
    """A cluster of tests/slurm/cluster: where it is, and what it was asked for."""

    state: Path
    options: tuple[str, ...] = ()

    def cluster(self, verb: str, *options: str) -> str:
        """What `tests/slurm/cluster VERB` printed; raises CalledProcessError if it failed."""
        return output([sys.executable, str(HERE / "cluster"), verb, "--state", str(self.state), *options])

    def up(self) -> None:
        """Start the cluster, or those of its daemons that do not run."""
        self.cluster("up", *self.options)

    def down(self) -> None:
        """Kill all its processes and remove its files."""
        self.cluster("down")

    @cached_property
    def variables(self) -> dict[str, str]:
        """The variables that make Slurm's commands talk to this cluster."""
        words = shlex.split(self.cluster("env"))
        return dict(word.split("=", 1) for word in words if "=" in word)

    def use(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Have sbatch, submitit and alphagrid itself find this cluster until the test ends."""
        for name, value in self.variables.items():
            monkeypatch.setenv(name, value)

    def run(self, *command: str) -> str:
        """What a command (sbatch, squeue, ...) printed; raises CalledProcessError if it failed."""
        return output(list(command), self.variables)

    def queue_of(self, experiment: str) -> dict[str, str]:
        """Why each job of an experiment waits, by its id; jobs are called `<experiment>.<submission>`."""
        listed = self.run("squeue", "--array", "--noheader", "--format=%F|%K|%r|%j")
        lines = [line.split("|") for line in listed.splitlines()]
        own = [line for line in lines if line[-1].rpartition(".")[0] == experiment]
        return {array if task == "N/A" else f"{array}_{task}": why for array, task, why, _ in own}

    def clear(self) -> None:
        """Cancel every job, and wait until the queue is empty."""
        self.run("scancel", "--full", "--user=root")
        until(lambda: not self.run("squeue", "--noheader").strip(), "the queue is empty")

    def state_of(self, job: str) -> str:
        """How squeue calls the state of a job; empty if it is in the queue no more."""
        return self.run("squeue", "--noheader", "--format=%T", f"--jobs={job}").strip()

    @contextmanager
    def preempting(self) -> Iterator[str]:
        """Have a job of the partition `urgent` take all GPUs while the block runs; its id."""
        command = ("sbatch", "--parsable", "--partition=urgent", "--gres=gpu:a100:4", "--output=/dev/null")
        job = self.run(*command, "--wrap", "sleep 600").strip()
        try:
            yield job
        finally:
            self.run("scancel", job)

    def release(self, *jobs: str) -> None:
        """Let requeued jobs start again at once, instead of in two minutes.

        Not within the second that they were killed in: the node takes such a start for the one it has killed
        ("already killed, do not launch batch job"), and the job fails with exit code 1.
        """
        listed = ("squeue", "--noheader", "--format=%T", f"--jobs={','.join(jobs)}")
        until(lambda: "COMPLETING" not in self.run(*listed), "the jobs' old selves have ended")
        time.sleep(1.1)
        for job in jobs:
            try:
                self.run("scontrol", "update", f"JobId={job}", "StartTime=now")
            except subprocess.CalledProcessError:
                if self.state_of(job) == "PENDING":
                    raise  # otherwise it has started by itself

    def wait_until_saved(self, job: str) -> None:
        """Wait until slurmctld has written down how a job stands: what it has not, it forgets if killed.

        It writes some seconds after a change, of which this makes two: a writing under way when the first
        comes may have passed the job before.
        """
        written = self.state / "controller" / "job_state"
        for _ in range(2):
            before = written.stat().st_mtime_ns if written.exists() else 0
            self.run("scontrol", "update", f"JobId={job}", "AdminComment=saved")
            until(lambda before=before: written.exists() and written.stat().st_mtime_ns > before, "saved")  # type: ignore[misc]

    def kill(self, daemon: str) -> float:
        """Kill a daemon as a crash would, and see it gone; return when."""
        pid = self.pid(daemon)
        os.kill(pid, signal.SIGKILL)
        moment = time.time()
        until(lambda: not lives(pid), f"{daemon} is gone")
        return moment

    def pid(self, daemon: str) -> int:
        """Process id of mariadbd, munged, slurmdbd, slurmctld or slurmd-node1, as last started."""
        return int((self.state / f"{daemon}.pid").read_text())


LATER: dict[str, Any] = {"resources": {"sbatch": {"begin": "now+1hour"}}}
"""Sections of an experiment whose jobs wait in the queue, and do not start."""
FORGETS_A_JOB = """
case "$*" in *"show job JOB") echo "slurm_load_jobs error: Invalid job id specified" >&2; exit 1 ;; esac
exec {real} "$@"
"""
"""An scontrol (for `instead_of`) that does not know the job JOB."""
KILLED_BY_SBATCH = 'kill -9 $PPID; sleep 0.5; exec {real} "$@"'
"""An sbatch that kills its submitter, and then submits."""


def queued(slurm: Slurm) -> list[str]:
    """Return the ids of all jobs and array tasks in the queue."""
    return slurm.run("squeue", "--noheader", "--array", "--format=%i").split()


Runs = list[dict[str, Any]]
"""The runs of an experiment, as `status --json` tells them."""

BASE: dict[str, Any] = {
    "workload": {"name": "least_squares", "batch_size": 16},
    "optimizer": {"name": "nadamw", "lr": 0.01},
    "eval": {"every_steps": 500},
    "device": "cpu",
}


@dataclass(frozen=True)
class Experiment:
    """A folder with a specification, its workloads (tasks.py) and a root, and the commands on it."""

    folder: Path
    name: str = "cluster"

    @property
    def files(self) -> ExperimentFiles:
        return Root(self.folder / "runs").experiment(self.name)

    def write(self, steps: int, tasks: str | None = None, **sections: Any) -> None:
        """Write spec.yaml: one run, unless there are `grid`, `seeds`, ...; `base` is merged with BASE."""
        base = {**BASE, "stop": {"steps": steps}, **sections.pop("base", {})}
        resources = {"partition": "a100", "memory": "1G", "cpus": 1, **sections.pop("resources", {})}
        spec = {"experiment": self.name, "base": base, "profile": "slurm-a100", "resources": resources}
        (self.folder / "spec.yaml").write_text(json.dumps({**spec, **sections}))
        if tasks is not None:
            (self.folder / "tasks.py").write_text(tasks)

    def call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `alphagrid ARGUMENTS` on the experiment's root, whatever comes of it."""
        command = [str(Path(sys.executable).with_name("alphagrid")), *arguments]
        command += ["--root", str(self.files.path.parent)]
        return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, cwd=self.folder)

    def tell(self, *arguments: str) -> str:
        """What a command that succeeds says on stderr."""
        done = self.call(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stderr

    def submit(self, *options: str) -> str:
        return self.tell("submit", "spec.yaml", *options)

    def runs(self) -> Runs:
        return standing(self.files.path.parent, self.name)

    def wait(self, settled: Callable[[Runs], bool], seconds: float = SECONDS) -> Runs:
        """Wait until `status` tells what is waited for."""
        deadline = time.monotonic() + seconds
        while not settled(runs := self.runs()):
            told = [(run["name"], run["state"], run["reason"], run["step"], run["attempts"]) for run in runs]
            assert time.monotonic() < deadline, told
            time.sleep(0.5)
        return runs

    def wait_for(self, *states: str) -> Runs:
        """Wait until every run is in one of the states."""
        return self.wait(lambda runs: all(run["state"] in states for run in runs))

    def run(self) -> RunFiles:
        """The one run of the experiment."""
        (found,) = self.files.runs()
        return found

    def attempts(self) -> list[Attempt]:
        """The attempts of the one run; none before the first has begun."""
        return [attempt for run in self.files.runs() for attempt in read(run)]

    def records(self, attempt: int = 1, run_id: str | None = None) -> list[dict[str, Any]]:
        """What a run's journal (the one run's, if none is named) holds of an attempt."""
        run = self.run() if run_id is None else self.files.run(run_id)
        return journal.read(run.journal(attempt)).records

    def jobs(self) -> dict[str, str]:
        """The newest job of each run, by the run's id."""
        sent = submissions.read_all(self.files)
        return {run_id: job.job_id for one in sent for run_id, job in one.jobs.items()}

    def job(self) -> str:
        """The newest job of the one run."""
        (found,) = self.jobs().values()
        return found


def lives(pid: int) -> bool:
    """Whether there is such a process, and it is no zombie."""
    try:
        return bool(Path(f"/proc/{pid}/environ").read_bytes())
    except OSError:
        return False


def standing(root: Path, name: str) -> Runs:
    """What `status --json` says of an experiment's runs.

    Tests that wait ask it over and over, so it runs in this process: new ones would keep a core busy.
    """
    done = CliRunner().invoke(app, ["status", name, "--json", "--root", str(root)])
    assert done.exit_code == 0, done.output
    found: Runs = json.loads(done.stdout)["runs"]
    return found


def output(command: list[str], variables: dict[str, str] | None = None) -> str:
    # by the PATH of the beginning: tests put commands of their own before Slurm's
    environment = {**os.environ, "PATH": PATH, **(variables or {})}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=2 * SECONDS)
    if done.returncode != 0:
        sys.stderr.write(done.stdout + done.stderr)  # pytest shows it with the failure
    done.check_returncode()
    return done.stdout


@pytest.fixture(scope="session")
def slurm_with() -> Iterator[Callable[..., Slurm]]:
    """Bring up a cluster with options of `cluster up`; the same options give the same cluster."""
    require_slurm()
    clusters: dict[tuple[str, ...], Slurm] = {}
    afterwards = ExitStack()

    def bring_up(*options: str) -> Slurm:
        if options not in clusters:
            state = Path(tempfile.mkdtemp(prefix="alphagrid-slurm-"))
            # Its owner is this process: if that is killed, the cluster goes down by itself.
            always = ("--kill-wait", str(KILL_WAIT), "--owner", str(os.getpid()))
            clusters[options] = Slurm(state, (*options, *always))
            afterwards.callback(clusters[options].down)
        clusters[options].up()
        return clusters[options]

    with afterwards:
        yield bring_up


@pytest.fixture(scope="session")
def slurm(slurm_with: Callable[..., Slurm]) -> Slurm:
    """The cluster that most tests use: accounting, PreemptMode=REQUEUE, one node with four GPUs."""
    return slurm_with()


@pytest.fixture
def experiment(tmp_path: Path, slurm: Slurm) -> Iterator[Callable[..., Experiment]]:
    """Make an experiment: `experiment(steps, tasks=..., base={...}, grid={...}, resources={...})`.

    Whatever the test leaves in the queue is cancelled, and has ended before the next test begins.
    """
    made: list[Experiment] = []

    def make(steps: int, tasks: str | None = None, *, name: str = "cluster", **sections: Any) -> Experiment:
        folder = tmp_path / f"{name}-{len(made)}"
        folder.mkdir()
        made.append(Experiment(folder, name))
        made[-1].write(steps, tasks, **sections)
        return made[-1]

    yield make
    if any(one.jobs() for one in made):
        slurm.clear()


@pytest.fixture
def closed(slurm: Slurm) -> Iterator[None]:
    """The partition `a100` takes jobs, and starts none."""
    slurm.run("scontrol", "update", "PartitionName=a100", "State=DOWN")
    try:
        yield
        slurm.clear()
    finally:
        slurm.run("scontrol", "update", "PartitionName=a100", "State=UP")


@pytest.fixture
def mortal(slurm_with: Callable[..., Slurm], monkeypatch: pytest.MonkeyPatch) -> Iterator[Slurm]:
    """Another cluster, which commands find instead of the usual one: its controller may be killed."""
    slurm = slurm_with("--gpus", "2")
    slurm.use(monkeypatch)
    yield slurm
    slurm.up()
    slurm.clear()


@pytest.fixture
def partition_as_before(slurm: Slurm) -> Iterator[None]:
    """For tests that change how the partition `a100` is preempted."""
    yield
    slurm.run("scontrol", "update", "PartitionName=a100", "GraceTime=10", "PreemptMode=REQUEUE")


@pytest.fixture
def moments(tmp_path: Path) -> Path:
    """The folder in which runs of pausing_task.py say that they pause."""
    (tmp_path / "moments").mkdir()
    return tmp_path / "moments"


@pytest.fixture
def pausing(experiment: Callable[..., Experiment], moments: Path) -> Callable[..., Experiment]:
    """Make an experiment of pausing_task.py, with a run for each of the moments given."""

    def make(*names: str, **resources: Any) -> Experiment:
        grid = {"workload.moment": list(names)}
        resources = {"env": {"MOMENTS": str(moments)}, **resources}
        return experiment(paused.STEPS, paused.TASKS, base=paused.BASE, grid=grid, resources=resources)

    return make


@pytest.fixture(autouse=True)
def _use_slurm(slurm: Slurm, monkeypatch: pytest.MonkeyPatch) -> None:
    slurm.use(monkeypatch)


@pytest.fixture
def instead_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Put a shell script before one of Slurm's commands on the PATH; `{real}` in it is Slurm's own."""
    folder = tmp_path / "instead"
    folder.mkdir()
    before = os.environ["PATH"]

    def replace(command: str, script: str) -> None:
        path = folder / command
        path.write_text("#!/bin/sh\n" + script.format(real=shutil.which(command, path=before), folder=folder))
        path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{before}")

    return replace


FAULT_ROWS = pytest.StashKey[list[fault_table.Row]]()
FAULT_TABLE = "ALPHAGRID_FAULT_TABLE"
"""Names the file that gets the rows of the fault table; without it, they go nowhere."""


@pytest.fixture
def fault_row(request: pytest.FixtureRequest) -> Callable[[str, str, str], None]:
    """Return a function that adds a row (fault, what happened, what was lost) to the fault table.

    The row counts if the test passes. Any test may use it; `make faults` runs those that do, and writes the
    table in docs/faults.md.
    """
    rows = request.node.stash.setdefault(FAULT_ROWS, [])
    return lambda fault, happened, lost: rows.append(fault_table.Row(fault, happened, lost))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where the fault table is asked for, run the tests that write it and no others."""
    if FAULT_TABLE in os.environ:
        others = [item for item in items if "fault_row" not in getattr(item, "fixturenames", ())]
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item in items if item not in others]


def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    """Write the rows of a test that passed."""
    rows = item.stash.get(FAULT_ROWS, [])
    if rows and call.when == "call" and call.excinfo is None and FAULT_TABLE in os.environ:
        fault_table.write(Path(os.environ[FAULT_TABLE]), fault_table.this_machine(), rows)


def require_slurm() -> None:
    """Skip where Slurm cannot run; fail there if ALPHAGRID_REQUIRE_SLURM=1, as in CI."""
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin"))
    missing = [program for program in PROGRAMS if shutil.which(program, path=path) is None]
    if os.geteuid() == 0 and not missing:
        return
    lacks = f"not installed: {', '.join(missing)} (run tests/slurm/install)" if missing else "needs root"
    if os.environ.get("ALPHAGRID_REQUIRE_SLURM") == "1":
        pytest.fail(f"Slurm: {lacks}", pytrace=False)
    pytest.skip(f"Slurm: {lacks}")
