"""Law 4: ingesting twice, in any order, interrupted anywhere, equals ingesting once; so does a rebuild.

Journals here are made of arbitrary steps and resume steps, also such as no trainer would write.
"""

import math
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from alphagrid.store import ingest, queries, schema, submissions
from alphagrid.store.database import Store, open_store
from alphagrid.store.journal import Journal
from alphagrid.store.layout import ExperimentFiles, Root
from alphagrid.store.submissions import RunEntry, Submission
from hypothesis import given, settings
from hypothesis import strategies as st

RUNS = ("00000000aa", "00000000bb")
SHIFT = 1000
few = settings(max_examples=40, deadline=None)

steps = st.integers(0, 12)
numbers = st.sampled_from([0.5, -1.0, math.nan, math.inf, -math.inf])
kinds = st.sampled_from(["window", "evaluation", "alpha", "learning_rate", "warning"])


@dataclass(frozen=True)
class Attempt:
    """One journal: where it resumed, and (kind, step, value) of its records."""

    resume: int
    records: list[tuple[str, int, float]]


attempts = st.builds(Attempt, steps, st.lists(st.tuples(kinds, steps, numbers), max_size=8))
histories = st.lists(attempts, min_size=1, max_size=4)


def write(files: ExperimentFiles, run: str, number: int, attempt: Attempt) -> None:
    ticks = count(number * SHIFT)
    journal = Journal.create(files.run(run).journal(number), clock=lambda: float(next(ticks)))
    journal.append("start", attempt.resume, 0.0, attempt=number, resume_step=attempt.resume, fresh=False)
    for kind, step, value in attempt.records:
        journal.append(*_record(kind, step), **_fields(kind, value))
    journal.close()


def _record(kind: str, step: int) -> tuple[str, int, float]:
    return ("event" if kind in ("learning_rate", "warning") else kind), step, step / 4


def _fields(kind: str, value: float) -> dict[str, Any]:
    rates = {"min": value, "mean": value, "max": value}
    fields: dict[str, dict[str, Any]] = {
        "window": {
            "steps": 1,
            "alpha_steps": 0,
            "loss": value,
            "learning_rate": rates,
            "seconds": {"data": 0.5},
        },
        "evaluation": {
            "splits": {"train": {"loss": value, "examples": 3}, "validation": {"loss": value, "examples": 3}},
            "seconds": 0.25,
            "at_stop": False,
        },
        "alpha": {"learning_rate": value, "estimates": {"biased": {"alpha_abs": value}}, "probe_loss": None},
        "learning_rate": {"event": "learning_rate", "value": value},
        "warning": {"event": "warning", "message": "nan"},
    }
    return fields[kind]


def submit(files: ExperimentFiles, *runs: str) -> None:
    entries = [RunEntry(id=run, name=run, params={}, config={}) for run in runs]
    named = Submission(
        id="s",
        created=1.0,
        experiment=files.name,
        profile={},
        runs=entries,
        named={entry.id: entry for entry in entries},
    )
    submissions.write(files, named)


@contextmanager
def fresh_root() -> Iterator[tuple[Root, ExperimentFiles]]:
    with TemporaryDirectory() as folder:
        root = Root(Path(folder))
        submit(root.experiment("exp"), *RUNS)
        yield root, root.experiment("exp")


def contents(db: sqlite3.Connection) -> dict[str, list[Any]]:
    """Return everything that an index holds, runs named by their ids instead of their numbers."""
    runs = dict(db.execute("SELECT key, id FROM run"))
    found: dict[str, list[Any]] = {}
    for table in (*schema.TABLES, "metric"):
        cursor = db.execute(f"SELECT * FROM {table}")
        names = [column[0] for column in cursor.description]
        rows = [dict(zip(names, row, strict=True)) for row in cursor]
        for row in rows:
            row.pop("key") if table == "run" else None
            row.update(run=runs.get(row["run"], row["run"])) if "run" in row else None
        found[table] = sorted(rows, key=repr)
    return found


def rebuilt(root: Root) -> dict[str, list[Any]]:
    db = sqlite3.connect(":memory:", isolation_level=None)
    schema.create(db)
    ingest.sync(db, root)
    return contents(db)


# What stands


def standing(history: list[Attempt]) -> tuple[dict[str, set[tuple[int, int]]], int]:
    """Return, per kind, the (step, attempt) that stand, and the number of superseded records, plainly."""
    stand: dict[str, set[tuple[int, int]]] = {}
    superseded = 0
    for kind in ("window", "evaluation", "alpha", "learning_rate"):
        alive = [
            (step, number)
            for number, attempt in enumerate(history, 1)
            for of_kind, step, _ in attempt.records
            if of_kind == kind and all(_before(kind, step, newer.resume) for newer in history[number:])
        ]
        if kind != "learning_rate":  # one of each per step: the newest attempt's
            newest = {step: max(n for s, n in alive if s == step) for step, _ in alive}
            alive = sorted(newest.items())
        stand[kind] = set(alive)
        superseded += sum(of_kind == kind for a in history for of_kind, _, _ in a.records) - len(alive)
    return stand, superseded if len(history) > 1 else 0


def _before(kind: str, step: int, resume: int) -> bool:
    return step < resume if kind == "alpha" else step <= resume


@few
@given(history=histories, order=st.randoms(use_true_random=False))
def test_higher_attempts_win_whatever_order_they_are_read_in(
    history: list[Attempt], order: random.Random
) -> None:
    numbers = list(range(1, len(history) + 1))
    order.shuffle(numbers)
    with fresh_root() as (root, files), open_store(root) as store:
        for number in numbers:
            write(files, RUNS[0], number, history[number - 1])
            store.sync()
        row = queries.runs(store.db, "exp")[0]
        stand, superseded = standing(history)
        assert {(w.step, w.attempt) for w in queries.windows(store.db, row.key)} == stand["window"]
        assert {(e.step, e.attempt) for e in queries.evaluations(store.db, row.key)} == stand["evaluation"]
        assert {(a.step, a.attempt) for a in queries.alphas(store.db, row.key)} == stand["alpha"]
        events = queries.events(store.db, row.key)
        assert {(e.step, e.attempt) for e in events if e.event == "learning_rate"} == stand["learning_rate"]
        warnings = sum(kind == "warning" for attempt in history for kind, _, _ in attempt.records)
        assert [e.details for e in events if e.event == "warning"] == [{"message": "nan"}] * warnings
        assert (row.superseded, row.attempts) == (superseded, len(history))


# Growth, repetition, interruption


@few
@given(histories=st.lists(histories, min_size=1, max_size=2), data=st.data())
def test_following_journals_as_they_grow_equals_reading_them_once(
    histories: list[list[Attempt]], data: st.DataObject
) -> None:
    with fresh_root() as (root, files), open_store(root) as store:
        whole = _written_elsewhere(histories)
        for name, cut in data.draw(_growth({name: len(content) for name, content in whole.items()})):
            _grow(files.path / name, whole[name], cut)
            store.sync()
        for name, content in whole.items():
            _grow(files.path / name, content, len(content))
        store.sync()
        store.sync()
        once = rebuilt(root)
        assert contents(store.db) == once
        assert once["problem"] == []
        store.rebuild()
        assert contents(store.db) == once


@few
@given(history=histories, instructions=st.lists(st.integers(1, 4000), max_size=4))
def test_interrupted_anywhere_and_again_equals_once(history: list[Attempt], instructions: list[int]) -> None:
    with fresh_root() as (root, files), open_store(root) as store:
        for number, attempt in enumerate(history, 1):
            write(files, RUNS[0], number, attempt)
        for after in instructions:
            _sync_interrupted(store, after)
        store.sync()
        assert contents(store.db) == rebuilt(root)


@few
@given(first=histories, second=histories, in_place=st.booleans())
def test_journals_that_were_replaced_are_read_anew(
    first: list[Attempt], second: list[Attempt], in_place: bool
) -> None:
    with fresh_root() as (root, files), open_store(root) as store:
        for number, attempt in enumerate(first, 1):
            write(files, RUNS[0], number, attempt)
        store.sync()
        whole = _written_elsewhere([second])
        for number, path in files.run(RUNS[0]).journals():
            if not in_place or number > len(second):
                path.unlink()
        for name, content in whole.items():
            (files.path / name).write_bytes(content)
            _touch(files.path / name)
        store.sync()
        assert contents(store.db) == rebuilt(root)


@few
@given(history=histories, data=st.data())
def test_damage_is_set_aside_and_healed_when_the_file_is(history: list[Attempt], data: st.DataObject) -> None:
    with fresh_root() as (root, files), open_store(root) as store:
        for number, attempt in enumerate(history, 1):
            write(files, RUNS[0], number, attempt)
        path = files.run(RUNS[0]).journal(data.draw(st.integers(1, len(history))))
        sound = path.read_bytes()
        at = data.draw(st.integers(0, len(sound) - 1))
        path.write_bytes(sound[:at] + bytes([sound[at] ^ 0x10]) + sound[at + 1 :])
        store.sync()
        assert contents(store.db) == rebuilt(root)
        path.write_bytes(sound)
        _touch(path)
        store.sync()
        assert contents(store.db) == rebuilt(root)
        assert contents(store.db)["problem"] == []


def _touch(path: Path) -> None:
    """Make the time of the last change another: tests write faster than the clock of the disk ticks."""
    os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns + 1))


def _written_elsewhere(histories: list[list[Attempt]]) -> dict[str, bytes]:
    """Return the journals' contents by their path in the experiment."""
    with TemporaryDirectory() as folder:
        files = ExperimentFiles(Path(folder))
        for run, history in zip(RUNS, histories, strict=False):
            for number, attempt in enumerate(history, 1):
                write(files, run, number, attempt)
        return {str(path.relative_to(folder)): path.read_bytes() for path in files.path.rglob("*.jsonl")}


def _growth(sizes: dict[str, int]) -> st.SearchStrategy[list[tuple[str, int]]]:
    pieces = [st.tuples(st.just(name), st.integers(0, size)) for name, size in sizes.items()]
    return st.lists(st.one_of(pieces), max_size=6)


def _grow(path: Path, whole: bytes, size: int) -> None:
    path.parent.mkdir(exist_ok=True)
    with path.open("ab") as file:
        file.write(whole[file.tell() : size])


def _sync_interrupted(store: Store, after: int) -> None:
    """Break a sync off after so many of SQLite's instructions, if it lasts that long."""
    executed = count()
    store.db.set_progress_handler(lambda: next(executed) >= after, 1)
    with suppress(sqlite3.OperationalError):
        store.sync()
    store.db.set_progress_handler(None, 0)


# Processes

INGEST = """
import sys
from pathlib import Path
from alphagrid.store.database import open_store
from alphagrid.store.layout import Root
with open_store(Root(Path(sys.argv[1]))) as store:
    print("open", flush=True)
    while True:
        store.sync()
"""


@pytest.mark.slow
def test_killed_ingesters_side_by_side_lose_and_double_nothing(tmp_path: Path) -> None:
    root, files = Root(tmp_path), ExperimentFiles(tmp_path / "exp")
    submit(files, *RUNS)
    rng = random.Random(1)
    for number in range(1, 13):
        processes = [subprocess.Popen([sys.executable, "-c", INGEST, str(tmp_path)]) for _ in range(2)]
        records = [
            (rng.choice(["window", "evaluation", "alpha"]), rng.randrange(2000), 0.5) for _ in range(800)
        ]
        for run in RUNS:
            write(files, run, number, Attempt(rng.randrange(2000), records))
        time.sleep(0.4 + rng.random() / 4)
        for process in processes:
            process.send_signal(signal.SIGKILL)
            process.wait()
    with open_store(root) as store:
        store.sync()
        assert contents(store.db) == rebuilt(root)
        assert store.check() == []
        assert store.db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
