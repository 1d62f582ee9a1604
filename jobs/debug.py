"""Runs in this process, one after the other: for a debugger, a profiler, or a first look."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from ..errors import SystemRefused
from ..store.layout import ExperimentFiles
from . import attempts


def run_here(files: ExperimentFiles, submission: str, run_ids: Iterable[str]) -> None:
    """Run an attempt of each run in this process.

    Raises:
        KeyboardInterrupt: Ctrl-C; the run in progress has been stopped cleanly, the rest are not begun.
        SystemRefused: the disk is full, or something else of the system's stopped the run.
    """
    from ..trainer.stopping import StopRequest
    from .worker import attempt_run

    for run_id in run_ids:
        stop = StopRequest()
        with _same_environment():
            ending = attempt_run(files, run_id, submission, stop)
        if ending != "interrupted":
            continue
        if stop:
            raise KeyboardInterrupt
        latest = attempts.latest(files.run(run_id))
        raise SystemRefused(
            f"run {run_id} was interrupted: {latest.reason if latest else 'it could not begin'}"
        )


@contextmanager
def _same_environment() -> Iterator[None]:
    """Undo what a run changes in the environment, so that the next one starts with the same variables."""
    before = dict(os.environ)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
