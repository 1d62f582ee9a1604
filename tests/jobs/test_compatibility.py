"""One experiment may grow; its base may not be edited."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from alphagrid.errors import UserError
from alphagrid.jobs.compatibility import Point, check
from alphagrid.jobs.specification.experiment import expand
from alphagrid.jobs.specification.file import read_spec
from alphagrid.store.submissions import RunEntry, Submission

if TYPE_CHECKING:
    from tests.conftest import Lab

BASE: dict[str, Any] = {
    "workload": {"name": "least_squares"},
    "optimizer": {"name": "nadamw", "lr": 0.01},
    "alpha": {"policy": "median", "interval": 10, "count": 5},
    "stop": {"steps": 100},
}
GRID: dict[str, Any] = {"alpha.interval": [10, 20], "alpha.count": [2, 5]}
BASELINES: dict[str, Any] = {"plain": {"alpha": None}, "fast": {"alpha": None, "optimizer.lr": 0.1}}


def edited(section: str, **keys: Any) -> dict[str, Any]:
    return {**BASE, section: {**BASE[section], **keys}}


class History:
    """What was submitted before, and whether a further specification is the same experiment."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.past: list[Submission] = []

    def submit(self, base: dict[str, Any] = BASE, grid: Any = None, **keys: Any) -> None:
        content = {"experiment": "exp", "base": base, **({"grid": grid} if grid else {}), **keys}
        runs = expand(read_spec(self.lab.write(content))).runs
        points = [Point(run.id, run.name, run.baseline, run.params, run.config.as_dict()) for run in runs]
        check(points, self.past)
        entries = [
            RunEntry(id=p.id, name=p.name, baseline=p.baseline, params=dict(p.params), config=dict(p.config))
            for p in points
        ]
        number = len(self.past)
        self.past.append(
            Submission(
                id=f"s{number}",
                created=number,
                experiment="exp",
                profile={},
                runs=entries,
                named={entry.id: entry for entry in entries},
            )
        )


@pytest.fixture
def history(lab: Lab) -> History:
    found = History(lab)
    found.submit(grid=GRID, baselines=BASELINES, seeds=[0])
    return found


@pytest.mark.parametrize(
    "change",
    [
        {"grid": {"alpha.interval": [10, 20, 50], "alpha.count": [2, 5]}},
        {"grid": {"alpha.interval": [50], "alpha.count": [2]}},
        {"grid": {**GRID, "optimizer.beta1": [0.8, 0.9]}},
        {"grid": {"alpha.interval": [10, 20]}},
        {"seeds": [0, 1]},
        {"seeds": [1]},
        {"baselines": {**BASELINES, "slow": {"alpha": None, "optimizer.lr": 0.001}}},
        {"baselines": {}},
        {"baselines": {"renamed": {"alpha": None}}},
        {"base": {**BASE, "stop": {"steps": 1000}}},
        {"base": {**BASE, "checkpoint": {"every_seconds": 5.0}}},
        {"exclude": [{"alpha.interval": 10, "alpha.count": 2}]},
    ],
)
def test_an_experiment_may_grow_and_shrink(history: History, change: dict[str, Any]) -> None:
    history.submit(**{"grid": GRID, "baselines": BASELINES, "seeds": [0], **change})


@pytest.mark.parametrize(
    ("base", "key"),
    [
        (edited("optimizer", lr=0.02), "optimizer.lr"),
        (edited("workload", batch_size=64), "workload.batch_size"),
        ({**BASE, "threads": 2}, "threads"),
        ({**BASE, "optimizer": {"name": "sgd", "lr": 0.01}}, "optimizer.name"),
    ],
)
def test_an_edited_base_is_refused_with_the_key(history: History, base: dict[str, Any], key: str) -> None:
    with pytest.raises(UserError, match=f"base of this experiment was edited.*{key}") as caught:
        history.submit(base=base, grid=GRID, seeds=[0])
    assert "another experiment name" in str(caught.value.hint)


def test_an_edited_base_is_refused_also_when_the_grid_grows_with_it(history: History) -> None:
    with pytest.raises(UserError, match="edited"):
        history.submit(
            base=edited("optimizer", lr=0.02), grid={**GRID, "alpha.interval": [10, 20, 50]}, seeds=[0, 1]
        )


def test_an_edited_base_without_any_grid_is_refused(lab: Lab) -> None:
    found = History(lab)
    found.submit()
    with pytest.raises(UserError, match="edited"):
        found.submit(base=edited("optimizer", lr=0.02))


def test_a_baselines_name_keeps_its_meaning(history: History) -> None:
    changed = {**BASELINES, "fast": {"alpha": None, "optimizer.lr": 0.2}}
    with pytest.raises(UserError, match=r"baseline 'fast' now means another run than before: optimizer\.lr"):
        history.submit(grid=GRID, baselines=changed, seeds=[0])


def test_baselines_that_swap_their_names_are_refused(history: History) -> None:
    swapped = {"plain": BASELINES["fast"], "fast": BASELINES["plain"]}
    with pytest.raises(UserError, match="now means another run"):
        history.submit(grid=GRID, baselines=swapped, seeds=[0])


def test_taking_one_of_several_grids_away_is_no_edited_base(lab: Lab) -> None:
    found = History(lab)
    one = {"grid": {"alpha.interval": [10, 20]}, "base": {"optimizer.lr": 0.01}}
    other = {"grid": {"alpha.interval": [10, 20]}, "base": {"optimizer.lr": 0.02}}
    found.submit(grids=[one, other])
    found.submit(grids=[one])


def test_an_axis_of_whole_sections_may_change_its_values(lab: Lab) -> None:
    found = History(lab)
    sgd, adam = {"name": "sgd", "lr": 0.1}, {"name": "adam", "lr": 0.1}
    found.submit(grid={"optimizer": [sgd, {"name": "nadamw"}]})
    found.submit(grid={"optimizer": [adam, {"name": "nadamw"}]})
