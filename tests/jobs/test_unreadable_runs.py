"""Runs whose locks, claims or configs cannot be used: every other run goes on, and `status` says why."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from alphagrid.cli import app
from alphagrid.errors import SystemRefused
from alphagrid.jobs.cancellation import cancel
from alphagrid.jobs.schedulers import debug, local, local_queue
from alphagrid.jobs.schedulers.local_queue import LocalQueue
from alphagrid.jobs.schedulers.local_supervisor import Supervisor
from alphagrid.store import submissions
from alphagrid.store.layout import RunFiles
from typer.testing import CliRunner

if TYPE_CHECKING:
    from tests.conftest import Lab


@pytest.fixture
def runs(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> list[RunFiles]:
    """Two runs that were submitted, and that nobody has begun."""
    monkeypatch.setattr(local, "ensure_supervisor", lambda root: None)
    return [lab.files.run(run_id) for run_id in lab.submit(10, [0.01, 0.02]).sent]


def spoil(run: RunFiles) -> Path:
    """Put a link where the run's lock will be."""
    run.path.mkdir(exist_ok=True)
    run.lock.symlink_to("/etc/hostname")
    return run.lock


def waiting(found: LocalQueue) -> list[str]:
    """Return the runs that are due now, in order."""
    due = []
    while (job := found.next()) is not None:
        due.append(job.run_id)
        found.remove(job)
    return due


def status(lab: Lab) -> list[dict[str, Any]]:
    said = CliRunner().invoke(app, ["status", "exp", "--json", "--root", str(lab.root.path)])
    assert said.exit_code == 0, said.output
    found: list[dict[str, Any]] = json.loads(said.stdout)["runs"]
    return found


def test_a_run_whose_lock_is_a_link_keeps_no_other_from_its_supervisor(
    lab: Lab, runs: list[RunFiles], caplog: pytest.LogCaptureFixture
) -> None:
    lock = spoil(runs[0])
    found = LocalQueue(lab.root, ())
    for _ in range(3):
        found.refresh()
    assert waiting(found) == [runs[1].id]
    assert caplog.text.count("is a link") == 1
    lock.unlink()
    found.refresh()
    assert waiting(found) == [runs[0].id]


def test_a_run_that_stays_unreadable_is_left_out_in_the_end(
    lab: Lab, runs: list[RunFiles], monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(runs[0])
    found = LocalQueue(lab.root, ())
    found.refresh()
    assert waiting(found) == [runs[1].id]
    assert len(found) == 1
    monkeypatch.setattr(local_queue, "UNREADABLE_SECONDS", -1.0)
    found.refresh()
    assert waiting(found) == []
    assert len(found) == 0


def test_a_run_that_cannot_be_started_is_tried_again(
    lab: Lab, runs: list[RunFiles], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    at_work = Supervisor(lab.root)
    monkeypatch.setattr(at_work, "_start_job", full)
    for _ in range(2):
        at_work._refresh_queue(0.0)
        at_work._start_what_fits()
    assert caplog.text.count("cannot be started") == len(runs)
    assert at_work.has_work()


def test_status_tells_of_every_run_although_the_lock_of_one_cannot_be_read(
    lab: Lab, runs: list[RunFiles]
) -> None:
    spoil(runs[0])
    first, second = status(lab)
    assert (first["state"], second["state"]) == ("unknown", "unknown")
    assert "is a link" in first["reason"]
    assert "is a link" not in second["reason"]


def test_a_supervisor_whose_lock_cannot_be_read_is_not_known_to_be_at_work(
    lab: Lab, runs: list[RunFiles]
) -> None:
    lab.root.supervisor.mkdir()
    (lab.root.supervisor / "lock").symlink_to("/etc/hostname")
    assert [run["state"] for run in status(lab)] == ["unknown", "unknown"]
    with pytest.raises(SystemRefused, match="is a link"):
        local.is_supervised(lab.root)


@pytest.mark.parametrize("bound", ["steps", "train_seconds"])
def test_status_outlives_a_stop_at_nothing(lab: Lab, runs: list[RunFiles], bound: str) -> None:
    (path,) = submissions.submission_files(lab.files)
    manifest = json.loads(path.read_text())
    manifest["runs"][0]["config"]["stop"] = {bound: 0}
    path.write_text(json.dumps(manifest))
    assert [run["percent_done"] for run in status(lab)] == [0, 0]


def test_cancel_tells_every_worker_although_the_lock_of_one_run_is_a_link(
    lab: Lab, runs: list[RunFiles]
) -> None:
    """A stand-in holds the second run's lock as a worker does; SIGTERM ends it."""
    spoil(runs[0])
    hold = (
        "import sys, time; from pathlib import Path; from alphagrid.store.locks import FileLock\n"
        "lock = FileLock(Path(sys.argv[1])); lock.acquire(); print('held', flush=True); time.sleep(300)"
    )
    command = [sys.executable, "-c", hold, str(runs[1].lock)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "held\n"
        with pytest.raises(SystemRefused, match=f"worker of {runs[0].id} could not be told"):
            cancel(lab.root, "exp", [run.id for run in runs])
        assert worker.wait(60) == -signal.SIGTERM
    assert all(run.cancel_marker.exists() for run in runs)


def test_a_run_that_its_submission_gave_up_is_not_begun(lab: Lab, runs: list[RunFiles]) -> None:
    """As one does that another submitter's job has."""
    (submission,) = submissions.read_all(lab.files)
    submissions.amend(lab.files, submission, runs=submission.runs[1:])
    debug.run_here(lab.files, submission.id, [runs[0].id])
    assert not os.path.exists(runs[0].path)  # noqa: PTH110
