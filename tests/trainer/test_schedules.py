"""The schedule is AlgoPerf's, in the thesis' length."""

from statistics import mean, median

import pytest
from alphagrid.trainer.schedules import WarmupOptions, learning_rate

PEAK = 0.0017486387539278373 / 8
THESIS = WarmupOptions(name="warmup_cosine", total_steps=85328)


def test_thesis_schedule_at_the_steps_it_quotes() -> None:
    assert learning_rate(THESIS, PEAK, 0) == pytest.approx(2.1858e-14, rel=1e-4)
    assert learning_rate(THESIS, PEAK, 1706) == PEAK
    assert learning_rate(THESIS, PEAK, 2000) == pytest.approx(2.18573e-4, rel=1e-5)
    assert learning_rate(THESIS, PEAK, 85328) == 0
    assert learning_rate(THESIS, PEAK, 100_000) == 0


def test_thesis_schedule_has_the_mean_and_median_it_prints() -> None:
    rates = [learning_rate(THESIS, PEAK, index) for index in range(85328)]
    assert mean(rates) == pytest.approx(1.0929e-4, rel=1e-4)
    assert median(rates) == pytest.approx(1.0929e-4, rel=1e-4)


def test_linear_decay_is_halfway_in_the_middle() -> None:
    options = WarmupOptions(name="warmup_linear", total_steps=100, warmup_fraction=0.0)
    assert learning_rate(options, 1.0, 50) == 0.5


def test_without_a_schedule_the_rate_is_the_optimizers() -> None:
    assert learning_rate(None, 0.3, 10**6) == 0.3
