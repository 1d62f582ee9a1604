"""Law 1: killed and resumed, or stopped and resumed, equals uninterrupted, bit for bit.

Equal are the last checkpoint (parameters, optimizer, policy, generators, clock) and all rows that the store
gives; also the times, since the clock here counts its readings.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import pytest
from alphagrid.trainer import checkpoint_writer
from alphagrid.trainer.alpha.policies import POLICIES
from alphagrid.trainer.optimizers import OPTIMIZERS
from alphagrid.trainer.workloads import WORKLOADS
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

if TYPE_CHECKING:
    from tests.laws.conftest import Bench, Combination, Config, Touch, Trained

By = Literal["kill", "stop"]
BOTH: list[By] = ["kill", "stop"]
Places = list[int | Callable[["Touch"], bool]]

SHORT = {"steps": 13}
"""Two windows of α*, and for digits the end of an epoch."""


def test_every_entry_of_the_registries_is_put_to_the_test(bench: Bench) -> None:
    optimizers, policies, workloads = map(set, zip(*bench.combinations(), strict=True))
    assert optimizers == set(OPTIMIZERS.entries), "give SMALL in tests/laws/conftest.py what it needs"
    assert policies == {None, *POLICIES.entries}, "give SMALL in tests/laws/conftest.py what it needs"
    assert workloads == set(WORKLOADS.entries), "give SMALL in tests/laws/conftest.py what it needs"


def check_two_cuts(bench: Bench, names: Combination) -> None:
    config = bench.config(*names, stop=SHORT)
    whole = bench.whole(config)
    draw = random.Random(str(names))
    cuts = [bench.cut(draw.randrange(len(whole.touches)), by) for by in draw.sample(BOTH, 2)]
    assert whole.differences(bench.disturbed(config, *cuts)) == []


def test_a_run_cut_off_twice_equals_the_undisturbed_one(bench: Bench, pair: Combination) -> None:
    check_two_cuts(bench, pair)


@pytest.mark.slow
def test_every_combination_cut_off_twice_equals_the_undisturbed_one(
    bench: Bench, combination: Combination
) -> None:
    check_two_cuts(bench, combination)


def before_the_first_checkpoint(whole: Trained) -> Places:
    return [whole.touch("after window")]


def before_the_first_step(whole: Trained) -> Places:
    return [whole.touch("before event")]


def right_after_a_checkpoint(whole: Trained) -> Places:
    return [whole.touch("after checkpoint")]


def during_a_checkpoint_write(whole: Trained) -> Places:
    return [whole.touch("before rename", 8)]


def between_a_checkpoint_and_its_record(whole: Trained) -> Places:
    return [whole.touch("after rename", 8)]


def between_a_checkpoint_and_the_removal_of_the_oldest(whole: Trained) -> Places:
    return [whole.touch("before unlink")]


def inside_a_window_of_alpha(whole: Trained) -> Places:
    return [whole.touch("after window", 24)]


def on_the_last_step(whole: Trained) -> Places:
    return [whole.touch("asked", 24) + 6]


def during_an_evaluation(whole: Trained) -> Places:
    return [whole.touch("before evaluation", 8) - 3]


def during_the_evaluation_at_the_stop(whole: Trained) -> Places:
    return [whole.touch("before evaluation", 24) - 3]


def at_an_epochs_end(whole: Trained) -> Places:
    return [whole.touch("after window", 12)]


def between_the_last_checkpoint_and_the_end(whole: Trained) -> Places:
    return [whole.touch("before end")]


def twice_within_an_epoch(whole: Trained) -> Places:
    return [whole.touch("after window", 16), lambda touch: touch.name == "after window" and touch.step == 20]


def at_two_epochs_ends(whole: Trained) -> Places:
    return [whole.touch("after window", 12), lambda touch: touch.name == "after window" and touch.step == 24]


def four_times_in_a_row(whole: Trained) -> Places:
    return [40, 45, 50, 55]


KILL_POINTS = [
    before_the_first_step,
    before_the_first_checkpoint,
    right_after_a_checkpoint,
    during_a_checkpoint_write,
    between_a_checkpoint_and_its_record,
    between_a_checkpoint_and_the_removal_of_the_oldest,
    inside_a_window_of_alpha,
    on_the_last_step,
    during_an_evaluation,
    during_the_evaluation_at_the_stop,
    at_an_epochs_end,
    between_the_last_checkpoint_and_the_end,
    twice_within_an_epoch,
    at_two_epochs_ends,
    four_times_in_a_row,
]


@pytest.mark.parametrize("by", BOTH)
@pytest.mark.parametrize("places", KILL_POINTS)
def test_a_run_may_be_cut_off(bench: Bench, places: Callable[[Trained], Places], by: By) -> None:
    config = bench.config("nadamw", "median", "digits_mlp")
    whole = bench.whole(config)
    cuts = [bench.cut(place, by) for place in places(whole)]
    cuts_before = bench.cuts
    assert whole.differences(bench.disturbed(config, *cuts)) == []
    assert bench.cuts - cuts_before == len(cuts)


def test_a_checkpoint_may_lie_inside_a_window_of_alpha_and_of_the_log(bench: Bench) -> None:
    config = bench.config("nadamw", "median", "digits_mlp", log={"every_steps": 100})
    whole = bench.whole(config)
    cut = bench.cut(whole.touch("after evaluation", 10), "stop")  # of the steps 9 and 10, one is left
    assert whole.differences(bench.disturbed(config, cut)) == []


@pytest.mark.parametrize(
    "alpha",
    [
        {"estimator": "unbiased"},
        {"estimator": "biased"},
        {"estimator": "lookahead", "curvature_fraction": 0.5},
        {"estimator": "lookahead", "curvature_fraction": 1.0},
    ],
    ids=str,
)
def test_where_finite_differences_must_serve_a_run_that_goes_on_finds_the_same(
    bench: Bench, alpha: dict[str, Any]
) -> None:
    opaque = {"name": "opaque_task:Opaque", "batch_size": 20}
    config = bench.config("nadamw", "median", "digits_mlp", workload=opaque, stop=SHORT)
    config["alpha"] = {"policy": "median", "interval": 6, "count": 6, **alpha}
    whole = bench.whole(config)
    cut = bench.cut(2 * len(whole.touches) // 3, "stop")
    assert whole.differences(bench.disturbed(config, cut)) == []


def test_a_run_that_diverges_does_so_at_the_same_step(bench: Bench) -> None:
    for ticks in (20, 60):  # the latter: a checkpoint would be due as the divergence is noticed
        config = bench.config(
            "sgd", None, "least_squares",
            optimizer={"name": "sgd", "lr": 1e6}, log={"every_steps": 9}, schedule=None,
            checkpoint={"every_seconds": ticks * bench.tick},
        )  # fmt: skip
        whole = bench.whole(config)
        assert whole.values["rows.run.end_status"] == "diverged"
        for number in range(5, len(whole.touches), 7):
            by: By = "kill" if number % 2 else "stop"
            assert whole.differences(bench.disturbed(config, bench.cut(number, by))) == []


def test_checkpoints_written_behind_training_keep_the_law(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = bench.config("nadamw", "median", "digits_mlp")
    whole = bench.whole(config)
    monkeypatch.setattr(checkpoint_writer, "BACKGROUND_BYTES", 0)  # however small they are
    for number in range(80, len(whole.touches), 60):
        resumed = bench.disturbed(config, bench.cut(number), bench.cut(number))
        differing = whole.differences(resumed, "rows", "state.model", "state.optimizer", "state.randomness")
        times = ("seconds", "costs", "alpha_parts")  # the thread reads the clock, too
        assert [name for name in differing if not any(time in name for time in times)] == []


@st.composite
def configs(draw: st.DrawFn, bench: Bench) -> Config:
    """Draw a config of anything that there is."""
    names = draw(st.sampled_from(bench.combinations()))
    sections: dict[str, Any] = {
        "eval": draw(st.sampled_from([{"every_steps": 5}, {"every_seconds": 30 * bench.tick}, {}])),
        "log": {"every_steps": draw(st.integers(1, 9))},
        "checkpoint": {
            "every_seconds": draw(st.integers(1, 120)) * bench.tick,
            "keep": draw(st.integers(1, 3)),
        },
        "stop": draw(st.sampled_from([{"steps": 17}, {"train_seconds": 70.5 * bench.tick}])),
        "seed": draw(st.integers(0, 99)),
    }  # fmt: skip
    if draw(st.booleans()):
        sections["schedule"] = None
    config = bench.config(*names, **sections)
    return bench.also_others(config) if names.policy and draw(st.booleans()) else config


cuts = st.lists(st.tuples(st.integers(0, 400), st.sampled_from(BOTH)), min_size=1, max_size=4)


def check_resume_law(bench: Bench, data: st.DataObject) -> None:
    try:
        config = data.draw(configs(bench))
    except ValidationError:
        assume(False)
    whole = bench.disturbed(config)
    chosen = [bench.cut(number % len(whole.touches), by) for number, by in data.draw(cuts)]
    assert whole.differences(bench.disturbed(config, *chosen)) == []


@given(data=st.data())
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_run_cut_off_anywhere_equals_the_undisturbed_one(bench: Bench, data: st.DataObject) -> None:
    check_resume_law(bench, data)


@pytest.mark.slow
@given(data=st.data())
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_many_runs_cut_off_anywhere_equal_the_undisturbed_ones(bench: Bench, data: st.DataObject) -> None:
    check_resume_law(bench, data)


@pytest.mark.slow
@pytest.mark.parametrize("by", BOTH)
def test_a_run_may_be_cut_off_at_its_every_touch(bench: Bench, by: By) -> None:
    config = bench.config("nadamw", "median", "digits_mlp", stop={"steps": 6})
    whole = bench.whole(config)
    for number in range(1, len(whole.touches)):
        assert whole.differences(bench.disturbed(config, bench.cut(number, by))) == [], whole.touches[number]
