"""Runs on this machine go on without the command that submitted them."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest
from alphagrid.jobs.logs import follow, log_files, read
from alphagrid.jobs.status import outlook, status
from alphagrid.store import submissions

if TYPE_CHECKING:
    from tests.conftest import Lab

pytestmark = pytest.mark.slow


def test_runs_go_on_after_the_command_returned_and_after_ctrl_c(lab: Lab) -> None:
    submitter = lab.submitter(lab.spec(300, [0.01, 0.02], workload=lab.held()))
    lab.until(lambda: bool(lab.states()) and all(map(lab.is_training, lab.states())))
    os.killpg(submitter.pid, signal.SIGINT)
    submitter.wait(120)
    lab.let_go()
    lab.until_all_are("completed")
    assert [len(lab.attempts(run_id)) for run_id in lab.states()] == [1, 1]

    lab.until(lambda: lab.supervisor() is None)  # it ends by itself when nothing is left
    again = lab.submit(300, [0.01, 0.02], workload=lab.held())
    assert again.sent == ()
    assert lab.supervisor() is None

    found = status(lab.root, "exp")
    assert found.counts == {"completed": 2}
    assert {run.percent_done for run in found.runs} == {100.0}
    assert all(run.best_validation_loss is not None and run.attempts == 1 for run in found.runs)

    run_id = found.runs[0].id
    over = outlook(lab.root, "exp", run_id)
    text = "".join(read(lab.files, run_id, over))
    assert "attempt 1 of" in text
    assert "".join(follow(lab.files, run_id, lambda: over, print)) == text
    assert len(log_files(lab.files, run_id)) == 1


def test_two_submits_at_once_send_each_run_once(lab: Lab) -> None:
    spec = lab.spec(1_000, [0.01, 0.02])
    submitters = [lab.submitter(spec), lab.submitter(spec)]
    sent = sorted(int(submitter.communicate(timeout=300)[0]) for submitter in submitters)
    assert sent == [0, 2]
    lab.until_all_are("completed")
    assert len(submissions.read_all(lab.files)) == 1
    assert [len(lab.attempts(run_id)) for run_id in lab.states()] == [1, 1]
