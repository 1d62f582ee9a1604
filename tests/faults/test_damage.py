"""Checkpoints and journals that are not what was written: the one before is used, and it is said."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from alphagrid.analysis.compare_runs import compare
from alphagrid.analysis.data import load
from alphagrid.analysis.report_warnings import warnings
from alphagrid.cli import app
from alphagrid.store.database import open_store
from alphagrid.trainer.checkpoint import available
from typer.testing import CliRunner

if TYPE_CHECKING:
    from tests.faults.conftest import Watched

Damage = Callable[[bytes], bytes]
DAMAGES: dict[str, Damage] = {
    "truncated": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "short of its last byte": lambda content: content[:-1],
    "flipped in the middle": lambda content: flip(content, len(content) // 2),
    "flipped in its first byte": lambda content: flip(content, 0),
    "full of NULs": lambda content: bytes(len(content)),
    "filled up with NULs": lambda content: content[:-700] + bytes(700),
    "longer than it was": lambda content: content + content[-100:],
}

FAST = ("truncated",)
SLOW = tuple(how for how in DAMAGES if how not in FAST)


def flip(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def damage(path: Path, how: str) -> str:
    path.write_bytes(DAMAGES[how](path.read_bytes()))
    return path.name


def assert_nothing_is_wrong(watched: Watched) -> None:
    found = watched.status()
    assert (found.state, found.reason, found.step, found.percent_done) == ("completed", None, 60, 100.0)
    with open_store(watched.lab.root) as store:
        assert store.check() == []
        data = compare(load(store.db, "exp"), [], [])
    assert warnings(data) == []


@pytest.mark.parametrize("how", [*FAST, *(pytest.param(how, marks=pytest.mark.slow) for how in SLOW)])
def test_a_damaged_newest_checkpoint_gives_way_to_the_one_before(
    watched: Watched, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    watched.interrupt(30)
    older, newest = watched.run.checkpoints()
    name = damage(newest, how)
    watched.send()
    assert watched.attempts[-1].resume_step == 29
    assert [event["file"] for event in watched.events("checkpoint_damaged", attempt=2)] == [name]
    assert f"{name}: its checksum does not match" in caplog.text
    assert f"{older.name}, the newest sound checkpoint, is used" in caplog.text
    assert watched.differences() == []
    assert_nothing_is_wrong(watched)


def test_where_both_are_damaged_the_run_starts_over(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    watched.interrupt(30)
    older, newest = (damage(path, "truncated") for path in watched.run.checkpoints())
    watched.send()
    assert watched.attempts[-1].resume_step == 0
    assert [e["file"] for e in watched.events("checkpoint_damaged", attempt=2)] == [newest, older]
    assert "no sound checkpoint is left: the run starts over" in caplog.text
    assert watched.differences() == []
    assert_nothing_is_wrong(watched)


@pytest.mark.slow
def test_damaged_ones_do_not_crowd_out_what_is_written_after_them(watched: Watched) -> None:
    watched.interrupt(30)
    for path in watched.run.checkpoints():
        damage(path, "truncated")
    watched.interrupt(10)
    assert [(file.step, file.attempt) for file in available(watched.run)] == [(9, 2), (10, 2)]
    damage(watched.run.checkpoints()[-1], "flipped in the middle")
    watched.send()
    assert watched.attempts[-1].resume_step == 9
    assert watched.differences() == []


def test_a_damaged_one_takes_no_sound_ones_place(watched: Watched) -> None:
    watched.interrupt(30)
    damage(watched.run.checkpoints()[-1], "truncated")
    watched.interrupt(6, checkpoint={"every_seconds": 600})
    assert [(file.step, file.attempt) for file in available(watched.run)] == [(29, 1), (35, 2)]
    damage(watched.run.checkpoints()[-1], "truncated")
    watched.send()
    assert watched.attempts[-1].resume_step == 29
    assert watched.differences() == []


@pytest.mark.slow
def test_a_checkpoint_that_is_gone_gives_way_to_the_one_before(watched: Watched) -> None:
    watched.interrupt(30)
    watched.run.checkpoints()[-1].unlink()
    watched.send()
    assert watched.attempts[-1].resume_step == 29
    assert watched.differences() == []


@pytest.mark.slow
def test_a_damaged_copy_of_the_config_is_written_anew(watched: Watched) -> None:
    watched.interrupt(30)
    sound = watched.run.config.read_bytes()
    damage(watched.run.config, "truncated")
    watched.send()
    assert watched.run.config.read_bytes() == sound
    assert watched.differences() == []


@pytest.mark.slow
@pytest.mark.parametrize("how", ["short of its last byte", "filled up with NULs", "truncated"])
def test_a_journal_that_lost_its_end_with_the_node_is_continued(watched: Watched, how: str) -> None:
    """What came after the last checkpoint is lost with the end, and is done again."""
    watched.interrupt(30, checkpoint={"every_seconds": 600})
    journal = watched.run.journal(1)
    lines = journal.read_bytes().splitlines(keepends=True)
    start = next(n for n, line in enumerate(lines) if b'"kind":"checkpoint"' in line)
    tail = b"".join(lines[start + 1 :])
    journal.write_bytes(b"".join(lines[: start + 1]) + DAMAGES[how](tail * 3)[: len(tail)])
    watched.send()
    assert watched.attempts[-1].resume_step == 30
    assert watched.differences() == []


def test_no_checkpoint_reaches_the_disk_before_the_journal_that_leads_to_it(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a node's death could leave a checkpoint whose run lacks records that nobody writes again."""
    written: dict[str, int] = {}
    synced: dict[str, int] = {}
    unsynced: list[int] = []
    fsync, write = os.fsync, os.write

    def noting_write(descriptor: int, data: bytes) -> int:
        name = str(Path(f"/proc/self/fd/{descriptor}").readlink())
        written[name] = written.get(name, 0) + len(data)
        return write(descriptor, data)

    def noting_fsync(descriptor: int) -> None:
        name = str(Path(f"/proc/self/fd/{descriptor}").readlink())
        synced[name] = written.get(name, 0)
        if ".checkpoint-" in name:
            unsynced.append(sum(size - synced.get(file, 0) for file, size in written.items()))
        fsync(descriptor)

    monkeypatch.setattr(os, "write", noting_write)
    monkeypatch.setattr(os, "fsync", noting_fsync)
    watched.send()
    assert len(unsynced) > 50
    assert set(unsynced) == {0}


def test_a_flip_inside_a_journal_is_set_aside_named_and_spoils_nothing_else(watched: Watched) -> None:
    watched.interrupt(30)
    journal = watched.run.journal(1)
    lines = journal.read_bytes().splitlines(keepends=True)
    number = next(n for n, line in enumerate(lines) if b'"kind":"window"' in line and b'"step":10,' in line)
    at = sum(map(len, lines[:number]))
    journal.write_bytes(flip(journal.read_bytes(), at + 20))
    watched.send()
    assert watched.status().state == "completed"

    def call(*command: str) -> Any:
        return CliRunner().invoke(app, [*command, "--root", str(watched.lab.root.path)])

    checked = call("store", "check")
    assert checked.exit_code == 1
    assert f"exp/{watched.run.id}/journal-0001.jsonl, byte {at}: bad line" in checked.stdout
    assert call("report", "exp", "--format", "csv").exit_code == 0
    journal.write_bytes(b"".join(lines))
    os.utime(journal, ns=(0, journal.stat().st_mtime_ns + 1))
    assert call("store", "check").exit_code == 0
    assert watched.differences() == []
