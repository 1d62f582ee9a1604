"""Whatever Slurm says, or does not say: no run is sent while somebody may have it, and none is given up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.slurm.conftest import FORGETS_A_JOB, LATER, queued
from tests.slurm.waiting import SECONDS, until

if TYPE_CHECKING:
    from tests.slurm.conftest import Experiment, Slurm

pytestmark = pytest.mark.slurm

Make = Callable[..., "Experiment"]
Instead = Callable[[str, str], None]
TWO_LOOKS = 12.0
"""Seconds in which a follower looks at least twice."""

DEAF_ONCE = """
case "$*" in
  *--jobs*) if mkdir {folder}/asked 2>/dev/null; then exit 0; fi ;;
esac
exec {real} "$@"
"""
LATE_TO_HEAR = """
mkdir {folder}/first 2>/dev/null || mkdir {folder}/second 2>/dev/null || exec {real} "$@"
{real} "$@" | sed 's/|CANCELLED[^|]*|/|PENDING|/'
"""
CRASHING = """
import time
from pathlib import Path
from alphagrid.trainer.workloads.least_squares import LeastSquares

class Crashing(LeastSquares):
    def model(self):
        Path("FOLDER/begun").touch()
        while not Path("FOLDER/go").exists():
            time.sleep(0.05)
        raise RuntimeError("boom")
"""


def only(lab: Experiment) -> tuple[str, str]:
    (run,) = lab.runs()
    return run["state"], run["reason"] or ""


def test_a_run_under_a_word_that_nobody_knows_is_not_sent_again(
    slurm: Slurm, experiment: Make, instead_of: Instead
) -> None:
    lab = experiment(10, **LATER)
    lab.submit()
    instead_of("squeue", "{real} \"$@\" | sed 's/|PENDING|/|QUANTUM_FOAM|/'")
    state, reason = only(lab)
    assert (state, "QUANTUM_FOAM" in reason) == ("unknown", True)
    assert "sent 0 runs" in lab.submit()
    assert "sent 0 runs" in lab.tell("retry", lab.name, "--all")
    assert queued(slurm) == [lab.job()]


def test_a_run_that_squeue_leaves_out_once_is_not_sent_again(
    slurm: Slurm, experiment: Make, instead_of: Instead
) -> None:
    """Also one that was requeued, and where there is no accounting to ask."""
    lab = experiment(10**9)
    lab.submit()
    lab.wait(lambda runs: runs[0]["step"] > 100)
    slurm.run("scontrol", "requeue", lab.job())
    lab.wait_for("requeued")
    instead_of("sacct", "echo 'sacct: error: no accounting' >&2; exit 1")
    instead_of("squeue", DEAF_ONCE)
    assert "sent 0 runs" in lab.submit()
    assert queued(slurm) == [lab.job()]
    lab.tell("cancel", lab.name, "--all")


def test_a_run_that_was_cancelled_a_moment_ago_is_not_sent_again(
    slurm: Slurm, experiment: Make, instead_of: Instead
) -> None:
    """Accounting, asked at once, has not heard of it."""
    lab = experiment(10, **LATER)
    lab.submit()
    known = ("sacct", "--noheader", f"--jobs={lab.job()}", "--format=jobid")
    until(lambda: slurm.run(*known).strip(), "accounting has the job")
    slurm.run("scancel", lab.job())
    until(lambda: not queued(slurm), "it has left the queue")
    instead_of("sacct", LATE_TO_HEAR)
    assert "sent 0 runs" in lab.submit()
    assert only(lab) == ("cancelled", "cancelled with scancel")


def test_a_run_that_another_cluster_has_is_not_sent_to_this_one(
    slurm: Slurm,
    slurm_with: Callable[..., Slurm],
    experiment: Make,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    other = slurm_with("--name", "other", "--no-accounting", "--gpus", "1")
    request.addfinalizer(other.clear)
    lab = experiment(10, **LATER)
    lab.submit()
    other.use(monkeypatch)
    state, reason = only(lab)
    assert state == "unknown"
    assert reason == "it was sent to the cluster 'alphagrid', and this machine speaks to the cluster 'other'"
    refused = lab.call("submit", "spec.yaml")
    assert (refused.returncode, "submit from 'alphagrid'" in refused.stderr) == (3, True)
    assert queued(other) == []
    assert queued(slurm) == [lab.job()]
    assert "cancelled 1 run" in lab.tell("cancel", lab.name, "--all")
    assert "sent 1 run" in lab.tell("retry", lab.name, "--all")
    assert queued(other) == [lab.job()]


def test_a_job_of_an_older_submission_leaves_the_run_to_the_newer_one(
    slurm: Slurm, experiment: Make, instead_of: Instead, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two jobs have one run if an administrator hides a job for a while, say; the older starts last."""
    lab = experiment(20, **LATER)
    lab.submit()
    older = lab.job()
    path = os.environ["PATH"]
    instead_of("squeue", "exit 0")
    instead_of("sacct", "exit 0")
    instead_of("scontrol", FORGETS_A_JOB.replace("JOB", lab.job()))
    lab.write(20)
    assert "sent 1 run" in lab.submit()
    monkeypatch.setenv("PATH", path)
    lab.wait_for("completed")
    slurm.release(older)
    until(lambda: not queued(slurm), "the older job has come and gone")
    assert only(lab)[0] == "completed"
    assert len(lab.attempts()) == 1


def test_cancel_stops_the_jobs_of_all_submissions(
    slurm: Slurm, experiment: Make, instead_of: Instead, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = experiment(20, **LATER)
    lab.submit()
    path = os.environ["PATH"]
    instead_of("squeue", "exit 0")
    instead_of("sacct", "exit 0")
    instead_of("scontrol", FORGETS_A_JOB.replace("JOB", lab.job()))
    assert "sent 1 run" in lab.submit()
    monkeypatch.setenv("PATH", path)
    assert len(queued(slurm)) == 2
    assert "cancelled 1 run" in lab.tell("cancel", lab.name, "--all")
    until(lambda: not queued(slurm), "both are gone")


def test_a_cancel_that_slurm_did_not_hear_can_be_repeated(mortal: Slurm, experiment: Make) -> None:
    lab = experiment(10**9)
    lab.submit()
    lab.wait(lambda runs: runs[0]["step"] > 100)
    mortal.wait_until_saved(lab.job())
    mortal.kill("slurmctld")
    refused = lab.call("cancel", lab.name, "--all")
    assert refused.returncode == 3
    assert "the runs are marked" in refused.stderr
    assert "cancel again when Slurm answers" in refused.stderr
    mortal.up()
    assert only(lab) == ("cancelled", "still stopping")
    assert "cancelled 1 run" in lab.tell("cancel", lab.name, "--all")
    until(lambda: not queued(mortal), "the job has stopped")
    assert only(lab)[0] == "cancelled"
    assert "1 had ended before" in lab.tell("cancel", lab.name, "--all")


def test_who_follows_runs_goes_on_when_slurm_does_not_answer(
    mortal: Slurm, experiment: Make, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    tasks = CRASHING.replace("FOLDER", str(tmp_path)).replace(
        'raise RuntimeError("boom")', "return super().model()"
    )
    lab = experiment(20, tasks, base={"workload": {"name": "tasks:Crashing", "batch_size": 16}})
    followers = [_start(lab, "submit", "spec.yaml", "--wait")]
    request.addfinalizer(lambda: _kill(followers))
    until((tmp_path / "begun").exists, "the run has begun")
    followers.append(_start(lab, "status", lab.name, "--watch"))
    followers.append(_start(lab, "logs", lab.name, lab.runs()[0]["name"], "--follow"))
    mortal.wait_until_saved(lab.job())
    mortal.kill("slurmctld")
    time.sleep(TWO_LOOKS)
    assert [one.poll() for one in followers] == [None] * 3
    mortal.up()
    (tmp_path / "go").touch()
    assert [one.wait(SECONDS) for one in followers] == [0] * 3
    assert only(lab)[0] == "completed"


def _kill(followers: list[subprocess.Popen[bytes]]) -> None:
    for one in followers:
        one.kill()
        one.wait()


def _start(lab: Experiment, *arguments: str) -> subprocess.Popen[bytes]:
    command = [str(Path(sys.executable).with_name("alphagrid")), *arguments]
    command += ["--root", str(lab.files.path.parent)]
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=lab.folder, start_new_session=True
    )


def test_a_crash_has_failed_where_nothing_is_requeued(slurm: Slurm, experiment: Make, tmp_path: Path) -> None:
    """Because the profile says so; and because Slurm does."""
    (tmp_path / "go").touch()
    base = {"workload": {"name": "tasks:Crashing", "batch_size": 16}}
    lab = experiment(10, CRASHING.replace("FOLDER", str(tmp_path)), base=base, resources={"requeue": False})
    lab.submit()
    lab.wait_for("failed")
    assert only(lab)[1] == "RuntimeError: boom"
    (tmp_path / "go").unlink()
    (tmp_path / "begun").unlink()
    lab = experiment(10, CRASHING.replace("FOLDER", str(tmp_path)), base=base, name="refused")
    lab.submit()
    until((tmp_path / "begun").exists, "it has begun")
    slurm.run("scontrol", "update", f"JobId={lab.job()}", "Requeue=0")
    (tmp_path / "go").touch()
    lab.wait_for("failed")
    assert "Slurm does not put its job back" in only(lab)[1]


def test_retry_releases_only_what_it_is_asked_for_and_says_so(slurm: Slurm, experiment: Make) -> None:
    lab = experiment(10, grid={"optimizer.lr": [0.01, 0.02]}, **LATER)
    lab.submit()
    jobs = [lab.jobs()[run["id"]] for run in lab.runs()]
    for job in jobs:
        slurm.run("scontrol", "hold", job)
    assert "released 1 jobs that were held" in lab.tell("retry", lab.name, lab.runs()[1]["name"])
    held = ["held" in (run["reason"] or "") for run in lab.runs()]
    assert held == [True, False]


def test_a_marker_that_is_damaged_is_named(experiment: Make) -> None:
    lab = experiment(10, **LATER)
    lab.submit()
    (run,) = lab.runs()
    marker = lab.files.run(run["id"]).cancel_marker
    marker.parent.mkdir(exist_ok=True)
    marker.write_text(json.dumps([]))
    done = lab.call("submit", "spec.yaml")
    assert (done.returncode, f"{marker} is damaged" in done.stderr.replace("\n", "")) == (2, True)
    marker.unlink()
