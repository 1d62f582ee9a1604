"""What the laws of training share: runs that can be cut off wherever they touch the outside.

A run touches the outside when it reads the clock, looks at its stop request, writes to its journal, or
makes a file durable. At any of these touches an attempt can be killed (nothing it does afterwards gets out)
or asked to stop. The clock ticks by the reading, so that times are exact and repeat, too.
"""

from __future__ import annotations

import itertools
import json
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import pytest
import torch
from alphagrid.store import queries, submissions
from alphagrid.store.database import open_store
from alphagrid.store.journal import Journal, next_attempt
from alphagrid.store.layout import Root, RunFiles
from alphagrid.store.submissions import RunEntry, Submission
from alphagrid.trainer.alpha.options import Estimator
from alphagrid.trainer.alpha.policies import POLICIES
from alphagrid.trainer.checkpoint import available, read
from alphagrid.trainer.config import TrainingConfig
from alphagrid.trainer.loop import train
from alphagrid.trainer.optimizers import OPTIMIZERS
from alphagrid.trainer.registry import Registry
from alphagrid.trainer.resume import prepare
from alphagrid.trainer.stopping import StopRequest
from alphagrid.trainer.workloads import WORKLOADS
from pydantic import ValidationError

Config = dict[str, Any]
By = Literal["kill", "stop"]

TICK = 2.0**-10
"""Seconds between two readings of the clock: sums of it are exact in floating point."""

SMALL: Config = {
    "batch_size": 99, "hidden": [6], "dropout": 0.25, "batch_norm": True, "features": 3, "examples": 400,
    "channels": [2], "layers": 1, "width": 4, "heads": 2, "context": 5, "evaluation_windows": 40,
    "dense": 3, "columns": 2, "vocabulary": 9, "embedding_dim": 2, "evaluation_examples": 60,
    "data_dir": str(Path(__file__).parents[1] / "data" / "prepared_clicks"), "shuffle_rows": 70,
    "table_rows": 30, "bottom": [4], "top": [5],
    "momentum": 0.9, "centered": True, "warmup_steps": 5, "initial_accumulator_value": 0.1,
    "start_step": 2, "interval": 7, "count": 2, "scale": 0.5, "fill_steps": 3,
}  # fmt: skip
"""What an entry of a registry is set to, where it has such an option; the rest stays at its default."""

GIVEN: dict[str, Config] = {"ema": {"lr": 0.01}}
"""What a policy wants of the optimizer beside a schedule."""

BASE: Config = {
    "schedule": {"name": "warmup_cosine", "total_steps": 30, "warmup_fraction": 0.1},
    "eval": {"every_steps": 9, "splits": ["validation"]},
    "checkpoint": {"every_seconds": 50 * TICK},
    "log": {"every_steps": 4},
    "stop": {"steps": 25},
    "device": "cpu",
}
"""Digits have 12 batches an epoch here; windows of α* are the steps 2–3, 9–10, 16–17 and 23–24."""

UNTOLD = ("evaluation", "checkpoint", "logging")
"""Seconds that do depend on interruptions: an aborted evaluation is done again, and so on."""

RUN = "0123456789"
CUTS = pytest.StashKey[int]()


class SimulatedKill(BaseException):
    """The process is no more."""


class Touch(NamedTuple):
    """One touch of the outside: how many came before it, what it is, and the step of the last record."""

    number: int
    name: str
    step: int


@dataclass(frozen=True)
class Cut:
    """The end of an attempt: at the first touch for which `at` holds, by a kill or by a stop request."""

    at: Callable[[Touch], bool]
    by: By = "kill"


class Outside(StopRequest):
    """All that one attempt touches, the clock and the stop request included; it may fall at a cut."""

    def __init__(self, cut: Cut | None = None) -> None:
        super().__init__()
        self.touches: list[Touch] = []
        self.fell = False
        self.step = 0
        self._cut = cut
        self._ticks = itertools.count()

    def touch(self, name: str) -> None:
        touch = Touch(len(self.touches), name, self.step)
        self.touches.append(touch)
        if self._cut is None or not (self.fell or self._cut.at(touch)):
            return
        self.fell = True
        if self._cut.by == "kill":
            raise SimulatedKill
        self.request("the test says so")

    def now(self) -> float:
        self.touch("now")
        return next(self._ticks) * TICK

    def __bool__(self) -> bool:
        self.touch("asked")
        return super().__bool__()

    @contextmanager
    def disk(self) -> Iterator[None]:
        """Have what makes files durable, and what removes them, touch the outside before and after."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                os, "fsync", self._touching("fsync", lambda descriptor: None)
            )  # the machine lives on
            for name in ("rename", "unlink"):
                patch.setattr(Path, name, self._touching(name, getattr(Path, name)))
            yield

    def _touching(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def touching(*args: Any, **kwargs: Any) -> Any:
            self.touch(f"before {name}")
            result = function(*args, **kwargs)
            self.touch(f"after {name}")
            return result

        return touching


class TouchingJournal(Journal):
    """A journal that touches the outside before and after each record."""

    outside: Outside

    def append(self, kind: str, step: int, train_seconds: float, **fields: Any) -> None:
        self.outside.touch(f"before {kind}")
        super().append(kind, step, train_seconds, **fields)
        self.outside.step = step
        self.outside.touch(f"after {kind}")


@dataclass(frozen=True)
class Trained:
    """A run as it has become: all that must not depend on how it came there, by dotted names."""

    values: Mapping[str, Any]
    touches: list[Touch] = field(default_factory=list)
    """Of the last attempt."""

    def touch(self, name: str, step: int = 0) -> int:
        """Return the number of the first touch called `name` once a record of `step` or later is written."""
        return next(touch.number for touch in self.touches if touch.name == name and touch.step >= step)

    def differences(self, other: Trained, *parts: str) -> list[str]:
        """Return the names of what is not the same in both (below one of `parts`, if any are given)."""
        names = sorted(self.values.keys() | other.values.keys())
        return [
            name
            for name in names
            if name.startswith(parts or ("",)) and self.values.get(name) != other.values.get(name)
        ]


def flat(value: Any, name: str = "") -> dict[str, Any]:
    """Return the leaves of nested mappings and lists by dotted names, in forms that compare bit by bit."""
    if isinstance(value, torch.Tensor):
        return {name: (str(value.dtype), tuple(value.shape), value.detach().numpy().tobytes())}
    if isinstance(value, (list, tuple)) and all(isinstance(item, int) for item in value):
        return {name: tuple(value)}
    if isinstance(value, (dict, list, tuple)):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        leaves = [flat(item, f"{name}.{key}" if name else str(key)) for key, item in items]
        return {key: leaf for found in leaves for key, leaf in found.items()}
    return {name: value.hex() if isinstance(value, float) else value}


class Combination(NamedTuple):
    """Names in the registries of which a config is made."""

    optimizer: str
    policy: str | None
    workload: str


def config_of(names: Combination, /, **sections: Any) -> Config:
    """Return a small config; see `Bench.config`."""
    config = {
        **BASE,
        "workload": _small(WORKLOADS, names.workload),
        "optimizer": {**_small(OPTIMIZERS, names.optimizer), **GIVEN.get(str(names.policy), {})},
        **({} if names.policy is None else {"alpha": _small(POLICIES, names.policy)}),
        **sections,
    }
    TrainingConfig.model_validate(config)
    return config


def also_others(config: Config) -> Config:
    """Return the config with every other estimator recorded that it accepts."""
    alpha = config["alpha"]
    others = [name for name in get_args(Estimator) if name != alpha.get("estimator", "unbiased")]
    accepted = [name for name in others if _is_accepted({**config, "alpha": {**alpha, "also": [name]}})]
    return {**config, "alpha": {**alpha, "also": accepted}}


def _small(registry: Registry, name: str) -> Config:
    options = registry.entry(name).options
    return {**{key: value for key, value in SMALL.items() if key in options.model_fields}, registry.tag: name}


def _is_accepted(config: Config) -> bool:
    try:
        TrainingConfig.model_validate(config)
    except ValidationError:
        return False
    return True


def combinations() -> Iterator[Combination]:
    """Yield every combination of names that makes a config which is not refused."""
    for names in itertools.product(OPTIMIZERS.entries, [None, *POLICIES.entries], WORKLOADS.entries):
        with suppress(ValidationError):
            config_of(Combination(*names))
            yield Combination(*names)


def pairs() -> Iterator[Combination]:
    """Yield each pair of optimizer and policy that is not refused, with one workload after the other."""
    found = list(combinations())
    for number, pair in enumerate(dict.fromkeys(names[:2] for names in found)):
        fitting = [names for names in found if names[:2] == pair]
        yield fitting[(number + number // len(POLICIES.entries)) % len(fitting)]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give `combination`, `pair`, `optimizer` and `policy` every value that the registries know."""
    for argument, values in {"combination": combinations, "pair": pairs}.items():
        if argument in metafunc.fixturenames:
            metafunc.parametrize(argument, list(values()), ids=lambda names: "-".join(map(str, names)))
    for argument, registry in {"optimizer": OPTIMIZERS, "policy": POLICIES}.items():
        if argument in metafunc.fixturenames:
            metafunc.parametrize(argument, registry.entries)


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[Bench]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent))  # where import-path workloads of these tests lie
        found = Bench(tmp_path_factory.mktemp("bench"))
        yield found
    pytestconfig.stash[CUTS] = found.cuts


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if CUTS in config.stash:
        terminalreporter.write_line(f"tests/laws: {config.stash[CUTS]} attempts were cut off in this process")


class Bench:
    """Trains runs under one root, each an experiment of its own, and reads them back through the store."""

    tick = TICK
    also_others = staticmethod(also_others)
    flat = staticmethod(flat)
    read_back = staticmethod(lambda db, run: read_back(db, run))

    def __init__(self, folder: Path) -> None:
        self.root = Root(folder)
        self.cuts = 0
        """How many attempts have been cut off."""
        self._store = open_store(self.root)
        self._whole: dict[str, Trained] = {}
        self._names = map("run-{}".format, itertools.count())

    def config(self, optimizer: str, policy: str | None, workload: str, /, **sections: Any) -> Config:
        """Return a small config of these names; sections replace its own.

        Raises:
            ValidationError: the config is refused.
        """
        return config_of(Combination(optimizer, policy, workload), **sections)

    def combinations(self) -> list[Combination]:
        return list(combinations())

    def cut(self, at: int | Callable[[Touch], bool], by: By = "kill") -> Cut:
        """Return the cut at a touch, which is told by its number or by a condition."""
        return Cut(at if callable(at) else lambda touch: touch.number == at, by)

    def whole(self, config: Config) -> Trained:
        """Return the undisturbed run."""
        key = json.dumps(config, sort_keys=True)
        if key not in self._whole:
            self._whole[key] = self.disturbed(config)
        return self._whole[key]

    def disturbed(self, config: Config, *cuts: Cut) -> Trained:
        """Return the run whose first attempts were cut off, one attempt a cut; the next one ends it."""
        run = self.begin()
        for cut in cuts:
            if not self.attempt(config, run, cut).fell:
                break
        return self.ended(config, run)

    def ended(self, config: Config, run: RunFiles) -> Trained:
        """Return the run after a last attempt, which nothing disturbs."""
        return self.trained(run, self.attempt(config, run).touches)

    def begin(self) -> RunFiles:
        """Return the files of a new run."""
        files = self.root.experiment(next(self._names))
        entry = RunEntry(id=RUN, name=RUN, params={}, config={})
        what = {"id": "s", "created": 1.0, "experiment": files.name, "profile": {}}
        with Outside().disk():
            submissions.write(files, Submission(**what, runs=[entry], named={RUN: entry}))
        return files.run(RUN)

    def attempt(self, config: Config, run: RunFiles, cut: Cut | None = None) -> Outside:
        """Make one more attempt at a run, to its end or to the cut."""
        outside, number = Outside(cut), next_attempt(run)
        times = map(float, itertools.count(1000 * number))
        with Outside().disk():
            journal = TouchingJournal.create(run.journal(number), clock=times.__next__)
        journal.outside = outside
        with suppress(SimulatedKill), outside.disk():
            self._attempt(TrainingConfig.model_validate(config), run, journal, number, outside)
        journal.close()
        self.cuts += outside.fell
        return outside

    def trained(self, run: RunFiles, touches: list[Touch]) -> Trained:
        """Return what has become of a run."""
        self._store.sync([run.path.parent.name])
        return Trained(read_back(self._store.db, run), touches)

    def _attempt(
        self, config: TrainingConfig, run: RunFiles, journal: Journal, number: int, outside: Outside
    ) -> None:
        resume = prepare(run)
        start = {"attempt": number, "resume_step": resume.step, "fresh": False, "submission": "s"}
        journal.append("start", resume.step, resume.train_seconds, **start)
        outcome = train(config, run, journal, number, resume, outside, outside.now)
        if outcome.status == "interrupted":
            journal.append("event", outcome.step, outcome.train_seconds, event="interrupted")
        else:
            journal.append("end", outcome.step, outcome.train_seconds, status=outcome.status)


def read_back(db: sqlite3.Connection, run: RunFiles) -> dict[str, Any]:
    """Return a run's rows as the store gives them and, if it is complete, its last checkpoint, flattened."""
    rows = _rows(db, run)
    files = available(run) if rows["run"]["end_status"] == "completed" else []
    values = flat({"rows": rows, "state": read(files[-1]) if files else {}})
    return {name: value for name, value in values.items() if not name.endswith(UNTOLD)}


def _rows(db: sqlite3.Connection, files: RunFiles) -> dict[str, Any]:
    (run,) = (row for row in queries.runs(db, files.path.parent.name) if row.id == files.id)
    told = ("step", "train_seconds", "learning_rate", "best_validation_loss", "end_status")
    events = [row for row in queries.events(db, run.key) if row.event in ("learning_rate", "rejected")]
    return {
        "run": {name: getattr(run, name) for name in told},
        "window": list(map(_timeless, queries.windows(db, run.key))),
        "evaluation": [{**_timeless(row), "seconds": None} for row in queries.evaluations(db, run.key)],
        "alpha": list(map(_timeless, queries.alphas(db, run.key))),
        "event": list(map(_timeless, events)),
    }


def _timeless(row: Any) -> dict[str, Any]:
    return {name: value for name, value in asdict(row).items() if name not in ("time", "attempt")}
