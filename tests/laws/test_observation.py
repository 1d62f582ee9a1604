"""Law 2: a run that observes α* equals the plain one, bit for bit."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, get_args

import pytest
from alphagrid.errors import UserError
from alphagrid.trainer.alpha.options import Estimator, Route
from alphagrid.trainer.clock import Clock
from alphagrid.trainer.config import TrainingConfig
from alphagrid.trainer.optimizers import OPTIMIZERS
from alphagrid.trainer.session import Session
from alphagrid.trainer.workloads import WORKLOADS
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    from tests.laws.conftest import Bench, Config

SHORT = {"steps": 13}


def what_observing_changes(bench: Bench, plain: Config, alpha: dict[str, Any]) -> list[str]:
    """Return what is not as in the plain run, but for what was observed, and for the ticks of doing so."""
    observed = bench.disturbed({**plain, "alpha": {"policy": "observe", **alpha}})
    assert any(name.startswith("rows.alpha") for name in observed.values)
    parts = (
        "state.model",
        "state.optimizer",
        "state.modules",
        "state.randomness",
        "rows.evaluation",
        "rows.window",
        "rows.run",
    )
    differing = bench.whole(plain).differences(observed, *parts)
    of_time = re.compile(r"seconds|costs|alpha_parts|alpha_steps$")
    return [name for name in differing if not of_time.search(name)]


def test_observing_changes_no_bit(bench: Bench, optimizer: str) -> None:
    plain = bench.config(optimizer, None, "digits_mlp", stop=SHORT)
    alpha = {"start_step": 1, "interval": 4, "count": 2, "also": ["biased", "hybrid", "lookahead"]}
    assert what_observing_changes(bench, plain, alpha) == []


@pytest.mark.parametrize("estimator", get_args(Estimator))
def test_observing_a_model_that_draws_from_every_generator_changes_no_bit(
    bench: Bench, estimator: str
) -> None:
    noisy = {"name": "noisy_task:Noisy", "batch_size": 20}
    plain = bench.config("nadamw", None, "digits_mlp", workload=noisy, stop=SHORT)
    assert what_observing_changes(bench, plain, {"interval": 2, "estimator": estimator}) == []


@pytest.mark.parametrize("source", ["own", "listed", "named", "python", "numpy", "twister", "legacy", "made"])
@pytest.mark.parametrize("route", ["jvp", "finite_difference"])
@pytest.mark.parametrize(("chunks", "accumulate"), [(1, 1), (3, 1), (1, 2), (2, 2)])
def test_observing_a_model_with_generators_of_its_own_changes_no_bit(
    bench: Bench, source: str, route: str, chunks: int, accumulate: int
) -> None:
    own = {
        "name": "held_state_task:HeldState", "batch_size": 20, "held": source, "accumulate": accumulate,
    }  # fmt: skip
    plain = bench.config("nadamw", None, "digits_mlp", workload=own, stop=SHORT)
    alpha = {"interval": 2, "also": ["biased", "hybrid", "lookahead"], "route": route, "diagnostics": True}
    alpha["chunks"] = chunks
    assert what_observing_changes(bench, plain, alpha) == []


def test_the_second_batch_of_alpha_comes_from_a_stream_of_its_own(bench: Bench) -> None:
    config = TrainingConfig.model_validate(bench.config("nadamw", "observe", "digits_mlp"))
    session = Session(config, Clock())
    train = {row.numpy().tobytes() for index in range(3) for row in session.train_batch(index)["inputs"]}
    probe = {row.numpy().tobytes() for index in range(3) for row in session.probe_batches(index)[0]["inputs"]}
    assert 0 < len(train & probe) < 0.5 * len(train)  # the same examples, in another order


@given(data=st.data())
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_is_observed_changes_no_bit(bench: Bench, data: st.DataObject) -> None:
    names = data.draw(
        st.tuples(st.sampled_from(list(OPTIMIZERS.entries)), st.sampled_from(list(WORKLOADS.entries)))
    )
    plain = bench.config(names[0], None, names[1], stop=SHORT)
    interval = data.draw(st.integers(1, 6))
    estimators = data.draw(st.permutations(get_args(Estimator)))
    alpha = {
        "start_step": data.draw(st.integers(0, 5)),
        "interval": interval,
        "count": data.draw(st.integers(1, interval)),
        "estimator": estimators[0],
        "also": list(estimators[1 : data.draw(st.integers(1, len(estimators)))]),
        "route": data.draw(st.sampled_from(get_args(Route))),
    }
    try:
        differing = what_observing_changes(bench, plain, alpha)
    except UserError:
        assume(False)  # this route cannot do this model, and says so
    assert differing == []
