"""A message of any length is told with its beginning and end; a superseded attempt is no crash."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from alphagrid.cli import app
from alphagrid.jobs.failure_groups import causes
from alphagrid.jobs.logs import tail
from alphagrid.jobs.runs import attempts as attempts_module
from alphagrid.jobs.runs.attempts import (
    MAX_WITHOUT_PROGRESS,
    Attempt,
    failures,
    latest,
    read,
    without_progress,
)
from alphagrid.jobs.status import ExperimentStatus, RunStatus
from alphagrid.jobs.status import status as look
from alphagrid.store.journal import Journal
from alphagrid.store.layout import Root, RunFiles
from alphagrid.store.messages import MOST_CHARACTERS, in_one_line, shortened
from alphagrid.terminal import causes_views, status_view
from hypothesis import example, given
from hypothesis import strategies as st
from rich.console import Console, Group
from typer.testing import CliRunner

if TYPE_CHECKING:
    from tests.conftest import Lab

CRASHING = """
from alphagrid.trainer.workloads.least_squares import LeastSquares

class Mute(Exception):
    def __str__(self):
        raise RuntimeError("no message")

class Crashing(LeastSquares):
    def model(self):
        raise {error}
"""
LONG = "ValueError('BEGINNING ' + {filling} + ' END')"
FILLINGS = {
    "one long line": "'x ' * 500_000",
    "many lines": r"'line of text\n' * 50_000",
    "wide characters": "'\N{SNOWMAN}' * 300_000",
    "half characters": r"'\udcff' * 300_000",
}


def crashing(lab: Lab, error: str) -> dict[str, Any]:
    (lab.folder / "crashing_task.py").write_text(CRASHING.format(error=error))
    return {"name": "crashing_task:Crashing"}


@pytest.fixture(autouse=True)
def _fresh_module(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    import sys

    yield
    sys.modules.pop("crashing_task", None)


# How a message is shortened


@given(st.text(max_size=5000), st.integers(50, 3000), st.integers(2, 30))
@example("\x1e\r0", 50, 2)
@example("first\nsecond\nthird\nlast\n", 50, 2)
@example("x" * 4999 + "\n", 50, 2)
def test_a_shortened_message_is_short_and_keeps_both_ends(text: str, most: int, lines: int) -> None:
    told = shortened(text, most, lines)
    assert len(told) <= most
    assert len(told.splitlines()) <= lines + 1
    told.encode()
    rows = text.splitlines()
    if len(rows) > lines:
        assert told.startswith(rows[0][:14])
        assert told.splitlines()[-1].endswith(rows[-1][-10:])
    elif len(text) > most:
        assert (told[:14], told[-10:]) == (text[:14], text[-10:])
    else:
        assert told == text


@given(st.text(max_size=500), st.integers(10, 200))
def test_a_message_in_one_line_has_no_line_breaks(text: str, most: int) -> None:
    told = in_one_line(text, most)
    assert len(told) <= most
    assert len(told.splitlines()) <= 1


# A crash


@pytest.mark.parametrize("filling", FILLINGS.values(), ids=FILLINGS)
def test_a_crash_message_of_any_length_is_told_everywhere_with_both_ends(lab: Lab, filling: str) -> None:
    lab.submit(20, [0.1], cluster="debug", workload=crashing(lab, LONG.format(filling=filling)))
    ((run_id, state),) = lab.states().items()
    assert state == "failed"
    event = next(record for record in lab.records(run_id) if record.get("event") == "crash")
    shown = CliRunner().invoke(app, ["status", "exp", "--root", str(lab.root.path)])
    assert shown.exit_code == 0, shown.exception
    found = look(lab.root, "exp")
    told = {
        "journal": event["reason"],
        "traceback": event["traceback"],
        "files": lab.reasons()[0],
        "status": found.runs[0].reason,
        "failure group": found.causes[0].reason,
        "terminal": shown.stdout,
    }
    for where, text in told.items():
        assert "BEGINNING" in str(text), where
        assert "END" in str(text), where
        assert len(str(text)) <= (22_000 if where == "traceback" else 4 * MOST_CHARACTERS), where
    assert lab.files.run(run_id).journal(1).stat().st_size < 300_000


def test_an_exception_that_cannot_tell_its_message_is_a_crash_all_the_same(lab: Lab) -> None:
    lab.submit(20, [0.1], cluster="debug", workload=crashing(lab, "Mute"))
    assert lab.reasons() == ["Mute: (its message cannot be shown)"]
    assert set(lab.states().values()) == {"failed"}


@pytest.mark.parametrize("kind", ["crash", "end"])
def test_a_long_record_of_an_older_version_is_found_at_the_end_of_its_journal(
    tmp_path: Path, kind: str
) -> None:
    """They were written whole, longer than what used to be read of a journal's end."""
    run = RunFiles(tmp_path / "00000000aa")
    writer = Journal.create(run.journal(1))
    writer.append("start", 0, 0.0, attempt=1, resume_step=0, submission="s1")
    writer.append("event", 7, 1.0, event="stop_requested", reason="SIGTERM")
    reason = "BEGINNING " + "x" * (3 * attempts_module.TAIL_BYTES) + " END"
    if kind == "crash":
        writer.append("event", 7, 1.0, event="crash", reason=reason)
    else:
        writer.append("end", 7, 1.0, status="failed", reason=reason)
    writer.close()
    attempt = latest(run)
    assert attempt is not None
    assert (attempt.step, attempt.asked_to_stop) == (7, True)
    assert (attempt.event, attempt.end) == (("crash", None) if kind == "crash" else (None, "failed"))
    assert str(attempt.reason).startswith("BEGINNING")
    assert str(attempt.reason).endswith("END")
    assert len(str(attempt.reason)) <= MOST_CHARACTERS


def test_long_messages_that_differ_in_numbers_are_one_cause() -> None:
    runs = [
        _run(f"r{number}", f"RuntimeError: rank {10**number} of 8: " + "some words " * 900 + f"in {number} s")
        for number in range(6)
    ]
    for run in runs:
        assert run.reason is not None
    found = causes([replace(run, reason=shortened(str(run.reason))) for run in runs])
    assert [len(cause.runs) for cause in found] == [6]


@pytest.mark.parametrize("width", [70, 100, 160])
def test_a_terminal_shows_both_ends_of_a_reason_beside_its_run(width: int) -> None:
    reason = "RuntimeError: no\nroom " + "x y " * 600 + "\nlast words"
    found = ExperimentStatus("exp", (_run("lr0.1", reason), _run("lr0.2", "short")))
    console = Console(width=width, file=io.StringIO(), force_terminal=True, color_system=None, record=True)
    console.print(status_view(found, now=5.0))
    (line,) = [line for line in console.export_text().splitlines() if line.startswith("lr0.1")]
    assert "Runtime" in line
    assert line.rstrip().endswith("words")


def test_a_cause_on_the_terminal_is_bounded_in_lines() -> None:
    many = shortened("first\n" + "more\n" * 10_000 + "last")
    found = ExperimentStatus("exp", (), causes=tuple(causes([_run("r", many)])))
    console = Console(width=100, file=io.StringIO(), record=True)
    console.print(Group(*causes_views(found)))
    text = console.export_text()
    assert "first" in text
    assert "last" in text
    assert len(text.splitlines()) < 40


def test_the_lines_of_a_log_that_are_shown_with_a_failure_are_bounded(tmp_path: Path) -> None:
    files = Root(tmp_path).experiment("exp")
    folder = files.submitit / "00000000aa"
    folder.mkdir(parents=True)
    (folder / "7_0_log.out").write_text("BEGINNING " + "x" * 20_000 + " END\n")
    (line,) = tail(files, "00000000aa")
    assert line.startswith("BEGINNING")
    assert line.endswith("END")
    assert len(line) <= 400


def _run(name: str, reason: str) -> RunStatus:
    return RunStatus(
        id=name, name=name, baseline=None, params={}, config={}, named=True, state="failed", reason=reason,
        step=10, train_seconds=1.0, best_validation_loss=0.5, learning_rate=0.1, attempts=1,
        percent_done=50.0, last_seen=1.0, eta_seconds=None, checkpoint_step=None, checkpoint_bytes=None,
        checkpoint_seconds=None, superseded=0, cluster="local", job=None,
    )  # fmt: skip


# Superseded attempts


def write_attempt(run: RunFiles, number: int, at: int, *records: dict[str, Any]) -> None:
    """Write an attempt that begins at a time, and whose records follow second by second unless they say."""
    ticks = count(at)
    times = iter([next(ticks), *(record.pop("at", None) or next(ticks) for record in records)])
    writer = Journal.create(run.journal(number), clock=lambda: float(next(times)))
    job = {"cluster": "slurm", "job_id": str(number)}
    writer.append("start", 0, 0.0, attempt=number, resume_step=0, submission="s1", job=job)
    for record in records:
        writer.append(**{"step": 0, "train_seconds": 0.0, **record})
    writer.close()


def crash(**more: Any) -> dict[str, Any]:
    return {"kind": "event", "event": "crash", "reason": "RuntimeError: boom", **more}


def test_a_crash_after_a_newer_attempt_had_begun_is_none_of_the_runs(tmp_path: Path) -> None:
    run = RunFiles(tmp_path / "00000000aa")
    write_attempt(run, 1, 100, crash(at=250))  # its node was cut off, and did not see the second one
    write_attempt(run, 2, 200, crash())
    found = read(run)
    assert [attempt.superseded for attempt in found] == [True, False]
    lost = without_progress(found, "s1", preempts=True)
    assert [attempt.number for attempt in lost] == [2]
    assert len(lost) < MAX_WITHOUT_PROGRESS


def test_crashes_one_after_the_other_count(tmp_path: Path) -> None:
    run = RunFiles(tmp_path / "00000000aa")
    write_attempt(run, 1, 100, crash())
    write_attempt(run, 2, 200, crash())
    assert [attempt.number for attempt in without_progress(read(run), "s1", preempts=True)] == [1, 2]


def test_a_failure_written_after_a_newer_attempt_had_begun_does_not_count() -> None:
    older = Attempt(1, Path("journal"), submission="s1", end="failed")
    newer = Attempt(2, Path("journal"), submission="s1", end="failed")
    assert failures([older, newer]) == 2
    assert failures([replace(older, superseded=True), newer]) == 1


def test_an_attempt_that_stops_for_a_newer_one_says_so_without_a_record(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It leaves its journal as it is; else it would look as if it had died, and count as a crash."""
    from alphagrid.jobs.worker.running_attempt import RunningAttempt

    def overtaken_meanwhile(self: RunningAttempt) -> Any:
        self.task.run.journal(self.number + 1).touch()
        raise RuntimeError("its files were taken away")

    monkeypatch.setattr(RunningAttempt, "_train", overtaken_meanwhile)
    lab.submit(20, [0.1], cluster="debug")
    (run,) = lab.files.runs()
    assert run.journal(1).stat().st_size == 0
    assert [attempt.superseded for attempt in read(run)] == [True, False]
    lost = without_progress(read(run), "any", made_checkpoint=lambda attempt: False, preempts=True)
    assert [attempt.number for attempt in lost] == [2]


def test_a_report_counts_no_crash_of_a_superseded_attempt(lab: Lab) -> None:
    lab.submit(20, [0.1], cluster="debug")
    (run,) = lab.files.runs()
    began = lab.records(run.id)[0]["time"]
    write_attempt(run, 2, int(began) + 100, crash(at=int(began) + 500))
    write_attempt(run, 3, int(began) + 200, crash())
    reported = CliRunner().invoke(
        app, ["report", "exp", "--format", "markdown", "--root", str(lab.root.path)]
    )
    assert reported.exit_code == 0, reported.exception
    rows = [[cell.strip() for cell in line.split("|")] for line in reported.stdout.splitlines()]
    (columns,) = [number for number, row in enumerate(rows) if "crashed" in row]
    assert dict(zip(rows[columns], rows[columns + 2], strict=True))["crashed"] == "1"
    assert (
        json.loads(CliRunner().invoke(app, ["status", "exp", "--json", "--root", str(lab.root.path)]).stdout)[
            "runs"
        ][0]["attempts"]
        == 3
    )
