"""The clock a budget is paid on.

`train_seconds` counts waiting for data, forward and backward passes, the optimizer, and the α* that acts.
It does not count start-up, evaluation, checkpoints, logging, or α* that is only observed.
"""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

COUNTED = ("data", "forward_backward", "optimizer", "alpha")
CATEGORIES = (*COUNTED, "diagnostics", "evaluation", "checkpoint")
RECENT_STEPS = 9


class Clock:
    """Seconds per category, the sum of those that count, and what a step of a kind is expected to cost."""

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self._now = now
        self.train_seconds = 0.0
        self._window: dict[str, float] = defaultdict(float)
        self._recent: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=RECENT_STEPS))
        self._started = 0.0

    @contextmanager
    def charge(self, category: str) -> Iterator[None]:
        """Charge what happens inside to a category."""
        self._started = self._now()
        try:
            yield
        finally:
            seconds = self._now() - self._started
            self._window[category] += seconds
            if category in COUNTED:
                self.train_seconds += seconds

    def forget_suspension(self) -> None:
        """Do not count what went before in the section that is being charged: the process was suspended.

        Called on SIGCONT; the section's beginning is the last sign of life.
        """
        self._started = self._now()

    @contextmanager
    def step(self, kind: str) -> Iterator[None]:
        """Remember what a step of `kind` cost in train_seconds."""
        start = self.train_seconds
        yield
        self._recent[kind].append(self.train_seconds - start)

    def expected(self, kind: str) -> float:
        """Return the train_seconds that a step of `kind` is expected to cost: the median of recent ones."""
        recent = self._recent[kind]
        return median(recent) if recent else 0.0

    def take_window(self) -> dict[str, float]:
        """Return the seconds per category since the last call, and start anew."""
        window = {category: self._window[category] for category in CATEGORIES}
        self._window.clear()
        return window

    def state_dict(self) -> dict[str, Any]:
        """Return all readings as plain values."""
        recent = {kind: list(values) for kind, values in self._recent.items()}
        return {"train_seconds": self.train_seconds, "window": dict(self._window), "recent": recent}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore them."""
        self.train_seconds = state["train_seconds"]
        self._window.update(state["window"])
        for kind, values in state["recent"].items():
            self._recent[kind].extend(values)
