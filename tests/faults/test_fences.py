"""Two attempts of one run alive at once: the older one stops and harms nothing of the newer one's."""

from __future__ import annotations

import os
import random
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from alphagrid.trainer import checkpoint, checkpoint_writer

if TYPE_CHECKING:
    from tests.faults.conftest import Watched, Zygote

RARELY = {"every_steps": 10_000}
OCCASIONS: dict[str, dict[str, Any]] = {
    "at a window": {"eval": RARELY, "checkpoint": {"every_seconds": 1e-9}},
    "at an evaluation": {"eval": {"every_steps": 1}, "log": RARELY, "checkpoint": {"every_seconds": 1e-9}},
    "at a checkpoint": {"eval": RARELY, "log": RARELY, "checkpoint": {"every_seconds": 1e-9}},
    "at the end": {"eval": RARELY, "log": RARELY, "checkpoint": {"every_seconds": 600}},
}
"""What the config makes the first occasion for an older attempt to find a newer one."""


class Killed(BaseException):
    """Ends an attempt in this process as SIGKILL would: it writes nothing more."""


def die_at(step: int) -> Callable[[int], None]:
    def deed(at: int) -> None:
        if at == step:
            raise Killed

    return deed


def calm(step: int) -> None:
    pass


def contents(watched: Watched) -> dict[Path, bytes]:
    """Return all that the run's later attempts have, and the checkpoints of the first."""
    files = [path for path in watched.run.path.iterdir() if not path.name.startswith(".")]
    return {path: path.read_bytes() for path in files if path != watched.run.journal(1)}


COMPLETES, IS_KILLED, NEVER_BEGINS = "completes", "is killed", "dies before its first record"
SLOW = [
    *((occasion, IS_KILLED) for occasion in ("at a window", "at the end")),
    *((occasion, COMPLETES) for occasion in OCCASIONS if occasion != "at the end"),
    *((occasion, NEVER_BEGINS) for occasion in ("at an evaluation", "at a checkpoint")),
]


@pytest.mark.parametrize(
    ("occasion", "newer"),
    [
        ("at an evaluation", IS_KILLED),
        ("at a checkpoint", IS_KILLED),
        ("at the end", COMPLETES),
        ("at a window", NEVER_BEGINS),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOW),
    ],
)
def test_the_older_attempt_stops_and_harms_nothing_of_the_newer_one(
    watched: Watched, occasion: str, newer: str
) -> None:
    changes = OCCASIONS[occasion]
    run_id = watched.hand_over(**changes)
    found: list[dict[Path, bytes]] = []
    written: list[int] = []

    def begin_another(step: int) -> None:
        if step != 22:
            return
        if newer == COMPLETES:
            watched.on_step(calm)
            assert watched.attempt(run_id) == "completed"
        elif newer == IS_KILLED:
            watched.on_step(die_at(20))
            with pytest.raises(Killed):
                watched.attempt(run_id)
        else:
            watched.run.journal(2).touch()
        watched.on_step(calm)
        found.append(contents(watched))
        written.append(len(watched.records(1)))

    watched.on_step(begin_another)
    assert watched.attempt(run_id) == "elsewhere"
    assert contents(watched) == found[0]
    assert {record["kind"] for record in watched.records(1)[written[0] :]} <= {"event"}  # a rate, perhaps

    if newer != COMPLETES:
        assert watched.attempt(run_id) == "completed"
        saved = changes["checkpoint"]["every_seconds"] < 1
        assert watched.attempts[-1].resume_step == (40 if newer == IS_KILLED else 21) * saved
    assert watched.differences(**changes) == []


@pytest.mark.parametrize(
    ("keep", "background"),
    [
        (1, True),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in ((1, False), (2, False), (2, True))),
    ],
)
def test_a_newer_attempt_may_begin_while_the_older_one_writes_a_checkpoint(
    watched: Watched, monkeypatch: pytest.MonkeyPatch, keep: int, background: bool
) -> None:
    """It takes up the checkpoint before that, and dies at once: that is where the third one goes on."""
    changes = {"checkpoint": {"every_seconds": 1e-9, "keep": keep}}
    monkeypatch.setattr(checkpoint_writer, "BACKGROUND_BYTES", 0 if background else 1 << 30)
    run_id = watched.hand_over(**changes)
    save, died = torch.save, threading.Event()
    found: list[dict[Path, bytes]] = []

    def overtaken_meanwhile(state: dict[str, Any], file: Any) -> None:
        if state["step"] > 20 and not died.is_set():
            with pytest.raises(Killed):
                watched.attempt(run_id)
            found.append(contents(watched))
            died.set()
        save(state, file)

    def die_or_wait(step: int) -> None:
        if died.is_set() or not watched.run.journal(2).exists():
            return
        if background and threading.current_thread() is threading.main_thread():
            assert died.wait(120)  # the older one goes on when the newer no longer draws random numbers
        else:
            raise Killed

    monkeypatch.setattr(torch, "save", overtaken_meanwhile)
    watched.on_step(die_or_wait)
    assert watched.attempt(run_id) == "elsewhere"
    assert contents(watched) == found[0]
    assert watched.attempt(run_id) == "completed"
    first, second, third = watched.attempts
    assert 0 < second.resume_step == third.resume_step <= first.step
    assert watched.differences(**changes) == []


def test_an_older_attempt_that_is_asked_to_stop_says_nothing_more(watched: Watched) -> None:
    rarely = {"eval": RARELY, "log": RARELY, "checkpoint": {"every_seconds": 600}}
    run_id = watched.hand_over(**rarely)

    def overtake_and_interrupt(step: int) -> None:
        if step == 22:
            watched.run.journal(2).touch()
            written.append(len(watched.records(1)))
            os.kill(os.getpid(), signal.SIGINT)

    written: list[int] = []
    watched.on_step(overtake_and_interrupt)
    assert watched.attempt(run_id) == "elsewhere"
    assert len(watched.records(1)) == written[0]
    assert watched.run.checkpoints() == []


def test_late_checkpoints_of_an_older_attempt_do_not_crowd_out_the_newer_ones(watched: Watched) -> None:
    watched.interrupt(30)
    late = [(path.name, path.read_bytes()) for path in watched.run.checkpoints()]

    def arrive(step: int) -> None:
        if step == 5:
            for number, (name, content) in enumerate(late):
                (watched.run.path / f"checkpoint-{50 + number:010d}-0001-{name[-11:]}").write_bytes(content)
        if step == 10:
            os.kill(os.getpid(), signal.SIGINT)

    watched.on_step(arrive)
    with pytest.raises(KeyboardInterrupt):
        watched.send()
    assert [(file.step, file.attempt) for file in checkpoint.available(watched.run)] == [(39, 2), (40, 2)]
    watched.on_step(calm)
    watched.send()
    assert watched.attempts[-1].resume_step == 40
    assert watched.differences() == []


@pytest.mark.parametrize("torn", [slice(0), pytest.param(slice(40), marks=pytest.mark.slow)])
def test_an_attempt_that_died_before_its_first_record_loses_no_work(watched: Watched, torn: slice) -> None:
    watched.interrupt(30)
    first = watched.run.journal(1).read_bytes().splitlines()[0]
    watched.run.journal(2).write_bytes(first[torn])
    watched.send()
    assert watched.attempts[-1].resume_step == 30
    assert watched.differences() == []


@pytest.mark.slow
def test_what_was_done_stands_when_later_attempts_cannot_even_begin(watched: Watched) -> None:
    watched.interrupt(30)
    before = watched.status()
    watched.run.journal(2).touch()
    watched.run.config.unlink()
    watched.run.config.mkdir()  # the worker cannot put its copy there
    watched.send()
    after = watched.status()
    assert (after.state, after.step, after.superseded) == ("failed", before.step, before.superseded)
    assert after.best_validation_loss == before.best_validation_loss
    watched.run.config.rmdir()
    watched.send()
    assert watched.attempts[-1].resume_step == 30
    assert watched.differences() == []


@pytest.mark.slow
def test_attempts_that_run_side_by_side_and_are_killed_come_to_one_undisturbed_run(
    watched: Watched, trainers: Zygote
) -> None:
    """Real processes, suspended, woken and killed at random, and overtaken by others in between."""
    rng = random.Random(0)
    undisturbed = watched.undisturbed()
    overlaps = kills = superseded = compared = 0
    for number in range(60):
        if number >= 12 and compared >= 6 and min(overlaps, kills, superseded) > 0:
            break  # sooner on some machines than on others
        run_id = watched.hand_over(checkpoint={"every_seconds": 0.01})
        living: list[int] = []
        while living or not has_ended(watched):
            if not living or (len(living) < 3 and not has_ended(watched)):
                living.append(begin(watched, trainers, run_id, rng))
                overlaps += len(living) > 1
            pid = living.pop(rng.randrange(len(living)))
            if rng.random() < 0.4:
                trainers.kill(pid)
                kills += 1
            elif rng.random() < 0.5:
                assert trainers.finish(pid) == 0
            else:
                os.kill(pid, signal.SIGCONT)
                living.append(pid)
                time.sleep(rng.random() / 20)
        superseded += watched.status().superseded
        if (
            watched.attempts[-1].end == "failed"
        ):  # killed twice before a checkpoint, which is rightly given up
            assert "without a new checkpoint" in str(watched.attempts[-1].reason)
        else:
            assert watched.result().differences(undisturbed) == []
            compared += 1
        shutil.rmtree(watched.lab.root.path)
    assert min(overlaps, kills, superseded) > 0
    assert compared >= 6


def has_ended(watched: Watched) -> bool:
    return bool(watched.attempts) and watched.attempts[-1].end is not None


def begin(watched: Watched, trainers: Zygote, run_id: str, rng: random.Random) -> int:
    """Start an attempt, which suspends itself somewhere on its way; wait for that, or until it has begun.

    (On Slurm too, a run fails that twice in a row dies before its first record.)
    """
    trouble = {"ALPHAGRID_TEST_TROUBLE": f"suspend@{rng.randrange(2, 50)}"} if rng.random() < 0.8 else {}
    before = begun(watched)
    root = str(watched.lab.root.path)
    pid = trainers.fork("attempt", root, run_id, "s1", SLURM_JOB_ID="7", **trouble)
    patient = rng.random() < 0.5
    while not trainers.is_idle(pid) and (patient or begun(watched) == before):
        time.sleep(0.005)
    return pid


def begun(watched: Watched) -> int:
    return sum(attempt.began for attempt in watched.attempts)
