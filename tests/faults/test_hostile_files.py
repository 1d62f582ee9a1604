"""Whatever lies in a root, commands tell it without a traceback, and what it does not concern goes on."""

from __future__ import annotations

import json
import os
import shutil
import signal
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from alphagrid.cli import app
from alphagrid.cluster_profiles.loader import load_profile
from alphagrid.jobs.schedulers.local_queue import LocalQueue
from alphagrid.jobs.specification.experiment import expand
from alphagrid.jobs.specification.file import read_spec
from alphagrid.jobs.submission import submit
from alphagrid.store import submissions
from alphagrid.store.files import read_object
from alphagrid.store.layout import Root, RunFiles
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

EXAMPLES = int(os.environ.get("ALPHAGRID_TEST_EXAMPLES", "3"))
PATIENCE = 240
"""Seconds after which a command that waits for a pipe has hung, on a busy machine."""
TASK = """
from alphagrid.trainer.workloads.least_squares import LeastSquares
from alphagrid.trainer.workloads.options import LeastSquaresOptions

class Options(LeastSquaresOptions):
    crash: bool = False

class Task(LeastSquares):
    Options = Options

    def model(self):
        if self.options.crash:
            raise RuntimeError("boom")
        return super().model()
"""
SPEC: dict[str, Any] = {
    "experiment": "exp",
    "base": {
        "workload": {"name": "hostile_task:Task"},
        "optimizer": {"name": "sgd", "lr": 0.1},
        "alpha": {"policy": "observe", "interval": 5, "count": 2},
        "eval": {"every_steps": 10},
        "log": {"every_steps": 5},
        "stop": {"steps": 20},
        "device": "cpu",
    },
    "grid": {"workload.crash": [False, True]},
    "baselines": {"plain": {"optimizer.lr": 0.05}},
}


@pytest.fixture(scope="module")
def template() -> Iterator[Path]:
    """Two experiments, one of them submitted twice; runs have completed, crashed, been cancelled."""
    with TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        folder = Path(name)
        patch.syspath_prepend(name)
        (folder / "hostile_task.py").write_text(TASK)
        more = {**SPEC["baselines"], "more": {"optimizer.lr": 0.02}}
        for content in (SPEC, {**SPEC, "baselines": more}, {**SPEC, "experiment": "other"}):
            (folder / "spec.yaml").write_text(json.dumps(content))
            submit(expand(read_spec(folder / "spec.yaml")), load_profile("debug"), Root(folder / "root"))
        call(folder / "root", "cancel", "exp", "--all")
        for run in Root(folder / "root").experiment("exp").runs():
            sent = [path.stem for path in (folder / "root/exp/submissions").glob("*.json")]
            run.cancel_marker.write_text(json.dumps({"time": 1.0, "submissions": sent}))
        call(folder / "root", "status")
        patch.setattr(submissions, "PATIENCE_SECONDS", 0.2)
        patch.setattr("tests.faults.test_hostile_files.BEFORE", states(Root(folder / "root"), "exp"))
        yield folder / "root"


@contextmanager
def copied(template: Path) -> Iterator[Root]:
    with TemporaryDirectory() as folder:
        shutil.copytree(template, Path(folder) / "root")
        yield Root(Path(folder) / "root")


def call(root: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments, "--root", str(root)])


@contextmanager
def in_time() -> Iterator[None]:
    def hang(*_: object) -> None:
        raise AssertionError("it waits for something that never comes")

    before = signal.signal(signal.SIGALRM, hang)
    signal.alarm(PATIENCE)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


KINDS = ("submission", "marker", "config", "journal", "checkpoint", "manifest of the code")
READERS = {
    "prune": ("submission", "journal", "checkpoint"),
    "logs": ("submission", "journal"),
    "cancel": ("submission", "marker", "journal"),
    "supervisor": ("submission", "marker", "journal"),
    "report": ("submission", "config", "journal"),
}
"""Which files matter to a command; `status`, `store check` and `retry` are run whatever is damaged."""


def assert_usable(root: Root, kind: str, full: bool = True, damaged: Collection[str] = ()) -> None:
    """Run the commands that read such files: none ends in a traceback, and all else is as it was."""
    reads = {command for command, kinds in READERS.items() if kind in kinds}
    with in_time():
        shown = told(root, "status", "--json")
        counts = {one["experiment"]: one["counts"] for one in json.loads(shown.stdout)["experiments"]}
        assert counts["other"] == {"completed": 2, "failed": 1}
        told(root, "status", "exp")
        found = states(root, "exp")
        assert BEFORE
        unharmed = {run: state for run, state in BEFORE.items() if run not in damaged}
        assert {run: found.get(run) for run in unharmed} == unharmed
        assert set(states(root, "other").values()) == {"completed", "failed"}
        told(root, "store", "check", "--json")
        if "prune" in reads:
            told(root, "prune", "exp", "--all", "--dry-run")
        for run in list(found) if full else list(found)[:1]:
            for command in sorted(reads & {"logs", "cancel"}):
                told(root, command, "exp", run)
        if "supervisor" in reads:
            backlog = LocalQueue(root, ())
            backlog.refresh()
            assert backlog.next() is None
        if full and "report" in reads:
            told(root, "report", "exp", "--json", "--budget-steps", "15")
            assert told(root, "report", "other", "--json", "--budget-steps", "15").exit_code == 0
        if full:
            told(root, "status")
            told(root, "retry", "exp", "--all")
            assert told(root, "retry", "other", "--failed").exit_code == 0


BEFORE: dict[str, str] = {}
"""The states of the runs of the experiment that is damaged, as they were before."""


def states(root: Root, experiment: str) -> dict[str, str]:
    """Return the states by run id; none where the experiment can be told nothing of."""
    found = told(root, "status", experiment, "--json")
    return {run["id"]: run["state"] for run in json.loads(found.stdout or '{"runs": []}')["runs"]}


def told(root: Root, *arguments: str) -> Result:
    result = call(root.path, *arguments)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise AssertionError(arguments) from result.exception
    assert result.exit_code in (0, 1, 2, 3), (arguments, result.output)
    return result


# What may lie where a file is expected


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def make_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


def make_loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def make_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def make_device(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def holding(content: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_bytes(content)

    return write


SHAPES: dict[str, Callable[[Path], None]] = {
    "folder": make_folder,
    "dangling link": make_link,
    "link to itself": make_loop,
    "pipe": make_pipe,
    "endless device": make_device,
    "empty": holding(b""),
    "NULs": holding(bytes(5000)),
    "not UTF-8": holding(b"\xff\xfe{}\n" * 9),
    "deep": holding(b"[" * 100_000),
    "deep and closed": holding(b'{"a":' * 5000 + b"1" + b"}" * 5000),
}
NO_FILES = ("folder", "dangling link", "link to itself", "pipe", "endless device")
FAST = ("pipe", "deep and closed")


def file_of(root: Root, kind: str) -> Path:
    files = root.experiment("exp")
    run = next(run for run in files.runs() if run.checkpoints())
    if kind == "manifest of the code":
        (manifest,) = files.code.glob("*.json")
        return manifest
    if kind == "submission":
        return max(files.submissions.glob("*.json"), key=lambda path: len(sent(path)))
    paths = {"marker": run.cancel_marker, "config": run.config, "journal": run.journal(1)}
    return paths[kind] if kind in paths else run.checkpoints()[-1]


def sent(submission: Path) -> list[str]:
    """Return the runs that a submission sends."""
    return [run["id"] for run in json.loads(submission.read_text())["runs"]]


def runs_of(path: Path) -> list[str]:
    """Return the runs that a file, which is to be damaged, tells of: their state may be another one then."""
    if path.parent.name == "submissions":
        return sent(path)
    return [] if path.parent.name == "code" else [path.parent.name]


WHOLE = ("folder", "dangling link", "deep")
"""Shapes with which every command is run; with the others only those that read."""


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("shape", "full"),
    [
        *((shape, False) for shape in FAST),
        *(pytest.param(s, s in WHOLE, marks=pytest.mark.slow) for s in SHAPES if s not in FAST),
    ],
)
def test_what_is_no_such_file_ends_no_command_and_is_named(
    template: Path, kind: str, shape: str, full: bool
) -> None:
    """The end of a journal that is no record may still arrive; sending a run rewrites the code's manifest."""
    with copied(template) as root:
        path = file_of(root, kind)
        damaged = runs_of(path)
        SHAPES[shape](path)
        if kind != "manifest of the code" and (kind != "journal" or shape in NO_FILES):
            with in_time():
                checked = told(root, "store", "check")
            assert f"exp/{path.relative_to(root.experiment('exp').path)}" in checked.stdout
            assert checked.exit_code == 1
        if kind == "manifest of the code":
            with in_time():
                sent_again = told(root, "retry", "exp", "more", "--fresh")
            assert sent_again.exit_code == (3 if shape == "folder" else 0)
            assert shape == "folder" or read_object(path)["files"]
        assert_usable(root, kind, full, damaged)


# What may stand in a file

HOSTILE = st.one_of(
    st.sampled_from(
        [
            None, True, -1, 0, 10**30, 10**400, -0.5, 1e308, "nan", "inf", "", "..", "../../x", "\0",
            "[/red]", "\ud800", "\x1b[2J", "x" * 100_000, [], {}, [[]], {"": None}, [None], "2026", 1e400,
            float("nan"),
        ]
    ),
    st.integers(0, 3000).map(lambda depth: _nested(depth)),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
        max_leaves=4,
    ),
)  # fmt: skip
REMOVED = object()


class _Text(str):
    """JSON text that stands for itself."""


def _nested(depth: int) -> _Text:
    return _Text("[" * depth + "]" * depth)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    children = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for key, child in children:
        yield from places(child, (*path, key))


def put(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    if isinstance(value, dict):
        items = {key: put(item, path[1:], new) if key == path[0] else item for key, item in value.items()}
        return {key: item for key, item in items.items() if item is not REMOVED}
    items_ = [put(item, path[1:], new) if at == path[0] else item for at, item in enumerate(value)]
    return [item for item in items_ if item is not REMOVED]


def encoded(value: Any) -> str:
    """Return JSON, or what Python takes for it."""
    raw: list[str] = []

    def plain(part: Any) -> Any:
        if isinstance(part, _Text):
            raw.append(part)
            return f"raw-{len(raw) - 1}-"
        if isinstance(part, dict):
            return {key: plain(item) for key, item in part.items()}
        return [plain(item) for item in part] if isinstance(part, list) else part

    limit = json.dumps(plain("" if value is REMOVED else value))
    for number, text in enumerate(raw):
        limit = limit.replace(f'"raw-{number}-"', text)
    return limit


CASES: dict[str, tuple[str, tuple[Any, ...], Any]] = {
    "a number that is none in a config": (
        "submission",
        ("runs", 0, "config", "optimizer", "momentum"),
        float("nan"),
    ),
    "a time beyond all calendars": ("submission", ("created",), 1e300),
    "no such cluster": ("submission", ("profile", "cluster"), "nowhere"),
    "no profile": ("submission", ("profile",), {}),
    "an id that leads elsewhere": ("submission", ("runs", 0, "id"), "../../x"),
    "a name that rich would read": ("submission", ("runs", 0, "name"), "[/red]"),
    "a section that is a text": ("submission", ("runs", 0, "config", "alpha"), "median"),
    "a stop beyond all numbers": ("submission", ("runs", 0, "config", "stop", "steps"), 10**400),
    "a config 150 levels deep": ("submission", ("runs", 0, "config", "eval"), _nested(150)),
    "a job that is a list": ("journal", (0, "job"), [1]),
    "a step that counts nothing": ("journal", (0, "resume_step"), "many"),
    "a state that is none": ("journal", (-1, "status"), "exploded"),
    "a state that is a mapping": ("journal", (-1, "status"), {}),
    "an event without a name": ("journal", (1, "event"), REMOVED),
    "a record 5,000 levels deep": ("journal", (1, "code"), _nested(5000)),
    "half a character": ("marker", ("submissions", 0), "\ud800"),
    "submissions that are a number": ("marker", ("submissions",), 7),
    "a config that is a list": ("config", (), [1]),
}
FAST_CASES = ("a number that is none in a config", "a state that is none", "a record 5,000 levels deep")


@pytest.mark.parametrize(
    "case", [pytest.param(c, marks=() if c in FAST_CASES else pytest.mark.slow, id=c) for c in CASES]
)
def test_a_hostile_value_ends_no_command(template: Path, case: str) -> None:
    kind, path, value = CASES[case]
    with copied(template) as root:
        file = file_of(root, kind)
        damaged = runs_of(file)
        if kind == "journal":
            lines = file.read_bytes().splitlines(keepends=True)
            record = json.loads(lines[path[0]])
            del record["crc"]
            new = put({**record, path[1]: record.get(path[1])}, path[1:], value)
            lines[path[0]] = line_of(encoded(new))
            file.write_bytes(b"".join(lines))
        else:
            content = put(json.loads(file.read_text()), path, value)
            file.write_text(encoded(content), errors="surrogatepass")
        assert_usable(root, kind, full=False, damaged=damaged)
        told(root, "retry", "exp", "--all")


def changed(data: st.DataObject, content: Any) -> str:
    path = data.draw(st.sampled_from(list(places(content))), label="path")
    new = data.draw(st.just(REMOVED) | HOSTILE, label="value")
    return encoded(put(content, path, new))


def line_of(body: str) -> bytes:
    start = body[:-1].encode(errors="surrogatepass")
    return b'%b,"crc":%d}\n' % (start, zlib.crc32(start))


def change_journal(data: st.DataObject, run: RunFiles) -> None:
    lines = run.journal(1).read_bytes().splitlines(keepends=True)
    number = data.draw(st.integers(0, len(lines) - 1), label="line")
    record = json.loads(lines[number])
    del record["crc"]
    lines[number] = line_of(changed(data, record))
    run.journal(1).write_bytes(b"".join(lines))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["submission", "marker", "config", "journal"])
@settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_hostile_values_end_no_command(template: Path, kind: str, data: st.DataObject) -> None:
    with copied(template) as root:
        path = file_of(root, kind)
        if kind == "journal":
            run = data.draw(st.sampled_from(root.experiment("exp").runs()), label="run")
            path = run.journal(1)
            change_journal(data, run)
        damaged = runs_of(path)
        if kind != "journal":
            path.write_text(changed(data, json.loads(path.read_text())), errors="surrogatepass")
        assert_usable(root, kind, damaged=damaged)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["submission", "marker", "config", "journal", "checkpoint"])
@settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
@given(data=st.data())
def test_flipped_bytes_end_no_command(template: Path, kind: str, data: st.DataObject) -> None:
    with copied(template) as root:
        path = file_of(root, kind)
        damaged = runs_of(path)
        content = bytearray(path.read_bytes())
        for _ in range(data.draw(st.integers(1, 4))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        path.write_bytes(content)
        assert_usable(root, kind, damaged=damaged)
