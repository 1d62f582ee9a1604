"""A resumed run goes on with the data that its checkpoint was trained on, or is refused."""

from __future__ import annotations

import json
import re
import sys
from typing import TYPE_CHECKING, Any

import pytest
from alphagrid.analysis.compare_runs import compare
from alphagrid.analysis.data import load
from alphagrid.analysis.report import report_json
from alphagrid.cli import app
from alphagrid.jobs.submission import retry, submit
from alphagrid.store import submissions
from alphagrid.store.database import open_store
from typer.testing import CliRunner

if TYPE_CHECKING:
    from tests.conftest import Lab

TASK = """
import json
from pathlib import Path

from alphagrid.trainer.workloads.base import Workload
from alphagrid.trainer.workloads.least_squares import LeastSquares

FILE = Path({file!r})


class Task(LeastSquares):
    def data(self, split):
        told = json.loads(FILE.read_text())
        if told.get("boom"):
            raise RuntimeError("boom")
        found = super().data(split)
        row = told.get(split)
        if row is not None:
            found["targets"][row] += 1
        return found


class Told(LeastSquares):
    def provenance(self):
        told = json.loads(FILE.read_text())
        return {{"fingerprint": told["fingerprint"], "source": "somewhere"}}

    def data_fingerprint(self, splits):
        return {{"fingerprint": None if told_nothing() else "not asked for"}}


def told_nothing():
    return json.loads(FILE.read_text())["fingerprint"] is None


class Partial(LeastSquares):
    def data(self, split):
        if split == "test":
            raise NotImplementedError("it is drawn anew each time")
        return super().data(split)

    def split(self, name):
        return super().split("validation" if name == "test" else name)


class Untold(LeastSquares):
    def data_fingerprint(self, splits):
        return Workload.data_fingerprint(self, splits)
"""


class Data:
    """The file that the workloads of these tests read."""

    def __init__(self, lab: Lab) -> None:
        self.path = lab.folder / "data.json"
        (lab.folder / "data_task.py").write_text(TASK.format(file=str(self.path)))
        self.set()

    def set(self, **content: Any) -> None:
        self.path.write_text(json.dumps(content))


@pytest.fixture
def data(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Data:
    monkeypatch.syspath_prepend(str(lab.folder))
    monkeypatch.delitem(sys.modules, "data_task", raising=False)  # an earlier test's
    return Data(lab)


def send(lab: Lab, steps: int, task: str = "Task", rates: list[float] | None = None, **options: Any) -> Any:
    experiment = lab.experiment(steps, rates, workload={"name": f"data_task:{task}"})
    return submit(experiment, lab.profile("debug"), lab.root, **options)


def data_event(lab: Lab, run_id: str, attempt: int) -> dict[str, Any]:
    (event,) = (record for record in lab.records(run_id, attempt) if record.get("event") == "data")
    return event


def warnings_of(lab: Lab, run_id: str, attempt: int) -> list[str]:
    records = lab.records(run_id, attempt)
    return [record["message"] for record in records if record.get("event") == "warning"]


def report_warnings(lab: Lab) -> list[str]:
    """What a report finds of fingerprints, beside the journals' own warnings, which it repeats."""
    with open_store(lab.root) as store:
        store.sync(["exp"])
        found: list[str] = report_json(compare(load(store.db, "exp"), [], []))["warnings"]
    return [warning for warning in found if "fingerprint" in warning and "was allowed" not in warning]


def test_the_journal_tells_the_fingerprint_and_that_it_is_the_same(lab: Lab, data: Data) -> None:
    (run_id,) = send(lab, 20).sent
    send(lab, 40)
    first, second = data_event(lab, run_id, 1), data_event(lab, run_id, 2)
    assert (first["verification"], second["verification"]) == ("recorded", "same")
    assert first["fingerprint"] == second["fingerprint"]
    assert first["split_fingerprints"].keys() == {"train", "validation", "test"}
    assert report_warnings(lab) == []


@pytest.mark.parametrize("split", ["train", "validation"])
def test_other_data_are_refused_at_resume_and_named(lab: Lab, data: Data, split: str) -> None:
    (run_id,) = send(lab, 20).sent
    data.set(**{split: 7})
    assert send(lab, 40).sent == (run_id,)
    last = lab.attempts(run_id)[-1]
    old, new = (data_event(lab, run_id, attempt)["fingerprint"] for attempt in (1, 2))
    assert (last.end, last.step) == ("failed", 20)
    assert f"the data of the run have changed (fingerprint: {old} in attempt 1, {new} now" in str(last.reason)
    assert f"splits: {split})" in str(last.reason)
    assert f"alphagrid retry exp {run_id} --allow-data-change" in str(last.reason)
    assert data_event(lab, run_id, 2)["verification"] == "refused"
    assert not any(record["kind"] == "window" for record in lab.records(run_id, 2))
    assert not any(record.get("event") == "crash" for record in lab.records(run_id, 2))


def test_data_that_are_back_go_on_where_the_run_was(lab: Lab, data: Data) -> None:
    (run_id,) = send(lab, 20).sent
    data.set(train=7)
    send(lab, 40)
    data.set()
    assert retry(lab.root, "exp", [run_id]).sent == (run_id,)
    last = lab.attempts(run_id)[-1]
    assert (last.end, last.resume_step, last.step) == ("completed", 20, 40)
    assert report_warnings(lab) == []


def test_allowed_data_become_the_runs_and_the_report_says_so(lab: Lab, data: Data) -> None:
    (run_id,) = send(lab, 20).sent
    data.set(train=7)
    assert send(lab, 40, allow_data_change=True).sent == (run_id,)
    assert submissions.read_all(lab.files)[-1].data_change_allowed
    old, new = (data_event(lab, run_id, attempt)["fingerprint"] for attempt in (1, 2))
    assert data_event(lab, run_id, 2)["verification"] == "changed"
    assert any("was allowed" in warning for warning in warnings_of(lab, run_id, 2))
    assert send(lab, 60).sent == (run_id,)  # the new data are now the run's
    assert [attempt.end for attempt in lab.attempts(run_id)] == ["completed"] * 3
    (told,) = report_warnings(lab)
    assert f"changed while it was trained (fingerprint {old}, {new} from step 20)" in told


def test_retry_can_allow_it_and_a_fresh_start_compares_with_nothing(lab: Lab, data: Data) -> None:
    (run_id,) = send(lab, 20).sent
    data.set(train=7)
    send(lab, 40)
    assert retry(lab.root, "exp", [run_id], fresh=True).sent == (run_id,)
    assert data_event(lab, run_id, 3)["verification"] == "recorded"
    data.set(train=8)
    send(lab, 60)
    assert lab.attempts(run_id)[-1].end == "failed"
    assert retry(lab.root, "exp", [run_id], allow_data_change=True).sent == (run_id,)
    assert lab.attempts(run_id)[-1].end == "completed"


def test_the_hint_is_a_command_that_works(lab: Lab, data: Data) -> None:
    (run_id,) = send(lab, 20).sent
    data.set(train=7)
    send(lab, 40)
    reason = str(lab.attempts(run_id)[-1].reason)
    found = re.search(r"go on with the new ones: (alphagrid retry .* --allow-data-change);", reason)
    assert found is not None
    command = [*found[1].split()[1:], "--root", str(lab.root.path)]
    assert CliRunner().invoke(app, command).exit_code == 0
    assert lab.attempts(run_id)[-1].end == "completed"
    data.set(train=8)
    spec = lab.spec(60, workload={"name": "data_task:Task"})
    command = ["submit", str(spec), "--profile", "debug", "--root", str(lab.root.path)]
    assert CliRunner().invoke(app, [*command, "--allow-data-change"]).exit_code == 0
    assert lab.attempts(run_id)[-1].end == "completed"


def test_without_a_checkpoint_there_is_nothing_to_compare_with(lab: Lab, data: Data) -> None:
    (run_id,) = send(lab, 20).sent
    for path in lab.files.run(run_id).checkpoints():
        path.unlink()
    data.set(train=7)
    send(lab, 40)
    assert lab.attempts(run_id)[-1].end == "completed"
    assert report_warnings(lab) == []


def test_what_counts_is_the_attempt_that_wrote_the_checkpoint(lab: Lab, data: Data) -> None:
    (run_id,) = send(lab, 20).sent
    kept = {path: path.read_bytes() for path in lab.files.run(run_id).checkpoints()}
    data.set(train=7)
    send(lab, 40, allow_data_change=True)
    for path in lab.files.run(run_id).checkpoints():
        path.unlink()
    for path, content in kept.items():  # as if the second attempt had been killed before its first checkpoint
        path.write_bytes(content)
    send(lab, 60)
    assert "in attempt 1" in str(lab.attempts(run_id)[-1].reason)
    data.set()
    retry(lab.root, "exp", [run_id])
    assert lab.attempts(run_id)[-1].end == "completed"
    assert report_warnings(lab) == []


def test_a_workloads_own_fingerprint_is_compared(lab: Lab, data: Data) -> None:
    data.set(fingerprint="monday")
    (run_id,) = send(lab, 20, "Told").sent
    data.set(fingerprint="tuesday")
    send(lab, 40, "Told")
    assert "fingerprint: monday in attempt 1, tuesday now" in str(lab.attempts(run_id)[-1].reason)
    assert data_event(lab, run_id, 1)["source"] == "somewhere"


def test_without_a_fingerprint_the_journal_says_so_and_nothing_is_refused(lab: Lab, data: Data) -> None:
    (run_id,) = send(lab, 20, "Untold").sent
    send(lab, 40, "Untold")
    for attempt in (1, 2):
        event = data_event(lab, run_id, attempt)
        assert (event["fingerprint"], event["verification"]) == (None, "not verified")
    assert lab.attempts(run_id)[-1].end == "completed"


def test_journals_of_earlier_versions_have_none_and_go_on(lab: Lab, data: Data) -> None:
    (run_id,) = send(lab, 20).sent
    path = lab.files.run(run_id).journal(1)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(line for line in lines if b'"event":"data"' not in line))
    data.set(train=7)
    send(lab, 40)
    assert lab.attempts(run_id)[-1].end == "completed"
    assert data_event(lab, run_id, 2)["verification"] == "recorded"


def test_a_run_that_loses_its_fingerprint_goes_on_with_a_warning(lab: Lab, data: Data) -> None:
    data.set(fingerprint="monday")
    (run_id,) = send(lab, 20, "Told").sent
    data.set(fingerprint=None)
    send(lab, 40, "Told")
    assert lab.attempts(run_id)[-1].end == "completed"
    assert data_event(lab, run_id, 2)["verification"] == "not verified"
    assert warnings_of(lab, run_id, 2) == [
        "the data cannot be verified (fingerprint: monday in attempt 1, none now)"
    ]


def test_a_split_that_cannot_be_hashed_leaves_the_data_unverified(lab: Lab, data: Data) -> None:
    (run_id,) = send(lab, 20, "Partial").sent
    assert lab.attempts(run_id)[-1].end == "completed"
    assert data_event(lab, run_id, 1)["verification"] == "not verified"
    assert warnings_of(lab, run_id, 1) == [
        "the data have no fingerprint: NotImplementedError: it is drawn anew each time"
    ]


def test_runs_of_one_report_with_different_data_are_named(lab: Lab, data: Data) -> None:
    (first,) = send(lab, 20, rates=[0.01]).sent
    data.set(train=7)
    (second,) = send(lab, 20, rates=[0.01, 0.02]).sent
    old, new = (data_event(lab, run_id, 1)["fingerprint"] for run_id in (first, second))
    (told,) = report_warnings(lab)
    assert told == (
        f"Runs of workload data_task:Task used 2 different data sets (fingerprint {old}: lr0.01; "
        f"{new}: lr0.02): their losses are not comparable."
    )
