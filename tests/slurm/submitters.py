"""Submitters to kill: `submit`, in a process forked from one that has imported everything it needs.

Run as a program it takes orders on standard input, one JSON list a line: [SPEC, ROOT, OPTIONS, POINT]. It
submits the specification in a fork, which kills itself with SIGKILL just before its POINTth deed (0: never),
and answers with how that ended, and with the deeds done: files opened for writing or renamed below the
root, and programs started.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

HERE = Path(__file__)
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Submitters:
    """A process that forks submitters."""

    def __init__(self) -> None:
        command = [sys.executable, str(HERE)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def submit(self, spec: Path, root: Path, point: int = 0, **options: Any) -> tuple[int, list[str]]:
        """Submit; return the exit code (or minus the signal) and the deeds done."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([str(spec), str(root), options, point]) + "\n")
        self._process.stdin.flush()
        code, deeds = json.loads(self._process.stdout.readline())
        return code, deeds

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def deed(event: str, arguments: tuple[Any, ...], root: str) -> str | None:
    """Return what an audit event means, if it is something that a submitter leaves behind."""
    if event == "subprocess.Popen":
        return " ".join(map(str, arguments[1][:2]))
    if event == "os.rename" and str(arguments[1]).startswith(root):
        return f"rename {Path(arguments[1]).name}"
    if event == "open" and isinstance(arguments[0], str | Path) and str(arguments[0]).startswith(root):
        return f"open {Path(arguments[0]).name}" if arguments[2] & WRITING else None
    return None


def submit(spec: str, root: str, options: dict[str, Any], point: int, tell: int) -> None:
    from alphagrid.jobs.dry_run import choose_profile
    from alphagrid.jobs.specification.experiment import expand
    from alphagrid.jobs.specification.file import read_spec
    from alphagrid.jobs.submission import submit as send
    from alphagrid.store.layout import Root

    done = 0

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal done
        if (what := deed(event, arguments, root)) is not None:
            done += 1
            if done == point:
                os.kill(os.getpid(), signal.SIGKILL)
            os.write(tell, f"{what}\n".encode())

    experiment = expand(read_spec(Path(spec)))
    sys.addaudithook(audit)
    send(experiment, choose_profile(experiment), Root(Path(root)), **options)


def fork(spec: str, root: str, options: dict[str, Any], point: int) -> tuple[int, list[str]]:
    listen, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            submit(spec, root, options, point, tell)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    os.close(tell)
    with os.fdopen(listen) as told:
        deeds = told.read().splitlines()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), deeds


def main() -> None:
    import alphagrid.jobs.schedulers.slurm_held_jobs
    import alphagrid.jobs.submission  # noqa: F401  # so that forks need not

    for line in sys.stdin:
        sys.stdout.write(json.dumps(fork(*json.loads(line))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
