"""Journals: one record is one line; what is whole is read, what is not is never taken for whole."""

import errno
import json
import math
import os
import resource
import signal
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from alphagrid.errors import SystemRefused
from alphagrid.store import journal
from alphagrid.store.journal import Journal
from alphagrid.store.layout import RunFiles
from hypothesis import given
from hypothesis import strategies as st


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal-0001.jsonl"


def ticking() -> Callable[[], float]:
    ticks = count(1)
    return lambda: float(next(ticks))


def written(path: Path, records: int) -> bytes:
    writer = Journal.create(path, clock=ticking())
    for step in range(records):
        writer.append("window", step, step / 2, loss=0.25, text="ä\n")
    writer.close()
    return path.read_bytes()


def test_records_come_back_in_order_with_time_and_sequence(path: Path) -> None:
    written(path, 3)
    records = journal.read(path).records
    assert [(r["seq"], r["step"], r["train_seconds"], r["time"]) for r in records] == [
        (0, 0, 0.0, 1.0), (1, 1, 0.5, 2.0), (2, 2, 1.0, 3.0),
    ]  # fmt: skip
    assert records[0]["loss"] == 0.25
    assert records[0]["text"] == "ä\n"


def test_every_line_is_json_whose_last_key_is_the_checksum(path: Path) -> None:
    for line in written(path, 2).splitlines():
        assert list(json.loads(line))[-1] == "crc"


def test_one_record_is_one_system_call(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[bytes] = []
    write = os.write
    writer = Journal.create(path)

    def watched(descriptor: int, data: bytes) -> int:
        calls.append(data)
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", watched)
    writer.append("window", 1, 1.0, loss=math.nan)
    assert calls == [path.read_bytes()]


def test_numbers_that_json_cannot_say_come_back_as_they_were(path: Path) -> None:
    writer = Journal.create(path)
    writer.append(
        "window", 1, 0.5, loss=math.inf, parts={"a": [-math.inf, 1.5]}, reason="nan", other=math.nan
    )
    assert "NaN" not in path.read_text()
    assert "Infinity" not in path.read_text()
    record = journal.read(path).records[0]
    assert record["loss"] == math.inf
    assert record["parts"] == {"a": [-math.inf, 1.5]}
    assert math.isnan(record["other"])
    assert record["reason"] == "nan"


def test_a_value_that_is_no_json_raises_and_writes_nothing(path: Path) -> None:
    writer = Journal.create(path)
    with pytest.raises(TypeError):
        writer.append("event", 1, 0.5, event="x", value=object())
    writer.append("event", 1, 0.5, event="y")
    assert [r["seq"] for r in journal.read(path).records] == [0]


def test_reading_goes_on_where_it_stopped(path: Path) -> None:
    writer = Journal.create(path)
    writer.append("window", 1, 1.0)
    first = journal.read(path)
    writer.append("window", 2, 2.0)
    second = journal.read(path, first.offset)
    assert [r["step"] for r in second.records] == [2]
    assert second.offset == writer.position == path.stat().st_size
    assert journal.read(path, second.offset).records == []


@given(
    cut=st.integers(0, 400), filler=st.sampled_from([b"", b"\0" * 70, b"\0" * 70 + b"\n", b"half\nlines\n"])
)
def test_a_bad_tail_has_not_arrived_yet(
    tmp_path_factory: pytest.TempPathFactory, cut: int, filler: bytes
) -> None:
    path = tmp_path_factory.mktemp("journal") / "journal-0001.jsonl"
    whole = written(path, 3)
    ends = [i + 1 for i, byte in enumerate(whole) if byte == ord("\n")]
    path.write_bytes(whole[:cut] + filler)
    reading = journal.read(path)
    assert reading.bad == []
    assert reading.offset == max((end for end in ends if end <= cut), default=0)
    assert reading.offset + reading.tail == path.stat().st_size


@given(data=st.data())
def test_a_flipped_bit_inside_is_reported_and_nothing_else_is_lost(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("journal") / "journal-0001.jsonl"
    content = bytearray(written(path, 4))
    lines = bytes(content).splitlines(keepends=True)
    start, end = len(lines[0]), len(lines[0]) + len(lines[1])
    content[data.draw(st.integers(start, end - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    reading = journal.read(path)
    seqs = [record["seq"] for record in reading.records]
    assert seqs in ([0, 2, 3], [0, 3])  # with its newline gone, a line takes the next one along
    assert reading.bad[0].offset == start
    assert reading.offset == len(content)


def test_a_line_that_lacks_what_every_record_has_is_bad(path: Path) -> None:
    import zlib

    body = b'{"kind":"window","step":1'
    lines = b'%b,"crc":%d}\n' % (body, zlib.crc32(body))
    path.write_bytes(lines + written(path.with_name("other"), 1))
    assert [line.offset for line in journal.read(path).bad] == [0]


def test_a_journal_is_created_once(path: Path) -> None:
    Journal.create(path)
    with pytest.raises(FileExistsError):
        Journal.create(path)


def test_attempts_are_numbered_and_an_overtaken_one_can_tell(tmp_path: Path) -> None:
    run = RunFiles(tmp_path / "0000000000")
    assert journal.next_attempt(run) == 1
    first, _ = journal.open_next(run)
    assert not journal.is_superseded(run, first)
    second, writer = journal.open_next(run)
    assert (first, second) == (1, 2)
    assert writer.path == run.journal(2)
    assert journal.is_superseded(run, first)
    assert not journal.is_superseded(run, second)


def test_a_run_whose_attempts_have_no_number_left_says_so_and_which_file_has_the_last(tmp_path: Path) -> None:
    run = RunFiles(tmp_path / "0000000000")
    run.path.mkdir()
    for number in (999_999_999, 1_000_000_000):
        run.journal(number).touch()
    with pytest.raises(SystemRefused, match=r"journal-999999999\.jsonl"):
        journal.open_next(run)


def test_where_no_folder_can_be_made_the_system_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SystemRefused):
        Journal.create(tmp_path / "file" / "run" / "journal-0001.jsonl")


def test_records_are_made_durable_at_checkpoints_at_the_end_and_by_time(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.fstat(fd).st_ino))
    now = [0.0]
    writer = Journal.create(path, clock=lambda: now[0])
    ours = path.stat().st_ino

    def syncs(kind: str, at: float) -> int:
        synced.clear()
        now[0] = at
        writer.append(kind, 1, 1.0)
        return synced.count(ours)

    assert syncs("start", 0.0) == 1
    assert syncs("window", 1.0) == 0
    assert syncs("checkpoint", 2.0) == 1
    assert syncs("window", 31.9) == 0
    assert syncs("window", 32.0) == 1
    assert syncs("end", 32.1) == 1
    assert syncs("window", 1.0) == 1  # the clock was set back: nobody knows how long it has been


@pytest.fixture
def small_files() -> Iterator[Callable[[int], None]]:
    """Make the system refuse to let files grow beyond a size, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_stops_the_run_and_tears_no_record(
    path: Path, small_files: Callable[[int], None]
) -> None:
    writer = Journal.create(path)
    writer.append("window", 1, 1.0)
    whole = path.read_bytes()
    small_files(len(whole) + 20)
    with pytest.raises(SystemRefused, match="disk full"):
        writer.append("window", 2, 2.0)
    assert path.read_bytes() == whole
    small_files(1 << 20)
    writer.append("window", 2, 2.0)
    assert [(r["seq"], r["step"]) for r in journal.read(path).records] == [(0, 1), (1, 2)]


@pytest.mark.parametrize("fail", ["short", "error"])
def test_a_write_that_fails_once_is_tried_again(
    path: Path, monkeypatch: pytest.MonkeyPatch, fail: str
) -> None:
    writer, write, calls = Journal.create(path), os.write, count()

    def flaky(descriptor: int, data: bytes) -> Any:
        if next(calls) > 0:
            return write(descriptor, data)
        if fail == "error":
            raise OSError(errno.EIO, "Input/output error")
        return write(descriptor, data[:10])

    monkeypatch.setattr(os, "write", flaky)
    writer.append("window", 1, 1.0)
    writer.append("window", 2, 2.0)
    reading = journal.read(path)
    assert [r["step"] for r in reading.records] == [1, 2]
    assert not reading.bad
