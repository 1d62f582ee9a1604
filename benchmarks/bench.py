"""Runs of the trainer that take one step at a time, so that several can take turns in one process."""

from __future__ import annotations

import time
from typing import Any

import torch
from alphagrid.store.journal import Journal, Record, read
from alphagrid.store.layout import RunFiles
from alphagrid.trainer.clock import COUNTED, Clock
from alphagrid.trainer.config import TrainingConfig
from alphagrid.trainer.recorder import Recorder
from alphagrid.trainer.session import Session
from alphagrid.trainer.step import take_step
from alphagrid.trainer.stopping import StopRequest
from alphagrid.trainer.timers import CudaTimer, HostTimer
from alphagrid.trainer.warm_up import warm_up

Config = dict[str, Any]

MODELS: dict[str, Config] = {
    "digits_mlp": {"name": "digits_mlp", "batch_size": 256},
    "dlrm": {"name": "dlrm_synthetic"},
    "cnn": {"name": "digits_cnn", "batch_size": 256},
    "transformer": {"name": "char_transformer"},
}
FULL_DLRM: Config = {"name": "dlrm_synthetic", "table_rows": 4_194_304, "batch_size": 32_768}
"""DLRM-small as it is in AlgoPerf, at the thesis' batch: for a GPU."""
OF_STEPS = (*COUNTED, "diagnostics")
"""The clock's categories less its exclusions: what a step itself takes."""
EXCLUDED = "logging"
"""The one exclusion in a step that is timed: the recorder, and the clock's own books."""


def config_of(workload: Config, alpha: Config | None, device: str = "cpu", log_steps: int = 1) -> Config:
    """Return the config of a run that neither evaluates nor writes checkpoints while it is timed."""
    return {
        "workload": workload,
        "optimizer": {"name": "nadamw", "lr": 1e-4},
        "stop": {"steps": 10**9},
        "eval": {"every_steps": 10**9, "splits": ["validation"]},
        "checkpoint": {"every_seconds": 1e9},
        "log": {"every_steps": log_steps},
        "device": device,
        "threads": torch.get_num_threads(),
        **({} if alpha is None else {"alpha": alpha}),
    }


class Bench:
    """A run of the trainer: its own step, recorder and journal, and the warm-up pass before."""

    def __init__(self, config: Config, run: RunFiles) -> None:
        self.clock = Clock(CudaTimer() if config["device"] == "cuda" else HostTimer())
        self.session = Session(TrainingConfig.model_validate(config), self.clock)
        self.step_seconds: list[float] = []
        """Of each step with its recorder, by the host's clock."""
        self._file = run.journal(1)
        run.path.mkdir(parents=True)
        journal = Journal.create(self._file)
        journal.append("start", 0, 0.0, attempt=1, resume_step=0, fresh=False, submission="benchmark")
        self._recorder = Recorder(self.session, run, journal, 1, StopRequest(), time.perf_counter)
        self.session.evaluations.due = lambda step, train_seconds: False  # type: ignore[method-assign]
        warm_up(self.session)

    @property
    def parameter_bytes(self) -> int:
        """Bytes of all parameters."""
        return sum(p.nbytes for p in self.session.model.parameters())

    @property
    def windows(self) -> list[Record]:
        """The journal's records of windows."""
        return [record for record in read(self._file).records if record["kind"] == "window"]

    def step(self) -> float:
        """Take one step with all that the trainer does around it, wait for the device; return its seconds."""
        start = time.perf_counter()
        with self.clock.charge("logging"):
            taken = take_step(self.session)
            self._wait()
            self._recorder.after_step(taken)
        self._wait()
        self.step_seconds.append(time.perf_counter() - start)
        return self.step_seconds[-1]

    def rest(self) -> None:
        """Give back what only a step needs, while others take theirs."""
        self.session.stepper.optimizer.zero_grad(set_to_none=True)

    def _wait(self) -> None:
        if self.session.device.type == "cuda":
            torch.cuda.synchronize()
