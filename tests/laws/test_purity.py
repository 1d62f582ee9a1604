"""Law 3: how often one evaluates, checkpoints, logs or looks at further estimators changes no parameter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    from tests.laws.conftest import Bench, Combination

SHORT = {"steps": 13}
PARAMETERS = ("state.model", "state.optimizer", "state.policy", "state.randomness")


def often(bench: Bench) -> dict[str, Any]:
    return {
        "eval": {"every_steps": 1, "splits": ["test", "train", "validation"]},
        "checkpoint": {"every_seconds": bench.tick},
        "log": {"every_steps": 1},
    }


def never(bench: Bench) -> dict[str, Any]:
    return {"eval": {}, "checkpoint": {"every_seconds": 1e9}, "log": {"every_steps": 1000}}


def test_often_or_never_comes_to_the_same(bench: Bench, optimizer: str) -> None:
    names = (optimizer, None, "digits_mlp")
    one, other = (bench.disturbed(bench.config(*names, stop=SHORT, **how(bench))) for how in (often, never))
    assert one.differences(other, *PARAMETERS) == []


@pytest.mark.parametrize("batch_norm", [True, False])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_dropout_and_batch_norm_are_left_alone(bench: Bench, batch_norm: bool, dropout: float) -> None:
    workload = {"name": "digits_mlp", "hidden": [6], "batch_norm": batch_norm, "dropout": dropout}
    one, other = (
        bench.disturbed(
            bench.config(
                "schedule_free_adamw", "observe", "digits_mlp", workload=workload, stop=SHORT, **how(bench)
            )
        )
        for how in (often, never)
    )
    assert one.differences(other, *PARAMETERS) == []


def test_a_model_that_draws_from_every_generator_is_left_alone(bench: Bench) -> None:
    workload = {"name": "noisy_task:Noisy", "batch_size": 20}
    one, other = (
        bench.disturbed(bench.config("nadamw", "apply", "digits_mlp", workload=workload, **how(bench)))
        for how in (often, never)
    )
    assert one.differences(other, *PARAMETERS) == []


def test_a_model_that_draws_from_its_own_generator_in_evaluations_too_is_left_alone(bench: Bench) -> None:
    workload = {"name": "held_state_task:HeldState", "batch_size": 20, "held": "always"}
    one, other = (
        bench.disturbed(bench.config("nadamw", "apply", "digits_mlp", workload=workload, **how(bench)))
        for how in (often, never)
    )
    assert one.differences(other, *PARAMETERS) == []


def test_further_estimators_are_looked_at_without_a_trace(bench: Bench, policy: str) -> None:
    config = bench.config("nadamw", policy, "digits_mlp", stop=SHORT)
    assert bench.whole(config).differences(bench.disturbed(bench.also_others(config)), *PARAMETERS) == []


@given(
    every=st.one_of(
        st.fixed_dictionaries({"every_steps": st.integers(1, 20)}),
        st.fixed_dictionaries({"every_seconds": st.integers(1, 200).map(lambda ticks: ticks / 1024)}),
    ),
    splits=st.lists(st.sampled_from(["train", "validation", "test"]), min_size=1, max_size=3, unique=True),
    checkpoint_ticks=st.integers(1, 200),
    window=st.integers(1, 20),
    data=st.data(),
)
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_frequency_comes_to_the_same(
    bench: Bench,
    every: dict[str, Any],
    splits: list[str],
    checkpoint_ticks: int,
    window: int,
    data: st.DataObject,
) -> None:
    names: Combination = data.draw(st.sampled_from(bench.combinations()))
    changed = bench.config(
        *names,
        stop=SHORT,
        eval={**every, "splits": splits},
        checkpoint={"every_seconds": checkpoint_ticks * bench.tick},
        log={"every_steps": window},
    )
    whole = bench.whole(bench.config(*names, stop=SHORT))
    assert whole.differences(bench.disturbed(changed), *PARAMETERS) == []
