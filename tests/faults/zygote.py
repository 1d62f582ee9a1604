"""Forks processes that have everything imported, so that tests can kill very many of them.

Reads commands from standard input, one JSON list a line: ["fork", WHAT, ARGUMENTS, ENVIRONMENT] is answered
with the process' id, ["wait", ID] with how it ended. All that is left dies with the input's end. With the
argument `train`, what training needs is imported as well.
"""

import json
import os
import signal
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

from alphagrid.store.database import open_store
from alphagrid.store.journal import open_next
from alphagrid.store.layout import Root, RunFiles


def attempt(root: str, run_id: str, submission: str) -> None:
    """Make one attempt at a run, with a checkpoint whenever `every_seconds` says."""
    from alphagrid.jobs.worker import attempt_run
    from alphagrid.trainer import checkpoint_writer

    checkpoint_writer.MOST_OVERHEAD = 1e9
    attempt_run(Root(Path(root)).experiment("exp"), run_id, submission)


def ingest(root: str) -> None:
    """Sync for ever."""
    with open_store(Root(Path(root))) as store:
        while True:
            store.sync()


def rebuild(root: str) -> None:
    """Make the index anew, for ever."""
    with open_store(Root(Path(root))) as store:
        while True:
            store.rebuild()


def write(root: str, run_id: str, resume: int) -> None:
    """Be the next attempt of a run, and write windows, evaluations and α* for ever."""
    number, journal = open_next(Root(Path(root)).experiment("exp").run(run_id))
    journal.append("start", resume, 0.0, attempt=number, resume_step=resume, fresh=False)
    rates = {"min": 0.1, "mean": 0.1, "max": 0.1}
    for step in count(resume + 1):
        loss = {"loss": step / 2, "examples": 3}
        journal.append("alpha", step - 1, 0.0, learning_rate=0.1, estimates={"biased": {"alpha_abs": 0.5}})
        journal.append("window", step, 0.0, steps=1, loss=1.0, learning_rate=rates, seconds={"data": 0.5})
        journal.append("evaluation", step, 0.0, splits={"validation": loss}, seconds=0.1, at_stop=False)
        if step % 50 == 0:
            journal.append("checkpoint", step, 0.0, file="c", bytes=1, seconds=0.1)


WHAT: dict[str, Callable[..., None]] = {
    "attempt": attempt,
    "ingest": ingest,
    "rebuild": rebuild,
    "write": write,
}


def fork(what: str, arguments: list[object], environment: dict[str, str]) -> int:
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.environ.update(environment)
            WHAT[what](*arguments)
            code = 0
        finally:
            sys.stderr.flush()
            os._exit(code)
    return pid


def warm_up() -> None:
    """Train a little: that imports whatever training imports on its way."""
    from alphagrid.trainer.config import TrainingConfig
    from alphagrid.trainer.loop import train
    from alphagrid.trainer.resume import Resume
    from alphagrid.trainer.stopping import StopRequest

    sections: dict[str, object] = {
        "workload": {"name": "digits_mlp", "hidden": [4]},
        "optimizer": {"name": "nadamw"},
        "alpha": {"policy": "observe"},
        "stop": {"steps": 1},
        "device": "cpu",
    }
    with TemporaryDirectory() as folder:
        run = RunFiles(Path(folder))
        number, journal = open_next(run)
        train(TrainingConfig.model_validate(sections), run, journal, number, Resume(), StopRequest())
        journal.close()


def main() -> None:
    sys.path.insert(0, str(Path(__file__).parent))
    if "train" in sys.argv:
        warm_up()
    living: set[int] = set()
    for line in sys.stdin:
        command, *arguments = json.loads(line)
        if command == "fork":
            answer = fork(*arguments)
            living.add(answer)
        else:
            answer = os.waitstatus_to_exitcode(os.waitpid(arguments[0], 0)[1])
            living.discard(arguments[0])
        sys.stdout.write(f"{answer}\n")
        sys.stdout.flush()
    for pid in living:
        os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
