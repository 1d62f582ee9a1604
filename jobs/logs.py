"""What runs wrote to standard output and error: submitit's log files, all attempts in order."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from ..errors import UserError
from ..store import submissions
from ..store.layout import ExperimentFiles
from . import attempts

PERIOD = 0.5
CHUNK = 1 << 16


def log_files(files: ExperimentFiles, run_id: str) -> list[Path]:
    """Return a run's log files, oldest attempt first; processes that died before they began come last."""
    local = sorted((files.submitit / run_id).glob("*_log.*"), key=lambda path: path.stat().st_mtime)
    found = [path for job in _jobs(files, run_id) for path in _of_job(files, run_id, *job)]
    return list(dict.fromkeys([*found, *local]))


def read(files: ExperimentFiles, run_id: str) -> Iterator[str]:
    """Yield the text of a run's logs, each file under its name.

    Raises:
        UserError: there is none.
    """
    paths = log_files(files, run_id)
    if not paths:
        raise UserError(f"run {run_id} has no log yet", "a run in the debug profile writes to the terminal")
    for path in paths:
        yield _title(path)
        yield from (chunk.decode(errors="replace") for chunk in _chunks(path, 0))


def follow(
    files: ExperimentFiles,
    run_id: str,
    is_over: Callable[[], bool],
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[str]:
    """Yield the text of a run's logs as it grows, across attempts, until `is_over()` and all is said."""
    read_until: dict[Path, int] = {}
    current: Path | None = None
    while True:
        over = is_over()
        for path in log_files(files, run_id):
            for chunk in _chunks(path, read_until.get(path, 0)):
                if path != current:
                    yield _title(path)
                    current = path
                read_until[path] = read_until.get(path, 0) + len(chunk)
                yield chunk.decode(errors="replace")
        if over:
            return
        sleep(PERIOD)


def tail(files: ExperimentFiles, run_id: str, lines: int = 10) -> list[str]:
    """Return the last lines of a run's newest log, none if there is no log."""
    paths = log_files(files, run_id)
    if not paths:
        return []
    start = max(0, paths[-1].stat().st_size - CHUNK)
    return b"".join(_chunks(paths[-1], start)).decode(errors="replace").splitlines()[-lines:]


def _jobs(files: ExperimentFiles, run_id: str) -> list[tuple[str, str]]:
    """Return (cluster, job id) of a run's attempts, and of the jobs that have not begun."""
    began = [attempt.job for attempt in attempts.read(files.run(run_id)) if attempt.job is not None]
    sent = [
        submission.jobs[run_id] for submission in submissions.read_all(files) if run_id in submission.jobs
    ]
    return [(job["cluster"], str(job["job_id"])) for job in began] + [
        (job.cluster, job.job_id) for job in sent
    ]


def _of_job(files: ExperimentFiles, run_id: str, cluster: str, job_id: str) -> list[Path]:
    folder = files.submitit / run_id if cluster == "local" else files.submitit
    names = (f"{job_id}_0_log.out", f"{job_id}_0_log.err")
    return [folder / name for name in names if (folder / name).exists()]


def _title(path: Path) -> str:
    return f"==> {path} <==\n"


def _chunks(path: Path, offset: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(offset)
        while chunk := file.read(CHUNK):
            yield chunk
