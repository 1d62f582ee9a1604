"""The clock a budget is paid on.

`train_seconds` counts waiting for data, forward and backward passes, the optimizer (and the loop around
it), and the α* that acts. It does not count start-up, evaluation, checkpoints, logging, or α* that is only
observed.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from .timers import HostTimer, Mark, Timer

COUNTED = ("data", "forward_backward", "optimizer", "alpha")
OF_ALPHA = ("alpha", "diagnostics")
"""All that α* costs, whether it acts or is only recorded."""
CATEGORIES = (*COUNTED, "diagnostics", "evaluation", "checkpoint", "logging")
CURVATURE = "curvature"
"""The part of α*'s seconds that is told apart; no category, its seconds are in one."""
RECENT_STEPS = 9


@dataclass
class _Tally:
    """The seconds of the sections inside another."""

    seconds: float = 0.0


@dataclass(eq=False)
class _Section:
    category: str
    suspensions: int
    start: Mark
    outer: _Tally = field(default_factory=_Tally)
    inner: _Tally = field(default_factory=_Tally)
    end: Mark = None
    part: str | None = None


@dataclass(frozen=True)
class _StepEnd:
    kind: str


class Clock:
    """Seconds per category, the sum of those that count, and what a step of a kind costs.

    Sections may stand inside one another: each is charged what no inner one is. Where the timer's marks
    pass later, readings lag behind until `settle`.
    """

    def __init__(self, timer: Timer | None = None) -> None:
        self._timer = HostTimer() if timer is None else timer
        self.train_seconds = 0.0
        self._window: dict[str, float] = defaultdict(float)
        self._costs: dict[str, list[float]] = defaultdict(list)
        self._recent: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=RECENT_STEPS))
        self._open: list[_Section] = []
        self._closed: deque[_Section | _StepEnd] = deque()
        self._step: dict[str, float] = defaultdict(float)
        self._suspensions = 0
        self._resumed: Mark = None

    @contextmanager
    def charge(self, category: str, part: str | None = None) -> Iterator[None]:
        """Charge what happens inside to a category; as a `part`, its seconds are told besides."""
        section = _Section(category, self._suspensions, self._timer.mark(), part=part)
        self._open.append(section)
        try:
            yield
        finally:
            section.end = self._timer.mark()
            self._close(section)

    @contextmanager
    def curvature(self) -> Iterator[None]:
        """Tell the seconds of a curvature apart from the others of the section that it is found in."""
        with self.charge(self._open[-1].category, CURVATURE):
            yield

    @contextmanager
    def step(self, kind: str) -> Iterator[None]:
        """Charge a step of `kind`, what no inner section takes to the optimizer, and remember its cost."""
        with self.charge("optimizer"):
            yield
        self._closed.append(_StepEnd(kind))
        self._read()

    def forget_suspension(self) -> None:
        """Do not count what went before in the sections that are open: the process was suspended.

        Called on SIGCONT; the innermost section's beginning is the last sign of life.
        """
        self._suspensions += 1
        self._resumed = self._timer.mark()
        for section in self._open:
            section.inner = _Tally()

    def settle(self) -> None:
        """Wait for the device, so that every reading is up to date."""
        self._timer.wait()
        self._read()

    def projected(self, kind: str) -> float:
        """Return what train_seconds are expected to be after one more step of `kind`."""
        unread = [item.kind for item in self._closed if isinstance(item, _StepEnd)]
        return self.train_seconds + sum(map(self.expected, [*unread, kind]))

    def expected(self, kind: str) -> float:
        """Return the train_seconds that a step of `kind` is expected to cost: the median of recent ones."""
        recent = self._recent[kind]
        return median(recent) if recent else 0.0

    def take_window(self) -> dict[str, dict[str, float]]:
        """Return, since the last call, the `seconds` per category and the `costs`, and start again.

        Costs are medians over steps: of each kind's without its wait for data, and of that wait (`data`).
        Where a curvature was told apart, `alpha_parts` are its seconds and the other ones of α*.
        """
        seconds = {category: self._window[category] for category in CATEGORIES}
        costs = {kind: median(values) for kind, values in self._costs.items() if values}
        parts = self._alpha_parts()
        self._window.clear()
        self._costs.clear()
        return {"seconds": seconds, "costs": costs, **({"alpha_parts": parts} if parts else {})}

    def state_dict(self) -> dict[str, Any]:
        """Return all readings as plain values."""
        recent = {kind: list(values) for kind, values in self._recent.items()}
        costs = {kind: list(values) for kind, values in self._costs.items()}
        readings = {"window": dict(self._window), "costs": costs, "recent": recent}
        return {"train_seconds": self.train_seconds, **readings}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore them."""
        self.train_seconds = state["train_seconds"]
        self._window.update(state["window"])
        for kind, values in state["costs"].items():
            self._costs[kind].extend(values)
        for kind, values in state["recent"].items():
            self._recent[kind].extend(values)

    def _close(self, section: _Section) -> None:
        """Put a section that has its end among those to read; one with a suspension in it begins after it.

        Counted, not compared by time: a handler runs a moment after the process does, so that a mark may
        already be set behind a suspension that nobody has told of. By this call it has run.
        """
        if section.suspensions != self._suspensions:
            section.start, section.end = self._resumed, self._timer.mark()
        self._open.remove(section)
        if self._open:
            section.outer = self._open[-1].inner
        self._closed.append(section)
        self._read()

    def _read(self) -> None:
        """Take in what is closed and has passed, in order."""
        while self._closed:
            item = self._closed[0]
            if isinstance(item, _StepEnd):
                self._end_step(item.kind)
            elif self._timer.has_passed(item.end):
                self._add(item)
            else:
                return
            self._closed.popleft()

    def _alpha_parts(self) -> dict[str, float]:
        """Part the seconds of α*, as far as a curvature was told apart."""
        if CURVATURE not in self._window:
            return {}
        curvature = self._window[CURVATURE]
        return {CURVATURE: curvature, "other": sum(self._window[name] for name in OF_ALPHA) - curvature}

    def _add(self, section: _Section) -> None:
        whole = self._timer.seconds(section.start, section.end)
        section.outer.seconds += whole
        seconds = whole - section.inner.seconds
        self._window[section.category] += seconds
        if section.part is not None:
            self._window[section.part] += seconds
        if section.category in COUNTED:
            self.train_seconds += seconds
            self._step[section.category] += seconds

    def _end_step(self, kind: str) -> None:
        total, data = sum(self._step.values()), self._step["data"]
        self._recent[kind].append(total)
        self._costs[kind].append(total - data)
        self._costs["data"].append(data)
        self._step.clear()
