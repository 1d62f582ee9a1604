"""What tests of whole runs share: a root of their own, small experiments, and patience."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from alphagrid.cluster_profiles.loader import Profile, load_profile
from alphagrid.jobs.resolve_states import run_states
from alphagrid.jobs.runs.attempts import Attempt, read
from alphagrid.jobs.runs.states import RunState
from alphagrid.jobs.specification.experiment import Experiment, expand
from alphagrid.jobs.specification.file import read_spec
from alphagrid.jobs.submission import Submitted, submit
from alphagrid.store import journal, locks, submissions
from alphagrid.store.layout import ExperimentFiles, Root
from alphagrid.store.submissions import newest_runs
from hypothesis import HealthCheck, settings

# A busy machine is no reason to fail. In CI the profile below this one draws the same examples every time.
settings.register_profile(
    "patient", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("patient")

SUBMIT = """
import sys
from pathlib import Path
from alphagrid.cluster_profiles.loader import load_profile
from alphagrid.jobs.specification.experiment import expand
from alphagrid.jobs.specification.file import read_spec
from alphagrid.jobs.submission import submit
from alphagrid.store.layout import Root

spec, root = map(Path, sys.argv[1:])
profile = load_profile("local", {"max_parallel": 2})
print(len(submit(expand(read_spec(spec)), profile, Root(root)).sent))
"""

HELD = """
import time
from pathlib import Path
from alphagrid.trainer.workloads.least_squares import LeastSquares

class Gate:
    def __init__(self, stream):
        self.stream = stream

    def batch(self, index):
        while index == 150 and not Path("{gate}").exists():
            time.sleep(0.01)
        return self.stream.batch(index)

class Held(LeastSquares):
    def stream(self, name, seed):
        return Gate(super().stream(name, seed))
"""

BASE: dict[str, Any] = {
    "workload": {"name": "least_squares"},
    "optimizer": {"name": "sgd"},
    "eval": {"every_steps": 10_000},
    "device": "cpu",
}
FOREVER = 10**9
MARK = "ALPHAGRID_TEST_LAB"
"""In the environment of all that a test with a lab starts: the lab's folder."""
OF_THE_SHELL = (
    "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "TERM", "COLUMNS", "PYTHONDEVMODE", "PYTHONWARNINGS",
)  # fmt: skip
"""What would change how commands print, or add warnings to it."""


@dataclass
class Lab:
    """A root, and the one experiment that a test runs under it."""

    folder: Path
    submitters: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def root(self) -> Root:
        return Root(self.folder / "root")

    @property
    def files(self) -> ExperimentFiles:
        return self.root.experiment("exp")

    def spec(self, steps: int, rates: list[float] | None = None, **base: Any) -> Path:
        """Write a specification of one run per learning rate (one run if there is none given)."""
        content: dict[str, Any] = {"experiment": "exp", "base": {**BASE, "stop": {"steps": steps}, **base}}
        if rates is not None:
            content["grid"] = {"optimizer.lr": rates}
        return self.write(content)

    def write(self, content: dict[str, Any]) -> Path:
        path = self.folder / "spec.yaml"
        path.write_text(json.dumps(content))
        return path

    def experiment(self, steps: int, rates: list[float] | None = None, **base: Any) -> Experiment:
        return expand(read_spec(self.spec(steps, rates, **base)))

    def held(self) -> dict[str, Any]:
        """Return a workload whose runs stand still after their first window, until `let_go`."""
        (self.folder / "held_task.py").write_text(HELD.format(gate=self._gate))
        return {"name": "held_task:Held"}

    def let_go(self) -> None:
        self._gate.touch()

    @property
    def _gate(self) -> Path:
        return self.folder / "gate"

    def submit(self, *args: Any, cluster: str = "local", **base: Any) -> Submitted:
        return submit(self.experiment(*args, **base), self.profile(cluster), self.root)

    def profile(self, cluster: str = "local") -> Profile:
        return load_profile(cluster, {"max_parallel": 2} if cluster == "local" else {})

    def submitter(self, spec: Path) -> subprocess.Popen[str]:
        """Submit from a process in a process group of its own, as a shell would start it."""
        command = [sys.executable, "-c", SUBMIT, str(spec), str(self.root.path)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
        self.submitters.append(process)
        return process

    def states(self) -> dict[str, str]:
        """Return the states by run id."""
        return {run_id: found.state for run_id, found in self._run_states().items()}

    def reasons(self) -> list[str | None]:
        return [found.reason for found in self._run_states().values()]

    def _run_states(self) -> dict[str, RunState]:
        return run_states(self.root, self.files, newest_runs(submissions.read_all(self.files)))

    def all_are(self, state: str) -> bool:
        return bool(self.states()) and set(self.states().values()) == {state}

    def until(self, condition: Callable[[], bool], seconds: float = 300.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"still {self.states()}: {self.supervisor_log()}"
            time.sleep(0.05)

    def until_all_are(self, state: str) -> None:
        self.until(lambda: self.all_are(state))

    def attempts(self, run_id: str) -> list[Attempt]:
        return read(self.files.run(run_id))

    def records(self, run_id: str, attempt: int = 1) -> list[dict[str, Any]]:
        return journal.read(self.files.run(run_id).journal(attempt)).records

    def worker(self, run_id: str) -> int | None:
        return locks.holder(self.files.run(run_id).lock)

    def is_training(self, run_id: str) -> bool:
        """Whether steps have been written down in the newest attempt, whose worker lives."""
        attempts = self.attempts(run_id)
        return (
            bool(attempts)
            and attempts[-1].step > attempts[-1].resume_step
            and self.worker(run_id) is not None
        )

    def supervisor(self) -> int | None:
        return locks.holder(self.root.supervisor / "lock")

    def supervisor_log(self) -> str:
        log = self.root.supervisor / "log"
        return log.read_text() if log.exists() else ""

    def close(self) -> None:
        """End every process that a test has left, whatever it has come to."""
        while left := self._left():
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)
        for process in self.submitters:
            process.wait()
            if process.stdout is not None:
                process.stdout.close()

    def _left(self) -> list[int]:
        """Return the living processes that began with the mark in their environment: this one did not."""
        found = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            with suppress(OSError):  # it has ended, or is somebody else's
                if f"{MARK}={self.folder}".encode() in path.read_bytes().split(b"\0"):
                    found.append(int(path.parent.name))
        return found


@pytest.fixture(scope="session", autouse=True)
def _plain_output() -> Iterator[None]:
    """Have commands print as in a pipe, whatever the shell that runs the tests asks for."""
    with pytest.MonkeyPatch.context() as patch:
        for name in OF_THE_SHELL:
            patch.delenv(name, raising=False)
        yield


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    # Slots of its own, so that tests side by side do not wait.
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv(MARK, str(tmp_path))
    found = Lab(tmp_path)
    yield found
    found.close()
