"""Runs on this machine: seeing to it that a supervisor is at work, and what it has to say."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO

from ..errors import SystemRefused, UserError
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
    owner = ownership.uid(files.path)
    return any(_is_held(folder / "lock") for folder in folders if ownership.uid(folder) == owner)


def ensure_supervisor(root: Root) -> None:
    """Start the root's supervisor unless there is one: a process in a session of its own.

    It outlives this process, its terminal and Ctrl-C.

    Raises:
        SystemRefused: it did not come up.
    """
    if is_supervised(root):
        return
    log_file = root.supervisor / "log"
    try:
        root.supervisor.mkdir(parents=True, exist_ok=True)
        with open(open_regular(log_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT), "ab") as log:  # noqa: PTH123
            process = _spawn(root, log)
    except OSError as error:
        raise SystemRefused(f"cannot write {log_file}: {error.strerror}") from error
    deadline = time.monotonic() + START_SECONDS
    while not is_supervised(root) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    if process.poll() != 0 and not is_supervised(root):
        raise SystemRefused(f"the local supervisor did not start; see {log_file}")
    threading.Thread(target=process.wait, daemon=True).start()  # leaves no zombie while this process lives


def word(supervised: bool, run: RunFiles, account: Account) -> Word | None:
    """Return what this machine says of a run: its lock, and whether a supervisor will come to it."""
    if (word := at_work(run)) is not None:
        return word
    return Word("pending") if supervised and not account.settled else None


def at_work(run: RunFiles) -> Word | None:
    """Return that a worker of this machine or another has the run, or that this cannot be seen; else None."""
    try:
        return Word("running") if claims.is_at_work(run) else None
    except (OSError, UserError) as error:
        return Word("silent", str(error))


def _is_held(lock: Path) -> bool:
    """Return whether a lock is held; one that cannot be read is not known to be."""
    try:
        return locks.is_held(lock)
    except (OSError, UserError):
        return False


def _spawn(root: Root, log: IO[bytes]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", f"{__package__}.supervisor", str(root.path.absolute())]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
