"""What only a GPU can show; skipped where torch sees none."""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from alphagrid.store.journal import Journal
from alphagrid.store.layout import RunFiles
from alphagrid.trainer.clock import Clock
from alphagrid.trainer.config import TrainingConfig
from alphagrid.trainer.recorder import Recorder
from alphagrid.trainer.session import Session
from alphagrid.trainer.step import take_step
from alphagrid.trainer.stopping import StopRequest
from alphagrid.trainer.timers import CudaTimer

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")

CONFIG: dict[str, Any] = {
    "workload": {"name": "digits_mlp"},
    "optimizer": {"name": "nadamw"},
    "eval": {"every_steps": 10**6, "splits": ["validation"]},
    "stop": {"steps": 10**6},
    "log": {"every_steps": 1000},
    "device": "cuda",
}


def synchronisations(tmp_path: Path, steps: int, **sections: Any) -> int:
    """Take steps outside logging ones; return how often the host waited for the device."""
    config = TrainingConfig.model_validate({**CONFIG, **sections})
    session = Session(config, Clock(CudaTimer()))
    run = RunFiles(tmp_path)
    journal = Journal.create(run.journal(1))
    recorder = Recorder(session, run, journal, 1, StopRequest(), time.perf_counter)
    for _ in range(3):  # the first steps load kernels, and evaluate
        recorder.after_step(take_step(session))
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for _ in range(steps):
                recorder.after_step(take_step(session))
    finally:
        torch.cuda.set_sync_debug_mode("default")
        journal.close()
    return sum("synchroniz" in str(warning.message) for warning in caught)


def test_a_plain_step_never_waits_for_the_device(tmp_path: Path) -> None:
    assert synchronisations(tmp_path, 20) == 0


@pytest.mark.parametrize("estimator", ["unbiased", "lookahead"])
def test_a_step_that_observes_alpha_never_waits_for_the_device(tmp_path: Path, estimator: str) -> None:
    assert synchronisations(tmp_path, 20, alpha={"policy": "observe", "estimator": estimator}) == 0


def test_a_window_of_medians_waits_once_at_its_end(tmp_path: Path) -> None:
    alpha = {"policy": "median", "estimator": "lookahead", "interval": 20, "count": 10}
    assert synchronisations(tmp_path, 20, alpha=alpha) <= 10  # one reading a value, all in one step


def test_the_clock_accounts_for_the_time_the_device_took(tmp_path: Path) -> None:
    config = TrainingConfig.model_validate(CONFIG)
    session = Session(config, Clock(CudaTimer()))
    take_step(session)
    session.clock.settle()
    session.clock.take_window()
    started = time.perf_counter()
    for _ in range(200):
        take_step(session)
    session.clock.settle()
    seconds = time.perf_counter() - started
    assert sum(session.clock.take_window()["seconds"].values()) == pytest.approx(seconds, rel=0.05)
