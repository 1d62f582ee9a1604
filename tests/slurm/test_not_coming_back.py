"""Cancelled, failing the same way again, never getting anywhere, held: runs that must not come back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from alphagrid.jobs.worker import requeue

from tests.slurm.paused import by_moment
from tests.slurm.waiting import until

if TYPE_CHECKING:
    from tests.slurm.conftest import Experiment, Slurm

pytestmark = pytest.mark.slurm

TROUBLED = """
import os, signal
from alphagrid.trainer.workloads.least_squares import LeastSquares
from alphagrid.trainer.workloads.options import LeastSquaresOptions

class Options(LeastSquaresOptions):
    trouble: str = "none"

class Troubled(LeastSquares):
    Options = Options

    def model(self):
        if self.options.trouble == "crash":
            raise RuntimeError("boom")
        if self.options.trouble == "limit":
            os.kill(os.getpid(), signal.SIGUSR2)  # what Slurm sends before the time limit
        if self.options.trouble == "death":
            os.kill(os.getpid(), signal.SIGSEGV)
        return super().model()
"""

Make = Callable[..., "Experiment"]


@pytest.fixture
def troubled(experiment: Make) -> Make:
    """Make an experiment with a run for each of the troubles given."""

    def make(*troubles: str, steps: int = 60) -> Experiment:
        base = {"workload": {"name": "tasks:Troubled", "batch_size": 16}}
        return experiment(steps, TROUBLED, base=base, grid={"workload.trouble": list(troubles)})

    return make


def by_trouble(lab: Experiment) -> dict[str, dict[str, Any]]:
    return {run["params"]["workload.trouble"]: run for run in lab.runs()}


def stays(slurm: Slurm, lab: Experiment, state: str) -> None:
    """Whatever Slurm may still do, nothing of the experiment is in the queue, and `submit` sends nothing."""
    until(lambda: not slurm.queue_of(lab.name))
    assert "sent 0 runs" in lab.submit()
    assert {run["state"] for run in lab.runs()} == {state}


@pytest.mark.usefixtures("partition_as_before")
def test_cancelled_at_any_time_around_a_preemption_a_run_does_not_come_back(
    slurm: Slurm, pausing: Make, moments: Path, fault_row: Any
) -> None:
    """`cancel` and `scancel`, of a run that is being preempted, and of one that is back in the queue."""
    slurm.run("scontrol", "update", "PartitionName=a100", "GraceTime=600")  # requeueing takes some of it
    stubborn = ("training-forever", "alpha-forever")  # in their grace: Slurm has asked, they have not heard
    lab = pausing(*stubborn, "training", "evaluation")
    lab.submit()
    until(lambda: len(list(moments.iterdir())) == 4)
    runs = by_moment(lab)
    jobs = {moment: lab.jobs()[run_id] for moment, run_id in runs.items()}
    with slurm.preempting():
        for moment in ("training", "evaluation"):
            until(lambda moment=moment: slurm.state_of(jobs[moment]) == "PENDING")  # type: ignore[misc]
        assert [slurm.state_of(jobs[moment]) for moment in stubborn] == ["RUNNING", "RUNNING"]
        lab.tell("cancel", lab.name, runs["training-forever"], runs["training"])
        slurm.run("scancel", jobs["alpha-forever"], jobs["evaluation"])
        lab.wait_for("cancelled")
    stays(slurm, lab, "cancelled")
    fault_row("`cancel` or `scancel` while it is preempted", "`cancelled`, does not come back", "nothing")
    fault_row("`cancel` or `scancel` while it is requeued", "`cancelled`, does not come back", "nothing")


def test_a_running_run_that_is_cancelled_says_so_and_only_retry_brings_it_back(
    slurm: Slurm, pausing: Make, moments: Path, fault_row: Any
) -> None:
    lab = pausing("training", "alpha")
    lab.submit()
    until(lambda: len(list(moments.iterdir())) == 2)
    runs = by_moment(lab)
    slurm.run("scancel", lab.jobs()[runs["training"]])
    lab.tell("cancel", lab.name, runs["alpha"])
    lab.wait_for("cancelled")
    stays(slurm, lab, "cancelled")
    last = {moment: lab.records(1, run_id)[-1] for moment, run_id in runs.items()}
    assert {moment: (one["kind"], one["reason"]) for moment, one in last.items()} == {
        "training": ("end", "cancelled with scancel"),
        "alpha": ("end", "cancelled by the user"),
    }
    lab.tell("retry", lab.name, runs["training"])
    found = lab.wait(lambda told: any(run["state"] == "completed" for run in told))
    (retried,) = (run for run in found if run["state"] == "completed")
    assert retried["attempts"] == 2
    assert lab.records(2, runs["training"])[0]["resume_step"] == last["training"]["step"]
    fault_row("`scancel` by hand", "checkpoint, `cancelled`; only `retry` brings it back", "nothing")


def test_scancel_between_the_answer_and_the_requeue_wins(
    slurm: Slurm, pausing: Make, moments: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that has asked why it was stopped may be cancelled before it asks to be requeued."""
    lab = pausing("training-forever")
    lab.submit()
    until(lambda: list(moments.iterdir()))
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    monkeypatch.setenv("SLURM_JOB_ID", lab.job())
    slurm.run("scancel", lab.job())
    requeue.come_back()
    lab.wait_for("cancelled")
    stays(slurm, lab, "cancelled")


def test_what_fails_twice_the_same_way_has_failed_and_is_not_requeued_again(
    slurm: Slurm, troubled: Make, fault_row: Any
) -> None:
    lab = troubled("crash", "limit")
    lab.submit()
    lab.wait_for("requeued")
    slurm.release(*lab.jobs().values())
    lab.wait_for("failed")
    runs = by_trouble(lab)
    assert {trouble: run["reason"] for trouble, run in runs.items()} == {
        "crash": "2 attempts without a new checkpoint; the last: RuntimeError: boom",
        "limit": "2 time limits without a new checkpoint; it needs more `hours`",
    }
    until(lambda: not slurm.run("squeue", "--noheader").strip())
    assert {run["attempts"] for run in runs.values()} == {2}
    fault_row("fails the same way twice", "requeued once, then `failed` with the reason", "the run")
    fault_row(
        "two time limits without a new checkpoint", "requeued once, then `failed`, asks for more `hours`",
        "the run",
    )  # fmt: skip


@pytest.fixture
def failing_prolog(slurm: Slurm) -> Iterator[Path]:
    """Nodes whose prolog fails while this file exists."""
    conf, broken, script = (slurm.state / name for name in ("slurm.conf", "broken", "prolog"))
    script.write_text(f"#!/bin/sh\n[ ! -e {broken} ]\n")
    script.chmod(0o755)
    before = conf.read_text()
    conf.write_text(f"{before}Prolog={script}\n")
    slurm.run("scontrol", "reconfigure")
    broken.touch()
    yield broken
    broken.unlink(missing_ok=True)
    conf.write_text(before)
    slurm.run("scontrol", "reconfigure")
    if is_drained(slurm):  # the test did not end
        slurm.run("scontrol", "update", "NodeName=node1", "State=RESUME")


def is_drained(slurm: Slurm) -> bool:
    return "drain" in slurm.run("sinfo", "--noheader", "--nodes=node1", "--format=%T")


def test_held_runs_are_named_and_retry_releases_them(slurm: Slurm, troubled: Make, fault_row: Any) -> None:
    """Requeued into being held, and held after that by an administrator."""
    lab = troubled("none", "none-too", steps=1_000_000)
    lab.submit()
    lab.wait(lambda told: all(run["state"] == "running" and run["step"] > 0 for run in told))
    jobs = list(lab.jobs().values())
    for job in jobs:
        slurm.run("scontrol", "requeuehold", job)
    until(lambda: all(slurm.state_of(job) == "PENDING" for job in jobs))
    slurm.release(*jobs)  # from BeginTime, not from being held
    slurm.run("scontrol", "hold", jobs[1])
    lab.wait(lambda told: all(run["state"] == "requeued" and "held" in run["reason"] for run in told))
    lab.tell("retry", lab.name, "--all")
    lab.wait(lambda told: all(run["state"] == "running" and run["attempts"] == 2 for run in told))
    fault_row("`scontrol requeuehold`", "named in `status`, released by `retry`", "nothing")


def test_a_run_held_because_its_node_could_not_start_it_is_named_and_retry_releases_it(
    slurm: Slurm, troubled: Make, failing_prolog: Path, fault_row: Any
) -> None:
    lab = troubled("none")
    lab.submit()
    (held,) = lab.wait(lambda told: "held" in (told[0]["reason"] or ""))
    assert held["state"] == "pending"
    assert held["reason"].startswith("could not be started on its node, then held; `alphagrid retry`")
    until(lambda: is_drained(slurm), "the node is drained, a moment after the job is held")
    failing_prolog.unlink()
    slurm.run("scontrol", "update", "NodeName=node1", "State=RESUME")
    lab.tell("retry", lab.name, "--all")
    slurm.release(lab.job())
    lab.wait_for("completed")
    fault_row("`launch_failed_requeued_held`", "named in `status`, released by `retry`", "nothing")
