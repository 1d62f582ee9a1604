"""Law 1 with real processes: SIGKILL and SIGTERM to the workers that `submit` started."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

import pytest
from alphagrid.jobs.specification.experiment import expand
from alphagrid.jobs.specification.file import read_spec
from alphagrid.jobs.submission import retry, submit
from alphagrid.store import journal
from alphagrid.store.database import open_store
from alphagrid.store.layout import Root, RunFiles

if TYPE_CHECKING:
    from tests.conftest import Lab
    from tests.laws.conftest import Bench

pytestmark = pytest.mark.slow

Config = dict[str, Any]
STEPS = 600
EPOCH = 12
WINDOW = {"start_step": 1, "interval": 100, "count": 5}
WORKLOAD = {
    "name": "fatal_task:Fatal", "batch_size": 99, "hidden": [32], "dropout": 0.2, "batch_norm": True,
}  # fmt: skip
BASE: Config = {
    "workload": WORKLOAD,
    "optimizer": {"name": "nadamw", "lr": 1e-3},
    "schedule": {"name": "warmup_cosine", "total_steps": STEPS},
    "eval": {"every_steps": 100},
    "log": {"every_steps": 10},
    "checkpoint": {"every_seconds": 0.02},
    "stop": {"steps": STEPS},
    "device": "cpu",
}

KINDS: dict[str, Config] = {
    "median": {"alpha": {"policy": "median", **WINDOW}},
    "apply": {"alpha": {"policy": "apply", "scale": 0.5, **WINDOW}},
    "schedule-free": {"optimizer": {"name": "schedule_free_adamw"}, "alpha": {"policy": "observe", **WINDOW}},
    "sgd": {"optimizer": {"name": "sgd", "lr": 0.05, "momentum": 0.9}},
    "adamw": {"optimizer": {"name": "adamw"}, "alpha": {"policy": "observe", "also": ["biased"], **WINDOW}},
}
"""What is trained, by name."""

DEATHS: dict[str, list[str]] = {
    "median": ["kill:step:2", "kill:probe:203", f"kill:step:{STEPS - 1}"],
    "apply": ["kill:evaluation:1", "kill:evaluation:401", f"term:evaluation:{STEPS}"],
    "schedule-free": [f"kill:step:{EPOCH * 20}", f"kill:step:{EPOCH * 21}"],
    "sgd": [f"kill:step:{EPOCH * 30 + 2}", f"kill:step:{EPOCH * 30 + 9}", f"term:step:{STEPS - 50}"],
}
"""Where each dies: before a first checkpoint, in a window of α*, on the last step, in evaluations (also that
at the stop), at the ends of epochs, and twice within one."""


@pytest.fixture(autouse=True)
def _task(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(Path(__file__).with_name("fatal_task.py"), lab.folder)
    monkeypatch.syspath_prepend(str(lab.folder))


def calm(lab: Lab, bench: Bench, kind: str) -> dict[str, Any]:
    """Return what a kind comes to when it is left alone, in this process."""
    root = Root(lab.folder / f"calm-{kind}")
    experiment = expand(read_spec(lab.write({"experiment": "exp", "base": {**BASE, **KINDS[kind]}})))
    submit(experiment, lab.profile("debug"), root)
    return results(bench, root, root.experiment("exp").runs()[0])


def results(bench: Bench, root: Root, run: RunFiles) -> dict[str, Any]:
    with open_store(root) as store:
        store.sync()
        values = bench.read_back(store.db, run)
    assert values["rows.run.end_status"] == "completed"
    of_time = re.compile(r"seconds|costs|alpha_parts|^state\.clock")
    return {name: value for name, value in values.items() if not of_time.search(name)}


def differing(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


def send(lab: Lab, kinds: dict[str, Config]) -> dict[str, RunFiles]:
    """Submit runs to this machine; return their files by kind."""
    grids = [{"base": overrides} for overrides in kinds.values()]
    experiment = expand(read_spec(lab.write({"experiment": "exp", "base": BASE, "grids": grids})))
    submit(experiment, lab.profile(), lab.root)
    return {kind: lab.files.run(run.id) for kind, run in zip(kinds, experiment.runs, strict=True)}


def bring_to_the_end(lab: Lab) -> None:
    """Send what was stopped, or what has crashed too often, again and again, until all have completed."""
    journals, deadline = -1, 0.0
    while not lab.all_are("completed"):
        if journals < (journals := sum(len(run.journals()) for run in lab.files.runs())):
            deadline = time.monotonic() + 600  # for each attempt, not for all together
        assert time.monotonic() < deadline, (lab.states(), lab.reasons())
        assert journals < 100, lab.reasons()
        stranded = [run for run, state in lab.states().items() if state in ("failed", "interrupted")]
        if stranded:
            retry(lab.root, "exp", stranded)
        time.sleep(0.1)


def test_runs_that_die_at_chosen_places_equal_the_undisturbed_ones(
    lab: Lab, bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    marks = lab.folder / "marks"
    fates = {kind: {"deaths": deaths, "marks": str(marks / kind)} for kind, deaths in DEATHS.items()}
    for kind in fates:
        (marks / kind).mkdir(parents=True)
    sent = send(lab, {kind: {**KINDS[kind], "workload": {**WORKLOAD, **fates[kind]}} for kind in fates})
    bring_to_the_end(lab)
    for kind, run in sent.items():
        died = {path.name for path in (marks / kind).iterdir()}
        assert died == {death.split(":", 1)[1] for death in DEATHS[kind]}
        assert len(run.journals()) >= len(died) + 1
        assert differing(calm(lab, bench, kind), results(bench, lab.root, run)) == []
    with capsys.disabled():
        sys.stdout.write(f"\n{sum(map(len, DEATHS.values()))} deaths at chosen places\n")


Moment = Callable[[RunFiles, int], bool]
"""Whether it has come for a run and its attempt; asked again and again."""


def writing(run: RunFiles, attempt: int) -> bool:
    """Tell whether the attempt is writing a checkpoint; a killed one has left what it had of its own."""
    return any(name.endswith(f"-{attempt:04d}.tmp") for name in os.listdir(run.path))  # noqa: PTH208 (fast)


def written(kind: str, count: int = 1) -> Moment:
    """Tell whether so many records of a kind have been written."""
    return lambda run, attempt: sum(one["kind"] == kind for one in records(run, attempt)) >= count


def at_random(seed: int) -> Moment:
    """Tell whether an arbitrary part of a second of training has passed."""
    seconds = random.Random(seed).uniform(0.0, 0.9)
    return lambda run, attempt: (
        len(records(run, attempt)) > 1 and time.time() - records(run, attempt)[1]["time"] > seconds
    )


def records(run: RunFiles, attempt: int) -> list[dict[str, Any]]:
    path = run.journal(attempt)
    return journal.read(path).records if path.exists() else []


MOMENTS: dict[str, tuple[signal.Signals, list[Moment]]] = {
    "median": (signal.SIGKILL, [writing, writing]),
    "apply": (signal.SIGKILL, [written("checkpoint"), written("evaluation", 3)]),
    "schedule-free": (signal.SIGKILL, [at_random(1), at_random(2)]),
    "adamw": (signal.SIGTERM, [writing, at_random(3)]),
}


class Killer(Thread):
    """Sends a signal to a worker in each of a run's first attempts, when its moment has come."""

    def __init__(self, run: RunFiles, number: signal.Signals, moments: list[Moment]) -> None:
        super().__init__(daemon=True)
        self.sent = 0
        self._run, self._number, self._moments = run, number, moments

    def run(self) -> None:
        for attempt, moment in enumerate(self._moments, 1):
            while not records(self._run, attempt):
                time.sleep(0.005)
            pid = records(self._run, attempt)[0]["pid"]
            for look in count():
                if moment(self._run, attempt):
                    break
                if look % 50 == 0 and records(self._run, attempt)[-1]["kind"] == "end":
                    return
                time.sleep(0.0002)
            try:
                os.kill(pid, self._number)
            except ProcessLookupError:  # it has just come to its end
                return
            self.sent += 1


def test_runs_that_are_killed_at_any_moment_equal_the_undisturbed_ones(
    lab: Lab, bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    sent = send(lab, {kind: KINDS[kind] for kind in MOMENTS})
    killers = {kind: Killer(run, *MOMENTS[kind]) for kind, run in sent.items()}
    for killer in killers.values():
        killer.start()
    bring_to_the_end(lab)
    for kind, run in sent.items():
        killers[kind].join(10)
        assert killers[kind].sent > 0
        assert differing(calm(lab, bench, kind), results(bench, lab.root, run)) == []
    with capsys.disabled():
        sys.stdout.write(f"\n{sum(killer.sent for killer in killers.values())} signals to workers\n")
