"""The index under SIGKILL: whenever an ingester or a writer dies, no record is lost and none counts twice.

Laws of ingesting within one process (orders, growth, interruption, replacement, flips at any byte) are in
tests/store/test_store_laws.py; here processes write, ingest and rebuild side by side, and die.
"""

from __future__ import annotations

import random
import shutil
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pytest
from alphagrid.store import ingest, journal, schema, submissions
from alphagrid.store.database import open_store
from alphagrid.store.journal import Journal
from alphagrid.store.layout import ExperimentFiles, Root
from alphagrid.store.submissions import RunEntry, Submission

if TYPE_CHECKING:
    from tests.faults.conftest import Zygote

RUNS = ("00000000aa", "00000000bb", "00000000cc")
ROWS = ("window", "evaluation", "event", "metric")
Contents = dict[str, list[tuple[Any, ...]]]


@pytest.fixture
def root(tmp_path: Path) -> Root:
    entries = [RunEntry(id=run, name=run, params={}, config={}) for run in RUNS]
    named = {entry.id: entry for entry in entries}
    submission = Submission(id="s", created=1.0, experiment="exp", profile={}, runs=entries, named=named)
    submissions.write(Root(tmp_path).experiment("exp"), submission)
    return Root(tmp_path)


def write(files: ExperimentFiles, run: str, number: int, resume: int, steps: int) -> None:
    """Write the journal of an attempt that did so many steps."""
    writer = Journal.create(files.run(run).journal(number), clock=lambda: float(number))
    writer.append("start", resume, 0.0, attempt=number, resume_step=resume, fresh=False)
    rates = {"min": 0.1, "mean": 0.1, "max": 0.1}
    for step in range(resume + 1, resume + steps + 1):
        writer.append("alpha", step - 1, 0.0, learning_rate=0.1, estimates={"biased": {"alpha_abs": 0.5}})
        writer.append("window", step, 0.0, steps=1, loss=1.0, learning_rate=rates, seconds={"data": 0.5})
        writer.append("event", step, 0.0, event="learning_rate", value=0.1)
    writer.close()


def rows(db: sqlite3.Connection) -> Contents:
    """Return the rows that records became, by table; runs by their ids."""
    runs = dict(db.execute("SELECT key, id FROM run"))
    found: Contents = {}
    for table in ROWS:
        cursor = db.execute(f"SELECT * FROM {table}")
        at = [column[0] for column in cursor.description].index("run")
        found[table] = sorted(((*row[:at], runs[row[at]], *row[at + 1 :]) for row in cursor), key=repr)
    return found


def read_once(root: Root) -> Contents:
    """Return the rows of an index that is made at one go, in memory."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        schema.create(db)
        ingest.sync(db, root)
        return rows(db)


def as_far_as(db: sqlite3.Connection, root: Root) -> Contents:
    """Return the rows of journals that end where the index says that it has read them."""
    sql = "SELECT id, attempt, offset FROM journal JOIN run ON run.key = journal.run WHERE records"
    with TemporaryDirectory() as folder:
        shutil.copytree(root.experiment("exp").submissions, Path(folder, "exp", "submissions"))
        for run, attempt, offset in db.execute(sql):
            path = Root(Path(folder)).experiment("exp").run(run).journal(attempt)
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(root.experiment("exp").run(run).journal(attempt).read_bytes()[:offset])
        return read_once(Root(Path(folder)))


def strays(root: Root) -> list[Any]:
    """Return what an index, as a killed ingester left it, has too much or lacks up to its marks."""
    with closing(sqlite3.connect(root.path / "alphagrid.db", isolation_level=None)) as db:
        db.execute("BEGIN")  # one state of it all, whoever else writes
        if not schema.is_current(db, "the index"):
            return []
        there, due = rows(db), as_far_as(db, root)
        return [row for table in ROWS for row in set(there[table]) ^ set(due[table])]


# Rows and marks


def test_whatever_is_committed_is_rows_and_their_mark_together(
    root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader, or a crash, finds at every commit the index of the journals up to their marks.

    Committing rows before their mark would be wrong, although writing a row again changes nothing: if the
    ingester dies in between and the journal is replaced before the next one looks, there is no mark to tell
    that it was, and rows of the old journal stay. Committing the mark before its rows would lose them.
    """
    monkeypatch.setattr(ingest, "BATCH_ROWS", 1)  # so that there are as many commits as there can be
    files = root.experiment("exp")
    found: list[list[Any]] = []

    def look(statement: str) -> None:
        if statement == "BEGIN IMMEDIATE":  # all that came before has been committed
            found.append(strays(root))

    with open_store(root) as store:
        store.db.set_trace_callback(look)
        for number, (resume, steps) in enumerate([(0, 30), (20, 10), (25, 20), (10, 3)], 1):
            for run in RUNS:
                write(files, run, number, resume, steps)
            store.sync()
        store.db.set_trace_callback(None)
        assert rows(store.db) == read_once(root)
    assert len(found) > 10
    assert [stray for stray in found if stray] == []


@pytest.mark.parametrize("after", ["rows", "mark"])
def test_an_ingester_that_dies_and_a_journal_that_is_replaced_leave_no_stale_row(
    root: Root, after: str
) -> None:
    """The case above, made: the sync dies right after it wrote a journal's rows, or their mark."""
    files = root.experiment("exp")
    write(files, RUNS[0], 1, 0, 30)
    table = {"rows": "INSERT INTO window", "mark": "INSERT OR REPLACE INTO journal"}[after]

    class Died(BaseException):
        pass

    def die(statement: str) -> None:
        if table in statement:
            seen.append(statement)
            store.db.interrupt()  # what SQLite is doing fails; nobody is left to do more than close

    seen: list[str] = []
    store = open_store(root)
    store.db.set_trace_callback(die)
    with pytest.raises(sqlite3.OperationalError, match="interrupted"):
        store.sync()
    store.close()
    assert seen
    assert strays(root) == []
    files.run(RUNS[0]).journal(1).unlink()
    write(files, RUNS[0], 1, 0, 3)
    with open_store(root) as again:
        again.sync()
        assert rows(again.db) == read_once(root)
        assert again.check() == []


# Processes


def test_an_ingester_killed_at_any_moment_leaves_an_index_that_agrees_with_its_marks(
    root: Root, ingesters: Zygote
) -> None:
    kill_ingesters(root, ingesters, rounds=12, rng=random.Random(0), most=0.06)


@pytest.mark.slow
def test_ingesters_killed_at_very_many_moments_leave_an_index_that_agrees_with_its_marks(
    root: Root, ingesters: Zygote
) -> None:
    kill_ingesters(root, ingesters, rounds=100, rng=random.Random(1), most=0.15)


def kill_ingesters(root: Root, ingesters: Zygote, rounds: int, rng: random.Random, most: float) -> None:
    """Kill an ingester over and over while journals come, grow and are replaced."""
    files = root.experiment("exp")
    for number in range(1, rounds + 1):
        write(files, rng.choice(RUNS), 10 * number, rng.randrange(200), rng.randrange(1, 60))
        if rng.random() < 0.2:
            _, path = rng.choice([j for run in files.runs() for j in run.journals()])
            path.unlink()
        what = "rebuild" if rng.random() < 0.1 else "ingest"
        pid = ingesters.fork(what, str(root.path))
        time.sleep(rng.random() * most)
        ingesters.kill(pid)
        if (root.path / "alphagrid.db").exists() and rng.random() < 0.5:
            known = {path for run in files.runs() for _, path in run.journals()}
            with open_store(root) as store:  # a killed creation is made good
                marked = store.db.execute("SELECT id, attempt FROM journal JOIN run ON key = run").fetchall()
            if all(files.run(run).journal(attempt) in known for run, attempt in marked):
                assert strays(root) == []
    with open_store(root) as store:
        store.sync()
        assert rows(store.db) == read_once(root)
        assert store.check() == []
        assert store.db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


Deed = Callable[[Path], None]


def tear(path: Path) -> None:
    """Leave the last line half written, as a node that dies does."""
    path.write_bytes(path.read_bytes()[:-7])


def fill_with_nuls(path: Path) -> None:
    """Leave NULs where the last lines were, as a file system does whose blocks never arrived."""
    path.write_bytes(path.read_bytes()[:-300] + bytes(300))


def replace_by_another(path: Path) -> None:
    """Put another journal in its place, of the same attempt: a folder restored from elsewhere, say."""
    other = path.with_suffix(".other")
    lines = path.read_bytes().splitlines(keepends=True)
    other.write_bytes(b"".join(lines[: max(1, len(lines) // 2)]))
    other.replace(path)


DEEDS: tuple[Deed, ...] = (tear, fill_with_nuls, replace_by_another)


@pytest.mark.slow
def test_writers_and_ingesters_side_by_side_that_are_killed_lose_and_double_nothing(
    root: Root, ingesters: Zygote
) -> None:
    """Each round has a writer per run and three ingesters; all are killed; then a journal is damaged."""
    rng = random.Random(3)
    files = root.experiment("exp")
    flipped: dict[str, int] = {}
    torn: set[str] = set()
    for number in range(15):
        resume = 0 if number == 0 else rng.randrange(400)
        everybody = [ingesters.fork("write", str(root.path), run, resume) for run in RUNS]
        for what in ("ingest", "ingest", rng.choice(["ingest", "rebuild"])):
            everybody.append(ingesters.fork(what, str(root.path)))
        wait_for_records([files.run(run).journal(number + 1) for run in RUNS])
        time.sleep(0.02 + rng.random() / 10)
        rng.shuffle(everybody)
        ingesters.kill(*everybody)
        run = files.run(rng.choice(RUNS))
        _, path = rng.choice(run.journals())
        name = f"{run.id}/{path.name}"
        if name in torn | flipped.keys():
            continue
        if rng.random() < 0.3:
            flipped[name] = flip_a_line(path, random.Random(number))  # what it draws depends on the length
        else:
            rng.choice(DEEDS)(path)
            torn.add(name)
    with open_store(root) as store:
        store.sync()
        assert rows(store.db) == read_once(root) == as_far_as(store.db, root)
        assert counted(store.db) == standing(files)
        found = store.check()
        assert {p.file: p.offset for p in found if p.reason.startswith("bad line")} == flipped
        assert {p.file for p in found if "torn" not in p.reason} == flipped.keys()  # SIGKILL may tear too
        assert store.db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        store.rebuild()
        assert rows(store.db) == read_once(root)
    assert flipped
    assert torn


def wait_for_records(paths: list[Path]) -> None:
    """Wait until there is enough in each of these journals to damage."""
    deadline = time.monotonic() + 120
    for path in paths:
        while not path.exists() or len(journal.read(path).records) < 20:
            assert time.monotonic() < deadline, f"{path} does not grow"
            time.sleep(0.005)


def flip_a_line(path: Path, rng: random.Random) -> int:
    """Flip a bit of a line inside; return the line's offset."""
    content = path.read_bytes()
    at = rng.choice(journal.read(path).offsets[2:-10])
    path.write_bytes(content[: at + 5] + bytes([content[at + 5] ^ 1]) + content[at + 6 :])
    return at


def counted(db: sqlite3.Connection) -> dict[tuple[str, str], set[tuple[int, int]]]:
    """Return the (step, attempt) of windows and evaluations in the index, by run; each once."""
    found: dict[tuple[str, str], set[tuple[int, int]]] = {}
    for table in ("window", "evaluation"):
        for run, step, attempt in db.execute(
            f"SELECT id, t.step, attempt FROM {table} AS t JOIN run ON run.key = t.run"
        ):
            assert (step, attempt) not in found.setdefault((run, table), set())
            found[run, table].add((step, attempt))
    return found


def standing(files: ExperimentFiles) -> dict[tuple[str, str], set[tuple[int, int]]]:
    """Return the same, read off the journals plainly: the newest attempt's record of each step counts.

    Attempts that resumed at a step have redone everything after it.
    """
    found: dict[tuple[str, str], set[tuple[int, int]]] = {}
    for run in files.runs():
        newest: dict[str, dict[int, int]] = {"window": {}, "evaluation": {}}
        for attempt, path in run.journals():
            for record in journal.read(path).records:
                if record["kind"] == "start":
                    newest = {
                        kind: {step: a for step, a in of.items() if step <= record["resume_step"]}
                        for kind, of in newest.items()
                    }
                elif record["kind"] in newest:
                    newest[record["kind"]][record["step"]] = attempt
        found |= {(run.id, kind): set(of.items()) for kind, of in newest.items() if of}
    return found
