"""`submit --limit N`: some of the runs that are due now, the others with the next `submit`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from alphagrid.cli import app
from alphagrid.jobs.submission import submit
from alphagrid.store import submissions
from typer.testing import CliRunner, Result

if TYPE_CHECKING:
    from tests.conftest import Lab

RATES = [0.01, 0.02, 0.03]


def call(lab: Lab, *options: str) -> Result:
    spec = str(lab.spec(5, RATES))
    return CliRunner().invoke(
        app, ["submit", spec, "--profile", "debug", "--root", str(lab.root.path), *options]
    )


def test_the_first_of_the_due_runs_are_sent_and_how_many_are_left_is_said(lab: Lab) -> None:
    done = call(lab, "--limit", "2")
    assert done.exit_code == 0
    assert "sent 2 runs" in done.stderr
    assert "2 of 3 due" in done.stderr
    assert lab.all_are("completed")
    again = call(lab, "--limit", "2", "--wait")
    assert (again.exit_code, "sent 1 run" in again.stderr, " due;" in again.stderr) == (0, True, False)
    assert len(lab.states()) == 3


def test_a_limit_counts_due_runs_and_none_that_have_ended(lab: Lab) -> None:
    call(lab, "--limit", "1")
    done = call(lab, "--limit", "1", "--json")
    assert json.loads(done.stdout)["due"] == 2
    assert len(lab.states()) == 2


def test_a_limit_below_one_is_refused(lab: Lab) -> None:
    assert call(lab, "--limit", "0").exit_code == 2
    assert not lab.root.path.exists()


@pytest.mark.slow
def test_a_submission_of_an_older_version_with_a_canary_is_run_whole(lab: Lab) -> None:
    """Its supervisor held the others back until the canary had evaluated; now they are started at once."""
    sent = submit(lab.experiment(5, RATES), lab.profile("debug"), lab.root, limit=1).sent
    (submission,) = submissions.read_all(lab.files)
    assert submission.canary is None
    older = submission.model_copy(update={"canary": sent[0]})
    submissions.write(lab.files, older)
    lab.submit(5, RATES)
    lab.until_all_are("completed")
