from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from alphagrid.errors import SystemRefused, UserError
from alphagrid.jobs.runs import cancel_marker
from alphagrid.jobs.schedulers import debug
from alphagrid.jobs.submission import retry
from alphagrid.store import submissions

if TYPE_CHECKING:
    from tests.conftest import Lab

TASK = """
import errno
import os
import signal

from alphagrid.errors import UserError
from alphagrid.trainer.workloads.least_squares import LeastSquares
from alphagrid.trainer.workloads.options import LeastSquaresOptions


class Options(LeastSquaresOptions):
    trouble: str = "none"
    at: int = 50


class Troubled(LeastSquares):
    Options = Options

    def stream(self, name, seed):
        return Stream(super().stream(name, seed), self.options)


class Stream:
    def __init__(self, inner, options):
        self.inner, self.options = inner, options

    def batch(self, index):
        if index == self.options.at:
            make(self.options.trouble)
        return self.inner.batch(index)


def make(trouble):
    if trouble == "crash":
        raise RuntimeError("boom")
    if trouble == "exit":
        raise SystemExit(3)
    if trouble == "memory":
        raise MemoryError
    if trouble == "user":
        raise UserError("no such data", "get them")
    if trouble == "disk":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if trouble == "interrupt" and "ALPHAGRID_TEST_CALM" not in os.environ:
        signal.raise_signal(signal.SIGINT)
"""


def workload(lab: Lab, trouble: str) -> dict[str, Any]:
    (lab.folder / "troubled_task.py").write_text(TASK)
    return {"name": "troubled_task:Troubled", "trouble": trouble}


@pytest.fixture(autouse=True)
def _importable(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(lab.folder))


def only(states: dict[str, str]) -> tuple[str, str]:
    ((run_id, state),) = states.items()
    return run_id, state


def test_a_run_begins_with_start_ends_with_end_and_keeps_its_config(lab: Lab) -> None:
    (run_id,) = lab.submit(100, cluster="debug").sent
    records = lab.records(run_id)
    start, end = records[0], records[-1]
    assert (start["kind"], start["attempt"], start["resume_step"], start["fresh"]) == ("start", 1, 0, False)
    assert start["stop"] == {"steps": 100, "train_seconds": None}
    assert start["versions"].keys() == {"python", "torch", "alphagrid"}
    assert (start["device"], start["gpu"], start["job"]["cluster"]) == ("cpu", None, "debug")
    assert (end["kind"], end["status"], end["step"]) == ("end", "completed", 100)
    config = json.loads(lab.files.run(run_id).config.read_text())
    assert config["optimizer"]["name"] == "sgd"
    assert "stop" not in config


def test_second_submit_sends_nothing_and_writes_nothing(lab: Lab) -> None:
    lab.submit(50, cluster="debug")
    before = sorted(lab.files.path.rglob("*"))
    again = lab.submit(50, cluster="debug")
    assert again.sent == ()
    assert list(again.kept) == ["completed"]
    assert sorted(lab.files.path.rglob("*")) == before


def test_a_raised_stop_continues_where_the_run_ended(lab: Lab) -> None:
    (run_id,) = lab.submit(50, cluster="debug").sent
    assert lab.submit(80, cluster="debug").sent == (run_id,)
    first, second = lab.attempts(run_id)
    assert (first.step, second.resume_step, second.step) == (50, 50, 80)
    assert lab.submit(60, cluster="debug").sent == ()


def test_a_crash_is_recorded_with_its_traceback_and_sent_once_more(lab: Lab) -> None:
    broken = workload(lab, "crash")
    (run_id,) = lab.submit(100, cluster="debug", workload=broken).sent
    crash, end = lab.records(run_id)[-2:]
    assert (crash["event"], crash["reason"]) == ("crash", "RuntimeError: boom")
    assert "make(self.options.trouble)" in crash["traceback"]
    assert (end["status"], end["reason"]) == ("failed", "RuntimeError: boom")
    assert lab.submit(100, cluster="debug", workload=broken).sent == (run_id,)
    assert lab.submit(100, cluster="debug", workload=broken).kept == {"failed": (run_id,)}
    assert retry(lab.root, "exp", [run_id]).sent == (run_id,)
    assert len(lab.attempts(run_id)) == 3


@pytest.mark.parametrize(("trouble", "reason"), [("exit", "SystemExit: 3"), ("memory", "MemoryError: ")])
def test_whatever_a_workload_raises_the_run_has_an_end(lab: Lab, trouble: str, reason: str) -> None:
    lab.submit(100, cluster="debug", workload=workload(lab, trouble))
    assert only(lab.states())[1] == "failed"
    assert lab.reasons() == [reason]


def test_a_user_error_fails_at_once_with_its_message(lab: Lab) -> None:
    lab.submit(100, cluster="debug", workload=workload(lab, "user"))
    run_id, state = only(lab.states())
    assert state == "failed"
    assert lab.reasons() == ["no such data (get them)"]
    assert not any(record.get("event") == "crash" for record in lab.records(run_id))


def test_a_full_disk_interrupts_and_the_next_submit_continues(lab: Lab) -> None:
    full = workload(lab, "disk")
    with pytest.raises(SystemRefused, match="No space left") as caught:
        lab.submit(100, cluster="debug", workload=full)
    assert caught.value.exit_code == 3
    run_id, state = only(lab.states())
    assert state == "interrupted"
    assert "No space left" in str(lab.reasons()[0])
    with pytest.raises(SystemRefused):
        lab.submit(100, cluster="debug", workload=full)
    assert len(lab.attempts(run_id)) == 2


def test_ctrl_c_stops_cleanly_and_the_next_submit_continues(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted = workload(lab, "interrupt")
    with pytest.raises(KeyboardInterrupt):
        lab.submit(100, cluster="debug", workload=interrupted)
    assert only(lab.states())[1] == "interrupted"
    monkeypatch.setenv("ALPHAGRID_TEST_CALM", "1")
    (run_id,) = lab.submit(100, cluster="debug", workload=interrupted).sent
    first, second = lab.attempts(run_id)
    assert first.step == second.resume_step == 51
    assert second.end == "completed"


def test_a_cancelled_run_is_not_begun(lab: Lab) -> None:
    (run_id,) = lab.submit(50, cluster="debug").sent
    (submission,) = submissions.read_all(lab.files)
    later = submission.model_copy(update={"id": "later", "created": submission.created + 1})
    submissions.write(lab.files, later)
    cancel_marker.write(lab.files.run(run_id), ["later"], 0.0)
    debug.run_here(lab.files, "later", [run_id])
    assert len(lab.attempts(run_id)) == 1
    assert only(lab.states()) == (run_id, "cancelled")


def test_fresh_begins_anew_and_leaves_the_old_checkpoints_behind(lab: Lab) -> None:
    (run_id,) = lab.submit(50, cluster="debug").sent
    assert retry(lab.root, "exp", [run_id]).kept == {"completed": (run_id,)}
    retry(lab.root, "exp", [run_id], fresh=True)
    second = lab.attempts(run_id)[-1]
    assert (second.fresh, second.resume_step, second.end) == (True, 0, "completed")
    assert [path.name.split("-")[2] for path in lab.files.run(run_id).checkpoints()] == ["0002"]


def test_retry_of_what_was_never_submitted_is_refused(lab: Lab) -> None:
    lab.submit(50, cluster="debug")
    with pytest.raises(UserError, match="never submitted"):
        retry(lab.root, "exp", ["0123456789"])


def test_variables_are_expanded_by_the_worker_and_kept_out_of_what_is_written(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    workload(lab, "none")
    monkeypatch.setenv("TROUBLE", "user")
    troubled = {"name": "troubled_task:Troubled", "trouble": "${TROUBLE}"}
    (run_id,) = lab.submit(100, cluster="debug", workload=troubled).sent
    assert lab.reasons() == ["no such data (get them)"]
    assert "${TROUBLE}" in lab.files.run(run_id).config.read_text()


def test_an_unset_variable_is_refused_and_nothing_is_written(lab: Lab) -> None:
    workload(lab, "none")
    with pytest.raises(UserError, match="NOT_SET_ANYWHERE"):
        lab.submit(
            9, cluster="debug", workload={"name": "troubled_task:Troubled", "trouble": "${NOT_SET_ANYWHERE}"}
        )
    assert not lab.root.path.exists()


def test_an_unwritable_root_is_refused(lab: Lab) -> None:
    lab.root.path.write_text("a file, no folder")
    with pytest.raises(UserError, match="cannot write below the root") as caught:
        lab.submit(9, cluster="debug")
    assert caught.value.exit_code == 2


def test_a_slurm_profile_without_slurm_is_refused_with_a_way_out(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="no Slurm") as caught:
        lab.submit(9, cluster="slurm-a100")
    assert "--profile local" in str(caught.value.hint)
    assert caught.value.exit_code == 2
