"""What status, logs, cancel and retry say of runs on a real Slurm, and what they ask it."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from alphagrid.store import submissions

from tests.slurm.conftest import FORGETS_A_JOB, LATER
from tests.slurm.waiting import SECONDS, until

pytestmark = pytest.mark.slurm


@pytest.fixture
def calls(tmp_path: Path, slurm: Any, instead_of: Callable[[str, str], None]) -> Callable[[], Counter[str]]:
    """Count the calls of squeue and sacct since the last count; they pass through to Slurm's own."""
    log = tmp_path / "calls"
    for command in ("squeue", "sacct"):
        instead_of(command, f'echo {command} >> {shlex.quote(str(log))}; exec {{real}} "$@"')

    def count() -> Counter[str]:
        found = Counter(log.read_text().split()) if log.exists() else Counter[str]()
        log.unlink(missing_ok=True)
        return found

    return count


def states(lab: Any) -> Counter[str]:
    return Counter(run["state"] for run in lab.runs())


def begins_later(run: dict[str, Any]) -> bool:
    """Whether Slurm says so; a job that was sent a moment ago has no reason yet."""
    return "may not start before" in (run["reason"] or "")


def array(lab: Any) -> str:
    """The array, or job, of the newest submission."""
    newest = submissions.read_all(lab.files)[-1]
    (number,) = {job.job_id.split("_")[0] for job in newest.jobs.values()}
    return number


def test_one_question_each_to_squeue_and_sacct_for_all_runs_of_all_experiments(
    slurm: Any, experiment: Any, calls: Callable[[], Counter[str]]
) -> None:
    lab = experiment(10, seeds=[0, 1, 2], **LATER)
    lab.submit()
    cancelled = array(lab)
    lab.write(10, seeds=[0, 1, 2, 3, 4], **LATER)  # a second array
    lab.submit()
    lab.write(10, seeds=[0, 1, 2, 3, 4, 5], **LATER)  # and a single job
    lab.submit()
    lab.wait(lambda runs: all(begins_later(run) for run in runs))
    calls()
    assert {run["state"] for run in lab.runs()} == {"pending"}
    assert calls() == {"squeue": 1}  # nothing is left to ask sacct

    slurm.run("scancel", cancelled)
    lab.wait(lambda runs: sum(run["state"] == "cancelled" for run in runs) == 3)
    calls()
    runs = lab.runs()
    assert calls() == {"squeue": 1, "sacct": 1}
    assert Counter((run["state"], run["reason"]) for run in runs)["cancelled", "cancelled with scancel"] == 3

    other = lab.folder / "runs" / "another"
    shutil.copytree(lab.files.path, other)  # the same jobs, so as many questions as for two experiments
    said = lab.call("status").stdout
    assert said.count("3 pending, 3 cancelled") == 2
    assert calls() == {"squeue": 1, "sacct": 1}


def test_what_scancel_ended_stays_so_until_it_is_retried(slurm: Any, experiment: Any) -> None:
    lab = experiment(10, seeds=[0, 1], **LATER)
    lab.submit()
    slurm.run("scancel", array(lab))
    lab.wait_for("cancelled")
    assert "2 cancelled" in lab.submit()
    assert states(lab) == {"cancelled": 2}
    assert "cancelled 2 runs" in lab.tell("cancel", lab.name, "--all")  # now whatever accounting forgets
    assert "2 had ended before" in lab.tell("cancel", lab.name, "--all")
    assert "sent 2 runs" in lab.tell("retry", lab.name, "cancelled")
    assert states(lab) == {"pending": 2}
    assert "cancelled 2 runs" in lab.tell("cancel", lab.name, "--all")
    assert states(lab) == {"cancelled": 2}


def test_without_accounting_status_says_so_once_and_goes_by_the_journals(
    slurm: Any, experiment: Any, instead_of: Callable[[str, str], None]
) -> None:
    lab = experiment(10, seeds=[0, 1], **LATER)
    lab.submit()
    slurm.run("scancel", array(lab))
    lab.wait_for("cancelled")
    instead_of("sacct", "echo 'sacct: error: slurmdbd: Connection refused' >&2; exit 1")
    done = lab.call("status", lab.name)
    assert done.returncode == 0
    assert done.stdout.count("Connection refused") == 1
    assert states(lab) == {"cancelled": 2}  # the controller remembers for some minutes
    instead_of("scontrol", FORGETS_A_JOB.replace("JOB", array(lab)))
    assert states(lab) == {"unknown": 2}


def test_without_slurms_commands_status_says_whom_it_could_not_ask(
    experiment: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = experiment(10, seeds=[0, 1], **LATER)
    lab.submit()
    with monkeypatch.context() as context:
        context.setenv("PATH", "/nonexistent")
        runs = lab.runs()
        assert lab.call("status", lab.name).returncode == 0
    assert {run["state"] for run in runs} == {"unknown"}
    assert {run["reason"] for run in runs} == {"Slurm could not be asked (this machine has no squeue)"}


def test_a_job_that_another_one_took_the_number_of_is_not_taken_for_ours(
    mortal: Any, experiment: Any
) -> None:
    """Slurm starts with a fresh state and counts from one again, while its accounting remembers."""
    lab = experiment(10, **LATER)
    lab.submit()
    ours = lab.job()
    mortal.kill("slurmctld")
    shutil.rmtree(mortal.state / "controller")
    (mortal.state / "controller").mkdir()
    mortal.up()

    command = ("sbatch", "--parsable", "--partition=a100", "--begin=now+1hour", "--output=/dev/null")
    numbers = iter(lambda: mortal.run(*command, "--comment=another", "--wrap=true").strip(), None)
    theirs = next(number for number in numbers if int(number) >= int(ours))
    assert theirs == ours
    (run,) = lab.runs()
    assert run["state"] == "unknown"
    assert "cancelled 1 run" in lab.tell("cancel", lab.name, "--all")
    assert mortal.run("squeue", "--noheader", "--jobs", theirs, "--format=%T").strip() == "PENDING"
    mortal.run("scancel", theirs)
    said = ("sacct", "--noheader", "--parsable2", "--jobs", ours, "--format=State")
    until(lambda: "CANCELLED" in mortal.run(*said), "CANCELLED in accounting")
    (run,) = lab.runs()
    assert run["state"] == "cancelled"
    assert "sent 1 run" in lab.tell("retry", lab.name, "--all")
    assert states(lab) == {"pending": 1}


def test_a_run_whose_process_died_is_lost_with_the_reason_and_continued(slurm: Any, experiment: Any) -> None:
    lab = experiment(1_000_000, resources={"requeue": False})
    lab.submit()
    lab.wait(lambda runs: runs[0]["state"] == "running" and runs[0]["step"] > 100)
    (start,) = [record for record in lab.records() if record["kind"] == "start"]
    os.kill(start["pid"], 9)
    (run,) = lab.wait(lambda runs: (runs[0]["reason"] or "").startswith("its job failed (exit code "))
    assert run["state"] == "unknown"
    assert "the next submit continues it" in run["reason"]
    assert "sent 1 run" in lab.submit()
    lab.tell("cancel", lab.name, "--all")


def test_logs_follow_a_run_across_a_requeue_to_its_end(slurm: Any, experiment: Any) -> None:
    lab = experiment(1_000_000, **LATER)
    lab.submit()
    (waiting,) = lab.wait(lambda runs: begins_later(runs[0]))
    done = lab.call("logs", lab.name, waiting["name"])
    assert done.returncode == 2
    assert "may not start before" in done.stderr

    with followed(lab) as follower:
        follower.until("pending (may not start before")
        job = lab.job()
        slurm.release(job)
        follower.until("attempt 1 of")
        lab.wait(lambda runs: runs[0]["step"] > 100)
        slurm.run("scontrol", "requeue", job)
        follower.until("requeued (")
        slurm.release(job)
        follower.until("attempt 2 of")
        lab.tell("cancel", lab.name, "--all")
        assert follower.process.wait(SECONDS) == 0
    assert follower.said.count("pending (may not start before") == 1


class followed:
    """`alphagrid logs -f` of the one run: what it says on both streams, from a file."""

    def __init__(self, lab: Any) -> None:
        self.path: Path = lab.folder / "followed"
        command = [str(Path(sys.executable).with_name("alphagrid")), "logs", lab.name, lab.runs()[0]["name"]]
        command += ["--follow", "--root", str(lab.files.path.parent)]
        with self.path.open("wb") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=output)

    def __enter__(self) -> "followed":
        return self

    def __exit__(self, *exception: object) -> None:
        self.process.kill()
        self.process.wait()

    @property
    def said(self) -> str:
        return self.path.read_text()

    def until(self, text: str) -> None:
        until(lambda: text in self.said, text)


def test_runs_that_fail_alike_are_one_cause_and_retry_keeps_off_a_node(
    slurm: Any, experiment: Any, tmp_path: Path
) -> None:
    profile = tmp_path / "broken.yaml"
    profile.write_text("extends: slurm-a100\nsetup: ['echo no such module; false']\n")
    lab = experiment(10, seeds=[0, 1, 2], profile=str(profile))
    lab.submit()
    lab.wait_for("failed")
    found = json.loads(lab.call("status", lab.name, "--json").stdout)
    (cause,) = found["causes"]
    assert len(cause["runs"]) == 3
    assert "no such module" in " ".join(cause["log"])
    said = lab.call("status", lab.name).stdout
    assert "3 failed: set-up failed" in said
    assert said.count("│ no such module") == 1

    from alphagrid.store import submissions

    assert "sent 3 runs" in lab.tell("retry", lab.name, "--failed", "--exclude-node", "node1")
    assert submissions.read_all(lab.files)[-1].profile["exclude"] == "node1"
    assert "ExcNodeList=node1" in slurm.run("scontrol", "show", "job", array(lab))
    reason = "no node has what it asks for: it will not start"  # there is no other node
    lab.wait(lambda runs: all((run["state"], run["reason"]) == ("pending", reason) for run in runs))
