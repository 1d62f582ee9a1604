"""The tests of law 1 test themselves: a checkpoint without any one of its parts breaks it.

A part is taken from a freshly initialised session (where that has none yet, it is zero); the file's name
vouches for the content. A part that breaks nothing is dead, or needs a case in which it matters.
"""

from __future__ import annotations

import copy
import re
import shutil
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any

import pytest
import torch
from alphagrid.trainer import checkpoint
from alphagrid.trainer.clock import Clock
from alphagrid.trainer.config import TrainingConfig
from alphagrid.trainer.session import Session

if TYPE_CHECKING:
    from tests.laws.conftest import Bench, Config, Cut, Trained

Place = tuple[str | int, ...]
State = dict[str, Any]

SET_ANEW = {"optimizer.param_groups.*.lr", "optimizer.param_groups.*.scheduled_lr"}
"""The only parts that do not matter: every step sets them; they are torch's and schedulefree's to keep."""

WITHOUT_LAW = {"clock.window.evaluation", "clock.window.checkpoint", "clock.window.logging"}
"""Seconds that depend on interruptions; they are kept so that those of all windows add up."""
RESULTS = ("rows", "state.model", "state.optimizer")
"""What a run is for; the rest of its last checkpoint differs wherever a part is missing."""


@dataclass
class Case:
    """A run that was cut off, and the checkpoint that it goes on from."""

    bench: Bench
    config: Config
    cut: Cut

    def __post_init__(self) -> None:
        self.whole: Trained = self.bench.whole(self.config)
        self.run = self.bench.begin()
        assert self.bench.attempt(self.config, self.run, self.cut).fell
        self.file = checkpoint.available(self.run)[-1]
        self.saved: State = checkpoint.read(self.file)
        self.fresh: State = Session(TrainingConfig.model_validate(self.config), Clock()).state_dict()

    def parts(self) -> dict[str, list[Place]]:
        """Return the places of all that differs from a fresh session, by names without numbers."""
        found: dict[str, list[Place]] = defaultdict(list)
        for place in _places(self.fresh | self.saved):
            if place != ("format",) and self._differs(place):
                found[re.sub(r"\.\d+(?=\.|$)", ".*", ".".join(map(str, place)))].append(place)
        return found

    def obeys_the_law_without(self, places: list[Place]) -> bool:
        """Resume from a checkpoint that lacks what is at `places`; tell whether nobody can tell."""
        state = copy.deepcopy(self.saved)
        for place in places:
            _get(state, place[:-1])[place[-1]] = self._initial(place)
        run = self.bench.begin()
        shutil.copytree(self.run.path, run.path)
        checkpoint.write(run, self.file.step, self.file.attempt, state, keep=9)
        return self.bench.ended(self.config, run).differences(self.whole, *RESULTS) == []

    def _differs(self, place: Place) -> bool:
        flat = self.bench.flat
        return bool(flat(_get(self.saved, place)) != flat(self._initial(place)))

    def _initial(self, place: Place) -> Any:
        try:
            return copy.deepcopy(_get(self.fresh, place))
        except (KeyError, IndexError, TypeError):
            return _zero(_get(self.saved, place))


def _zero(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return torch.zeros_like(value)
    if isinstance(value, list) and any(isinstance(item, torch.Tensor) for item in value):
        return [_zero(item) for item in value]
    return type(value)()


def _places(value: Any, place: Place = ()) -> Iterator[Place]:
    """Yield what a state can be asked without: every leaf; lists of plain values are one."""
    if isinstance(value, dict) and value:
        for key in value:
            yield from _places(value[key], (*place, key))
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        for index, item in enumerate(value):
            yield from _places(item, (*place, index))
    else:
        yield place


def _get(state: Any, place: Place) -> Any:
    return reduce(lambda value, key: value[key], place, state)


def inside_everything(bench: Bench, config: Config) -> Case:
    """Stop in a window of α* and of the log: at step 17 (index 16 begins one, 17 is left)."""
    number = bench.whole(config).touch("after window", 16) + 5
    return Case(bench, config, bench.cut(number, "stop"))


def what_matters(case: Case, prefix: str) -> tuple[set[str], set[str]]:
    """Return the names of the case's parts below `prefix`, and of those whose loss breaks the law."""
    assert case.obeys_the_law_without([])
    parts = {name: places for name, places in case.parts().items() if name.startswith(prefix)}
    return set(parts), {name for name, places in parts.items() if not case.obeys_the_law_without(places)}


def test_every_part_of_an_optimizer_matters(bench: Bench, optimizer: str) -> None:
    case = inside_everything(bench, bench.config(optimizer, None, "least_squares", stop={"steps": 19}))
    parts, mattering = what_matters(case, "optimizer.")
    assert parts - mattering == parts & SET_ANEW
    assert not case.obeys_the_law_without([("optimizer",)])


SEEDS = {"gen": (0,), "ema": (2, 3)}
"""Of runs in which every part of a policy matters to what comes after the stop; most others need one run."""
NOISY = {"name": "noisy_task:Noisy", "batch_size": 20}


def test_every_part_of_a_policy_matters(bench: Bench, policy: str) -> None:
    adam = {"name": "adam", "lr": 0.3}  # so large that values are rejected, before and after the stop
    config = bench.config("adam", policy, "digits_mlp", workload=NOISY, optimizer=adam, schedule=None)
    alpha = {**config["alpha"], "start_step": 1, "interval": 3, **({"beta": 0.5} if policy == "ema" else {})}
    found: set[str] = set()
    for seed in SEEDS.get(policy, (2,)):
        case = inside_everything(bench, {**config, "seed": seed, "alpha": alpha})
        found |= what_matters(case, "policy.")[1]
    assert found == {f"policy.{key}" for key in case.saved["policy"]}


def with_held_state(bench: Bench) -> Case:
    """Stop in a run whose modules hold buffers and generators that are no part of their `state_dict`."""
    held = "buffer+own+listed+python+numpy+legacy"
    task = {"name": "held_state_task:HeldState", "held": held, "batch_size": 20}
    return inside_everything(
        bench, bench.config("sgd", None, "digits_mlp", workload=task, stop={"steps": 19})
    )


def test_every_part_that_modules_hold_matters(bench: Bench) -> None:
    case = with_held_state(bench)
    parts, mattering = what_matters(case, "modules.")
    assert parts == mattering
    held = {"own", "listed.*", "python", "numpy.*", "legacy"}
    assert {part for part in parts if ".buffers." in part} == {"modules.buffers.*.shift.value"}
    assert {
        part.partition(".*.")[2].partition(".state")[0] for part in parts if ".generators." in part
    } == held


def by_time(bench: Bench) -> Case:
    """Stop in a run whose evaluations and end fall by the clock."""
    time = {"eval": {"every_seconds": 25 * bench.tick}, "stop": {"train_seconds": 184.5 * bench.tick}}
    return inside_everything(bench, bench.config("nadamw", "median", "least_squares", **time))


def where_no_step_fits_any_more(bench: Bench, **alpha: Any) -> Case:
    """Stop after the last evaluation of a run that ends by the clock."""
    config = bench.config("nadamw", None, "least_squares", stop={"train_seconds": 84.5 * bench.tick}, **alpha)
    whole = bench.whole(config)
    number = next(touch.number for touch in reversed(whole.touches) if touch.name == "after evaluation")
    return Case(bench, config, bench.cut(number, "stop"))


def during_an_evaluation(bench: Bench) -> Case:
    config = bench.config("nadamw", None, "least_squares")
    number = bench.whole(config).touch("before evaluation", 16) - 3
    return Case(bench, config, bench.cut(number, "stop"))


def after_an_evaluation_that_was_due_at_the_stop(bench: Bench) -> Case:
    config = bench.config("nadamw", None, "least_squares", stop={"steps": 19})
    number = bench.whole(config).touch("after evaluation", 19)
    return Case(bench, config, bench.cut(number, "stop"))


@pytest.mark.slow
def test_every_other_part_matters(bench: Bench) -> None:
    noisy = bench.config("sgd", "median", "digits_mlp", workload=NOISY, stop={"steps": 21})
    every_step = {"policy": "observe", "also": ["lookahead"], "diagnostics": True}
    cases = [
        inside_everything(bench, noisy),
        inside_everything(bench, {**noisy, "alpha": every_step}),
        inside_everything(bench, {**noisy, "alpha": {**every_step, "record": "windowed"}}),
        inside_everything(
            bench, {**noisy, "alpha": {"policy": "observe", "interval": 8, "record": "windowed"}}
        ),
        with_held_state(bench),
        by_time(bench),
        where_no_step_fits_any_more(bench),
        where_no_step_fits_any_more(bench, alpha={"policy": "apply", "also": []}),
        during_an_evaluation(bench),
        after_an_evaluation_that_was_due_at_the_stop(bench),
    ]
    seen: set[str] = set()
    mattering: set[str] = set()
    for case in cases:
        for name, places in case.parts().items():
            if not name.startswith(("optimizer.", "policy.")):
                seen.add(name)
                if name not in mattering and not case.obeys_the_law_without(places):
                    mattering.add(name)
    assert seen - mattering == WITHOUT_LAW
    assert {name.partition(".")[0] for name in seen} == set(case.fresh) - {"optimizer", "policy"}
