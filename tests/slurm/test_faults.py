"""Nodes and daemons die while runs train: the runs come to the same numbers, and nothing is lost but time.

Each test writes its rows of docs/faults.md (`make faults`).
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.slurm.conftest import lives
from tests.slurm.waiting import until
from tests.slurm.whole import assert_sent, assert_whole

if TYPE_CHECKING:
    from tests.faults.conftest import Result
    from tests.slurm.conftest import Experiment, Slurm

pytestmark = pytest.mark.slurm

CLUSTER = ("--nodes", "2", "--requeue-wait", "20", "--grace", "60")
STEPS = 4000
BASE: dict[str, Any] = {
    "workload": {"name": "tasks:Paced", "batch_size": 16},
    "alpha": {"policy": "median", "interval": 50, "count": 5, "start_step": 20},
    "eval": {"every_steps": 100},
    "log": {"every_steps": 1},
    "checkpoint": {"every_seconds": 1},
}
TASKS = """
import time
from pathlib import Path
from alphagrid.trainer.workloads.least_squares import LeastSquares

WORDS = Path("FOLDER")

class Paced(LeastSquares):
    def model(self):
        model = super().model()
        model.register_forward_pre_hook(listen)
        return model

def listen(module, inputs):
    if not module.training or (WORDS / "hurry").exists():
        return
    if (WORDS / "crash").exists():
        (WORDS / "crash").unlink()
        raise RuntimeError("a crash was asked for")
    time.sleep(0.02)
    while (WORDS / "wait").exists():
        time.sleep(0.05)
"""
"""Trains slowly, at little cost to the machine, and listens to the words of the test: files in a folder."""

OTHER = {"node1": "node2", "node2": "node1"}
FaultRow = Callable[[str, str, str], None]


@dataclass
class Victim:
    """One run that trains on a cluster, slowly until it may hurry to its end."""

    slurm: Slurm
    experiment: Experiment
    words: Path
    undisturbed: Result

    def say(self, word: str) -> None:
        (self.words / word).touch()

    def unsay(self, word: str) -> None:
        (self.words / word).unlink()

    def train(self) -> None:
        """Submit the run, and wait until it has trained for a while."""
        assert "sent 1 run" in self.experiment.submit()
        self.trains(100)

    def train_without_controller(self) -> None:
        """Train, and kill slurmctld meanwhile."""
        self.train()
        self.slurm.wait_until_saved(self.experiment.job())
        moment = self.slurm.kill("slurmctld")
        assert self.trained_at(moment)

    def trains(self, steps: int, attempt: int = 1) -> None:
        """Wait until an attempt has done so many more steps."""
        goal = self.step(attempt) + steps
        until(lambda: self.step(attempt) >= goal, f"attempt {attempt} at step {goal}")

    def step(self, attempt: int) -> int:
        found = self.experiment.attempts()
        return found[attempt - 1].step if len(found) >= attempt else 0

    def node(self) -> str:
        """The node that the run's job runs on."""
        return self.slurm.run(
            "squeue", "--noheader", f"--jobs={self.experiment.job()}", "--format=%N"
        ).strip()

    def pid(self, attempt: int = 1) -> int:
        """The worker's process."""
        return int(self.experiment.records(attempt)[0]["pid"])

    def status(self) -> dict[str, Any]:
        (run,) = self.experiment.runs()
        return run

    def log(self) -> str:
        return "".join(path.read_text() for path in sorted(self.experiment.files.submitit.glob("*_log.out")))

    def trained_at(self, moment: float, attempt: int = 1) -> bool:
        """Whether the attempt did a step shortly before a moment: a disk may keep it waiting for a while."""
        times = [r["time"] for r in self.experiment.records(attempt) if r["kind"] == "window"]
        return any(moment - 10 <= at <= moment for at in times)

    def finish(self, jobs: int = 1) -> int:
        """Let the run come to its end, and show that it is whole; return how many steps were done again."""
        from tests.faults.conftest import result

        self.say("hurry")
        self.experiment.wait_for("completed")
        assert "sent 0 runs" in self.experiment.submit()
        assert_sent(self.experiment, self.slurm, jobs)
        lost = assert_whole(self.experiment)
        found = result(self.experiment.files, self.experiment.run().id)
        assert found.differences(self.undisturbed) == []
        return lost


@pytest.fixture
def cluster(slurm_with: Callable[..., Slurm], monkeypatch: pytest.MonkeyPatch) -> Iterator[Slurm]:
    """A cluster of two nodes for daemons and nodes to be killed on."""
    slurm = slurm_with(*CLUSTER)
    slurm.use(monkeypatch)
    yield slurm
    slurm.up()
    for node in ("node1", "node2"):
        with contextlib.suppress(subprocess.CalledProcessError):  # it is in service
            slurm.run("scontrol", "update", f"NodeName={node}", "State=RESUME")
    slurm.clear()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """The result of the run when nothing happens to it."""
    from tests.faults.conftest import result
    from tests.slurm.conftest import Experiment

    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "hurry").touch()
    experiment = Experiment(folder)
    experiment.write(STEPS, TASKS.replace("FOLDER", str(folder)), base=BASE)
    experiment.submit("--profile", "debug")
    return result(experiment.files, experiment.run().id)


@pytest.fixture
def victim(
    cluster: Slurm, experiment: Callable[..., Experiment], undisturbed: Result, tmp_path: Path
) -> Iterator[Victim]:
    tasks = TASKS.replace("FOLDER", str(tmp_path))
    found = Victim(cluster, experiment(STEPS, tasks, base=BASE), tmp_path, undisturbed)
    yield found
    found.say("hurry")


def power_off(slurm: Slurm, node: str) -> float:
    """Kill all that runs on the only node with jobs, so that nothing tells the controller; return when."""
    moment = slurm.kill(f"slurmd-{node}")
    for pid in [*processes(slurm, b"slurmstepd"), *processes(slurm, b"SLURM_JOB_ID=")]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return moment


def processes(slurm: Slurm, mark: bytes) -> list[int]:
    """The cluster's processes with some text in their name, arguments or environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            environment = (folder / "environ").read_bytes()
            told = environment + (folder / "cmdline").read_bytes()
            if os.fsencode(slurm.state) in environment and mark in told:
                found.append(int(folder.name))
    return found


def states(slurm: Slurm, job: str) -> list[str]:
    """How the job ended each time that it ran, and how it stands now."""
    told = slurm.run(
        "sacct",
        "--noheader",
        "--parsable2",
        "--allocations",
        "--duplicates",
        f"--jobs={job}",
        "--format=state",
    )
    return told.split()


def node_down(slurm: Slurm, node: str) -> None:
    """What Slurm does itself once a node has been silent for SlurmdTimeout."""
    slurm.run("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=test")


def bring_back(slurm: Slurm, job: str) -> None:
    """Start the node's daemon again, and the job when Slurm is done with ending its old self.

    That takes some seconds, in which it would end the new one, too. Elsewhere a requeued job waits longer.
    """
    slurm.run("scontrol", "update", f"JobId={job}", "StartTime=now+3600")
    slurm.up()
    until(lambda: not processes(slurm, b"SLURM_JOB_ID="), "the node has ended what ran there")
    time.sleep(10)
    slurm.release(job)


def done_again(steps: int) -> str:
    return f"{steps} steps, done again" if steps else "nothing: a checkpoint had just been written"


def started(slurm: Slurm, job: str) -> float:
    """When the job started, the last time; in whole seconds."""
    told = slurm.run("squeue", "--noheader", f"--jobs={job}", "--format=%S").strip()
    return datetime.fromisoformat(told).timestamp()


def test_a_node_dies_and_comes_back(victim: Victim, fault_row: FaultRow) -> None:
    slurm = victim.slurm
    victim.train()
    job, node = victim.experiment.job(), victim.node()
    slurm.run("scontrol", "update", f"NodeName={OTHER[node]}", "State=DRAIN", "Reason=test")
    moment = power_off(slurm, node)
    node_down(slurm, node)
    assert victim.trained_at(moment)
    until(lambda: states(slurm, job) == ["NODE_FAIL", "PENDING"], "NODE_FAIL")
    found = victim.status()
    assert found["state"] == "requeued"
    assert found["reason"].startswith("its node failed")
    bring_back(slurm, job)
    until(lambda: victim.step(2) > 0, "a second attempt")
    lost = victim.finish()
    assert victim.status()["attempts"] == 2
    until(lambda: states(slurm, job) == ["NODE_FAIL", "COMPLETED"], "COMPLETED in accounting")
    fault_row(
        "the node dies (its daemons and the run with it) and comes back",
        "Slurm calls it `NODE_FAIL` and requeues the job; a second attempt goes on from the last checkpoint",
        done_again(lost),
    )


def test_an_attempt_that_outlives_its_node_s_failure_stops_when_the_next_one_begins(
    victim: Victim, fault_row: FaultRow
) -> None:
    slurm = victim.slurm
    victim.train()
    job, node, worker = victim.experiment.job(), victim.node(), victim.pid()
    moment = slurm.kill(f"slurmd-{node}")
    node_down(slurm, node)
    goal = victim.step(1) + 10
    until(lambda: states(slurm, job)[:1] == ["NODE_FAIL"], "NODE_FAIL")
    until(lambda: victim.step(1) >= goal, "the first attempt, whose job is in the queue, goes on")
    until(lambda: victim.step(2) > 0, "a second attempt")
    assert victim.node() == OTHER[node]
    until(lambda: not lives(worker), "the first attempt has ended")
    last = victim.experiment.records(1)[-1]
    assert last["kind"] in ("window", "checkpoint", "evaluation", "event")
    assert last.get("event") in (None, "learning_rate")
    assert last["time"] > started(slurm, job) > moment - 1  # Slurm tells whole seconds
    lost = victim.finish()
    assert victim.experiment.records(1)[-1] == last
    assert victim.status()["attempts"] == 2
    until(lambda: states(slurm, job) == ["NODE_FAIL", "COMPLETED"], "COMPLETED in accounting")
    fault_row(
        "the node counts as failed, but the run there lives on and writes, while Slurm starts it elsewhere",
        "the older attempt sees the newer one's journal and stops without another word; what it did after "
        "the checkpoint that the newer one took up does not count",
        done_again(lost),
    )


def test_a_node_that_counts_as_failed_comes_back_with_the_run_still_at_work(
    victim: Victim, fault_row: FaultRow
) -> None:
    slurm = victim.slurm
    victim.train()
    job, node, worker = victim.experiment.job(), victim.node(), victim.pid()
    slurm.run("scontrol", "update", f"NodeName={OTHER[node]}", "State=DRAIN", "Reason=test")
    slurm.kill(f"slurmd-{node}")
    node_down(slurm, node)
    until(lambda: states(slurm, job) == ["NODE_FAIL", "PENDING"], "NODE_FAIL")
    victim.trains(5)
    bring_back(slurm, job)
    assert not lives(worker)
    until(lambda: victim.step(2) > 0, "a second attempt")
    lost = victim.finish()
    assert victim.status()["attempts"] == 2
    until(lambda: states(slurm, job) == ["NODE_FAIL", "COMPLETED"], "COMPLETED in accounting")
    fault_row(
        "the node counts as failed and comes back with the run still at work",
        "Slurm ends the run that it finds there and starts it anew, once, from its last checkpoint",
        done_again(lost),
    )


IS_ASKED = "the run goes on; `status` and `submit` work meanwhile"
DAEMONS = {
    "slurmdbd": IS_ASKED,
    "mariadbd": IS_ASKED,
    "slurmd": IS_ASKED,
    "munged": "the run goes on",
    "slurmctld": "the run goes on; meanwhile `status` says that Slurm does not answer, and `submit` refuses",
}


def test_a_run_goes_on_while_daemons_are_killed_and_restarted(victim: Victim, fault_row: FaultRow) -> None:
    slurm = victim.slurm
    victim.train()
    worker, job, node = victim.pid(), victim.experiment.job(), victim.node()
    for daemon, happened in DAEMONS.items():
        if daemon == "slurmctld":
            slurm.wait_until_saved(job)
        moment = slurm.kill(f"slurmd-{node}" if daemon == "slurmd" else daemon)
        assert victim.trained_at(moment)
        victim.trains(20)
        if happened == IS_ASKED:
            assert victim.status()["state"] == "running"
            assert "sent 0 runs" in victim.experiment.submit()
        elif daemon == "slurmctld":
            assert "Unable to contact slurm controller" in victim.status()["reason"]
            assert victim.experiment.call("submit", "spec.yaml").returncode == 3
        slurm.up()
        assert victim.status()["state"] == "running"
        fault_row(f"{daemon} is killed and restarted", happened, "nothing")
    lost = victim.finish()
    assert (victim.status()["attempts"], victim.pid(), lost) == (1, worker, 0)
    until(lambda: states(slurm, job) == ["COMPLETED"], "COMPLETED in accounting")


def test_a_run_that_ends_while_slurmctld_is_dead_is_not_run_again(
    victim: Victim, fault_row: FaultRow
) -> None:
    slurm = victim.slurm
    victim.train_without_controller()
    victim.say("hurry")
    until(lambda: victim.experiment.attempts()[0].end == "completed", "its end")
    assert victim.status()["state"] == "completed"
    slurm.up()
    job = victim.experiment.job()
    until(lambda: states(slurm, job)[-1] not in ("RUNNING", "PENDING", "COMPLETING"), "the job has ended")
    assert victim.finish() == 0
    assert victim.status()["attempts"] == 1
    fault_row(
        "slurmctld is dead while the run comes to its end",
        "its end stands in the journal; it is not run again",
        "nothing",
    )


def test_a_run_that_crashes_while_slurmctld_is_dead_waits_to_be_requeued(
    victim: Victim, fault_row: FaultRow
) -> None:
    slurm = victim.slurm
    victim.train_without_controller()
    victim.say("crash")
    until(lambda: "scontrol failed" in victim.log(), "the worker has met the dead controller")
    slurm.up()
    (found,) = victim.experiment.wait_for("requeued")
    assert "a crash was asked for" in found["reason"]
    lost = victim.finish()
    assert victim.status()["attempts"] == 2
    fault_row(
        "the run crashes while slurmctld is dead",
        "it asks to be requeued until Slurm answers, and goes on from its last checkpoint",
        done_again(lost),
    )


def preempt(victim: Victim) -> str:
    """Have an urgent job preempt the run, which has been told but is in a long step; return the job."""
    victim.train()
    victim.say("wait")
    asked = ("--partition=urgent", "--nodes=2", "--gres=gpu:a100:4", "--output=/dev/null", "--begin=now+30")
    urgent = victim.slurm.run("sbatch", "--parsable", *asked, "--wrap", "sleep 300").strip()
    victim.slurm.wait_until_saved(urgent)
    until(lambda: "CANCELLED AT" in victim.log(), "the signal has reached the step")
    return urgent


def test_a_preempted_run_finds_slurmctld_dead(victim: Victim, fault_row: FaultRow) -> None:
    """Restarted, slurmctld does not know that it has preempted the run, and does so again."""
    slurm = victim.slurm
    urgent = preempt(victim)
    slurm.kill("slurmctld")
    victim.unsay("wait")
    until(lambda: "scontrol did not answer" in victim.log(), "the worker has met the dead controller")
    slurm.up()
    (found,) = victim.experiment.wait_for("requeued")
    assert "asked to stop" in found["reason"]
    slurm.run("scancel", urgent)
    lost = victim.finish()
    assert (victim.status()["attempts"], lost) == (2, 0)
    fault_row(
        "slurmctld is killed while it preempts the run",
        "the run writes its checkpoint and asks until Slurm answers; preempted again, it is requeued",
        "nothing",
    )


WAITS = """
from alphagrid.jobs.worker import requeue
requeue.PATIENCE, requeue.FORGOTTEN_SECONDS = 0.2, 1
requeue.wait_to_be_killed(before_limit=False)
"""


def test_a_job_that_stopped_for_a_preemption_which_nobody_remembers_comes_back(slurm: Slurm) -> None:
    job = slurm.run("sbatch", "--parsable", "--requeue", "--output=/dev/null", "--wrap", "sleep 300").strip()
    show = ("squeue", "--noheader", f"--jobs={job}", "--format=%T %r")
    until(lambda: slurm.run(*show).startswith("RUNNING"), "running")
    environment = {**os.environ, "SUBMITIT_EXECUTOR": "slurm", "SLURM_JOB_ID": job}
    worker = subprocess.Popen([sys.executable, "-c", WAITS], env=environment)
    try:
        until(lambda: slurm.run(*show).strip() == "PENDING BeginTime", "requeued")
    finally:
        worker.kill()
        worker.wait()
        slurm.run("scancel", job)


def test_a_worker_is_killed(victim: Victim, fault_row: FaultRow) -> None:
    """As the kernel does when memory runs out; Slurm does not requeue such a job."""
    victim.train()
    os.kill(victim.pid(), signal.SIGKILL)
    moment = time.time()
    assert victim.trained_at(moment)
    job = victim.experiment.job()
    until(lambda: states(victim.slurm, job) == ["FAILED"], "FAILED")
    (found,) = victim.experiment.wait_for("unknown")
    assert found["attempts"] == 1
    assert "its job failed (exit code 9:0)" in found["reason"]
    assert "sent 1 run" in victim.experiment.submit()
    lost = victim.finish(jobs=2)
    assert victim.status()["attempts"] == 2
    fault_row(
        "the run's process is killed (SIGKILL, as when memory runs out)",
        "the job ends as `FAILED`, `status` says so; the next `submit` continues the run",
        done_again(lost),
    )


def test_the_disk_is_full(victim: Victim, fault_row: FaultRow) -> None:
    root = victim.experiment.files.path.parent
    root.mkdir()
    with mounted(root, size="16m"):
        victim.train()
        ballast = root / "ballast"
        with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        moment = time.time()
        job = victim.experiment.job()
        # FAILED if not even submitit's record of its end had room
        until(lambda: states(victim.slurm, job) in (["COMPLETED"], ["FAILED"]), "the job has ended")
        assert victim.trained_at(moment)
        ballast.unlink()
        (found,) = victim.experiment.wait_for("interrupted")
        assert "disk full" in found["reason"]
        assert "sent 1 run" in victim.experiment.submit()
        lost = victim.finish(jobs=2)
        fault_row(
            "the disk is full",
            "the run stops cleanly, `interrupted: disk full`; with space, the next `submit` continues it",
            done_again(lost),
        )


@contextlib.contextmanager
def mounted(folder: Path, size: str) -> Iterator[None]:
    """A small disk of its own at a folder."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
