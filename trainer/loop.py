"""The training loop of one run.

Order at a step: step, evaluation, checkpoint. Windows and schedules use the 0-based index of the step
about to be taken; everything else counts steps done.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from ..store.journal import Journal
from ..store.layout import RunFiles
from .clock import Clock
from .config import TrainingConfig
from .data_check import check_data
from .outcome import Outcome
from .recorder import Recorder
from .resume import Resume
from .session import Session, device_of
from .step import take_step
from .stopping import StopRequest
from .timers import CudaTimer, HostTimer
from .useful_rate import require_useful_rate
from .warm_up import warm_up

log = logging.getLogger("alphagrid")


def train(
    config: TrainingConfig,
    run: RunFiles,
    journal: Journal,
    attempt: int,
    resume: Resume,
    stop_request: StopRequest,
    now: Callable[[], float] = time.perf_counter,
    *,
    allow_data_change: bool = False,
) -> Outcome:
    """Train until the config's stop, a stop request, or divergence; write the journal.

    `now` is the host's clock [s]. A stop request ends the step in progress, writes a checkpoint, and
    returns an interrupted outcome. With `allow_data_change` a resumed run may go on with other data.

    Raises:
        UserError: the config asks for something that this model or loss cannot do.
        DataChanged: the data are not those that the checkpoint was trained on, and that is not allowed.
        OSError: a checkpoint could not be written.
    """
    started = now()
    on_gpu = device_of(config).type == "cuda"
    if config.device == "auto" and not on_gpu:
        log.warning("torch sees no GPU: training on the CPU (device: cpu says that you mean it)")
    clock = Clock(CudaTimer() if on_gpu else HostTimer(now))
    stop_request.on_resumption = clock.forget_suspension
    session = Session(config, clock)
    recorder = Recorder(session, run, journal, attempt, stop_request, now)
    if resume.state is not None:
        session.load_state_dict(resume.state)
    for name in resume.damaged:
        recorder.event("checkpoint_damaged", file=name)
    if recorder.goes_on:
        check_data(session, recorder, run, resume, allow_data_change)
    recorder.evaluate_if_pending()

    if recorder.goes_on and not _is_finished(session):
        warm_up(session)
    recorder.event("training_started", startup_seconds=now() - started, **_data_size(session))

    going = True
    try:
        while going:
            with clock.charge("logging"):  # time between steps: `train_seconds` does not count it
                if going := recorder.goes_on and not _is_finished(session):
                    result = take_step(session)
                    recorder.after_step(result)
                    require_useful_rate(session, result)
        return recorder.finish()
    finally:
        recorder.close()


def _data_size(session: Session) -> dict[str, int]:
    """Return the number of training examples, if the workload has it."""
    examples = session.workload.train_examples
    return {} if examples is None else {"train_examples": examples}


def _is_finished(session: Session) -> bool:
    """Return whether the next step would pass the config's stop."""
    stop, clock = session.config.stop, session.clock
    if stop.steps is not None and session.step >= stop.steps:
        return True
    if stop.train_seconds is None:
        return False
    return clock.projected(session.kind(session.step)) > stop.train_seconds
