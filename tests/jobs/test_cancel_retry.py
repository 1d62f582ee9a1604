"""A cancelled run stays cancelled until somebody retries it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from alphagrid.jobs.cancellation import cancel
from alphagrid.jobs.submission import retry
from alphagrid.store import submissions

if TYPE_CHECKING:
    from tests.conftest import Lab


@pytest.mark.slow
def test_cancel_stops_running_and_waiting_runs_until_they_are_retried(lab: Lab) -> None:
    rates = [0.01, 0.02, 0.03]
    runs = lab.submit(10**9, rates).sent
    lab.until(lambda: sum(map(lab.is_training, runs)) == 2)
    (waiting,) = [run_id for run_id in runs if not lab.attempts(run_id)]

    assert set(cancel(lab.root, "exp", runs).cancelled) == set(runs)
    lab.until_all_are("cancelled")
    lab.until(lambda: lab.supervisor() is None)
    stopped = {run_id: lab.attempts(run_id)[-1] for run_id in runs if run_id != waiting}
    assert {attempt.end for attempt in stopped.values()} == {"cancelled"}
    assert lab.attempts(waiting) == []

    assert lab.submit(10**9, rates).kept == {"cancelled": runs}
    assert cancel(lab.root, "exp", runs).ended == runs

    again = next(iter(stopped))
    assert retry(lab.root, "exp", [again]).sent == (again,)
    lab.until(lambda: lab.is_training(again) and len(lab.attempts(again)) == 2)
    assert lab.attempts(again)[-1].resume_step == stopped[again].step  # it went on from its checkpoint
    assert lab.states()[waiting] == "cancelled"
    assert retry(lab.root, "exp", [again]).kept == {"active": (again,)}
    cancel(lab.root, "exp", [again])
    lab.until_all_are("cancelled")


def test_cancelling_leaves_ended_runs_alone(lab: Lab) -> None:
    (run_id,) = lab.submit(20, cluster="debug").sent
    assert cancel(lab.root, "exp", [run_id]).ended == (run_id,)
    assert lab.states() == {run_id: "completed"}
    assert not lab.files.run(run_id).cancel_marker.exists()


def test_a_later_submission_is_newer_than_every_cancellation(lab: Lab) -> None:
    (run_id,) = lab.submit(20, cluster="debug").sent
    retry(lab.root, "exp", [run_id], fresh=True)
    created = [submission.created for submission in submissions.read_all(lab.files)]
    assert created == sorted(set(created))
