"""Runs trained in this process, with their journals read back."""

from dataclasses import dataclass

import pytest
from alphagrid.store.journal import Journal, read
from alphagrid.store.layout import Root, RunFiles
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
    records: list

    def of_kind(self, kind):
        return [record for record in self.records if record["kind"] == kind]

    def events(self, name):
        return [record for record in self.of_kind("event") if record["event"] == name]


@pytest.fixture
def train_run(tmp_path):
    """Return a function that makes one more attempt at a run."""

    def attempt(config, name="0123456789", stop_request=None, now=None):
        run = Root(tmp_path).experiment("test").run(name)
        run.path.mkdir(parents=True, exist_ok=True)
        number = len(run.journals()) + 1
        journal = Journal.create(run.journal(number))
        clock = {} if now is None else {"now": now}
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
