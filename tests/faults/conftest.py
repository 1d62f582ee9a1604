"""What tests of faults share: a run that trouble can be made for, its result, and processes to kill."""

from __future__ import annotations

import importlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import IO, TYPE_CHECKING, Any, cast

import pytest
import torch
from alphagrid.jobs.runs.attempts import Attempt, read
from alphagrid.jobs.specification.experiment import Experiment, expand
from alphagrid.jobs.specification.file import read_spec
from alphagrid.jobs.status import RunStatus
from alphagrid.jobs.status import status as look
from alphagrid.jobs.submission import submit
from alphagrid.jobs.worker import Ending, attempt_run
from alphagrid.store import journal, queries, submissions
from alphagrid.store.database import open_store
from alphagrid.store.layout import ExperimentFiles, Root, RunFiles
from alphagrid.store.submissions import RunEntry, Submission
from alphagrid.trainer import checkpoint, checkpoint_writer

if TYPE_CHECKING:
    from tests.conftest import Lab

MEMORY = Path("/dev/shm")
HERE = Path(__file__).parent
STEPS = 60
ANSWER_SECONDS = 300
"""What a zygote may take to import what it needs, on a busy machine."""
CONFIG: dict[str, Any] = {
    "workload": {"name": "watched_task:Watched", "hidden": [8], "batch_size": 64, "dropout": 0.1},
    "optimizer": {"name": "nadamw", "lr": 1e-2},
    "schedule": {"name": "warmup_cosine", "total_steps": STEPS},
    "alpha": {"policy": "median", "interval": 15, "count": 4, "start_step": 5},
    "eval": {"every_steps": 10},
    "log": {"every_steps": 5},
    "checkpoint": {"every_seconds": 1e-9},
    "stop": {"steps": STEPS},
    "device": "cpu",
}
"""Small, with dropout, α* that acts, and a checkpoint after each step."""


_UNDISTURBED: dict[str, Result] = {}
"""Results of undisturbed runs, by the config's changes."""


@dataclass
class Result:
    """What must not depend on what happened on the way: all rows but for times, and the last state."""

    rows: dict[str, list[Any]]
    state: dict[str, Any]

    def differences(self, other: Result) -> list[str]:
        return [*_differences("rows", self.rows, other.rows), *_differences("state", self.state, other.state)]


def result(files: ExperimentFiles, run_id: str) -> Result:
    with open_store(Root(files.path.parent)) as store:
        store.sync()
        assert [p for p in store.check() if "torn" not in p.reason] == []
        (key,) = [row.key for row in queries.runs(store.db, files.name) if row.id == run_id]
        rates = [e for e in queries.events(store.db, key) if e.event in ("learning_rate", "rejected")]
        rows: dict[str, list[Any]] = {
            "windows": [
                (w.step, w.steps, w.alpha_steps, w.loss, w.lr_min, w.lr_mean, w.lr_max)
                for w in queries.windows(store.db, key)
            ],
            "evaluations": [(e.step, e.losses, e.at_stop) for e in queries.evaluations(store.db, key)],
            "alphas": [
                (a.step, a.learning_rate, a.estimates, a.direction_norm, a.cosine, a.train_loss, a.probe_loss)
                for a in queries.alphas(store.db, key)
            ],
            "rates": [(e.step, e.event, e.details) for e in rates],
        }
    newest = checkpoint.available(files.run(run_id))[-1]
    state = {name: part for name, part in checkpoint.read(newest).items() if name != "clock"}
    return Result(rows, state)


def _differences(name: str, left: Any, right: Any) -> list[str]:
    if isinstance(left, dict) and left.keys() == right.keys():
        return [text for key in left for text in _differences(f"{name}.{key}", left[key], right[key])]
    if isinstance(left, list | tuple) and len(left) == len(right):
        pairs = enumerate(zip(left, right, strict=True))
        return [text for index, (a, b) in pairs for text in _differences(f"{name}.{index}", a, b)]
    same = torch.equal(left, right) if isinstance(left, torch.Tensor) else left == right
    return [] if same else [f"{name}: {left} is not {right}"]


@pytest.fixture(scope="session", autouse=True)
def _cache_of_torch() -> None:
    """Keep torch from making its cache, at the process' end, in what was a test's folder for such things."""
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", f"{gettempdir()}/torchinductor_{os.getuid()}")


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A folder in memory where there is room: what is killed and damaged here need not reach a disk."""
    with TemporaryDirectory(dir=MEMORY if os.access(MEMORY, os.W_OK) else None) as folder:
        yield Path(folder)


class Watched:
    """One run of an experiment, in a root of its own, that trouble can be made for."""

    def __init__(self, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lab = lab
        self._patch = monkeypatch
        shutil.copy(HERE / "watched_task.py", lab.folder)
        monkeypatch.syspath_prepend(str(lab.folder))
        monkeypatch.delitem(sys.modules, "watched_task", raising=False)

    @property
    def files(self) -> ExperimentFiles:
        return self.lab.files

    @property
    def run(self) -> RunFiles:
        (found,) = self.files.runs()
        return found

    @property
    def attempts(self) -> list[Attempt]:
        return read(self.run) if self.files.runs() else []

    def send(self, cluster: str = "debug", **changes: Any) -> None:
        """Submit the run; it goes on where it is."""
        submit(self._experiment(changes), self.lab.profile(cluster), self.lab.root)

    def hand_over(self, **changes: Any) -> str:
        """Submit the run to a cluster that nobody has; return its id. `attempt` does what a job would."""
        config = self._experiment(changes).runs[0].config
        entry = RunEntry(id=config.run_id(), name="run", params={}, config=config.as_dict())
        profile = {"name": "nowhere", "cluster": "slurm"}
        submission = Submission(
            id="s1", created=1.0, experiment="exp", profile=profile, code_path=str(self.lab.folder),
            runs=[entry], named={entry.id: entry},
        )  # fmt: skip
        submissions.write(self.files, submission)
        return entry.id

    def attempt(self, run_id: str) -> Ending:
        return attempt_run(self.files, run_id, "s1")

    def on_step(self, deed: Callable[[int], None]) -> None:
        """Have `deed` called in the forward pass of each training step, counted from 1 in each attempt."""
        self._patch.setattr(importlib.import_module("watched_task"), "on_step", deed)

    def trouble(self, what: str | None, **environment: str) -> None:
        """Ask for trouble (`watched_task.DEEDS`) of every process from now on, or for none."""
        self._patch.setenv("ALPHAGRID_TEST_TROUBLE", what or "")
        for name, value in environment.items():
            self._patch.setenv(name, value)

    def interrupt(self, step: int, **changes: Any) -> None:
        """Submit the run and stop it, with a checkpoint, when it has done `step` more steps."""
        self.trouble(f"interrupt@{step}")
        with pytest.raises(KeyboardInterrupt):
            self.send(**changes)
        self.trouble(None)

    def records(self, attempt: int) -> list[dict[str, Any]]:
        return journal.read(self.run.journal(attempt)).records

    def events(self, name: str, attempt: int) -> list[dict[str, Any]]:
        return [r for r in self.records(attempt) if r["kind"] == "event" and r["event"] == name]

    def status(self) -> RunStatus:
        (run,) = look(self.lab.root, "exp").runs
        return run

    def result(self) -> Result:
        return result(self.files, self.run.id)

    def differences(self, **changes: Any) -> list[str]:
        """Return what is not as it is when nothing happens to the run."""
        return self.result().differences(self.undisturbed(**changes))

    def undisturbed(self, **changes: Any) -> Result:
        """Return the result of the same run in a root where nothing happens to it."""
        changes.pop("checkpoint", None)
        key = json.dumps(changes)
        if key not in _UNDISTURBED:
            root = Root(self.lab.folder / "undisturbed")
            rare = self._experiment({**changes, "checkpoint": {"every_seconds": 600}})
            submit(rare, self.lab.profile("debug"), root)
            (run,) = root.experiment("exp").runs()
            _UNDISTURBED[key] = result(root.experiment("exp"), run.id)
        return _UNDISTURBED[key]

    def spec(self, **changes: Any) -> Path:
        return self.lab.write({"experiment": "exp", "base": {**CONFIG, **changes}})

    def _experiment(self, changes: Mapping[str, Any]) -> Experiment:
        return expand(read_spec(self.spec(**changes)))


@pytest.fixture
def watched(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Watched:
    monkeypatch.setattr(checkpoint_writer, "MOST_OVERHEAD", 1e9)  # a checkpoint whenever `every_seconds` says
    return Watched(lab, monkeypatch)


class Zygote:
    """Processes to kill."""

    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, str(HERE / "zygote.py"), *arguments]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/"
        )

    def fork(self, what: str, *arguments: object, **environment: str) -> int:
        return self._ask("fork", what, arguments, environment)

    def wait(self, pid: int) -> int:
        """Return the exit code, or minus the signal that a process died of."""
        return self._ask("wait", pid)

    def kill(self, *pids: int) -> None:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        for pid in pids:
            self.wait(pid)

    def is_idle(self, pid: int) -> bool:
        """Tell whether a process has suspended itself, or has ended."""
        return _state(pid) in "TZ"

    def finish(self, pid: int) -> int:
        """Wake a process whenever it is suspended, until it has ended; return how it did."""
        while _state(pid) != "Z":
            os.kill(pid, signal.SIGCONT)
            time.sleep(0.005)
        return self.wait(pid)

    def close(self) -> None:
        cast(IO[str], self._process.stdin).close()
        self._process.wait()
        cast(IO[str], self._process.stdout).close()

    def _ask(self, *command: object) -> int:
        to, answers = cast(IO[str], self._process.stdin), cast(IO[str], self._process.stdout)
        to.write(json.dumps(command) + "\n")
        to.flush()
        assert select.select([answers], [], [], ANSWER_SECONDS)[0], f"no answer to {command}"
        return int(answers.readline())


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


@pytest.fixture
def trainers() -> Iterator[Zygote]:
    found = Zygote("train")
    yield found
    found.close()


@pytest.fixture
def ingesters() -> Iterator[Zygote]:
    found = Zygote()
    yield found
    found.close()
