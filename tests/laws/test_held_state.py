"""Law 1 for what modules hold beside their `state_dict`: buffers that this leaves out, and generators."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from alphagrid.trainer import checkpoint
from alphagrid.trainer.resume import prepare

if TYPE_CHECKING:
    from tests.laws.conftest import Bench, Config

BUFFERS = ("buffer", "late", "late_persistent", "registered_late", "growing", "counting", "shared")
GENERATORS = ("own", "listed", "named", "python", "numpy", "twister", "legacy", "made", "always")


def config_of(bench: Bench, held: str, **sections: Any) -> Config:
    task = {"name": "held_state_task:HeldState", "held": held, "batch_size": 20}
    return bench.config("sgd", None, "digits_mlp", workload=task, stop={"steps": 13}, **sections)


@pytest.mark.parametrize("held", [*BUFFERS, *GENERATORS])
def test_a_run_cut_off_goes_on_with_what_its_modules_hold(bench: Bench, held: str) -> None:
    config = config_of(bench, held)
    whole = bench.whole(config)
    stops = [bench.cut(whole.touch("after window", step), "stop") for step in (4, 8)]
    assert whole.differences(bench.disturbed(config, *stops)) == []
    kill = bench.cut(whole.touch("after window", 8))
    assert whole.differences(bench.disturbed(config, kill)) == []


@pytest.mark.parametrize("held", ["counting", "late"])
def test_an_evaluation_that_is_broken_off_leaves_no_trace_in_buffers(bench: Bench, held: str) -> None:
    splits = ["train", "validation", "test"]
    config = config_of(bench, held, eval={"every_steps": 9, "splits": splits})
    whole = bench.whole(config)
    during = bench.cut(whole.touch("before evaluation", 8) - 3, "stop")
    assert whole.differences(bench.disturbed(config, during)) == []


def test_a_checkpoint_from_before_goes_on_with_a_warning(bench: Bench) -> None:
    config = config_of(bench, "buffer+own")
    run = bench.begin()
    assert bench.attempt(config, run, bench.cut(bench.whole(config).touch("after window", 8), "stop")).fell
    file = checkpoint.available(run)[-1]
    state = checkpoint.read(file)
    del state["modules"]
    file.path.unlink()
    checkpoint.write(run, file.step, file.attempt, state, keep=9)
    assert prepare(run).step == file.step
    bench.ended(config, run)
    told = [line for line in run.journal(2).read_text().splitlines() if '"warning"' in line]
    assert len(told) == 1
    assert "0.shift, 1.own" in told[0]
