"""Following a run's log: what is said while there is nothing, and when it is over."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from alphagrid.errors import UserError
from alphagrid.jobs.logs import Outlook, follow, read, tail
from alphagrid.jobs.runs.states import ACTIVE, State
from alphagrid.store.layout import ExperimentFiles
from alphagrid.store.rows import Job

RUN = "0123456789"
JOB = Job("slurm", "7_0")


def outlook(state: State, reason: str | None = None, cluster: str = "local") -> Outlook:
    return Outlook("lr0.1", state, reason, cluster, (JOB,), state in ACTIVE)


@pytest.fixture
def files(tmp_path: Path) -> ExperimentFiles:
    files = ExperimentFiles(tmp_path / "exp")
    files.submitit.mkdir(parents=True)
    return files


def write(files: ExperimentFiles, text: str) -> None:
    with (files.submitit / "7_0_0_log.out").open("a") as log:
        log.write(text)


def followed(files: ExperimentFiles, looks: list[Outlook], grow: dict[int, str]) -> tuple[str, list[str]]:
    """Follow through the looks given; before look number n, the log grows by `grow[n]`."""
    said: list[str] = []

    def look() -> Iterator[Outlook]:
        for number, one in enumerate(looks):
            write(files, grow.get(number, ""))
            yield one

    text = "".join(follow(files, RUN, look().__next__, said.append, sleep=lambda seconds: None))
    return text, said


def test_what_the_run_waits_for_is_said_once_until_it_changes(files: ExperimentFiles) -> None:
    waiting, running = outlook("pending", "other jobs come first"), outlook("running")
    looks = [
        waiting,
        waiting,
        waiting,
        running,
        running,
        outlook("requeued", "held"),
        running,
        outlook("completed"),
    ]
    text, said = followed(files, looks, {3: "attempt 1\n", 6: "attempt 2\n", 7: "the end\n"})
    assert said == ["lr0.1: pending (other jobs come first)", "lr0.1: requeued (held)"]
    assert text.splitlines()[1:] == ["attempt 1", "attempt 2", "the end"]


def test_a_run_that_squeue_left_out_once_is_not_over(files: ExperimentFiles) -> None:
    lost = outlook("unknown", "no scheduler knows it")
    looks = [outlook("running"), lost, outlook("running"), lost, lost]
    text, _ = followed(files, looks, {2: "more\n"})
    assert "more" in text


def test_a_run_without_a_log_ends_with_the_reason_why_there_is_none(files: ExperimentFiles) -> None:
    (files.submitit / "7_0_0_log.out").unlink(missing_ok=True)
    said: list[str] = []
    over = Outlook("lr0.1", "failed", "unknown partition", "slurm", ())
    assert list(follow(files, RUN, lambda: over, said.append)) == []
    assert said == ["lr0.1 has no log: it is failed: unknown partition"]


@pytest.mark.parametrize(
    ("state", "cluster", "hint"),
    [
        ("completed", "debug", "writes to the terminal of its submit"),
        ("pending", "slurm", "it has not started: other jobs come first"),
        ("running", "slurm", "has said nothing yet"),
        ("unknown", "slurm", "it is unknown: other jobs come first"),
    ],
)
def test_a_missing_log_is_explained(files: ExperimentFiles, state: State, cluster: str, hint: str) -> None:
    with pytest.raises(UserError) as caught:
        list(read(files, RUN, outlook(state, "other jobs come first", cluster)))
    assert hint in str(caught.value.hint)


def test_the_tail_leaves_out_empty_lines(files: ExperimentFiles) -> None:
    write(files, "one\n\ntwo\n   \nthree\n\n")
    assert tail(files, RUN, [JOB], 2) == ["two", "three"]
