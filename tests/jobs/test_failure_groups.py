"""Runs that failed alike are told once."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from alphagrid.jobs.failure_groups import causes, illustrate, pattern
from alphagrid.jobs.runs.states import State

MEMORY = "RuntimeError: CUDA out of memory. Tried to allocate {}.50 GiB (GPU 0; 39.59 GiB total capacity)"


@dataclass(frozen=True)
class Run:
    id: str
    state: State
    reason: str | None = None

    @property
    def name(self) -> str:
        return f"name-{self.id}"


def test_forty_runs_with_one_cause_are_one_group_and_the_commonest_comes_first() -> None:
    memory = [Run(f"m{number}", "failed", MEMORY.format(number)) for number in range(40)]
    others = [Run("k", "failed", "KeyError: 'layer3'"), Run("n", "failed", "KeyError: 'bias'")]
    found = causes([*others, *memory, Run("c", "completed"), Run("r", "running")])
    assert [len(cause.runs) for cause in found] == [40, 1, 1]
    assert found[0].reason == MEMORY.format(0)
    assert found[0].runs[:2] == ("name-m0", "name-m1")


def test_lost_and_interrupted_runs_have_causes_too_apart_from_failures() -> None:
    runs = [Run("a", "interrupted", "disk full"), Run("b", "unknown"), Run("c", "failed", "disk full")]
    assert [cause.state for cause in causes(runs)] == ["failed", "unknown", "interrupted"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("no space left on /scratch/u/7/x.pt", "no space left on /scratch/v/81/y.pt"),
        ("at 0x7f3a00b2: bad", "at 0x55e1: bad"),
        ("snapshot 1aff299254f7 is gone", "snapshot 03bd1c9944aa is gone"),
        ("loss is 1.5e-07 at step 12", "loss is 3 at step 9,000"),
        ("ended (exit code 1 on gpu07)", "ended (exit code 1 on gpu112)"),
    ],
)
def test_numbers_ids_and_paths_make_no_difference(one: str, other: str) -> None:
    assert pattern(one) == pattern(other)


@pytest.mark.parametrize(
    ("one", "other"), [("KeyError: 'a'", "KeyError: 'b'"), ("read/write failed", "read failed")]
)
def test_words_do(one: str, other: str) -> None:
    assert pattern(one) != pattern(other)


def test_a_cause_tells_its_nodes_and_the_end_of_one_log() -> None:
    runs = [Run("a", "failed", "x 1"), Run("b", "failed", "x 2"), Run("i", "interrupted", "disk full")]
    asked: list[str] = []

    def log_of(run_id: str) -> list[str]:
        asked.append(run_id)
        return ["the last line"]

    failed, interrupted = illustrate(causes(runs), {"a": "gpu2", "b": "gpu1"}, log_of)
    assert failed.hosts == ("gpu1", "gpu2")
    assert failed.log == ("the last line",)
    assert interrupted.log == ()
    assert asked == ["a"]  # one of each cause
