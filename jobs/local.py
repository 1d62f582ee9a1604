"""Runs on this machine: seeing to it that a supervisor is at work, and what it has to say."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO

from ..errors import SystemRefused
from ..store import claims, locks, ownership
from ..store.files import open_regular
from ..store.layout import ExperimentFiles, Root, RunFiles
from .states import Account, Word

START_SECONDS = 120.0


def is_supervised(root: Root) -> bool:
    """Return whether a supervisor of this user is at work on this root, on this machine."""
    return locks.is_held(root.supervisor / "lock")


def will_run(root: Root, files: ExperimentFiles) -> bool:
    """Return whether a supervisor is at work that runs this experiment: one of its owner's."""
    folders = {root.path / ".supervisor", root.supervisor, root.supervisor_of(ownership.uid(files.path))}
    return any(locks.is_held(folder / "lock") for folder in folders if runs(folder, files))


def runs(supervisor: Path, files: ExperimentFiles) -> bool:
    """Return whether the supervisor in this folder runs an experiment: both have to be the same user's."""
    return ownership.uid(supervisor) == ownership.uid(files.path)


def ensure_supervisor(root: Root) -> None:
    """Start the root's supervisor unless there is one: a process in a session of its own.

    It outlives this process, its terminal and Ctrl-C.

    Raises:
        SystemRefused: it did not come up.
    """
    if is_supervised(root):
        return
    root.supervisor.mkdir(parents=True, exist_ok=True)
    with open(open_regular(root.supervisor / "log", os.O_WRONLY | os.O_APPEND | os.O_CREAT), "ab") as log:  # noqa: PTH123
        process = _spawn(root, log)
    deadline = time.monotonic() + START_SECONDS
    while not is_supervised(root) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    if process.poll() != 0 and not is_supervised(root):
        raise SystemRefused(f"the local supervisor did not start; see {root.supervisor / 'log'}")
    threading.Thread(target=process.wait, daemon=True).start()  # leaves no zombie while this process lives


def word(supervised: bool, run: RunFiles, account: Account) -> Word | None:
    """Return what this machine says of a run: its lock, and whether a supervisor will come to it."""
    if claims.is_at_work(run):
        return Word("running")
    return Word("pending") if supervised and not account.settled else None


def _spawn(root: Root, log: IO[bytes]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", f"{__package__}.supervisor", str(root.path.absolute())]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
