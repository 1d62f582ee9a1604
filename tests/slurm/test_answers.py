"""Slurm's answers do not depend on the user's shell, on other jobs, or on a site's scripts and caches."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from alphagrid.errors import SystemRefused
from alphagrid.jobs.schedulers import slurm_states
from alphagrid.jobs.schedulers.slurm_held_jobs import HeldJobs
from alphagrid.slurm import notation, scontrol, squeue
from alphagrid.store import submissions

from tests.slurm.conftest import FORGETS_A_JOB, KILLED_BY_SBATCH, LATER, queued
from tests.slurm.waiting import until

if TYPE_CHECKING:
    from tests.slurm.conftest import Experiment, Slurm

pytestmark = pytest.mark.slurm

Make = Callable[..., "Experiment"]
Instead = Callable[[str, str], None]
MISLEADING = {
    "SQUEUE_STATES": "RUNNING",
    "SQUEUE_PARTITION": "urgent",
    "SQUEUE_USERS": "nobody",
    "SQUEUE_ACCOUNT": "none",
    "SQUEUE_NAMES": "none",
    "SLURM_TIME_FORMAT": "relative",
    "SLURM_BITSTR_LEN": "1",
    "SBATCH_PARTITION": "urgent",
}
OPTIONS_OF_SBATCH = {
    "SBATCH_ARRAY_INX": "0-9",
    "SBATCH_CONSTRAINT": "nothing",
    "SBATCH_EXCLUSIVE": "exclusive",
    "SBATCH_EXPORT": "NONE",
    "SBATCH_GRES": "gpu:a100:4",
    "SBATCH_JOB_NAME": "renamed",
    "SBATCH_NO_REQUEUE": "1",
    "SBATCH_QOS": "none",
    "SBATCH_RESERVATION": "none",
    "SBATCH_ACCOUNT": "none",
    "SBATCH_TIMELIMIT": "1",
    "SBATCH_WAIT": "1",
    "SBATCH_SIGNAL": "KILL@5",
    "SBATCH_DELAY_BOOT": "60",
}
OPTIONS_OF_OTHERS = {
    "SCANCEL_STATE": "RUNNING",
    "SCANCEL_NAME": "none",
    "SCANCEL_PARTITION": "urgent",
    "SCANCEL_USER": "nobody",
    "SCANCEL_ACCOUNT": "none",
    "SCANCEL_QOS": "none",
    "SCANCEL_INTERACTIVE": "1",
    "SCANCEL_WCKEY": "none",
    "SACCT_FORMAT": "jobid",
    "SACCT_LOCAL": "1",
    "SACCT_FEDERATION": "1",
    "SCONTROL_ALL": "1",
    "SQUEUE_FORMAT": "%A",
    "SQUEUE_SORT": "-i",
}
ASKED = (
    "Partition",
    "TimeLimit",
    "Requeue",
    "Features",
    "OverSubscribe",
    "TresPerNode",
    "QOS",
    "Reservation",
    "NumCPUs",
    "ReqNodeList",
    "ArrayTaskId",
    "DelayBoot",
)
"""What `scontrol show job` says of what a job asked for."""


def test_variables_of_the_users_shell_change_no_answer(
    slurm: Slurm, experiment: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = experiment(10, **LATER)
    for name, value in MISLEADING.items():
        monkeypatch.setenv(name, value)
    told = lab.submit()
    assert "SBATCH_PARTITION (profile key: partition)" in told.replace("\n", " ")
    assert "sent 0 runs" in lab.submit()
    for name in MISLEADING:
        monkeypatch.delenv(name)
    assert queued(slurm) == [lab.job()]
    assert slurm.run("squeue", "--noheader", "--format=%P").strip() == "a100"


def asked(slurm: Slurm, lab: Experiment) -> dict[str, str | None]:
    """Return what the one job of an experiment asks for, but for what names its submission."""
    (record,) = notation.records(slurm.run("scontrol", "--oneliner", "show", "job", lab.job()))
    assert record["JobName"] == f"{lab.name}.{record['Comment'].removeprefix('alphagrid:')}"
    return {name: record.get(name) for name in ASKED}


def test_variables_of_sbatch_change_no_job(
    slurm: Slurm, experiment: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = experiment(10, **LATER)
    plain.submit()
    lab = experiment(10, **LATER)
    for name, value in OPTIONS_OF_SBATCH.items():
        monkeypatch.setenv(name, value)
    told = lab.submit().replace("\n", " ")
    for name in OPTIONS_OF_SBATCH:
        monkeypatch.delenv(name)
    for name in ("ACCOUNT", "QOS", "RESERVATION"):
        assert f"SBATCH_{name} (profile key:" in told
    assert asked(slurm, lab) == asked(slurm, plain)
    assert len(queued(slurm)) == 2
    slurm.release(lab.job())
    lab.wait_for("completed")


def test_variables_of_scancel_and_sacct_change_nothing_of_cancel_status_and_retry(
    slurm: Slurm, experiment: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = {**LATER["resources"], "max_array": 1}
    lab = experiment(10, grid={"optimizer.lr": [0.01, 0.02]}, resources=jobs)
    lab.submit()
    with monkeypatch.context() as shell:
        for name, value in OPTIONS_OF_OTHERS.items():
            shell.setenv(name, value)
        assert [run["state"] for run in lab.runs()] == ["pending", "pending"]
        first, second = (run["id"] for run in lab.runs())
        assert "cancelled 1 run" in lab.tell("cancel", lab.name, first)
        until(lambda: lab.runs()[0]["reason"] != "still stopping", "it has stopped")
    assert queued(slurm) == [lab.jobs()[second]]
    slurm.run("scancel", lab.jobs()[second])
    until(lambda: not queued(slurm), "it is cancelled by its user")
    with monkeypatch.context() as shell:
        for name, value in OPTIONS_OF_OTHERS.items():
            shell.setenv(name, value)
        lab.wait(lambda runs: [run["state"] for run in runs] == ["cancelled", "cancelled"])
        assert lab.runs()[1]["reason"] == "cancelled with scancel"  # says accounting
        assert "sent 2 runs" in lab.tell("retry", lab.name, "--all")
        assert "sent 0 runs" in lab.tell("retry", lab.name, "--all")
        assert [run["state"] for run in lab.runs()] == ["pending", "pending"]
    assert sorted(queued(slurm)) == sorted(lab.jobs().values())


@pytest.mark.parametrize("name", ["SLURM_CLUSTERS", "SBATCH_CLUSTERS"])
def test_a_variable_that_names_other_clusters_is_refused(
    slurm: Slurm, experiment: Make, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    lab = experiment(10, **LATER)
    lab.submit()
    with monkeypatch.context() as shell:
        shell.setenv(name, "elsewhere")
        refused = [lab.call("submit", "spec.yaml")]
        assert [run["state"] for run in lab.runs()] == ["pending"]
        lab.tell("cancel", lab.name, "--all")
        refused.append(lab.call("retry", lab.name, "--all"))
    for done in refused:
        assert done.returncode == 2
        assert f"unset {name}" in done.stderr.replace("\n", " ")
    until(lambda: not queued(slurm), "it is cancelled")


@pytest.mark.parametrize("comment", [b"two\nlines", b"7|0|RUNNING", b"\xff\xfe", b"alphagrid:\n||||||||"])
def test_other_jobs_of_the_user_do_not_stop_submit_or_cancel(
    slurm: Slurm, experiment: Make, comment: bytes
) -> None:
    command = [
        b"sbatch",
        b"--parsable",
        b"--hold",
        b"--partition=a100",
        b"--output=/dev/null",
        b"--wrap=true",
    ]
    other = subprocess.run([*command, b"--comment", comment], check=True, capture_output=True).stdout.decode()
    lab = experiment(10, **LATER)
    lab.submit()
    assert "sent 0 runs" in lab.submit()
    assert "cancelled 1 run" in lab.tell("cancel", lab.name, "--all")
    until(lambda: len(queued(slurm)) == 1, "only the other job is left")
    assert queued(slurm) == [other.strip()]


@pytest.mark.parametrize(("name_too", "accounting"), [(False, True), (True, True), (True, False)])
def test_a_job_whose_comment_a_site_rewrites_is_still_the_runs(
    slurm: Slurm, experiment: Make, instead_of: Instead, name_too: bool, accounting: bool
) -> None:
    """Also where it was requeued, which gives it another time of submission."""
    if not accounting:
        instead_of("sacct", "echo 'sacct: error: no accounting' >&2; exit 1")
    lab = experiment(10**9, grid={"optimizer.lr": [0.01, 0.02]})
    lab.submit()
    lab.wait(lambda runs: all(run["step"] > 100 for run in runs))
    jobs = sorted(lab.jobs().values())
    slurm.run("scontrol", "requeue", jobs[0])
    lab.wait(lambda runs: "requeued" in [run["state"] for run in runs])
    for job in jobs:
        slurm.run("scontrol", "update", f"JobId={job}", "Comment=billing: group 7")
        if name_too:
            slurm.run("scontrol", "update", f"JobId={job}", "JobName=renamed")
    assert "; 2 active" in lab.submit()
    assert sorted(queued(slurm)) == jobs
    assert {run["state"] for run in lab.runs()} == {"requeued", "running"}
    lab.tell("cancel", lab.name, "--all")
    until(lambda: not queued(slurm), "both are cancelled")


@pytest.mark.parametrize("runs", [1, 3], ids=["job", "array"])
def test_a_job_that_nobody_recorded_is_found_by_its_name(
    slurm: Slurm, experiment: Make, instead_of: Instead, monkeypatch: pytest.MonkeyPatch, runs: int
) -> None:
    rates = [0.01, 0.02, 0.03][:runs]
    lab, path = experiment(10, grid={"optimizer.lr": rates}, **LATER), os.environ["PATH"]
    instead_of("sbatch", KILLED_BY_SBATCH)
    assert lab.call("submit", "spec.yaml").returncode == -9
    until(lambda: queued(slurm), "the job is in the queue")
    lost = queued(slurm)
    assert len(lost) == runs
    for job in lost:
        slurm.run("scontrol", "update", f"JobId={job}", "Comment=rewritten")
    monkeypatch.setenv("PATH", path)
    assert f"sent {runs} run" in lab.submit()
    until(lambda: sorted(queued(slurm)) == sorted(lab.jobs().values()), "only recorded jobs are left")
    assert not set(lab.jobs().values()) & set(lost)


def test_the_controller_decides_where_squeue_lists_nothing(
    slurm: Slurm, experiment: Make, instead_of: Instead
) -> None:
    """A site may answer squeue from a cache; `sacct` may be absent."""
    lab = experiment(10, grid={"optimizer.lr": [0.01, 0.02]}, **LATER)
    lab.submit()
    instead_of("squeue", "exit 0")
    assert "sent 0 runs" in lab.submit()
    assert {run["state"] for run in lab.runs()} == {"pending"}
    instead_of("sacct", "echo 'sacct: error: no accounting' >&2; exit 1")
    assert "sent 0 runs" in lab.submit()
    assert "sent 0 runs" in lab.tell("retry", lab.name, "--all")
    assert sorted(queued(slurm)) == sorted(lab.jobs().values())


@pytest.mark.parametrize("by", ["submit", "retry"])
def test_a_run_that_only_accounting_believes_in_is_sent_after_ten_minutes_or_by_retry(
    slurm: Slurm, experiment: Make, instead_of: Instead, by: str
) -> None:
    lab = experiment(10, **LATER)
    lab.submit()
    first = lab.job()
    known = ("sacct", "--noheader", f"--jobs={first}", "--format=jobid")
    until(lambda: slurm.run(*known).strip(), "accounting has the job")
    instead_of("squeue", "exit 0")
    instead_of("scontrol", FORGETS_A_JOB.replace("JOB", first))
    assert "; 1 unknown (only accounting says" in lab.submit().replace("\n", " ")
    (run,) = lab.runs()
    assert run["state"] == "unknown"
    assert "PENDING" in run["reason"]
    assert "the controller does not know it" in run["reason"]

    if by == "retry":
        assert "sent 1 run" in lab.tell("retry", lab.name, "--all")
    else:
        (path,) = submissions.submission_files(lab.files)
        manifest = json.loads(path.read_text())
        path.write_text(json.dumps({**manifest, "created": time.time() - 601}))
        assert "sent 1 run" in lab.submit()
    assert lab.job() != first


def test_a_run_that_only_accounting_believes_to_run_is_sent_ten_minutes_after_its_journal_s_last_record(
    slurm: Slurm, experiment: Make, instead_of: Instead, request: pytest.FixtureRequest
) -> None:
    """A runaway record: slurmctld has lost the job, and its accounting never heard of an end."""
    lab = experiment(10**9)
    lab.submit()
    lab.wait(lambda runs: runs[0]["step"] > 100)
    first, worker = lab.job(), int(lab.records()[0]["pid"])
    request.addfinalizer(lambda: os.kill(worker, signal.SIGKILL))
    os.kill(worker, signal.SIGSTOP)  # it writes nothing more
    known = ("sacct", "--noheader", f"--jobs={first}", "--allocations", "--format=state")
    until(lambda: slurm.run(*known).strip() == "RUNNING", "accounting believes that it runs")
    instead_of("squeue", "exit 0")
    instead_of("scontrol", FORGETS_A_JOB.replace("JOB", first))
    (path,) = submissions.submission_files(lab.files)
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps({**manifest, "created": time.time() - 3600}))

    for age in (0, 540):
        os.utime(lab.run().journal(1), (time.time() - age,) * 2)
        assert "; 1 unknown (only accounting says" in lab.submit().replace("\n", " ")
    (run,) = lab.runs()
    assert run["state"] == "unknown"
    assert "RUNNING" in run["reason"]
    assert "the controller does not know it" in run["reason"]
    os.utime(lab.run().journal(1), (time.time() - 601,) * 2)
    assert "sent 1 run" in lab.submit()
    assert lab.job() != first


def test_several_jobs_are_released_or_cancelled_although_one_is_over(
    slurm: Slurm, request: pytest.FixtureRequest
) -> None:
    request.addfinalizer(slurm.clear)
    held = ("sbatch", "--parsable", "--hold", "--partition=a100", "--output=/dev/null", "--wrap=sleep 600")
    over, first, second = (slurm.run(*held).strip() for _ in range(3))
    slurm.run("scancel", over)
    until(lambda: over not in queued(slurm), "one is over")

    def reasons() -> list[str]:
        return [job.reason for job in squeue.jobs(["--me"]) if job.job_id in (first, second)]

    assert reasons() == ["JobHeldUser", "JobHeldUser"]
    scontrol.release([over, "4000000", first, second])
    until(
        lambda: len(found := reasons()) == 2 and set(found) <= {"None", "Priority", "Resources"},
        "two are released",
    )
    scontrol.cancel([over, "4000000", f"{first}", f"{second}_7", second])
    until(lambda: not queued(slurm), "both are cancelled")


def test_a_submission_that_fails_leaves_no_held_job(
    slurm: Slurm, experiment: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk fills up after sbatch has taken the job: nothing would ever release it."""
    from alphagrid.cli import app
    from typer.testing import CliRunner

    held: list[str] = []

    def full(*_: Any) -> list[str]:
        held.extend(queued(slurm))
        raise OSError(28, "No space left on device")

    lab = experiment(10, **LATER)
    monkeypatch.chdir(lab.folder)
    monkeypatch.setattr(HeldJobs, "give", full)
    done = CliRunner().invoke(app, ["submit", "spec.yaml", "--root", str(lab.files.path.parent)])
    assert (done.exit_code, isinstance(done.exception, SystemRefused)) == (3, False), done.output
    assert len(held) == 1  # sbatch has taken it
    assert queued(slurm) == []
    monkeypatch.undo()


def test_a_submit_goes_on_where_squeue_fails(slurm: Slurm, experiment: Make, instead_of: Instead) -> None:
    """The controller itself is asked for other submitters' jobs."""
    lab = experiment(10, **LATER)
    instead_of("squeue", "echo 'slurm_load_jobs error: Socket timed out' >&2; exit 1")
    assert "sent 1 run" in lab.submit()
    assert queued(slurm) == [lab.job()]


def test_jobs_of_many_arrays_are_asked_of_the_controller_at_once(
    slurm: Slurm, experiment: Make, instead_of: Instead, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm_states, "MAX_CALLS", 1)
    lab = experiment(
        10, grid={"optimizer.lr": [0.01, 0.02]}, resources={"max_array": 1, **LATER["resources"]}
    )
    lab.submit()
    instead_of("squeue", "exit 0")
    instead_of("scontrol", 'echo "$*" >> {folder}/asked; exec {real} "$@"')
    assert [run["state"] for run in lab.runs()] == ["pending", "pending"]
    asked = (lab.folder.parent / "instead" / "asked").read_text()
    assert asked.count("show job") == 1


def test_the_last_pending_task_of_an_array_is_cancelled_with_scancel(slurm: Slurm, experiment: Make) -> None:
    lab = experiment(10, grid={"optimizer.lr": [0.01, 0.02]}, **LATER)
    lab.submit()
    first, second = (run["id"] for run in lab.runs())
    lab.tell("cancel", lab.name, first)
    slurm.run("scancel", lab.jobs()[second])
    until(lambda: not queued(slurm), "it is cancelled by its user")
    lab.wait(lambda runs: [run["state"] for run in runs] == ["cancelled", "cancelled"], seconds=60)
    assert "sent 0 runs" in lab.submit()
