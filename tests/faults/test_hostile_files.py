"""Whatever lies in a root, commands tell it without a traceback, and what it does not concern goes on."""

from __future__ import annotations

import json
import os
import shutil
import signal
import zlib
from collections.abc import Callable, Iterator
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
from alphagrid.store.layout import Root, RunFiles
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

EXAMPLES = int(os.environ.get("ALPHAGRID_TEST_EXAMPLES", "2"))
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
    """A root with two experiments, whose runs have completed, crashed, and been cancelled."""
    with TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        folder = Path(name)
        patch.syspath_prepend(name)
        (folder / "hostile_task.py").write_text(TASK)
        for experiment in ("exp", "other"):
            (folder / "spec.yaml").write_text(json.dumps({**SPEC, "experiment": experiment}))
            submit(expand(read_spec(folder / "spec.yaml")), load_profile("debug"), Root(folder / "root"))
        call(folder / "root", "cancel", "exp", "--all")
        for run in Root(folder / "root").experiment("exp").runs():
            sent = [path.stem for path in (folder / "root/exp/submissions").glob("*.json")]
            run.cancel_marker.write_text(json.dumps({"time": 1.0, "submissions": sent}))
        call(folder / "root", "status")
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


def assert_usable(root: Root, full: bool = True) -> None:
    """Run the commands: none ends in a traceback, and the other experiment is as it was."""
    with in_time():
        shown = told(root, "status", "--json")
        counts = {one["experiment"]: one["counts"] for one in json.loads(shown.stdout)["experiments"]}
        assert counts["other"] == {"completed": 2, "failed": 1}
        told(root, "status", "exp")
        found = told(root, "status", "exp", "--json")
        other = told(root, "status", "other", "--json")
        assert {run["state"] for run in json.loads(other.stdout)["runs"]} == {"completed", "failed"}
        told(root, "store", "check", "--json")
        told(root, "prune", "exp", "--all", "--dry-run")
        runs = [run["id"] for run in json.loads(found.stdout or '{"runs": []}')["runs"]]
        for run in runs if full else runs[:1]:
            told(root, "logs", "exp", run)
            told(root, "cancel", "exp", run)
        backlog = LocalQueue(root, ())
        backlog.refresh()
        assert backlog.next() is None
        if full:
            told(root, "status")
            told(root, "report", "exp", "--json", "--budget-steps", "15")
            assert told(root, "report", "other", "--json", "--budget-steps", "15").exit_code == 0
            told(root, "retry", "exp", "--all")
            assert told(root, "retry", "other", "--failed").exit_code == 0


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
KINDS = ("submission", "marker", "config", "journal", "checkpoint", "manifest of the code")


def file_of(root: Root, kind: str) -> Path:
    files = root.experiment("exp")
    run = next(run for run in files.runs() if run.checkpoints())
    if kind == "manifest of the code":
        return next(files.code.glob("*.json"))
    if kind == "submission":
        return next(files.submissions.glob("*.json"))
    paths = {"marker": run.cancel_marker, "config": run.config, "journal": run.journal(1)}
    return paths[kind] if kind in paths else run.checkpoints()[-1]


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
    """The end of a journal that is no record may still arrive; snapshots of code are not checked."""
    with copied(template) as root:
        path = file_of(root, kind)
        SHAPES[shape](path)
        if kind != "manifest of the code" and (kind != "journal" or shape in NO_FILES):
            with in_time():
                checked = told(root, "store", "check")
            assert f"exp/{path.relative_to(root.experiment('exp').path)}" in checked.stdout
            assert checked.exit_code == 1
        assert_usable(root, full)


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
        assert_usable(root, full=False)
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
@settings(
    max_examples=int(os.environ.get("ALPHAGRID_TEST_EXAMPLES", "2")), suppress_health_check=list(HealthCheck)
)
@given(data=st.data())
def test_hostile_values_end_no_command(template: Path, kind: str, data: st.DataObject) -> None:
    with copied(template) as root:
        if kind == "journal":
            runs = root.experiment("exp").runs()
            change_journal(data, data.draw(st.sampled_from(runs), label="run"))
        else:
            path = file_of(root, kind)
            path.write_text(changed(data, json.loads(path.read_text())), errors="surrogatepass")
        assert_usable(root)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["submission", "marker", "config", "journal", "checkpoint"])
@settings(max_examples=2, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
@given(data=st.data())
def test_flipped_bytes_end_no_command(template: Path, kind: str, data: st.DataObject) -> None:
    with copied(template) as root:
        path = file_of(root, kind)
        content = bytearray(path.read_bytes())
        for _ in range(data.draw(st.integers(1, 4))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        path.write_bytes(content)
        assert_usable(root)
