from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from alphagrid.errors import UserError
from alphagrid.jobs.selection import select


@dataclass(frozen=True)
class Run:
    id: str
    name: str
    state: str
    params: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)


RUNS = [
    Run("a100000000", "interval1000-count10", "completed", {"alpha.interval": 1000, "optimizer.lr": 1e-3}),
    Run("a200000000", "interval2000-count10", "failed", {"alpha.interval": 2000, "optimizer.lr": 1e-3}),
    Run("b300000000", "interval2000-count25", "running", {"alpha.interval": 2000, "optimizer.lr": 1e-2}),
    Run("c400000000", "nadamw", "failed", {}, {"optimizer": {"name": "nadamw", "nesterov": True}}),
]


def ids(*selectors: str, **options: bool) -> list[str]:
    return [run.id[:2] for run in select(RUNS, selectors, **options)]


def test_a_run_is_known_by_name_id_and_a_beginning_of_its_id() -> None:
    assert ids("nadamw") == ids("c400000000") == ids("c4") == ["c4"]


def test_states_names_and_failed_add_up() -> None:
    assert ids("running", "nadamw") == ["b3", "c4"]
    assert ids("failed") == ids(failed=True) == ["a2", "c4"]


def test_filters_narrow_down() -> None:
    assert ids("alpha.interval=2000") == ["a2", "b3"]
    assert ids("failed", "alpha.interval=2000") == ["a2"]
    assert ids("alpha.interval=2000", "optimizer.lr=1e-2") == ["b3"]


def test_filters_reach_into_the_config_and_keep_types_apart() -> None:
    assert ids("optimizer.name=nadamw") == ["c4"]
    assert ids("optimizer.nesterov=true") == ["c4"]
    with pytest.raises(UserError):
        ids("optimizer.nesterov=1")


def test_all_means_all() -> None:
    assert ids(everything=True) == ["a1", "a2", "b3", "c4"]


@pytest.mark.parametrize(
    ("selector", "hint"),
    [
        ("interval1000-count1", "interval1000-count10"),
        ("faild", "failed"),
        ("alpha.intervall=1000", "alpha.interval"),
        ("alpha.interval=3000", "1000, 2000"),
    ],
)
def test_what_matches_nothing_is_an_error_that_suggests(selector: str, hint: str) -> None:
    with pytest.raises(UserError) as caught:
        ids(selector)
    assert hint in str(caught.value.hint)


def test_an_ambiguous_beginning_of_an_id_is_refused() -> None:
    with pytest.raises(UserError, match="begins 2 ids"):
        ids("a")


def test_nothing_said_is_refused() -> None:
    with pytest.raises(UserError, match="which runs"):
        ids()
