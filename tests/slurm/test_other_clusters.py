"""The core of it where there is no accounting, where PreemptMode is CANCEL, and with `send_user_signal`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.slurm.paused import MOMENTS, STEPS, by_moment, event, finish, until_there
from tests.slurm.waiting import until

if TYPE_CHECKING:
    from tests.slurm.conftest import Experiment, Slurm

pytestmark = pytest.mark.slurm

Make = Callable[..., "Experiment"]
KINDS = {
    "no-accounting": ("--grace", "300", "--no-accounting"),
    "cancel": ("--grace", "300", "--preempt-mode", "CANCEL"),
    "user-signal": ("--grace", "300", "--send-user-signal"),
}


@pytest.fixture(scope="module", params=list(KINDS.values()), ids=list(KINDS))
def slurm(slurm_with: Callable[..., Slurm], request: pytest.FixtureRequest) -> Slurm:
    """One cluster after the other, in the place of the usual one."""
    return slurm_with(*request.param)


def test_a_grid_that_is_preempted_comes_back_and_completes(
    slurm: Slurm, pausing: Make, moments: Path, fault_row: Any, request: pytest.FixtureRequest
) -> None:
    lab = pausing("training", "evaluation")
    lab.submit()
    until_there(moments, "training.0", "evaluation.0")
    with slurm.preempting():
        lab.wait_for("requeued")
    signal = "SIGUSR2" if "--send-user-signal" in slurm.options else "SIGTERM"
    runs = by_moment(lab)
    for moment, run_id in runs.items():
        records = lab.records(1, run_id)
        stop = event(records, "stop_requested")
        assert (stop["step"], signal in stop["reason"]) == (MOMENTS[moment], True)
        assert event(records, "interrupted")["cause"] == "preempted"
    finish(slurm, lab)
    assert [(run["attempts"], run["step"], run["superseded"]) for run in lab.runs()] == [(2, STEPS, 0)] * 2
    assert "sent 0 runs" in lab.submit()
    kind = request.node.callspec.id
    fault_row(f"preempted on a cluster of another kind: {kind}", "checkpoint, requeued, resumed", "nothing")


def test_cancelled_runs_stay_cancelled(slurm: Slurm, pausing: Make, moments: Path) -> None:
    """By `cancel`, and by `scancel`, of which the worker has seen enough where nobody else tells."""
    lab = pausing("training", "evaluation")
    lab.submit()
    until_there(moments, "training.0", "evaluation.0")
    runs = by_moment(lab)
    lab.tell("cancel", lab.name, runs["training"])
    slurm.run("scancel", lab.jobs()[runs["evaluation"]])
    until(lambda: not slurm.run("squeue", "--noheader").strip())
    assert {run["state"] for run in lab.runs()} == {"cancelled"}
    assert "sent 0 runs" in lab.submit()
