"""Preparing click logs: every layout, killed and resumed, what is bad counted and located, checksums."""

from __future__ import annotations

import gzip
import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from alphagrid.errors import SystemRefused, UserError
from alphagrid.store.locks import attempted
from alphagrid.trainer.workloads.criteo import sources, units
from alphagrid.trainer.workloads.criteo.columns import NAMES, Rows
from alphagrid.trainer.workloads.criteo.prepare import Prepared, prepare
from alphagrid.trainer.workloads.criteo.shards import Dataset, ShardRows, differing
from alphagrid.trainer.workloads.criteo.synthesis import synthesize
from alphagrid.trainer.workloads.criteo.text import parse
from hypothesis import given, settings
from hypothesis import strategies as st

MADE_UP = Path(__file__).parents[1] / "data" / "made_up_clicks"
LINES = [(MADE_UP / day).read_bytes().splitlines(keepends=True) for day in ("day_0", "day_1")]
ALL = parse(b"".join(LINES[0] + LINES[1])).rows


def rows_of(dataset: Dataset) -> Rows:
    rows = ShardRows(dataset)
    return rows.take(np.arange(len(rows)))


def made(folder: Path, files: dict[str, bytes]) -> Path:
    logs = folder / "logs"
    logs.mkdir()
    for name, content in files.items():
        (logs / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return logs


def prepared(folder: Path, files: dict[str, bytes], **options: Any) -> Prepared:
    return prepare(made(folder, files), folder / "out", 1, **options)


DAY_0, DAY_1 = (b"".join(lines) for lines in LINES)
HEADER = "\t".join(NAMES).encode() + b"\n"
END = len(b"".join(LINES[1][:50]))
COMMAS = (HEADER + DAY_0 + DAY_1).replace(b"\t", b",")


@pytest.mark.parametrize(
    ("files", "days"),
    [
        ({"day_0": DAY_0, "day_1": DAY_1, "README.md": b"no log"}, {0: 200, 1: 200}),
        ({"day_0.gz": DAY_0, "day_1.gz": DAY_1}, {0: 200, 1: 200}),
        ({"day_0.tsv": DAY_0, "day_1_00": DAY_1[:END], "day_1_01": DAY_1[END:]}, {0: 200, 1: 200}),
        ({"day_0_00.gz": DAY_0, "day_10_00": DAY_1}, {0: 200, 10: 200}),
        ({"train.txt": DAY_0 + DAY_1}, {0: 400}),
        ({"train.csv": COMMAS}, {0: 400}),
        ({"train.csv.gz": COMMAS}, {0: 400}),
        ({"a.tsv": HEADER + DAY_0, "b.tsv": HEADER + DAY_1[:-1]}, {0: 400}),
    ],
)  # fmt: skip
def test_every_layout_gives_the_same_rows(
    tmp_path: Path, files: dict[str, bytes], days: dict[int, int]
) -> None:
    found = prepared(tmp_path, files).dataset
    assert found.days == days
    np.testing.assert_array_equal(rows_of(found), ALL)
    assert (found.lines, found.bad_rows, found.synthetic) == (400, 0, None)
    assert Dataset.read(tmp_path / "out") == found
    assert np.array_equal(np.load(tmp_path / "out" / found.shards[-1].name)[-1], ALL[-1])


def test_gzip_of_several_members_is_read_whole(tmp_path: Path) -> None:
    logs = made(tmp_path, {})
    (logs / "day_0.gz").write_bytes(gzip.compress(DAY_0[:1000]) + gzip.compress(DAY_0[1000:] + DAY_1))
    np.testing.assert_array_equal(rows_of(prepare(logs, tmp_path / "out", 1).dataset), ALL)


@pytest.mark.parametrize("unit_bytes", [20_000, 54_475, 60_000])
def test_rows_do_not_depend_on_where_files_are_cut(
    tmp_path: Path, unit_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(units, "UNIT_BYTES", unit_bytes)
    found = prepared(tmp_path, {"day_0": DAY_0, "day_1": DAY_1}).dataset
    np.testing.assert_array_equal(rows_of(found), ALL)


# A first line that names a column would be a header.
NO_HEADER = st.binary(max_size=6).filter(lambda line: not re.search(rb"(?i)\n|label|[ic]\d", line))


@given(
    st.lists(NO_HEADER, max_size=12),
    st.booleans(),
    st.integers(1, 20),
    st.integers(1, 9),
)
@settings(deadline=None)
def test_every_line_is_read_once_wherever_its_file_is_cut(
    lines: list[bytes], ends: bool, unit: int, block: int
) -> None:
    text = b"\n".join(lines) + (b"\n" if ends and lines else b"")
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "READ_BYTES", block)
        path = Path(folder) / "day_0"
        path.write_bytes(text)
        (file,) = sources.find(Path(folder))
        starts = range(0, len(text), unit)
        read = b"".join(
            part for at in starts for part, _ in sources.texts(file, at, min(at + unit, len(text)))
        )
    assert read == (text if not text or text.endswith(b"\n") else text + b"\n")


def test_bad_lines_are_counted_located_and_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(units, "UNIT_BYTES", 20_000)
    spoilt = [*LINES[0]]
    spoilt[7], spoilt[150] = b"no row at all\n", spoilt[150].replace(b"\t", b"\tx", 1)
    spoilt.insert(90, b"\n")
    found = prepared(tmp_path, {"day_0": b"".join(spoilt), "day_1": DAY_1}, max_bad_share=0.01)
    assert found.dataset.bad_rows == 3
    assert found.dataset.lines == 401
    np.testing.assert_array_equal(rows_of(found.dataset), np.delete(ALL, [7, 150], 0))
    path = tmp_path / "logs" / "day_0"
    told = (tmp_path / "out" / "bad-rows.txt").read_text().splitlines()
    assert told[0] == f"{path}:8: 1 columns instead of 40"
    assert told[1] == f"{path}:91: an empty line"
    assert told[2].startswith(f"{path}:152: I1: 'x")
    assert "3 of 401 lines are no rows and were left out:" in found.remarks
    assert any(f"{path}:91: an empty line" in remark for remark in found.remarks)


def test_too_many_bad_lines_are_an_error_and_nothing_is_prepared(tmp_path: Path) -> None:
    files = {"day_0": DAY_0, "day_1": DAY_1 + b"1\t2\n"}
    with pytest.raises(UserError, match=r"1 of 401 lines are no rows, more than a share of 0.001") as error:
        prepared(tmp_path, files)
    assert "day_1:201: 2 columns instead of 40" in error.value.message
    with pytest.raises(UserError, match="not prepared"):
        Dataset.read(tmp_path / "out")
    assert prepare(tmp_path / "logs", tmp_path / "out", 1, 0.01).dataset.bad_rows == 1


def test_what_is_certainly_too_bad_stops_early(tmp_path: Path) -> None:
    files = {f"day_{day}": 100 * b"nonsense\n" for day in range(9)}
    with pytest.raises(UserError, match="100 of the first 100 lines"):
        prepared(tmp_path, files)
    assert len(list((tmp_path / "out").glob("*.npy"))) == 1


def test_a_truncated_gzip_is_an_error_unless_it_is_allowed(tmp_path: Path) -> None:
    logs = made(tmp_path, {"day_1": DAY_1})
    (logs / "day_0.gz").write_bytes(gzip.compress(DAY_0)[:-4000])
    with pytest.raises(UserError, match=r"day_0.gz:\d+: gzip ends too early") as error:
        prepare(logs, tmp_path / "out", 1)
    found = prepare(logs, tmp_path / "out", 1, allow_damaged=True).dataset
    rows = found.days[0]
    assert 0 < rows < 200
    assert f"day_0.gz:{rows + 1}:" in error.value.message
    np.testing.assert_array_equal(rows_of(found)[:rows], ALL[:rows])
    assert len(found.damaged) == 1


def test_corrupt_gzip_and_empty_files_are_told_together(tmp_path: Path) -> None:
    logs = made(tmp_path, {"day_0": DAY_0, "day_1": b""})
    (logs / "day_2.gz").write_bytes(b"no gzip at all")
    with pytest.raises(UserError) as error:
        prepare(logs, tmp_path / "out", 1)
    assert "day_1: the file is empty" in error.value.message
    assert "day_2.gz:1: not sound gzip" in error.value.message


@pytest.mark.parametrize("name", ["day_0", "day_0.gz", "day_0_00"])
@pytest.mark.parametrize("unit_bytes", [1 << 28, 5_000])
def test_a_file_that_ends_within_a_line_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, unit_bytes: int
) -> None:
    monkeypatch.setattr(units, "UNIT_BYTES", unit_bytes)
    files = {name: DAY_0[:-3], "day_1": DAY_1}  # two of the last token's digits are gone: it still is one
    warning = f"{tmp_path / 'logs' / name}: the last line has no line end; the file may be cut off"
    found = prepared(tmp_path, files)
    assert found.dataset.days == {0: 200, 1: 200}
    assert [told for told in found.warnings if "line end" in told] == [warning]
    again = prepare(tmp_path / "logs", tmp_path / "out", 1)  # nothing is converted again
    assert again.warnings == found.warnings


def test_days_of_other_sizes_than_published_are_warned_of(tmp_path: Path) -> None:
    found = prepared(tmp_path, {"day_0": DAY_0, "day_1.gz": DAY_1, "day_24": DAY_1})
    days = "day 0: 200 instead of 195,841,983, day 1: 200 instead of 199,563,535"
    assert found.warnings == [f"other numbers of rows than Criteo has published: {days}"]
    assert len(found.dataset.days) == 3


def test_many_days_of_other_sizes_are_one_warning(tmp_path: Path) -> None:
    (told,) = prepared(tmp_path, {f"day_{day}": LINES[0][day] for day in range(8)}).warnings
    assert "day 4: 1 instead of 152,115,810 and 3 more" in told


def test_a_days_parts_and_bad_lines_count_together_without_headers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "alphagrid.trainer.workloads.criteo.synthesis.PUBLISHED_ROWS", (201, 200, *sources.PUBLISHED_ROWS[2:])
    )
    files = {"day_0_00": HEADER + DAY_0, "day_0_01": b"no row\n", "day_1": DAY_1}
    assert prepared(tmp_path, files, max_bad_share=0.01).warnings == []


def test_logs_that_are_no_days_have_no_published_size(tmp_path: Path) -> None:
    assert prepared(tmp_path, {"train.txt": DAY_0}).warnings == []


def test_the_published_rows_are_those_of_the_splits() -> None:
    assert sum(sources.PUBLISHED_ROWS[:23]) == 4_195_197_692
    assert sources.PUBLISHED_ROWS[23] == 178_274_637


def test_synthetic_logs_have_the_sizes_that_were_synthesized(tmp_path: Path) -> None:
    synthesize(tmp_path / "logs", 400, days=3)
    assert prepare(tmp_path / "logs", tmp_path / "out", 1).warnings == []
    lines = (tmp_path / "logs" / "day_1").read_bytes().splitlines(keepends=True)
    (tmp_path / "logs" / "day_1").write_bytes(b"".join(lines[:-10]))
    assert prepare(tmp_path / "logs", tmp_path / "out", 1).warnings == [
        "other numbers of rows than were synthesized: day 1: 123 instead of 133"
    ]


@pytest.mark.parametrize("block", [1 << 21, 64])
def test_zeros_after_a_gzip_stream_are_padding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(sources, "READ_BYTES", block)
    logs = made(tmp_path, {})
    members = [gzip.compress(DAY_0) + bytes(1000), gzip.compress(DAY_1) + bytes(7)]
    (logs / "day_0.gz").write_bytes(b"".join(members))
    found = prepare(logs, tmp_path / "out", 1)
    np.testing.assert_array_equal(rows_of(found.dataset), ALL)
    assert found.dataset.damaged == ()


def test_anything_else_after_a_gzip_stream_is_damage(tmp_path: Path) -> None:
    logs = made(tmp_path, {})
    (logs / "day_0.gz").write_bytes(gzip.compress(DAY_0) + bytes(10) + b"rest")
    with pytest.raises(UserError, match=r"day_0.gz:201: "):
        prepare(logs, tmp_path / "out", 1)
    (logs / "day_0.gz").write_bytes(bytes(100))
    with pytest.raises(UserError, match=r"day_0.gz:1: not sound gzip"):
        prepare(logs, tmp_path / "out", 1)


def test_a_mended_file_alone_is_read_again(tmp_path: Path) -> None:
    logs = made(tmp_path, {"day_0": DAY_0, "day_1": b""})
    with pytest.raises(UserError):
        prepare(logs, tmp_path / "out", 1)
    before = (tmp_path / "out" / "day_00-00000.npy").stat().st_mtime_ns
    (logs / "day_1").write_bytes(DAY_1)
    np.testing.assert_array_equal(rows_of(prepare(logs, tmp_path / "out", 1).dataset), ALL)
    assert (tmp_path / "out" / "day_00-00000.npy").stat().st_mtime_ns == before


def test_preparing_what_is_prepared_changes_nothing(tmp_path: Path) -> None:
    first = prepared(tmp_path, {"day_0": DAY_0, "day_1": DAY_1})
    before = {name: when for name, when in _state(tmp_path / "out").items() if name.endswith(".npy")}
    assert prepare(tmp_path / "logs", tmp_path / "out", 1) == first
    assert {name: when for name, when in _state(tmp_path / "out").items() if name in before} == before


def test_days_that_are_missing_and_a_last_one_that_is_not_criteos_are_named(tmp_path: Path) -> None:
    logs = made(tmp_path, {"day_0": DAY_0, "day_2": DAY_1})
    held_out = "held out for validation and test: day 2 (of all of Criteo's, day 23)"
    assert prepare(logs, tmp_path / "out", 1).remarks == ["days missing: 1", held_out]


def test_of_kaggles_folder_the_training_file_is_taken(tmp_path: Path) -> None:
    logs = made(tmp_path, {"train.txt": DAY_0, "test.txt": b"1\t2\n", "readme.txt": b"read me\n"})
    assert [file.path.name for file in sources.find(logs)] == ["train.txt"]
    assert prepare(logs, tmp_path / "out", 1).remarks == []


def test_shards_of_files_that_are_gone_go_too(tmp_path: Path) -> None:
    logs = made(tmp_path, {"day_0": DAY_0, "day_1": DAY_1})
    prepare(logs, tmp_path / "out", 1)
    (logs / "day_0").unlink()
    found = prepare(logs, tmp_path / "out", 1)
    assert found.remarks == ["days missing: 0"]
    assert found.dataset.missing_days == (0,)
    np.testing.assert_array_equal(rows_of(found.dataset), ALL[200:])
    assert not list((tmp_path / "out").glob("day_00*"))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "holds no click logs"),
        ({"day_0": DAY_0, "day_0.gz": DAY_0}, "day 0 is there twice: day_0 and day_0.gz"),
        ({"day_0": DAY_0, "day_0_00": DAY_0}, "day 0 is there twice"),
        ({"train.csv": b"label,I1,I2\n0,1,2\n"}, "train.csv:1: the header has 3 columns and lacks I3, I4"),
    ],
)
def test_logs_that_cannot_be_meant_are_refused(tmp_path: Path, files: dict[str, bytes], message: str) -> None:
    with pytest.raises(UserError, match=message):
        prepared(tmp_path, files)


def test_a_folder_of_other_things_is_left_alone(tmp_path: Path) -> None:
    logs = made(tmp_path, {"day_0": DAY_0})
    for folder in (logs, tmp_path):
        with pytest.raises(UserError, match="holds other things"):
            prepare(logs, folder, 1)
    with pytest.raises(UserError, match="does not exist"):
        prepare(tmp_path / "nowhere", tmp_path / "out", 1)


def test_one_at_a_time(tmp_path: Path) -> None:
    logs, out = made(tmp_path, {"day_0": DAY_0}), tmp_path / "out"
    out.mkdir()
    with attempted(out / ".lock"), pytest.raises(SystemRefused, match="another process"):
        prepare(logs, out, 1)


def test_a_flipped_bit_is_found(tmp_path: Path) -> None:
    found = prepared(tmp_path, {"day_0": DAY_0, "day_1": DAY_1}).dataset
    assert differing(found) == []
    shard = tmp_path / "out" / found.shards[1].name
    content = bytearray(shard.read_bytes())
    content[-1000] ^= 4
    shard.write_bytes(content)
    assert differing(found) == [shard.name]


def test_a_shard_that_is_missing_or_short_is_an_error_with_a_way_out(tmp_path: Path) -> None:
    found = prepared(tmp_path, {"day_0": DAY_0, "day_1": DAY_1}).dataset
    shard = tmp_path / "out" / found.shards[1].name
    os.truncate(shard, 1000)
    with pytest.raises(UserError, match="has 1000 bytes instead of") as error:
        Dataset.read(tmp_path / "out")
    assert "alphagrid data prepare" in str(error.value.hint)
    shard.unlink()
    with pytest.raises(UserError, match="is missing"):
        Dataset.read(tmp_path / "out")


@pytest.mark.slow
def test_processes_side_by_side_give_the_same_shards(tmp_path: Path) -> None:
    logs = made(tmp_path, {f"day_{day}": LINES[0][day] * 50 for day in range(6)})
    alone, together = (prepare(logs, tmp_path / str(jobs), jobs).dataset for jobs in (1, 3))
    assert together.fingerprint == alone.fingerprint
    assert together.shards == alone.shards


KILLED = """
import sys
from pathlib import Path
from alphagrid.trainer.workloads.criteo.prepare import prepare
if __name__ == "__main__":
    prepare(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [1, 2])
def test_killed_and_run_again_equals_uninterrupted(tmp_path: Path, jobs: int) -> None:
    logs, out = tmp_path / "logs", tmp_path / "out"
    synthesize(logs, 400_000, days=40)
    script = tmp_path / "script.py"
    script.write_text(KILLED)
    command = [sys.executable, str(script), str(logs), str(out), str(jobs)]
    process = subprocess.Popen(command, start_new_session=True)
    while len(list(out.glob("*.json"))) < 2:
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait(60)
    deadline = time.monotonic() + 120
    while _lives(process.pid):  # its processes notice
        assert time.monotonic() < deadline
        time.sleep(0.05)
    before = _state(out)
    assert 2 <= len([name for name in before if name.endswith(".json")]) < 40
    with pytest.raises(UserError, match="not prepared"):
        Dataset.read(out)
    again = prepare(logs, out, 1).dataset
    assert again == Dataset.read(out)
    assert again.shards == prepare(logs, tmp_path / "whole", 1).dataset.shards
    after = _state(out)
    assert all(after[name] == when for name, when in before.items() if name.endswith(".json"))
    assert not list(out.glob(".*.tmp"))


def _lives(session: int) -> bool:
    """Tell whether a session has a process that is no zombie."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended
            state, _, _, of = path.read_text().rpartition(")")[2].split()[:4]
            if int(of) == session and state != "Z":
                return True
    return False


def _state(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir() if path.exists()}


def test_made_up_logs_are_those_of_earlier_versions_and_say_what_they_are(tmp_path: Path) -> None:
    told = synthesize(tmp_path / "logs", 400, days=2)
    for name in ("day_0", "day_1", "synthetic.json"):
        assert (tmp_path / "logs" / name).read_bytes() == (MADE_UP / name).read_bytes()
    assert prepare(tmp_path / "logs", tmp_path / "out", 1).dataset.synthetic == told
    assert prepare(tmp_path / "logs" / "day_0", tmp_path / "other", 1).dataset.synthetic == told
    assert json.loads((tmp_path / "out" / "dataset.json").read_text())["synthetic"]["seed"] == 0


def test_another_seed_makes_other_logs_and_a_full_folder_is_left_alone(tmp_path: Path) -> None:
    synthesize(tmp_path / "logs", 400, seed=1, days=2)
    assert (tmp_path / "logs" / "day_0").read_bytes() != DAY_0
    with pytest.raises(UserError, match="not empty"):
        synthesize(tmp_path / "logs", 400)
    with pytest.raises(UserError, match="too few"):
        synthesize(tmp_path / "few", 40)
