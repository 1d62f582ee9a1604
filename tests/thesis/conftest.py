"""Synthetic journals of the thesis' experiments in small, for tests of what the report says of them.

Rates, costs and α* follow simple laws with seeded noise, so that every number can be worked out again.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from alphagrid.analysis.clocks import Clock
from alphagrid.analysis.compare_runs import compare
from alphagrid.analysis.comparison import ReportData
from alphagrid.analysis.data import ExperimentData, load
from alphagrid.analysis.reference import reference_for
from alphagrid.store import submissions
from alphagrid.store.database import open_store
from alphagrid.store.journal import Journal, open_next
from alphagrid.store.layout import Root
from alphagrid.store.submissions import RunEntry, Submission

TOTAL, WARM_UP, PEAK, START = 2000, 40, 2.1857984424097966e-4, 200
INTERVALS, COUNTS = (100, 200, 500), (5, 10, 25)
LOG = 50
PLAIN, WAIT, ALPHA = 0.15, 0.05, 4.0
"""Seconds of a plain step without its wait for data, of that wait, and of one α*."""
SCHEDULE = {"name": "warmup_cosine", "total_steps": TOTAL, "warmup_fraction": 0.02}
EXAMPLES = 4_195_197_692


def scheduled_rate(step: int) -> float:
    """Warm-up from 1e-10 of the peak, then a cosine to zero."""
    if step < WARM_UP:
        return PEAK * (1e-10 + (1 - 1e-10) * step / WARM_UP)
    return PEAK * 0.5 * (1 + math.cos(math.pi * min((step - WARM_UP) / (TOTAL - WARM_UP), 1)))


@dataclass
class Twin:
    """One run: its name, what acts, how far it goes, and how fast its node is."""

    name: str
    params: dict[str, Any] = field(default_factory=dict)
    baseline: str | None = None
    alpha: dict[str, Any] | None = None
    optimizer: str = "nadamw"
    schedule: dict[str, Any] | None = field(default_factory=lambda: dict(SCHEDULE))
    stop: dict[str, Any] = field(default_factory=lambda: {"steps": TOTAL})
    every_steps: int | None = 100
    every_seconds: float | None = None
    seed: int = 0
    slow: float = 1.0
    host: str = "node1"
    parts: bool = False
    workload: str = "criteo1tb"

    @property
    def id(self) -> str:
        return hashlib.sha256(f"{self.name}-{self.seed}".encode()).hexdigest()[:10]

    @property
    def config(self) -> dict[str, Any]:
        return {
            "seed": self.seed, "stop": self.stop, "schedule": self.schedule, "alpha": self.alpha,
            "optimizer": {"name": self.optimizer}, "log": {"every_steps": LOG},
            "workload": {"name": self.workload, "batch_size": 32768},
        }  # fmt: skip

    def measures(self, index: int) -> bool:
        alpha = self.alpha
        if alpha is None or index < alpha["start_step"]:
            return False
        return bool((index - alpha["start_step"]) % alpha["interval"] < alpha["count"])

    @property
    def acts(self) -> bool:
        return self.alpha is not None and self.alpha["policy"] == "median"


def cell(interval: int, number: int, **fields: Any) -> Twin:
    alpha = {"policy": "median", "estimator": "unbiased", "also": [], "start_step": START}
    params = {"alpha.interval": interval, "alpha.count": number}
    alpha |= {"interval": interval, "count": number}
    return Twin(f"interval{interval}-count{number}", params, alpha=alpha, **fields)


def grid(**fields: Any) -> list[Twin]:
    """The 3 × 3 cells and both baselines."""
    cells = [cell(interval, number, **fields) for interval in INTERVALS for number in COUNTS]
    fields.pop("stop", None)
    scheduled = Twin("nadamw", baseline="nadamw", **fields)
    name = "schedule-free"
    free = Twin(name, baseline=name, optimizer="schedule_free_adamw", schedule=None, **fields)
    return [*cells, scheduled, free]


def observing(**fields: Any) -> Twin:
    alpha: dict[str, Any] = {"policy": "observe", "estimator": "unbiased"}
    alpha |= {"also": ["biased", "hybrid", "lookahead"], "start_step": 0, "interval": 100, "count": 10}
    return Twin("observe", alpha=alpha, every_steps=200, **fields)


def write(root: Root, experiment: str, twins: list[Twin], *, journals: bool = True) -> None:
    """Write a submission of these runs and, unless they are deleted, their journals."""
    files = root.experiment(experiment)
    entries = [
        RunEntry(id=t.id, name=f"{t.name}-seed{t.seed}", baseline=t.baseline, config=t.config,
                 params={**t.params, "seed": t.seed})
        for t in twins
    ]  # fmt: skip
    submission = Submission(
        id=submissions.new_id(1e9), created=1e9, experiment=experiment, runs=entries,
        profile={"name": "local", "cluster": "local"}, named={entry.id: entry for entry in entries},
    )  # fmt: skip
    submissions.write(files, submission)
    for twin in twins if journals else ():
        ticks = count(int(1e9))
        _, journal = open_next(files.run(twin.id), clock=lambda ticks=ticks: float(next(ticks)))  # type: ignore[misc]
        _Simulation(twin, journal).run(submission.id)
        journal.close()


class _Simulation:
    """A run that is imagined step by step and written down as the trainer would."""

    def __init__(self, twin: Twin, journal: Journal) -> None:
        self.twin, self.journal = twin, journal
        self.noise = random.Random(f"{twin.name}{twin.seed}")
        self.seconds, self.step = 0.0, 0
        self.held: float | None = None
        self.window: list[tuple[float, bool]] = []
        self.collected: list[float] = []
        self.next_time = 0.0

    def run(self, submission: str) -> None:
        twin = self.twin
        self.journal.append(
            "start", 0, 0.0, attempt=1, resume_step=0, fresh=False, submission=submission, host=twin.host,
            gpu="A100", device="cuda", stop=twin.stop,
        )  # fmt: skip
        self._append("event", event="training_started", startup_seconds=1.0, train_examples=EXAMPLES)
        while not self._finished():
            self._take_step()
        self._evaluate(at_stop=True)
        self._log()
        self._append("end", status="completed", reason=None)

    def _finished(self) -> bool:
        stop = self.twin.stop
        if self.step >= stop.get("steps", math.inf):
            return True
        return bool(self.seconds + self._cost(self.step) > stop.get("train_seconds", math.inf))

    def _cost(self, index: int) -> float:
        paid = self.twin.acts and self.twin.measures(index)
        return self.twin.slow * (PLAIN + WAIT + (ALPHA if paid else 0.0))

    def _rate(self, index: int) -> float:
        if self.twin.acts and index >= START:
            self.held = scheduled_rate(START) if self.held is None else self.held
            return self.held
        return scheduled_rate(index) if self.twin.schedule else 1e-3

    def _take_step(self) -> None:
        index, rate = self.step, self._rate(self.step)
        measured = self.twin.measures(index)
        self.seconds += self._cost(index)
        if measured:
            self._measure(index, rate)
        self.step += 1
        self.window.append((rate, measured and self.twin.acts))
        if self.twin.acts and measured:
            self._close(index)
        if self.step % LOG == 0:
            self._log()
        if self._due():
            self._evaluate()

    def _measure(self, index: int, rate: float) -> None:
        """A biased numerator is larger by a factor, both denominators nearly agree."""
        draw = self.noise
        norm = rate * 100
        curvature = norm**2 * 8.0
        wanted = 1.3e-4 * (1.5 - index / TOTAL)
        unbiased = wanted * (1 + 2.0 * draw.gauss(0, 1))
        biased = 30 * wanted * abs(1 + 0.4 * draw.gauss(0, 1))
        estimates = {
            "unbiased": _estimate(unbiased, rate, curvature),
            "biased": _estimate(biased, rate, curvature * 1.02),
            "hybrid": _estimate(unbiased / 1.02, rate, curvature * 1.02),
            "lookahead": _estimate(wanted * (1 + 2.0 * draw.gauss(0, 1)), rate, curvature),
        }
        names = [self.twin.alpha["estimator"], *self.twin.alpha["also"]] if self.twin.alpha else []
        scalars = {
            "direction_norm": norm,
            "cosine": -0.0751,
            "probe_cosine": -0.0063,
            "lookahead_cosine": -0.006,
        }
        self.journal.append(
            "alpha", index, self.seconds, learning_rate=rate,
            estimates={name: estimates[name] for name in names}, **scalars,
        )  # fmt: skip
        self.collected.append(unbiased)

    def _close(self, index: int) -> None:
        alpha = self.twin.alpha or {}
        if (index - START) % alpha["interval"] != alpha["count"] - 1:
            return
        values, self.collected = self.collected, []
        middle, details = median(values), {"window_start": index - alpha["count"] + 1, "of": alpha["count"]}
        if middle > 0:
            self.held = middle
            self._append(
                "event", event="learning_rate", value=middle, median=middle, used=len(values), **details
            )
        else:
            self._append(
                "event", event="rejected", reason="the median is not positive", median=middle, **details
            )

    def _due(self) -> bool:
        if self.twin.every_seconds is not None:
            due = self.step == 1 or self.seconds >= self.next_time
            if due:
                self.next_time = (self.seconds // self.twin.every_seconds + 1) * self.twin.every_seconds
            return due
        return self.step % (self.twin.every_steps or math.inf) == 1

    def _evaluate(self, at_stop: bool = False) -> None:
        level = 0.1235 + 0.04 * math.exp(-self.step / 250) + 2e-4 * self.noise.random()
        level += 4e-4 if self.twin.optimizer != "nadamw" else 0.0
        shifts = {"train": -0.0004, "validation": 0.0, "test": 0.0022}
        splits = {name: {"loss": level + shift, "examples": 100} for name, shift in shifts.items()}
        self._append("evaluation", splits=splits, seconds=0.1, at_stop=at_stop)

    def _log(self) -> None:
        if not self.window:
            return
        rates, paid = [rate for rate, _ in self.window], sum(alpha for _, alpha in self.window)
        steps, slow = len(rates), self.twin.slow
        observed = sum(self.twin.measures(i) for i in range(self.step - steps, self.step)) - paid
        seconds = {
            "data": WAIT * steps * slow, "forward_backward": 0.8 * PLAIN * steps * slow,
            "optimizer": 0.2 * PLAIN * steps * slow, "alpha": ALPHA * paid * slow,
            "diagnostics": ALPHA * observed * slow,
        }  # fmt: skip
        costs = {"plain": PLAIN * slow, "data": WAIT * slow, "alpha": (PLAIN + ALPHA) * slow}
        kinds = {"plain": steps > paid, "data": True, "alpha": paid > 0}
        parts = {"curvature": 0.87 * ALPHA * (paid + observed), "other": 0.13 * ALPHA * (paid + observed)}
        self._append(
            "window", steps=steps, alpha_steps=paid, loss=0.13, seconds=seconds,
            learning_rate={"min": min(rates), "mean": math.fsum(rates) / steps, "max": max(rates)},
            costs={kind: cost for kind, cost in costs.items() if kinds[kind]},
            **({"alpha_parts": parts} if self.twin.parts else {}),
        )  # fmt: skip
        self.window = []

    def _append(self, kind: str, **fields: Any) -> None:
        self.journal.append(kind, self.step, self.seconds, **fields)


def _estimate(absolute: float, rate: float, curvature: float) -> dict[str, float]:
    relative = absolute / rate
    return {
        "alpha_rel": relative,
        "alpha_abs": absolute,
        "slope": -relative * curvature,
        "curvature": curvature,
    }


def steps_grid(seeds: int = 1) -> list[Twin]:
    return [Twin(**{**vars(twin), "seed": seed}) for seed in range(seeds) for twin in grid()]


def time_grid() -> list[Twin]:
    """The grid by time; its two cells of interval 200 with most α* ran on a node of half the speed."""
    twins = grid(stop={"train_seconds": 4.5 * TOTAL * (PLAIN + WAIT)}, every_steps=None, every_seconds=25.0)
    for twin in twins:
        if twin.params.get("alpha.interval") == 200 and twin.params["alpha.count"] > 5:
            twin.slow, twin.host = 2.0, "snail"
    return twins


def every() -> Iterator[tuple[str, list[Twin]]]:
    """Each of the thesis' experiments in small."""
    yield "exp1-observe-small", [observing()]
    yield "exp2-steps-small", steps_grid()
    yield "exp2-time-small", time_grid()
    alpha = {
        "policy": "observe",
        "estimator": "unbiased",
        "also": [],
        "start_step": 0,
        "interval": 1,
        "count": 1,
    }
    yield "pretest-small", [Twin("pretest", alpha=alpha, parts=True, stop={"steps": 300})]


@dataclass
class Workshop:
    """A root, what to write under it, and the report of it."""

    root: Root

    def write(self, experiment: str, twins: list[Twin], *, journals: bool = True) -> None:
        write(self.root, experiment, twins, journals=journals)

    def read(self, experiment: str) -> ExperimentData:
        with open_store(self.root) as store:
            store.sync()
            return load(store.db, experiment)

    def report(
        self, experiment: str, seconds: tuple[str, ...] = (), steps: tuple[str, ...] = (), *,
        clock: Clock = "measured", reference: str | None = None,
    ) -> ReportData:  # fmt: skip
        """Return the report as the command would, with the reference it would choose."""
        published = reference_for(experiment, reference)
        return compare(self.read(experiment), seconds, steps, clock, published)


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """All of the thesis' experiments in small, written once."""
    found = Workshop(Root(tmp_path_factory.mktemp("thesis")))
    for experiment, twins in every():
        found.write(experiment, twins)
    return found


@pytest.fixture
def empty(tmp_path: Path) -> Workshop:
    return Workshop(Root(tmp_path))


@pytest.fixture(scope="session")
def observed(workshop: Workshop) -> ReportData:
    return workshop.report("exp1-observe-small")


@pytest.fixture(scope="session")
def by_steps(workshop: Workshop) -> ReportData:
    return workshop.report("exp2-steps-small")


@pytest.fixture(scope="session")
def by_time(workshop: Workshop) -> ReportData:
    return workshop.report("exp2-time-small")


@pytest.fixture
def make_grid() -> Callable[..., list[Twin]]:
    return grid


@pytest.fixture
def make_observing() -> Callable[..., Twin]:
    return observing
