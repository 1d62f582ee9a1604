"""A file that is listed and not there yet has not arrived: nothing ends over it; it is looked for again."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from alphagrid.errors import SystemRefused, UserError
from alphagrid.jobs import logs
from alphagrid.jobs.pruning import prunable
from alphagrid.jobs.runs import attempts, cancel_marker
from alphagrid.jobs.schedulers import local_supervisor
from alphagrid.jobs.schedulers.local_queue import LocalQueue
from alphagrid.jobs.schedulers.local_slots import GPUS_VARIABLE
from alphagrid.jobs.status import status
from alphagrid.jobs.worker import attempt_run
from alphagrid.store import layout, scan, submissions
from alphagrid.store.database import open_store
from alphagrid.store.layout import ExperimentFiles, Root
from alphagrid.store.submissions import RunEntry, Submission, Title

if TYPE_CHECKING:
    from tests.conftest import Lab

RUN = "00000000aa"
LATE = [errno.ENOENT, errno.ESTALE]


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return Root(tmp_path / "root")


@pytest.fixture
def exp(root: Root) -> ExperimentFiles:
    return root.experiment("exp")


def sent(files: ExperimentFiles, name: str = "s1", run: str = RUN) -> Submission:
    entry = RunEntry(id=run, name=f"run-{run}", params={}, config={"device": "cpu"})
    submission = Submission(
        id=name, created=float(name[1:]), experiment=files.name,
        profile={"name": "local", "cluster": "local"}, runs=[entry],
        named={run: Title(name=entry.name, params={})},
    )  # fmt: skip
    submissions.write(files, submission)
    return submission


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path, int], Callable[[], None]]:
    """Let a file be listed, and not be there for who looks at it or opens it, until the answer is called."""

    def make(path: Path, code: int) -> Callable[[], None]:
        late_files.add(str(path))
        codes[str(path)] = code
        return lambda: late_files.discard(str(path))

    late_files: set[str] = set()
    codes: dict[str, int] = {}
    open_, stat = os.open, Path.stat

    def refuse(path: Any) -> None:
        if str(path) in late_files:
            raise OSError(codes[str(path)], os.strerror(codes[str(path)]), str(path))

    def late_open(path: Any, *arguments: Any, **options: Any) -> int:
        refuse(path)
        return open_(path, *arguments, **options)

    def late_stat(path: Path, **options: Any) -> os.stat_result:
        refuse(path)
        return stat(path, **options)

    monkeypatch.setattr(os, "open", late_open)
    monkeypatch.setattr(Path, "stat", late_stat)
    return make


Late = Callable[[Path, int], Callable[[], None]]


@pytest.mark.parametrize("code", LATE)
def test_a_backlog_takes_in_a_submission_when_it_arrives(
    root: Root, exp: ExperimentFiles, late: Late, code: int
) -> None:
    sent(exp)
    sent(exp, "s2", "00000000bb")
    arrive = late(exp.submissions / "s2.json", code)
    backlog = LocalQueue(root, ())
    backlog.refresh()
    assert len(backlog) == 1
    arrive()
    backlog.refresh()
    assert len(backlog) == 2


def test_a_backlog_looks_again_at_what_could_be_seen_but_not_be_opened(
    root: Root, exp: ExperimentFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent(exp)
    reads: list[Path] = []
    read = submissions.read

    def stale_once(path: Path) -> Submission:
        reads.append(path)
        if len(reads) == 1:
            raise OSError(errno.ESTALE, "Stale file handle")
        return read(path)

    monkeypatch.setattr(submissions, "read", stale_once)
    backlog = LocalQueue(root, ())
    backlog.refresh()
    assert len(backlog) == 0
    backlog.refresh()
    assert len(backlog) == 1


def test_a_damaged_submission_keeps_no_other_from_its_supervisor(
    root: Root, exp: ExperimentFiles, caplog: pytest.LogCaptureFixture
) -> None:
    sent(exp)
    sent(root.experiment("other"), "s2", "00000000bb")
    (exp.submissions / "s1.json").write_text("{")
    backlog = LocalQueue(root, ())
    for _ in range(3):
        backlog.refresh()
    job = backlog.next()
    assert job is not None
    assert job.files.name == "other"
    assert caplog.text.count("s1.json is not a valid submission file") == 1


def test_a_damaged_marker_ends_no_backlog_and_starts_no_run(root: Root, exp: ExperimentFiles) -> None:
    sent(exp)
    sent(exp, "s2", "00000000bb")
    marker = exp.run(RUN).cancel_marker
    marker.parent.mkdir()
    marker.write_text("[" * 100_000)
    with pytest.raises(UserError, match="is damaged"):
        cancel_marker.is_cancelled(exp.run(RUN), "s1")
    backlog = LocalQueue(root, ())
    backlog.refresh()
    job = backlog.next()
    assert job is not None
    assert job.run_id == "00000000bb"


def test_a_supervisor_outlives_a_folder_that_cannot_be_listed(
    root: Root, exp: ExperimentFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent(exp)
    monkeypatch.setenv(GPUS_VARIABLE, "")  # a supervisor sets it for its workers
    monkeypatch.setattr(local_supervisor.Supervisor, "_start_what_fits", lambda self: None)
    at_work = local_supervisor.Supervisor(root)
    with monkeypatch.context() as broken:
        broken.setattr(Root, "experiments", lambda self: _stale())
        assert not at_work.has_work()
    assert at_work.has_work()


def _stale() -> None:
    raise OSError(errno.ESTALE, "Stale file handle")


def test_submissions_are_waited_for_by_who_has_to_know_all(
    exp: ExperimentFiles, late: Late, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent(exp)
    sent(exp, "s2")
    arrive = late(exp.submissions / "s2.json", errno.ESTALE)
    looks: list[float] = []

    def arrive_at_the_third(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 3:
            arrive()

    monkeypatch.setattr("time.sleep", arrive_at_the_third)
    assert [one.id for one in submissions.read_all(exp)] == ["s1", "s2"]


def test_a_submission_that_never_arrives_refuses_and_one_that_was_removed_does_not(
    exp: ExperimentFiles, late: Late, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent(exp)
    sent(exp, "s2")
    monkeypatch.setattr(submissions, "PATIENCE_SECONDS", 0.0)
    files = submissions.submission_files(exp)
    late(exp.submissions / "s2.json", errno.ENOENT)
    with pytest.raises(SystemRefused, match=r"s2\.json is listed, but cannot be opened"):
        submissions.read_all(exp)
    (exp.submissions / "s2.json").unlink()
    monkeypatch.setattr(submissions, "submission_files", lambda _: files)
    assert [one.id for one in submissions.read_all(exp)] == ["s1"]


def test_a_submission_to_which_a_link_leads_in_vain_is_not_waited_for(
    exp: ExperimentFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent(exp)
    (exp.submissions / "s2.json").symlink_to("nowhere")
    looks: list[float] = []
    monkeypatch.setattr("time.sleep", looks.append)
    with pytest.raises(SystemRefused, match=r"cannot read .*s2\.json"):
        submissions.read_all(exp)
    with pytest.raises(FileNotFoundError):
        submissions.wait_for(exp.submissions / "s2.json")
    assert looks == []


@pytest.mark.parametrize("code", LATE)
@pytest.mark.parametrize("which", ["submission", "journal"])
def test_an_index_takes_in_a_file_when_it_arrives(
    lab: Lab, late: Late, monkeypatch: pytest.MonkeyPatch, which: str, code: int
) -> None:
    lab.submit(20, [0.1, 0.2], cluster="debug")
    first, second = (run["id"] for run in (one.as_dict() for one in status(lab.root, "exp").runs))
    lab.root.path.joinpath("alphagrid.db").unlink()
    path = lab.files.run(second).journal(1) if which == "journal" else next(lab.files.submissions.iterdir())
    arrive = late(path, code)
    with open_store(lab.root) as store:
        store.sync()
        assert store.db.execute("SELECT count(*) FROM problem").fetchone() == (0,)
        steps = dict(store.db.execute("SELECT id, step FROM run").fetchall())
        assert steps.get(first) == 20
        arrive()
        store.sync()
        assert dict(store.db.execute("SELECT id, step FROM run").fetchall()) == {first: 20, second: 20}
        assert store.check() == []


def test_what_vanishes_between_listing_and_looking_is_no_failure_of_a_scan(
    exp: ExperimentFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An entry of a folder is looked at a moment after it was listed."""
    sent(exp)
    (exp.submissions / "s2.json").write_text("{}")
    journal = exp.run(RUN).journal(1)
    journal.parent.mkdir()
    journal.touch()
    entries = scan._entries

    def vanishing(folder: Path | str) -> Iterator[os.DirEntry[str]]:
        found = list(entries(folder))
        (exp.submissions / "s2.json").unlink(missing_ok=True)
        journal.unlink(missing_ok=True)
        yield from found

    monkeypatch.setattr(scan, "_entries", vanishing)
    found = scan.scan(exp)
    assert list(found.submissions) == ["s1.json"]
    assert found.runs[RUN].journals == {}


def test_a_journal_that_is_listed_only_is_an_attempt_that_has_written_nothing_yet(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.submit(20, [0.1], cluster="debug")
    (run,) = lab.files.runs()
    names = layout._names

    def listed(folder: Path) -> Iterator[str]:
        yield from names(folder)
        if folder == run.path:
            yield "journal-0002.jsonl"

    monkeypatch.setattr(layout, "_names", listed)
    first, second = attempts.read(run)
    assert (first.end, second.began, second.end) == ("completed", False, None)
    assert attempts.latest(run) == second
    assert not attempts.has_new_checkpoint(second)
    assert logs.tail(lab.files, run.id) == []
    assert [one.name for one in status(lab.root, "exp").runs] == ["lr0.1"]


def test_a_checkpoint_that_is_deleted_meanwhile_is_no_failure_of_prune(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.submit(20, [0.1], cluster="debug", checkpoint={"every_seconds": 1e-9})
    checkpoints = layout.RunFiles.checkpoints

    def deleted(run: layout.RunFiles) -> list[Path]:
        found = checkpoints(run)
        for path in found:
            path.unlink()
        return found

    monkeypatch.setattr(layout.RunFiles, "checkpoints", deleted)
    assert [one.bytes for one in prunable(lab.root, "exp", status(lab.root, "exp").runs, last=True)] == [0]


def test_a_worker_waits_for_the_file_that_says_what_it_has_to_run(lab: Lab) -> None:
    """On Slurm it may begin on another node before that node sees the file."""
    lab.submit(20, [0.1], cluster="debug")
    (path,) = lab.files.submissions.iterdir()
    (run,) = lab.files.runs()
    later = path.with_name(".later")
    path.rename(later)
    timer = threading.Timer(0.5, lambda: later.rename(path))
    timer.start()
    try:
        assert attempt_run(lab.files, run.id, path.stem) == "elsewhere"  # it has ended already
    finally:
        timer.join()


def test_a_log_that_vanishes_is_no_failure(tmp_path: Path, late: Late) -> None:
    files = Root(tmp_path).experiment("exp")
    folder = files.submitit / RUN
    folder.mkdir(parents=True)
    for number in (1, 2):
        (folder / f"{number}_0_log.out").write_text(f"line {number}\n")
    late(folder / "2_0_log.out", errno.ESTALE)
    said = "".join(logs.read(files, RUN, logs.Outlook("run", "unknown")))
    assert "line 1" in said
    assert logs.tail(files, RUN) == []
