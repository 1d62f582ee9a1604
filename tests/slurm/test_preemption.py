"""Preempted, requeued, suspended, out of time: the run goes on as if nothing had happened."""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from tests.slurm.paused import (
    BASE,
    BITS,
    MOMENTS,
    STEPS,
    TASKS,
    by_moment,
    equal,
    event,
    finish,
    outcome,
    until_there,
)
from tests.slurm.waiting import until

if TYPE_CHECKING:
    from tests.slurm.conftest import Experiment, Slurm

pytestmark = [pytest.mark.slurm, pytest.mark.usefixtures("partition_as_before")]

Make = Callable[..., "Experiment"]
SUSPENDED = 30.0
GENEROUS = "GraceTime=300"
"""For runs that put themselves back into the queue, so that nobody waits for its end."""
IN_THE_SHELL = """\
[ "$SLURM_ARRAY_TASK_ID" != 0 ] || [ -e "$MOMENTS/shell" ] || { touch "$MOMENTS/shell"; sleep 600; }"""
BEFORE_HANDLERS = """
import os, pathlib, time
marker = pathlib.Path(os.environ["MOMENTS"]) / "python"
if os.environ.get("SLURM_ARRAY_TASK_ID") == "1" and "SLURM_STEP_ID" in os.environ and not marker.exists():
    marker.touch()
    time.sleep(600)
"""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Experiment], dict[str, Any]]:
    """What runs of an experiment come to outside Slurm, where nothing disturbs them."""
    found: list[dict[str, Any]] = []

    def run(lab: Experiment) -> dict[str, Any]:
        if not found:
            alone = type(lab)(tmp_path_factory.mktemp("alone"))
            alone.write(STEPS, TASKS, base=BASE)
            alone.submit("--profile", "debug")
            found.append(outcome(alone, alone.run().id))
        return found[0]

    return run


def test_the_comparison_sees_a_single_bit(undisturbed: Any, experiment: Make) -> None:
    whole = undisturbed(experiment(1))
    assert equal(whole, copy.deepcopy(whole))
    for part in BITS[1:]:
        assert not equal(whole, {**whole, part: changed(whole[part])}), part
    for table, rows in enumerate(whole["rows"]):
        other = copy.deepcopy(whole)
        other["rows"][table][-1] = (*rows[-1][:-1], math.nextafter(rows[-1][-1], math.inf))
        assert not equal(whole, other)


def changed(value: Any) -> Any:
    """Return the value with the first number in it changed by a little."""
    if isinstance(value, dict):
        first = next(key for key, item in value.items() if not isinstance(item, dict | list) or item)
        return {**value, first: changed(value[first])}
    if isinstance(value, list | tuple):
        return [changed(value[0]), *value[1:]]
    if isinstance(value, torch.Tensor):
        other = value.clone()
        other.view(-1)[:1] += 1 if other.dtype == torch.uint8 else 1e-6
        return other
    return value + 1 if isinstance(value, int | float) else f"{value}?"


def test_a_run_preempted_at_any_moment_ends_bit_identical(
    slurm: Slurm, pausing: Make, moments: Path, undisturbed: Any, fault_row: Any
) -> None:
    slurm.run("scontrol", "update", "PartitionName=a100", GENEROUS)
    lab = pausing(*MOMENTS, "checkpoint")
    lab.submit()
    until_there(moments, *(f"{name}.0" for name in (*MOMENTS, "checkpoint")))
    with slurm.preempting():
        lab.wait_for("requeued")
    for name, run_id in by_moment(lab).items():
        first = lab.records(1, run_id)
        stop = event(first, "stop_requested")["step"]
        steps = {
            kind: [one["step"] for one in first if one["kind"] == kind]
            for kind in ("alpha", "evaluation", "checkpoint")
        }
        assert event(first, "interrupted")["cause"] == "preempted"
        assert first[-2]["kind"] == "checkpoint"
        assert first[-2]["step"] == stop
        if name in MOMENTS:
            assert stop == MOMENTS[name]
        if name == "alpha":
            assert steps["alpha"][-1] == 32  # of a window from 30 to 34
        if name == "evaluation":
            assert 26 not in steps["evaluation"]
        if name == "checkpoint":
            assert steps["checkpoint"][-2:] == [stop, stop]
    finish(slurm, lab)
    for run in lab.runs():
        assert run["attempts"] == 2
        assert run["superseded"] == 0
        assert equal(outcome(lab, run["id"]), undisturbed(lab)), run["name"]
    for place in ("between steps", "in an α* window", "during an evaluation", "during a checkpoint write"):
        happened = "checkpoint within the grace, requeued, resumed, bit-identical"
        redone = "nothing (the evaluation is done again)" if "evaluation" in place else "nothing"
        fault_row(f"preempted {place}", happened, redone)


def test_a_run_preempted_during_start_up_comes_back(
    slurm: Slurm, pausing: Make, moments: Path, undisturbed: Any, fault_row: Any
) -> None:
    """In its job's shell; in Python, before there are handlers; and after, while the model is built."""
    (moments / "site").mkdir()
    (moments / "site" / "sitecustomize.py").write_text(BEFORE_HANDLERS)
    lab = pausing("shell", "python", "model", env=_environment(moments))
    (lab.folder / "site.yaml").write_text(json.dumps({"extends": "slurm-a100", "setup": [IN_THE_SHELL]}))
    slurm.run("scontrol", "update", "PartitionName=a100", "GraceTime=1")
    lab.submit("--profile", "./site.yaml")
    until_there(moments, "shell", "python", "model.0")
    with slurm.preempting():
        lab.wait_for("requeued", "pending")
        runs = by_moment(lab)
    began = {name: bool(lab.files.run(run_id).journals()) for name, run_id in runs.items()}
    assert began == {"shell": False, "python": False, "model": True}
    stop = event(lab.records(1, runs["model"]), "stop_requested")
    assert stop["step"] == 0
    finish(slurm, lab)
    assert all(equal(outcome(lab, run_id), undisturbed(lab)) for run_id in runs.values())
    for place in ("the job's shell", "Python, before it has handlers", "building the model"):
        fault_row(f"preempted at start-up, in {place}", "requeued, started again", "nothing")


def _environment(moments: Path) -> dict[str, str]:
    return {"MOMENTS": str(moments), "PYTHONPATH": str(moments / "site")}


def test_without_grace_a_run_is_stopped_in_time_or_resumes_from_its_last_checkpoint(
    slurm: Slurm, pausing: Make, moments: Path, undisturbed: Any, fault_row: Any
) -> None:
    slurm.run("scontrol", "update", "PartitionName=a100", "GraceTime=0")
    lab = pausing("training", "training-forever")
    lab.submit()
    until_there(moments, "training.0", "training-forever.0")
    with slurm.preempting():
        lab.wait_for("requeued")
    runs = by_moment(lab)
    stopped, killed = (lab.records(1, runs[name]) for name in ("training", "training-forever"))
    assert event(stopped, "interrupted")["cause"] == "requeued"
    assert not [one for one in killed if one.get("event") in ("stop_requested", "interrupted")]
    finish(slurm, lab)
    last = max(one["step"] for one in killed if one["kind"] == "checkpoint")
    assert lab.records(2, runs["training-forever"])[0]["resume_step"] == last
    assert 0 < last <= 22
    assert all(equal(outcome(lab, run_id), undisturbed(lab)) for run_id in runs.values())
    fault_row(
        "preempted without grace", "checkpoint within KillWait, requeued, resumed, bit-identical", "nothing"
    )
    fault_row(
        "killed by preemption in the middle of a step",
        "requeued, resumed from the last checkpoint, bit-identical",
        f"the step in progress, and those since the last checkpoint (here {22 - last})",
    )


def test_time_limit_requeue_by_hand_and_suspension_leave_no_trace(
    slurm: Slurm, pausing: Make, moments: Path, undisturbed: Any, fault_row: Any
) -> None:
    lab = pausing("training-limit", "training-requeue", "training-resumed", hours=1, signal_seconds=20)
    lab.submit()
    until_there(moments, "training-limit.0", "training-requeue.0", "training-resumed.0")
    runs = by_moment(lab)
    job = {name: lab.jobs()[run_id] for name, run_id in runs.items()}
    limit = minutes_taken(slurm, job["training-limit"]) + 2
    slurm.run("scontrol", "update", f"JobId={job['training-limit']}", f"TimeLimit={limit}")
    slurm.run("scontrol", "suspend", job["training-resumed"])
    slurm.run("scontrol", "requeue", job["training-requeue"])
    time.sleep(SUSPENDED)
    slurm.run("scontrol", "resume", job["training-resumed"])
    lab.wait(lambda told: all(one["state"] in ("completed", "requeued") for one in told))
    why = {name: event(lab.records(1, runs[name]), "interrupted")["cause"] for name in list(runs)[:2]}
    assert why == {"training-limit": "time limit", "training-requeue": "requeued"}
    records = lab.records(1, runs["training-limit"])
    assert event(records, "interrupted")["time"] - records[0]["time"] < 60 * limit
    finish(slurm, lab, *list(runs.values())[:2])
    found = {run["params"]["workload.moment"]: run for run in lab.runs()}
    assert [run["attempts"] for run in found.values()] == [2, 2, 1]
    assert found["training-resumed"]["train_seconds"] < SUSPENDED
    assert all(equal(outcome(lab, run_id), undisturbed(lab)) for run_id in runs.values())
    fault_row("time limit", "checkpoint at the signal before it, requeued, resumed, bit-identical", "nothing")
    fault_row("`scontrol requeue`", "checkpoint within KillWait, resumed, bit-identical", "nothing")
    fault_row("suspended and resumed", "goes on, bit-identical; `train_seconds` does not count it", "nothing")


def minutes_taken(slurm: Slurm, job: str) -> int:
    """How many whole minutes the job has run."""
    *days_and_hours, minutes, _ = slurm.run("squeue", "--noheader", f"--jobs={job}", "--format=%M").split(":")
    assert not days_and_hours
    return int(minutes)


def test_seven_preemptions_in_a_row_leave_no_trace(
    slurm: Slurm, pausing: Make, moments: Path, undisturbed: Any, fault_row: Any
) -> None:
    slurm.run("scontrol", "update", "PartitionName=a100", GENEROUS)
    lab = pausing("attempt-7")
    lab.submit()
    for number in range(7):
        until_there(moments, f"attempt-7.{number}")
        with slurm.preempting():
            until(lambda number=number: lab.attempts()[number].event == "interrupted")  # type: ignore[misc]
            until(lambda: slurm.state_of(lab.job()) == "PENDING", "back in the queue")
        slurm.release(lab.job())
    lab.wait_for("completed")
    attempts = lab.attempts()
    assert len(attempts) == 8
    assert [one.step for one in attempts[:7]] == [2, 4, 6, 8, 10, 12, 14]
    assert equal(outcome(lab, lab.run().id), undisturbed(lab))
    fault_row("preempted seven times in a row", "eight attempts, bit-identical", "nothing")


def test_preempted_by_cancel_the_next_submit_continues_it(
    slurm: Slurm, pausing: Make, moments: Path, undisturbed: Any, fault_row: Any
) -> None:
    slurm.run("scontrol", "update", "PartitionName=a100", "GraceTime=0", "PreemptMode=CANCEL")
    lab = pausing("training")
    lab.submit()
    until_there(moments, "training.0")
    with slurm.preempting():
        (stopped,) = lab.wait(lambda told: "preempted" in (told[0]["reason"] or ""))
    assert stopped["state"] == "interrupted"
    assert "the next submit continues it" in stopped["reason"]
    assert "sent 1 run" in lab.submit()
    lab.wait_for("completed")
    assert [one.step for one in lab.attempts()] == [MOMENTS["training"], STEPS]
    assert equal(outcome(lab, lab.run().id), undisturbed(lab))
    fault_row(
        "preempted by PreemptMode=CANCEL without grace",
        "checkpoint within KillWait, `interrupted`; the next `submit` continues it, bit-identical",
        "nothing",
    )
