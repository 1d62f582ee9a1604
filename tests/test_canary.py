"""The canary on this machine: the others wait until it has reached an evaluation."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest
from alphagrid.jobs import canary
from alphagrid.jobs.backlog import Backlog
from alphagrid.jobs.submission import Submitted, submit
from alphagrid.store import submissions
from alphagrid.store.submissions import RunEntry, Submission

from tests.conftest import FOREVER

if TYPE_CHECKING:
    from tests.conftest import Lab

TASKS = """
from pathlib import Path
from alphagrid.errors import UserError
from alphagrid.trainer.workloads.least_squares import LeastSquares

class Gated(LeastSquares):
    def model(self):
        if not Path("{folder}/go").exists():
            raise UserError("the canary fell silent")
        return super().model()
"""
RATES = [0.01, 0.02, 0.03]


def send(lab: Lab, steps: int, cluster: str = "local", canary: bool = True, **base: Any) -> Submitted:
    return submit(lab.experiment(steps, RATES, **base), lab.profile(cluster), lab.root, canary=canary)


def gated(lab: Lab) -> dict[str, Any]:
    """A workload that fails until a file `go` appears."""
    (lab.folder / "gated_task.py").write_text(TASKS.format(folder=lab.folder))
    return {"workload": {"name": "gated_task:Gated"}}


@pytest.mark.slow
def test_the_others_start_when_the_canary_has_evaluated(lab: Lab) -> None:
    done = send(lab, FOREVER)
    assert done.canary == "lr0.01"
    first, *others = done.sent
    lab.until(lambda: any(map(lab.is_training, others)))
    evaluated = next(one["time"] for one in lab.records(first) if one["kind"] == "evaluation")
    begun = [lab.records(run_id)[0]["time"] for run_id in others if lab.attempts(run_id)]
    assert min(begun) > evaluated
    assert lab.is_training(first)


@pytest.mark.slow
def test_a_canary_that_fails_holds_the_others_back_and_the_next_submit_sends_them(lab: Lab) -> None:
    first, *others = send(lab, 50, **gated(lab)).sent
    lab.until(lambda: lab.states()[first] == "failed")
    lab.until(lambda: lab.supervisor() is None)
    assert [lab.states()[run_id] for run_id in others] == ["interrupted"] * 2
    assert "held back: the canary lr0.01 is failed" in str(lab.reasons()[1])
    assert not any(map(lab.attempts, others))
    (lab.folder / "go").touch()
    assert len(send(lab, 50, canary=False, **gated(lab)).sent) == 3
    lab.until_all_are("completed")


def test_in_this_process_a_canary_that_fails_is_the_only_one_to_run(lab: Lab) -> None:
    sys.modules.pop("gated_task", None)
    first, *others = send(lab, 5, "debug", **gated(lab)).sent
    assert [lab.states()[run_id] for run_id in (first, *others)] == ["failed", "interrupted", "interrupted"]
    assert not any(map(lab.attempts, others))
    (lab.folder / "go").touch()
    send(lab, 5, "debug", **gated(lab))
    assert lab.all_are("completed")


def test_evaluations_of_an_earlier_submission_prove_nothing(lab: Lab) -> None:
    (run_id,) = submit(lab.experiment(5), lab.profile("debug"), lab.root).sent
    (sent,) = submissions.read_all(lab.files)
    assert canary.has_evaluated(lab.files.run(run_id), sent.id)
    assert not canary.has_evaluated(lab.files.run(run_id), "a later one")


def test_a_single_run_needs_no_canary(lab: Lab) -> None:
    done = submit(lab.experiment(5), lab.profile("debug"), lab.root, canary=True)
    assert done.canary is None
    assert lab.all_are("completed")


def test_a_supervisor_leaves_the_others_waiting_until_they_are_let_go(lab: Lab) -> None:
    experiment = lab.experiment(5, RATES)
    entries = [
        RunEntry(id=run.id, name=run.name, params={}, config=run.config.as_dict()) for run in experiment.runs
    ]
    sent = Submission(
        id="s", created=1.0, experiment="exp", profile={"name": "local", "cluster": "local"},
        runs=entries, named={}, canary=entries[0].id,
    )  # fmt: skip
    submissions.write(lab.files, sent)
    backlog = Backlog(lab.root, ())
    backlog.refresh()
    assert take_all(backlog) == [entries[0].id]
    assert len(backlog) == 2
    canary.let_go(lab.files, sent)
    backlog.refresh()
    assert take_all(backlog) == [entries[1].id, entries[2].id]


def take_all(backlog: Backlog) -> list[str]:
    taken = []
    while (job := backlog.next()) is not None:
        backlog.remove(job)
        taken.append(job.run_id)
    return taken
