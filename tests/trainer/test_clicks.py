"""Generated clicks: drawn from known probabilities, never twice, and learnt almost to the least loss."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from alphagrid.trainer.workloads import WORKLOADS
from alphagrid.trainer.workloads.clicks import Clicks
from alphagrid.trainer.workloads.planted import log_odds, mix, zipf

if TYPE_CHECKING:
    from tests.trainer.conftest import TrainRun

NAMES = pytest.mark.parametrize("name", ["click_log", "dlrm_synthetic"])


def clicks(name: str, **options: Any) -> Clicks:
    entry = WORKLOADS.entry(name)
    made: Clicks = entry.load()(entry.options.model_validate({"name": name, **options}))
    return made


def loss(odds: torch.Tensor, targets: torch.Tensor) -> float:
    return float(torch.nn.functional.binary_cross_entropy_with_logits(odds, targets))


@NAMES
def test_clicks_are_as_frequent_as_the_log_odds_say(name: str) -> None:
    batch, odds = clicks(name).draw(0, 40_000)
    for part in odds.argsort().chunk(4):
        expected = odds[part].sigmoid()
        error = float((expected * (1 - expected)).sum().sqrt()) / len(part)
        assert abs(float(batch["targets"][part].mean() - expected.mean())) < 4 * error


@NAMES
def test_the_least_loss_is_far_below_a_constant_s_and_above_nothing(name: str) -> None:
    made = clicks(name)
    rate = float(torch.cat([batch["targets"] for batch in made.split("test")]).mean())
    constant = -rate * np.log(rate) - (1 - rate) * np.log(1 - rate)
    assert 0.2 < made.least_loss("test") < 0.8 * constant


def test_features_and_their_absolute_values_have_effects() -> None:
    features, keys = np.eye(3), np.full((3, 2), 7, dtype=np.uint32)
    up, at, down = (log_odds(factor * features, keys) for factor in (1, 0, -1))
    assert (abs(up - down) > 0.1).all()
    assert (abs(up + down - 2 * at) > 0.1).all()


@pytest.mark.parametrize(
    ("name", "features", "odds"),
    [
        ("click_log", [0.33677, -0.766404, 2.0, 12.0, 12.0], 0.141506),
        ("dlrm_synthetic", [11.364217, 9.262079, 6.369901, 1558924552.0, 852748743.0], -1.599553),
    ],
)
def test_examples_are_those_of_earlier_versions(name: str, features: list[float], odds: float) -> None:
    batch, found = clicks(name).draw(0, 3)
    assert batch["inputs"][2, [0, 7, 8, 13, -1]].tolist() == pytest.approx(features)
    assert float(found[2]) == pytest.approx(odds, rel=1e-5)


@NAMES
def test_log_odds_a_little_off_lose_more(name: str) -> None:
    batch, odds = clicks(name).draw(0, 40_000)
    least = loss(odds, batch["targets"])
    for other in (odds + 0.1, odds - 0.1, 1.1 * odds, 0.9 * odds):
        assert loss(other, batch["targets"]) > least


def test_the_least_loss_is_that_of_the_split() -> None:
    name = "click_log"
    made = clicks(name, evaluation_examples=9000)  # two batches, of unequal size
    sizes = [len(batch["targets"]) for batch in made.split("test")]
    assert sum(sizes) == 9000
    assert len(set(sizes)) == 2
    assert made.least_loss("test") != made.least_loss("validation")
    assert made.least_loss("test") == clicks(name, evaluation_examples=9000).least_loss("test")


@NAMES
def test_no_example_ever_comes_twice(name: str) -> None:
    made = clicks(name, batch_size=64)
    batches = [
        made.stream(which, 0).batch(index)["inputs"] for which in ("train", "probe") for index in range(50)
    ]
    assert len(set(map(tuple, torch.cat(batches).tolist()))) == 2 * 50 * 64


@NAMES
def test_all_bits_of_a_seed_count(name: str) -> None:
    made = clicks(name)
    first, other = (made.draw(seed, 4)[0]["inputs"] for seed in (7, 7 + 2**40))
    assert not torch.equal(first, other)


def test_ranks_follow_zipf_s_law() -> None:
    ranks = zipf(np.random.default_rng(0), 40_000, np.array([3, 1000, 40e6]))
    assert ranks.max(0).tolist() <= [2, 999, 40e6 - 1]
    for column, size in enumerate((3, 1000, 40e6)):
        for k in (1, 2, 100, 10_000):
            expected = min(1.0, np.log(k + 1) / np.log(size + 1))
            assert (ranks[:, column] < k).mean() == pytest.approx(expected, abs=0.01)


def test_keys_stay_apart_when_they_are_mixed() -> None:
    keys = np.arange(200_000, dtype=np.uint32)
    mixed = mix(keys)
    assert len(np.unique(mixed)) == len(keys)
    assert mix(np.array([1, 2], dtype=np.uint32)).tolist() == [0x514E28B7, 0x30F4C306]  # MurmurHash3's
    assert np.bincount(mixed % 64).std() < 2 * np.sqrt(len(keys) / 64)


def test_a_category_is_told_by_the_same_hash_each_time_and_by_another_in_other_columns() -> None:
    made = clicks("dlrm_synthetic")
    most_frequent = [made.draw(seed, 8000)[0]["inputs"][:, 13:].mode(0).values for seed in (1, 2)]
    assert torch.equal(*most_frequent)
    assert len(most_frequent[0].unique()) == 26


def test_the_same_value_in_another_column_has_another_effect_and_another_embedding() -> None:
    made = clicks("click_log", columns=2, vocabulary=3)
    batch, odds = made.draw(0, 30_000)
    means = [
        [float(odds[batch["inputs"][:, column] == value].mean()) for value in range(3)] for column in (-1, -2)
    ]
    assert max(abs(one - other) for one, other in zip(*means, strict=True)) > 0.3
    torch.manual_seed(0)
    model = made.model()
    example = torch.zeros(1, 10)
    swapped = torch.zeros(2, 10)
    swapped[0, -1] = swapped[1, -2] = 1
    assert len({float(logit.detach()) for logit in (*model(example), *model(swapped))}) == 3
    model(example).sum().backward()
    gradient = model.get_parameter("embedding.weight").grad
    assert gradient is not None
    assert gradient.any(1).tolist() == [True, False, False, True, False, False]


def test_a_trained_model_comes_near_the_least_loss(train_run: TrainRun) -> None:
    options = {"dense": 3, "columns": 2, "vocabulary": 12, "hidden": [32, 32], "batch_size": 512}
    config = {
        "workload": {"name": "click_log", **options},
        "optimizer": {"name": "nadamw", "lr": 1e-2, "weight_decay": 0.0},
        "schedule": {"name": "warmup_cosine", "total_steps": 500},
        "stop": {"steps": 500},
        "eval": {"splits": ["validation"]},
        "device": "cpu",
    }
    found = train_run(config).of_kind("evaluation")[-1]["splits"]["validation"]["loss"]
    least = clicks("click_log", **options).least_loss("validation")
    assert least < found < 1.02 * least
