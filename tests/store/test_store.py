"""The index: what it answers, how it follows the files, and what it refuses."""

import json
import math
import os
import shutil
import sqlite3
import time
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from alphagrid.errors import SystemRefused, UserError
from alphagrid.store import check_files, journal, location, locks, queries, schema, submissions
from alphagrid.store.database import Store, open_store
from alphagrid.store.files import open_file
from alphagrid.store.journal import Journal
from alphagrid.store.layout import ExperimentFiles, Root
from alphagrid.store.locks import attempted
from alphagrid.store.queries import Estimate, RunRow
from alphagrid.store.submissions import JobRef, RunEntry, Submission, Title

A, B, C = "00000000aa", "00000000bb", "00000000cc"
SECONDS = {"data": 0.1, "forward_backward": 0.5}


@pytest.fixture
def root(tmp_path: Path) -> Root:
    (tmp_path / "root").mkdir()
    return Root(tmp_path / "root")


@pytest.fixture
def exp(root: Root) -> ExperimentFiles:
    return root.experiment("exp")


def submit(
    files: ExperimentFiles, *ids: str, at: float = 1.0, named: tuple[str, ...] | None = None, **config: Any
) -> Submission:
    runs = [RunEntry(id=i, name=f"run-{i}", params={"seed": 0}, config={"seed": 0, **config}) for i in ids]
    submission = Submission(
        id=f"s{at:g}",
        created=at,
        experiment=files.name,
        profile={"name": "local", "cluster": "local"},
        runs=runs,
        named={i: Title(name=f"run-{i}", params={"seed": 0}) for i in (ids if named is None else named)},
    )
    submissions.write(files, submission)
    return submission


class Writer:
    """Writes a journal as a worker does, in few words."""

    def __init__(
        self, files: ExperimentFiles, run: str, attempt: int = 1, resume: int = 0, at: float = 0.0
    ) -> None:
        ticks = count(int(at))
        self.journal = Journal.create(files.run(run).journal(attempt), clock=lambda: float(next(ticks)))
        self.journal.append(
            "start", resume, resume / 10, attempt=attempt, resume_step=resume, fresh=False, submission="s1",
            versions={"torch": "2"}, host="node1", pid=7, device="cpu", gpu=None, threads=1,
            job={"cluster": "slurm", "job_id": "5_1"}, stop={"steps": 100},
        )  # fmt: skip

    def window(self, step: int, loss: float = 0.5, rate: float = 0.1, **more: Any) -> "Writer":
        rates = {"min": rate, "mean": rate, "max": rate}
        self.journal.append(
            "window",
            step,
            step / 10,
            steps=10,
            alpha_steps=2,
            loss=loss,
            learning_rate=rates,
            seconds=SECONDS,
            **more,
        )
        return self

    def evaluation(self, step: int, at_stop: bool = False, **losses: float) -> "Writer":
        splits = {split: {"loss": loss, "examples": 8.0} for split, loss in losses.items()}
        self.journal.append("evaluation", step, step / 10, splits=splits, seconds=0.2, at_stop=at_stop)
        return self

    def alpha(self, step: int, **estimates: dict[str, float | None]) -> "Writer":
        self.journal.append(
            "alpha", step, step / 10, learning_rate=0.1, estimates=estimates, direction_norm=2.0,
            gradient_norm=3.0, cosine=-0.1, train_loss=0.5, probe_loss=None,
        )  # fmt: skip
        return self

    def event(self, step: int, name: str, **details: Any) -> "Writer":
        self.journal.append("event", step, step / 10, event=name, **details)
        return self

    def end(self, step: int, status: str, reason: str | None = None) -> "Writer":
        self.journal.append("end", step, step / 10, status=status, reason=reason)
        return self


def synced(root: Root) -> Store:
    store = open_store(root)
    store.sync()
    return store


def record_job(exp: ExperimentFiles, submission: str, run_id: str, job: JobRef) -> None:
    sent = submissions.read(exp.submissions / f"{submission}.json")
    submissions.amend(exp, sent, jobs={run_id: job})


def only_run(store: Store) -> RunRow:
    (row,) = queries.runs(store.db, "exp")
    return row


# What runs there are


def test_runs_come_from_submissions_before_they_have_begun(root: Root, exp: ExperimentFiles) -> None:
    submit(exp, B, A, stop={"steps": 5})
    record_job(exp, "s1", A, JobRef(cluster="slurm", job_id="9_0", submitted=2.0))
    with synced(root) as store:
        assert queries.experiments(store.db) == ["exp"]
        b, a = queries.runs(store.db, "exp")
        assert (b.id, a.id) == (B, A)  # in the order of the specification
        assert (a.name, a.attempts, a.step, a.end_status, a.last_submission) == (f"run-{A}", 0, 0, None, "s1")
        assert a.job == queries.Job("slurm", "9_0", 2.0)
        assert b.job is None
        assert a.config == {"seed": 0, "stop": {"steps": 5}}


def test_the_newest_submission_decides_name_stop_and_what_is_named(root: Root, exp: ExperimentFiles) -> None:
    submit(exp, A, B, at=2.0, stop={"steps": 5})
    submit(exp, A, at=10.0, named=(A, C), stop={"steps": 9})
    with synced(root) as store:
        a, b = queries.runs(store.db, "exp")
        assert (a.config["stop"], a.last_submission, a.named) == ({"steps": 9}, "s10", True)
        assert (b.config["stop"], b.last_submission, b.named) == ({"steps": 5}, "s2", False)


def test_a_later_submission_is_noticed_and_so_is_its_job(root: Root, exp: ExperimentFiles) -> None:
    submit(exp, A)
    with synced(root) as store:
        submit(exp, A, at=3.0)
        record_job(exp, "s3", A, JobRef(cluster="local", job_id="77", submitted=4.0))
        store.sync()
        row = only_run(store)
        assert (row.last_submission, row.submitted) == ("s3", 3.0)
        assert row.job == queries.Job("local", "77", 4.0)


def test_one_config_in_two_experiments_is_two_runs(root: Root) -> None:
    for name, loss in (("one", 1.0), ("two", 2.0)):
        submit(root.experiment(name), A)
        Writer(root.experiment(name), A).evaluation(1, validation=loss)
    with synced(root) as store:
        found = [row for name in ("one", "two") for row in queries.runs(store.db, name)]
        assert [row.best_validation_loss for row in found] == [1.0, 2.0]


def test_a_run_that_no_submission_sends_is_shown_by_its_id(root: Root, exp: ExperimentFiles) -> None:
    exp.submissions.mkdir(parents=True)
    Writer(exp, A).window(10)
    exp.run(A).config.write_text('{"seed": 3}')
    with synced(root) as store:
        row = only_run(store)
        assert (row.name, row.named, row.config, row.step) == (A, False, {"seed": 3}, 10)


def test_a_cancel_marker_holds_for_the_submissions_it_names(root: Root, exp: ExperimentFiles) -> None:
    submit(exp, A)
    exp.run(A).path.mkdir()
    exp.run(A).cancel_marker.write_text(json.dumps({"time": 2.0, "submissions": ["s1"]}))
    with synced(root) as store:
        assert only_run(store).cancelled
        submit(exp, A, at=3.0)
        store.sync()
        assert not only_run(store).cancelled


# What a run's summary says


def test_summary_follows_the_newest_attempt(root: Root, exp: ExperimentFiles) -> None:
    submit(exp, A)
    first = Writer(exp, A, at=100).window(10, rate=0.1).window(20, rate=0.2).event(20, "crash", reason="boom")
    first.journal.append("checkpoint", 20, 2.0, file="c", bytes=123, seconds=0.5)
    with synced(root) as store:
        row = only_run(store)
        assert (row.step, row.train_seconds, row.learning_rate, row.attempts) == (20, 2.0, 0.2, 1)
        assert (row.last_event, row.last_event_reason) == ("crash", "boom")
        assert (row.checkpoint_step, row.checkpoint_bytes, row.checkpoint_seconds) == (20, 123, 0.5)
        assert (row.first_attempt_time, row.last_seen) == (100.0, 104.0)
        second = Writer(exp, A, attempt=2, resume=20, at=200)
        store.sync()
        row = only_run(store)
        assert (row.attempts, row.step, row.last_event, row.end_status) == (2, 20, None, None)
        second.window(30).end(30, "completed")
        store.sync()
        row = only_run(store)
        assert (row.step, row.end_status, row.end_submission, row.end_time) == (30, "completed", "s1", 202.0)
        assert [a.end_status for a in queries.attempts(store.db, row.key)] == [None, "completed"]


def test_an_end_no_longer_holds_once_another_attempt_has_begun(root: Root, exp: ExperimentFiles) -> None:
    submit(exp, A)
    Writer(exp, A).end(10, "failed", "why")
    with synced(root) as store:
        assert (only_run(store).end_status, only_run(store).end_reason) == ("failed", "why")
        Writer(exp, A, attempt=2, resume=5)
        store.sync()
        assert (only_run(store).end_status, only_run(store).end_submission) == (None, None)


def test_best_validation_loss_is_finite_and_not_from_a_stop_passed_since(
    root: Root, exp: ExperimentFiles
) -> None:
    submit(exp, A)
    Writer(exp, A).evaluation(1, validation=0.9).evaluation(5, validation=-math.inf).evaluation(
        9, validation=0.1, at_stop=True
    )
    with synced(root) as store:
        assert only_run(store).best_validation_loss == 0.1
        Writer(exp, A, attempt=2, resume=9).evaluation(11, validation=math.nan)
        store.sync()
        assert only_run(store).best_validation_loss == 0.9


# What was measured


def test_nan_comes_back_as_nan_and_infinities_are_kept(root: Root, exp: ExperimentFiles) -> None:
    submit(exp, A)
    estimate = {"alpha_rel": math.inf, "alpha_abs": math.nan, "slope": -1.0, "curvature": None}
    writer = Writer(exp, A).window(10, loss=math.nan, rate=math.inf)
    writer.evaluation(10, train=math.nan, validation=math.inf).alpha(9, unbiased=estimate)
    with synced(root) as store:
        key = only_run(store).key
        (window,) = queries.windows(store.db, key)
        assert math.isnan(window.loss)
        assert window.lr_max == math.inf
        (evaluation,) = queries.evaluations(store.db, key)
        assert math.isnan(evaluation.losses["train"])
        assert evaluation.losses["validation"] == math.inf
        (alpha,) = queries.alphas(store.db, key)
        assert alpha.estimates["unbiased"].alpha_rel == math.inf
        assert math.isnan(alpha.estimates["unbiased"].alpha_abs or 0.0)
        assert alpha.estimates["unbiased"].curvature is None
        stored = store.db.execute("SELECT value FROM metric WHERE key = 'unbiased.alpha_abs'").fetchall()
        assert stored == [(None,)]


def test_alphas_of_one_estimator_leave_the_others_out(root: Root, exp: ExperimentFiles) -> None:
    submit(exp, A)
    value: dict[str, float | None] = {"alpha_rel": 1.0, "alpha_abs": 2.0, "slope": 3.0, "curvature": 4.0}
    Writer(exp, A).alpha(3, biased=value, unbiased=value).alpha(4, biased=value)
    with synced(root) as store:
        key = only_run(store).key
        (row,) = queries.alphas(store.db, key, "unbiased")
        assert (row.step, row.estimates) == (3, {"unbiased": Estimate(1.0, 2.0, 3.0, 4.0)})
        assert (row.train_seconds, row.learning_rate, row.direction_norm) == (0.3, 0.1, 2.0)
        assert (row.cosine, row.probe_loss) == (-0.1, None)
        assert [r.step for r in queries.alphas(store.db, key)] == [3, 4]


def test_windows_events_and_attempts_say_what_the_journal_said(root: Root, exp: ExperimentFiles) -> None:
    submit(exp, A)
    Writer(exp, A).window(10).event(10, "learning_rate", value=0.3, used=5, of=math.inf)
    with synced(root) as store:
        key = only_run(store).key
        (window,) = queries.windows(store.db, key)
        assert (window.steps, window.alpha_steps, window.seconds["data"], window.seconds["alpha"]) == (
            10,
            2,
            0.1,
            0,
        )
        (event,) = queries.events(store.db, key)
        assert (event.event, event.details) == ("learning_rate", {"value": 0.3, "used": 5, "of": math.inf})
        (attempt,) = queries.attempts(store.db, key)
        assert (attempt.host, attempt.versions, attempt.stop) == ("node1", {"torch": "2"}, {"steps": 100})
        assert attempt.job == queries.Job("slurm", "5_1")
        assert only_run(store).learning_rate == 0.3


def test_the_parts_of_an_alpha_step_come_back_where_the_journal_tells_them(
    root: Root, exp: ExperimentFiles
) -> None:
    submit(exp, A)
    writer = Writer(exp, A).window(10, alpha_parts={"curvature": 0.4, "other": 0.1}).window(20)
    writer.window(30, alpha_parts={"curvature": 0.4, "sideways": 0.1})
    writer.alpha(5, unbiased={"alpha_rel": 1.0})
    writer.journal.append("alpha", 6, 0.6, learning_rate=0.1, estimates={}, probe_cosine=-0.2)
    with open_store(root) as store:
        store.sync()
        (run,) = queries.runs(store.db, "exp")
        told, untold = queries.windows(store.db, run.key)
        assert (told.alpha_parts, untold.alpha_parts) == ({"curvature": 0.4, "other": 0.1}, {})
        assert [row.probe_cosine for row in queries.alphas(store.db, run.key)] == [None, -0.2]
        assert queries.damage(store.db, "exp")  # a part that nobody knows is no silent loss


def test_bulk_queries_agree_with_those_of_one_run(root: Root, exp: ExperimentFiles) -> None:
    submit(exp, A, B, C)
    value: dict[str, float | None] = {"alpha_rel": 1.0}
    for run in (A, B):
        Writer(exp, run).window(10).evaluation(10, validation=0.5, test=0.6).alpha(3, biased=value).event(
            10, "x"
        )
    with synced(root) as store:
        keys = [row.key for row in queries.runs(store.db, "exp")]
        for one, many in (
            (queries.windows, queries.windows_of),
            (queries.evaluations, queries.evaluations_of),
            (queries.events, queries.events_of),
            (queries.attempts, queries.attempts_of),
            (queries.alphas, queries.alphas_of),
        ):
            assert {key: one(store.db, key) for key in keys if one(store.db, key)} == many(store.db, "exp")
        assert queries.losses(store.db, "exp", "test")[keys[0]] == [(10, 1.0, 0.6, False)]


def test_a_resumed_run_has_every_step_once(root: Root, exp: ExperimentFiles) -> None:
    submit(exp, A)
    value: dict[str, float | None] = {"alpha_rel": 1.0}
    first = Writer(exp, A).window(10).alpha(9, biased=value).alpha(10, biased=value).window(20)
    first.event(12, "learning_rate", value=9.0).event(20, "interrupted", reason="preempted")
    with synced(root) as store:
        Writer(exp, A, attempt=2, resume=10).alpha(10, biased=value).window(20, loss=0.25)
        store.sync()
        row = only_run(store)
        assert [(w.step, w.attempt) for w in queries.windows(store.db, row.key)] == [(10, 1), (20, 2)]
        assert [(a.step, a.attempt) for a in queries.alphas(store.db, row.key)] == [(9, 1), (10, 2)]
        assert [e.event for e in queries.events(store.db, row.key)] == ["interrupted"]  # history stays
        assert row.superseded == 3


# Following the files


def test_a_second_sync_reads_nothing(root: Root, exp: ExperimentFiles) -> None:
    submit(exp, A)
    writer = Writer(exp, A).window(10)
    with open_store(root) as store:
        assert (store.sync().runs, store.sync().runs) == (1, 0)
        writer.window(20)
        result = store.sync()
        assert (result.runs, result.rows) == (1, 1)


def test_a_tail_that_arrives_late_under_an_old_stamp_is_read(root: Root, exp: ExperimentFiles) -> None:
    submit(exp, A)
    Writer(exp, A).window(10).window(20)
    path = exp.run(A).journal(1)
    whole, stat = path.read_bytes(), path.stat()
    path.write_bytes(whole[:-50] + b"\0" * 50)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    with synced(root) as store:
        assert only_run(store).step == 10
        path.write_bytes(whole)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        store.sync()
        assert only_run(store).step == 20


def test_a_hole_that_fills_in_while_the_journal_grows_is_read(root: Root, exp: ExperimentFiles) -> None:
    submit(exp, A)
    writer = Writer(exp, A).window(10).window(20).window(30)
    path = exp.run(A).journal(1)
    whole = path.read_bytes()
    second = whole.index(b"\n") + 1
    path.write_bytes(whole[:second] + b"\0" * 50 + whole[second + 50 :])
    with synced(root) as store:
        assert [w.step for w in queries.windows(store.db, only_run(store).key)] == [20, 30]
        path.write_bytes(whole)
        writer.window(40)
        assert store.check() == []
        assert [w.step for w in queries.windows(store.db, only_run(store).key)] == [10, 20, 30, 40]


def test_what_is_gone_from_disk_goes_from_the_index(root: Root, exp: ExperimentFiles) -> None:
    submit(exp, A)
    submit(exp, B, at=2.0)
    submit(root.experiment("other"), C)
    Writer(exp, A).window(10)
    Writer(exp, B).window(10)
    with synced(root) as store:
        shutil.rmtree(exp.run(A).path)
        (exp.submissions / "s2.json").unlink()
        shutil.rmtree(exp.run(B).path)
        shutil.rmtree(root.experiment("other").path)
        store.sync()
        assert queries.experiments(store.db) == ["exp"]
        row = only_run(store)
        assert (row.id, row.attempts, row.step) == (A, 0, 0)
        assert store.db.execute("SELECT count(*) FROM window").fetchone() == (0,)
        assert store.check() == []


def test_sync_may_be_limited_to_some_experiments(root: Root, exp: ExperimentFiles) -> None:
    submit(exp, A)
    submit(root.experiment("other"), B)
    with open_store(root) as store:
        store.sync(["exp"])
        assert queries.experiments(store.db) == ["exp"]


def test_a_second_ingester_waits_and_then_reads_what_is_there(root: Root, exp: ExperimentFiles) -> None:
    submit(exp, A)
    with synced(root) as store, synced(root) as other, attempted(Path(f"{store.path}.lock")):
        start = time.monotonic()
        assert not other.sync(patience=0.1).complete
        assert time.monotonic() - start >= 0.1
        assert only_run(other).id == A
    with open_store(root) as store:
        assert store.sync().complete


def test_a_journal_that_cannot_be_read_is_reported_and_tried_again(root: Root, exp: ExperimentFiles) -> None:
    submit(exp, A)
    exp.run(A).journal(1).mkdir(parents=True)  # as root, no mode forbids anything
    with synced(root) as store:
        assert any("cannot be read" in problem.reason for problem in store.check())
        exp.run(A).journal(1).rmdir()
        Writer(exp, A).window(10)
        assert store.check() == []
        assert only_run(store).step == 10


WINDOW = {
    "steps": 10, "alpha_steps": 2, "loss": 0.5, "seconds": SECONDS,
    "learning_rate": {"min": 0.1, "mean": 0.1, "max": 0.1},
}  # fmt: skip
SUMMED_UP = {"alpha_rel_mean": 1.0, "alpha_rel_median": 1.0, "alpha_rel_negative": 0.0}
NO_RECORDS: dict[str, tuple[str, int, float, dict[str, Any]]] = {
    "time spent for ever": ("window", 10, math.inf, WINDOW),
    "time whose square is infinite": ("window", 10, 1e308, WINDOW),
    "time beyond all integers": ("window", 10, 10**30, WINDOW),
    "negative time": ("window", 10, -1.0, WINDOW),
    "negative step": ("window", -10, 1.0, WINDOW),
    "step beyond SQLite's integers": ("window", 2**63, 1.0, WINDOW),
    "infinite seconds": ("window", 10, 1.0, {**WINDOW, "seconds": {"data": math.inf}}),
    "infinite checkpoint": ("checkpoint", 10, 1.0, {"bytes": 1, "seconds": math.inf, "file": "c"}),
    "too many examples": ("event", 10, 1.0, {"event": "training_started", "train_examples": 10**400}),
    "window of α* that begins nowhere": ("alpha", 10, 1.0, {"first_step": math.inf}),
    "window of α* without a count": ("alpha", 10, 1.0, {"first_step": 1, "estimates": {"e": SUMMED_UP}}),
    "window of infinitely many α*": (
        "alpha", 10, 1.0, {"first_step": 1, "estimates": {"e": {**SUMMED_UP, "alpha_rel_n": math.inf}}},
    ),
    "negative repeat": ("alpha", 10, 1.0, {"repeat": -1}),
}  # fmt: skip


@pytest.mark.parametrize("case", NO_RECORDS)
def test_a_number_that_nothing_can_be_counted_with_is_a_damaged_line(
    root: Root, exp: ExperimentFiles, case: str
) -> None:
    submit(exp, A, stop={"steps": 1000})
    kind, step, train_seconds, fields = NO_RECORDS[case]
    writer = Writer(exp, A).window(5)
    writer.journal.append(kind, step, train_seconds, **fields)
    writer.window(20)
    with synced(root) as store:
        (problem,) = store.check()
        assert problem.reason.startswith("bad line: not what a record of the kind")
        assert [w.step for w in queries.windows(store.db, only_run(store).key)] == [5, 20]
        assert queries.alphas(store.db, only_run(store).key) == []


@pytest.mark.parametrize("moment", [math.inf, -math.inf, math.nan, 1e300])
def test_a_record_of_no_time_is_a_damaged_line(root: Root, exp: ExperimentFiles, moment: float) -> None:
    submit(exp, A)
    writer = Writer(exp, A)
    writer.journal._clock = lambda: moment
    writer.window(10)
    writer.journal._clock = lambda: 7.0
    writer.window(20)
    with synced(root) as store:
        assert [w.step for w in queries.windows(store.db, only_run(store).key)] == [20]
        assert only_run(store).last_seen == 7.0


@pytest.mark.parametrize(
    "bad",
    [
        {"resume_step": -1},
        {"stop": {"steps": 10**400}},
        {"job": {"cluster": "slurm", "job_id": "1", "submitted": "x"}},
    ],
    ids=str,
)
def test_a_start_that_says_nothing_usable_is_a_damaged_line(
    root: Root, exp: ExperimentFiles, bad: dict[str, Any]
) -> None:
    submit(exp, A)
    good = journal.read(Writer(exp, A).journal.path).records[0]
    writer = Journal.create(exp.run(A).journal(2), clock=lambda: 9.0)
    del good["time"], good["seq"]
    writer.append(**{**good, **bad})
    writer.append("event", 1, 1.0, event="warning", message="m")
    with synced(root) as store:
        assert [attempt.resume_step for attempt in queries.attempts(store.db, only_run(store).key)] == [
            0,
            None,
        ]


def test_half_a_character_is_a_question_mark_wherever_a_journal_may_hold_it(
    root: Root, exp: ExperimentFiles
) -> None:
    submit(exp, A)
    writer, half = Writer(exp, A), "\ud800"
    splits = {"validation": {"loss": 0.5, "examples": 3}, half: {"loss": 0.25, "examples": 3}}
    writer.journal.append("evaluation", 10, 1.0, splits=splits, seconds=0.1, at_stop=False)
    writer.journal.append("alpha", 10, 1.0, estimates={half: {"alpha_rel": 1.0}}, **{half: 2.0})
    writer.journal.append("event", 10, 1.0, event="warning", message=half)
    with synced(root) as store:
        key = only_run(store).key
        assert queries.evaluations(store.db, key)[0].losses == {"validation": 0.5, "?": 0.25}
        assert queries.alphas(store.db, key)[0].estimates == {"?": Estimate(alpha_rel=1.0)}
        assert list(queries.warnings(store.db, "exp")) == ["?"]
        assert store.check() == []


def test_a_broken_submission_is_reported_and_the_others_are_read(root: Root, exp: ExperimentFiles) -> None:
    submit(exp, A)
    (exp.submissions / "s0.json").write_text("{")
    with synced(root) as store:
        assert only_run(store).id == A
        (problem,) = store.check()
        assert (problem.experiment, problem.file) == ("exp", "submissions/s0.json")
        (exp.submissions / "s0.json").unlink()
        assert store.check() == []


# Check


def test_check_of_a_sound_store_finds_nothing(root: Root, exp: ExperimentFiles) -> None:
    submit(exp, A)
    Writer(exp, A).window(10).end(10, "completed")
    with open_store(root) as store:
        assert store.check() == []


def test_check_reads_the_checkpoint_a_run_would_go_on_from_while_others_use_the_index(
    root: Root, exp: ExperimentFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit(exp, A)
    Writer(exp, A).window(10)
    for step in (10, 20, 30):
        (exp.run(A).path / f"checkpoint-{step:010d}-0001-00000000.pt").write_text("torn")
    read: list[str] = []
    with open_store(root) as store:

        def read_unlocked(path: Path) -> BinaryIO:
            assert not locks.is_held(Path(f"{store.path}.lock"))
            read.append(path.name)
            return open_file(path)

        monkeypatch.setattr(check_files, "open_file", read_unlocked)
        newest = f"{A}/checkpoint-0000000030-0001-00000000.pt"
        assert [problem.file for problem in store.check()] == [newest]
    assert [f"{A}/{name}" for name in read] == [newest]


def test_check_names_the_bad_line(root: Root, exp: ExperimentFiles) -> None:
    submit(exp, A)
    Writer(exp, A).window(10).window(20)
    path = exp.run(A).journal(1)
    content = bytearray(path.read_bytes())
    at = content.index(b'"window"')
    content[at + 1] ^= 1
    path.write_bytes(content)
    with open_store(root) as store:
        (problem,) = store.check()
        assert problem.file == f"{A}/journal-0001.jsonl"
        assert problem.offset == content[:at].rindex(b"\n") + 1
        assert [w.step for w in queries.windows(store.db, only_run(store).key)] == [20]


def test_check_names_a_flip_in_what_was_ingested_already(root: Root, exp: ExperimentFiles) -> None:
    submit(exp, A)
    writer = Writer(exp, A).window(10).window(20)
    with synced(root) as store:
        path = exp.run(A).journal(1)
        with path.open("r+b") as file:
            file.seek(path.read_bytes().index(b'"window"') + 1)
            file.write(b"m")
        writer.window(30)  # grown since, and the seam is intact: a sync sees nothing wrong
        problems = store.check()
        assert any("rebuild" in problem.reason for problem in problems)
        store.rebuild()
        assert [problem.file for problem in store.check()] == [f"{A}/journal-0001.jsonl"]


def test_check_finds_missing_records_and_torn_ends(root: Root, exp: ExperimentFiles) -> None:
    submit(exp, A, B)
    Writer(exp, A).window(10).window(20)
    lines = exp.run(A).journal(1).read_bytes().splitlines(keepends=True)
    exp.run(A).journal(1).write_bytes(lines[0] + lines[2])
    Writer(exp, B).window(10)
    with exp.run(B).journal(1).open("ab") as file:
        file.write(b"\0" * 9)
    with open_store(root) as store:
        (gap,) = store.check()  # the tail of B may still arrive
        assert gap.reason == "1 records are missing"
        Writer(exp, B, attempt=2, resume=10)
        torn = store.check()[-1]
        assert (torn.file, torn.reason) == (f"{B}/journal-0001.jsonl", "the last 9 bytes are torn")


def test_a_record_that_makes_no_sense_is_set_aside(root: Root, exp: ExperimentFiles) -> None:
    submit(exp, A)
    writer = Writer(exp, A)
    writer.journal.append("window", 10, 1.0, loss="low")
    writer.journal.append(
        "window", 10, math.nan, steps=1, loss=1.0, learning_rate={"min": 1, "mean": 1, "max": 1}, seconds={}
    )
    writer.journal.append("hologram", 10, 1.0)
    writer.window(20)
    with open_store(root) as store:
        reasons = [problem.reason for problem in store.check()]
        assert len(reasons) == 2
        assert all("window" in reason for reason in reasons)
        assert only_run(store).step == 20


# The file


def test_a_newer_store_is_refused_and_not_touched(root: Root, exp: ExperimentFiles) -> None:
    submit(exp, A)
    synced(root).close()
    path = root.path / "alphagrid.db"
    with sqlite3.connect(path) as db:
        db.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
    db.close()
    before = path.read_bytes()
    with pytest.raises(UserError, match="newer"):
        open_store(root)
    assert path.read_bytes() == before


def test_an_older_store_is_made_anew(root: Root, exp: ExperimentFiles) -> None:
    submit(exp, A)
    synced(root).close()
    with sqlite3.connect(root.path / "alphagrid.db") as db:
        db.execute("PRAGMA user_version = 0")
        db.execute("DROP TABLE window")
    db.close()
    with synced(root) as store:
        assert only_run(store).id == A
        assert store.check() == []


def test_another_programs_database_is_refused(root: Root) -> None:
    with sqlite3.connect(root.path / "alphagrid.db") as db:
        db.execute("CREATE TABLE theirs (x)")
    db.close()
    with pytest.raises(UserError, match="not alphagrid's"):
        open_store(root)


def test_a_file_that_is_no_database_is_explained(root: Root) -> None:
    (root.path / "alphagrid.db").write_bytes(b"no database, however long it may be " * 40)
    with pytest.raises(UserError, match="damaged"):
        open_store(root)


@pytest.mark.parametrize("intact", [0, 4096, 3 * 4096])
def test_rebuild_makes_a_damaged_index_anew(root: Root, exp: ExperimentFiles, intact: int) -> None:
    submit(exp, A)
    for attempt in range(1, 5):
        Writer(exp, A, attempt=attempt)
    synced(root).close()
    path = root.path / "alphagrid.db"
    path.write_bytes(path.read_bytes()[:intact] + b"\xff" * (path.stat().st_size - intact))
    with open_store(root, discard_damaged=True) as again:
        again.rebuild()
        assert only_run(again).attempts == 4
        assert again.check() == []


def test_an_sqlite_without_strict_tables_is_refused() -> None:
    with pytest.raises(UserError, match=r"3\.37"):
        schema.require_sqlite((3, 36, 0))


def test_tables_are_strict_and_metrics_have_no_rowid(root: Root) -> None:
    with open_store(root) as store:
        tables = {
            row[1]: row for row in store.db.execute("PRAGMA table_list") if not row[1].startswith("sqlite_")
        }
        assert all(row[5] for row in tables.values())
        assert tables["metric"][4]


def test_export_is_a_copy_that_opens_anywhere(root: Root, exp: ExperimentFiles, tmp_path: Path) -> None:
    submit(exp, A)
    elsewhere = Root(tmp_path / "elsewhere")
    elsewhere.path.mkdir()
    with synced(root) as store:
        target = store.export(elsewhere.path / "alphagrid.db")
        with pytest.raises(UserError, match="exists"):
            store.export(target)
        with pytest.raises(SystemRefused):
            store.export(tmp_path / "none" / "copy.db")
    with open_store(elsewhere) as copy:
        assert only_run(copy).id == A


def test_a_root_that_does_not_exist_is_empty_and_stays_so(tmp_path: Path) -> None:
    with synced(Root(tmp_path / "none")) as store:
        assert queries.experiments(store.db) == []
        assert store.check() == []
    assert list(tmp_path.iterdir()) == []


def test_reading_again_leaves_the_files_as_they_are(root: Root, exp: ExperimentFiles) -> None:
    submit(exp, A)
    Writer(exp, A).window(10)
    before = {path: path.read_bytes() for path in exp.path.rglob("*") if path.is_file()}
    with synced(root) as store:
        store.check()
        store.rebuild()
    assert {path: path.read_bytes() for path in exp.path.rglob("*") if path.is_file()} == before


# Where it lies


def test_on_a_local_disk_the_index_lies_in_the_root(root: Root) -> None:
    assert location.database_path(root, {}, lambda path: "ext4") == root.path / "alphagrid.db"
    assert location.database_path(root, {}, lambda path: None) == root.path / "alphagrid.db"


@pytest.mark.parametrize("kind", ["nfs4", "lustre", "gpfs", "fuse.sshfs", "9p", "never-heard-of"])
def test_on_a_shared_file_system_it_lies_in_the_cache(root: Root, tmp_path: Path, kind: str) -> None:
    environ = {"XDG_CACHE_HOME": str(tmp_path / "cache")}

    def kind_of(path: Path) -> str:
        return kind if path.is_relative_to(root.path) else "ext4"

    path = location.database_path(root, environ, kind_of)
    assert path.is_relative_to(tmp_path / "cache" / "alphagrid")
    other = location.database_path(Root(root.path / "b"), environ, kind_of)
    assert path != other
    with open_store(root, environ=environ, filesystem_of=kind_of) as store:
        store.sync()
        assert store.path == path
    assert list(root.path.iterdir()) == []


def test_where_the_home_is_shared_too_it_lies_in_the_machines_own_folder(
    root: Root, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("alphagrid.store.folders.SHARED", tmp_path / "scratch")
    (tmp_path / "scratch").mkdir()
    path = location.database_path(
        root, {"HOME": str(tmp_path)}, lambda path: "tmpfs" if "scratch" in path.parts else "nfs"
    )
    assert path.is_relative_to(tmp_path / "scratch")


def test_a_root_that_may_not_be_written_has_its_index_in_the_cache(
    root: Root, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != root.path and access(path, mode))
    path = location.database_path(root, {"XDG_CACHE_HOME": str(tmp_path / "cache")}, lambda path: "ext4")
    assert path.is_relative_to(tmp_path / "cache")


def test_the_file_system_is_the_innermost_and_latest_mount(tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    space = str(tmp_path / "a b").replace(" ", "\\040")
    mounts.write_text(
        "22 27 0:21 / / rw,relatime shared:1 - ext4 /dev/sda rw\n"
        f"23 22 0:22 / {tmp_path} rw - xfs /dev/sdb rw\n"
        f"24 23 0:23 / {space} rw,relatime shared:2 master:3 - nfs4 server:/x rw\n"
        f"25 23 0:24 / {space} rw - lustre server:/y rw\n"
    )
    assert location.filesystem_type(tmp_path / "a b" / "c", mounts) == "lustre"
    assert location.filesystem_type(tmp_path / "abc", mounts) == "xfs"
    assert location.filesystem_type(Path("/elsewhere"), mounts) == "ext4"
    assert location.filesystem_type(tmp_path, tmp_path / "none") is None
