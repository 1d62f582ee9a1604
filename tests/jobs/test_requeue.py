"""Why Slurm stopped a job, read off what a real `scontrol show job` (22.05.8) printed at that moment."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from alphagrid.jobs.runs.attempts import Attempt, without_progress
from alphagrid.jobs.worker import requeue
from alphagrid.jobs.worker.requeue import Cause, cause

RUNNING = "JobState=RUNNING Reason=None Dependency=(null) Requeue=1 Restarts=0 PreemptTime=None"
PREEMPTED = RUNNING.replace("PreemptTime=None", "PreemptTime=2026-11-24T18:14:10")
CANCELLED = "JobState=COMPLETING Reason=None Requeue=1 Restarts=0 ExitCode=0:15 PreemptTime=None"
SLURM: dict[str, Cause] = {
    PREEMPTED: "preempted",
    PREEMPTED.replace("RUNNING", "SIGNALING"): "preempted",
    RUNNING: "unclear",
    CANCELLED: "cancelled",
    CANCELLED.replace("Reason=None", "Reason=TimeLimit"): "unclear",
    CANCELLED.replace("Requeue=1", "Requeue=0"): "unclear",  # a node's failure may look like this
    CANCELLED.replace("PreemptTime=None", "PreemptTime=2026-11-24T18:14:10"): "unclear",  # PreemptMode=CANCEL
    "JobState=COMPLETING Reason=None Requeue=1 Restarts=1 ExitCode=0:0": "requeued",
    "JobState=PENDING Reason=BeginTime Requeue=1 Restarts=1": "requeued",
    "JobState=RUNNING Requeue=1 Restarts=1 PreemptTime=2026-11-24T18:14:10": "requeued",  # a newer attempt's
    "JobState=SOMETHING_NEW Restarts=0": "unclear",
    "": "unclear",
}


@pytest.mark.parametrize(("shown", "expected"), SLURM.items())
def test_the_cause_is_read_off_and_in_doubt_unclear(shown: str, expected: Cause) -> None:
    assert cause(shown, restarted=0) == expected


def test_restarts_are_counted_from_those_of_this_attempt() -> None:
    assert cause(PREEMPTED.replace("Restarts=0", "Restarts=3"), restarted=3) == "preempted"


def test_the_signal_before_the_limit_may_mean_a_preemption() -> None:
    assert cause(RUNNING, restarted=0, before_limit=True) == "time limit"
    assert cause(PREEMPTED, restarted=0, before_limit=True) == "preempted"


def test_slurm_is_not_waited_for_until_the_grace_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scontrol = tmp_path / "scontrol"
    scontrol.write_text("#!/bin/sh\nexec sleep 30\n")
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(requeue, "ANSWER_SECONDS", 0.5)
    began = time.monotonic()
    assert requeue.why_stopped(before_limit=False) == "unclear"
    assert time.monotonic() - began < 25


def attempt(number: int, *, timed_out: bool, end: str | None = None) -> Attempt:
    job = {"cluster": "slurm", "job_id": "7"}
    return Attempt(
        number, Path(), "s1", began=True, job=job, event="interrupted", timed_out=timed_out, end=end,
        asked_to_stop=True,
    )  # fmt: skip


def test_time_limits_without_a_new_checkpoint_count_and_preemptions_do_not() -> None:
    limits = [attempt(1, timed_out=True), attempt(2, timed_out=True)]
    preemptions = [attempt(1, timed_out=False), attempt(2, timed_out=False)]
    assert without_progress(limits, "s1", made_checkpoint=lambda one: False, preempts=True) == limits
    assert without_progress(limits, "s1", made_checkpoint=lambda one: True, preempts=True) == []
    assert without_progress(limits, "s2", made_checkpoint=lambda one: False, preempts=True) == []
    assert without_progress(preemptions, "s1", made_checkpoint=lambda one: False, preempts=True) == []


def test_deaths_before_the_first_record_count_unless_slurm_restarted_their_job() -> None:
    silent = [Attempt(1, Path()), Attempt(2, Path())]
    assert without_progress(silent, "s1", "7", made_checkpoint=lambda one: False, preempts=True) == silent
    assert (
        without_progress(silent, "s1", "7", restarts=2, made_checkpoint=lambda one: False, preempts=True)
        == []
    )
    assert (
        without_progress(silent, "s1", "7", restarts=1, made_checkpoint=lambda one: False, preempts=True)
        == silent[:1]
    )


def test_where_set_up_took_scontrol_off_the_path_a_job_does_not_wait_for_an_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in {"SUBMITIT_EXECUTOR": "slurm", "SLURM_JOB_ID": "7", "PATH": "/nonexistent"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(requeue, "PATIENCE", 3600)
    assert not requeue.come_back()
