"""Runs trained in this process, with their journals read back."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest
from alphagrid.store.journal import Journal, Record, read
from alphagrid.store.layout import RUN_ID, Root, RunFiles
from alphagrid.trainer.config import TrainingConfig
from alphagrid.trainer.loop import train
from alphagrid.trainer.outcome import Outcome
from alphagrid.trainer.resume import prepare
from alphagrid.trainer.stopping import StopRequest


@dataclass(frozen=True)
class Trained:
    """A run after an attempt: its files, how the attempt ended, and every record of all attempts."""

    run: RunFiles
    outcome: Outcome
    records: list[Record]

    def of_kind(self, kind: str) -> list[Record]:
        return [record for record in self.records if record["kind"] == kind]

    def events(self, name: str) -> list[Record]:
        return [record for record in self.of_kind("event") if record["event"] == name]


class TrainRun(Protocol):
    """Makes one more attempt at a run."""

    def __call__(
        self,
        config: dict[str, Any],
        name: str = ...,
        stop_request: StopRequest | None = None,
        now: Callable[[], float] | None = None,
    ) -> Trained: ...


def run_id(name: str) -> str:
    """An id of a run: the name itself where it is one."""
    return name if RUN_ID.fullmatch(name) else hashlib.sha256(name.encode()).hexdigest()[:10]


@pytest.fixture
def train_run(tmp_path: Path) -> TrainRun:
    """Return a function that makes one more attempt at a run."""

    def attempt(
        config: dict[str, Any],
        name: str = "0123456789",
        stop_request: StopRequest | None = None,
        now: Callable[[], float] | None = None,
    ) -> Trained:
        run = Root(tmp_path).experiment("test").run(run_id(name))
        run.path.mkdir(parents=True, exist_ok=True)
        number = len(run.journals()) + 1
        journal = Journal.create(run.journal(number))
        clock: dict[str, Any] = {} if now is None else {"now": now}
        outcome = train(
            TrainingConfig.model_validate(config),
            run,
            journal,
            number,
            prepare(run),
            StopRequest() if stop_request is None else stop_request,
            **clock,
        )
        journal.close()
        records = [record for _, path in run.journals() for record in read(path).records]
        return Trained(run, outcome, records)

    return attempt
