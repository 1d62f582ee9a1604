"""What every bundled workload promises: data as a function, forward mode, and that it can be learnt."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from alphagrid.trainer.workloads import WORKLOADS
from alphagrid.trainer.workloads.base import Workload
from torch import Tensor
from torch.func import functional_call, jvp
from torch.nn.attention import SDPBackend, sdpa_kernel

if TYPE_CHECKING:
    from tests.trainer.conftest import TrainRun

Options = dict[str, Any]

CLICKS = Path(__file__).parents[1] / "data" / "prepared_clicks"

SMALL: dict[str, Options] = {
    "digits_mlp": {"hidden": [12], "batch_size": 32},
    "digits_cnn": {"channels": [4, 8], "batch_size": 32},
    "char_transformer": {
        "width": 16, "heads": 2, "layers": 1, "context": 16, "batch_size": 8, "evaluation_windows": 300
    },
    "click_log": {"vocabulary": 20, "hidden": [12], "batch_size": 256, "evaluation_examples": 10000},
    "dlrm_synthetic": {
        "table_rows": 500, "embedding_dim": 8, "bottom": [16], "top": [32, 16], "batch_size": 256,
        "evaluation_examples": 10000,
    },
    "criteo1tb": {
        "data_dir": str(CLICKS), "table_rows": 500, "embedding_dim": 8, "bottom": [16], "top": [32, 16],
        "batch_size": 32,
    },
    "least_squares": {},
}  # fmt: skip
EVERY = pytest.mark.parametrize("name", SMALL)


def workload(name: str, **options: Any) -> Workload:
    entry = WORKLOADS.entry(name)
    made: Workload = entry.load()(entry.options.model_validate({"name": name, **SMALL[name], **options}))
    return made


def test_every_bundled_workload_is_put_to_the_test() -> None:
    assert set(SMALL) == set(WORKLOADS.entries)


@EVERY
def test_a_batch_depends_on_name_seed_and_index_alone(name: str) -> None:
    read = workload(name).stream("train", 3)
    in_order = [read.batch(index) for index in range(5)]
    for index in (4, 0, 2):
        again = workload(name).stream("train", 3).batch(index)
        assert all(torch.equal(again[key], in_order[index][key]) for key in ("inputs", "targets"))


@EVERY
def test_batches_of_other_names_seeds_and_indices_are_others(name: str) -> None:
    made = workload(name)
    places = [("train", 0, 0), ("train", 0, 1), ("train", 1, 0), ("probe", 0, 0)]
    inputs = [made.stream(stream, seed).batch(index)["inputs"] for stream, seed, index in places]
    assert not any(torch.equal(a, b) for number, a in enumerate(inputs) for b in inputs[:number])


def inputs_of(made: Workload, split: str) -> Tensor:
    return torch.cat([batch["inputs"] for batch in made.split(split)])


@EVERY
def test_a_split_is_the_same_each_time(name: str) -> None:
    for split in ("train", "validation", "test"):
        assert torch.equal(inputs_of(workload(name), split), inputs_of(workload(name), split))


@pytest.mark.parametrize("name", sorted(set(SMALL) - {"char_transformer"}))  # its pieces of text recur
def test_splits_share_no_example(name: str) -> None:
    splits = [inputs_of(workload(name), split) for split in ("train", "validation", "test")]
    rows = [tuple(row) for split in splits for row in split.tolist()]
    assert len(set(rows)) == len(rows)


VARIANTS: list[tuple[str, Options]] = [
    *((name, {}) for name in SMALL),
    ("digits_mlp", {"batch_norm": True}),
    ("digits_cnn", {"batch_norm": True}),
    ("char_transformer", {"tie_weights": True, "layers": 2}),
]


@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_forward_mode_equals_finite_differences_in_every_parameter(name: str, options: Options) -> None:
    made = workload(name, **options)
    torch.manual_seed(0)
    model = made.model().double().eval()
    inputs = made.stream("train", 0).batch(0)["inputs"]
    inputs = inputs.double() if inputs.is_floating_point() else inputs
    parameters = {key: parameter.detach() for key, parameter in model.named_parameters()}

    def outputs(key: str, value: Tensor) -> Tensor:
        result: Tensor = functional_call(model, {**parameters, key: value}, (inputs,))
        return result

    with sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        for key, at in parameters.items():
            along = torch.randn_like(at)
            tangent = jvp(lambda value, key=key: outputs(key, value), (at,), (along,))[1]
            step = 1e-6 / max(1.0, float(along.norm()))
            difference = (outputs(key, at + step * along) - outputs(key, at - step * along)) / (2 * step)
            scale = float(difference.abs().max())
            assert scale > 1e-8, key
            torch.testing.assert_close(tangent, difference, rtol=0, atol=1e-6 * max(1.0, scale))


def best_constant_loss(made: Workload, split: str) -> float:
    """Return the loss of the best prediction that does not look at the inputs."""
    targets = torch.cat([batch["targets"].flatten() for batch in made.split(split)])
    if made.options.name == "least_squares":
        return float(targets.var(correction=0))
    shares = targets.long().bincount() / len(targets)
    return float(torch.special.entr(shares).sum())


@pytest.mark.parametrize("name", sorted(set(SMALL) - {"criteo1tb"}))  # its 200 rows are learnt by heart
def test_training_does_far_better_than_any_constant_prediction(train_run: TrainRun, name: str) -> None:
    config = {
        "workload": {"name": name, **SMALL[name]},
        "optimizer": {"name": "nadamw", "lr": 1e-2, "weight_decay": 0.0},
        "stop": {"steps": 150},
        "eval": {"splits": ["validation", "test"]},
        "device": "cpu",
    }
    losses = train_run(config).of_kind("evaluation")[-1]["splits"]
    for split in ("validation", "test"):
        assert losses[split]["loss"] < 0.93 * best_constant_loss(workload(name), split)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_the_cnn_is_convolution_activation_pooling(batch_norm: bool) -> None:
    model = workload("digits_cnn", channels=[3, 4, 5], batch_norm=batch_norm).model()
    stage = ["Conv2d", *(["BatchNorm2d"] if batch_norm else []), "ReLU", "MaxPool2d"]
    kinds = [type(layer).__name__ for layer in model.children()]
    assert kinds == ["Unflatten", *stage * 3, "Flatten", "Linear"]
    assert model(torch.rand(7, 64)).shape == (7, 10)


def test_both_digits_workloads_read_the_same_digits() -> None:
    for split in ("train", "validation", "test"):
        assert torch.equal(inputs_of(workload("digits_mlp"), split), inputs_of(workload("digits_cnn"), split))
