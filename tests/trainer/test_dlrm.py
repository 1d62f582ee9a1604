"""DLRM-small is AlgoPerf's: sizes, initialisation, and the order of its interactions."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from alphagrid.trainer.alpha.routes import Line, by_finite_difference, by_jvp
from alphagrid.trainer.losses import loss_of
from alphagrid.trainer.workloads.criteo.columns import CATEGORIES, DENSE
from alphagrid.trainer.workloads.dlrm import DLRM, interactions
from alphagrid.trainer.workloads.dlrm_synthetic import DLRMSynthetic
from alphagrid.trainer.workloads.options import DLRMOptions, DLRMSyntheticOptions
from pydantic import ValidationError
from torch import Tensor, nn


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def linears(mlp: nn.Sequential) -> list[nn.Linear]:
    return [layer for layer in mlp if isinstance(layer, nn.Linear)]


def inputs(number: int, dtype: torch.dtype = torch.float64) -> Tensor:
    hashes = torch.randint(0, 2**32, (number, CATEGORIES)).to(dtype)
    return torch.cat([torch.rand(number, DENSE, dtype=dtype), hashes], 1)


def test_at_its_full_size_it_has_as_many_parameters_as_algoperfs() -> None:
    with torch.device("meta"):
        model = DLRM()
    assert count(model.bottom) == 171_392
    assert count(model.top) == 2_225_153
    assert model.table.shape == (4_194_304, 128)
    assert count(model) == 539_267_457
    assert len([p for p in model.parameters() if p.numel() > 2**22]) == 1


def test_layers_have_the_widths_of_algoperfs() -> None:
    model = DLRM(table_rows=10)
    assert [(m.in_features, m.out_features) for m in linears(model.bottom)] == [
        (13, 512),
        (512, 256),
        (256, 128),
    ]
    assert [(m.in_features, m.out_features) for m in linears(model.top)] == [
        (506, 1024), (1024, 1024), (1024, 512), (512, 256), (256, 1),
    ]  # fmt: skip
    kinds = [type(layer).__name__ for layer in (*model.bottom, *model.top)]
    assert kinds == ["Linear", "ReLU"] * 3 + ["Linear", "ReLU"] * 4 + ["Linear"]
    assert model(inputs(3)).shape == (3,)


def test_the_default_workload_is_of_a_size_for_a_cpu() -> None:
    model = DLRMSynthetic(DLRMSyntheticOptions(name="dlrm_synthetic")).model()
    assert isinstance(model, DLRM)
    assert model.table.shape == (2**17, 128)
    assert count(model) == 171_392 + 2_225_153 + 2**17 * 128


def test_interactions_are_the_upper_triangle_with_its_diagonal_row_by_row() -> None:
    torch.manual_seed(0)
    features = torch.randn(4, 27, 8)
    expected = [
        torch.stack([(row[i] * row[j]).sum() for i in range(27) for j in range(i, 27)]) for row in features
    ]
    assert expected[0].shape == (378,)
    torch.testing.assert_close(interactions(features), torch.stack(expected))


def by_hand(model: DLRM, example: Tensor) -> float:
    hidden = example[:DENSE]
    for layer in linears(model.bottom):
        hidden = (layer.weight @ hidden + layer.bias).relu()
    vectors = [hidden, *(model.table[int(key) % len(model.table)] for key in example[DENSE:])]
    products = [vectors[i] @ vectors[j] for i in range(27) for j in range(i, 27)]
    hidden = torch.cat([hidden, torch.stack(products)])
    *before, last = linears(model.top)
    for layer in before:
        hidden = (layer.weight @ hidden + layer.bias).relu()
    return (last.weight @ hidden + last.bias).item()


def test_the_logit_is_that_of_the_formula() -> None:
    torch.manual_seed(0)
    model = DLRM(table_rows=50, embedding_dim=6, bottom=[5], top=[7, 4], dropout=0.5).double().eval()
    examples = inputs(5)
    assert model(examples).tolist() == pytest.approx([by_hand(model, example) for example in examples])


def test_hashes_that_are_equal_modulo_the_rows_share_a_row() -> None:
    torch.manual_seed(0)
    model = DLRM(table_rows=1000, embedding_dim=8, bottom=[5], top=[7])
    examples = inputs(6)
    shifted = examples.clone()
    shifted[:, DENSE:] += 1000 * 12345
    assert torch.equal(model(examples), model(shifted))
    shifted[:, DENSE:] += 1
    assert not torch.isclose(model(examples), model(shifted)).any()


def test_dropout_acts_on_the_last_hidden_layer_in_training_only() -> None:
    torch.manual_seed(0)
    model = DLRM(table_rows=10, embedding_dim=4, bottom=[5], top=[7, 300], dropout=0.5)
    assert [type(layer).__name__ for layer in model.top][-3:] == ["ReLU", "Dropout", "Linear"]
    examples = inputs(2)
    assert not torch.equal(model(examples), model(examples))
    model.eval()
    assert torch.equal(model(examples), model(examples))


def test_parameters_begin_as_algoperfs() -> None:
    torch.manual_seed(0)
    model = DLRM(table_rows=10_000)
    table = model.table.detach() * math.sqrt(10_000)
    assert 0 <= table.min() < 0.001
    assert 0.999 < table.max() <= 1
    assert float(table.mean()) == pytest.approx(0.5, abs=0.002)
    for layer in linears(model.bottom):
        limit = math.sqrt(6 / (layer.in_features + layer.out_features))
        assert 0.99 * limit < float(layer.weight.abs().max()) <= limit
        assert float(layer.weight.std()) == pytest.approx(limit / math.sqrt(3), rel=0.03)
    for layer in linears(model.top)[:-1]:
        expected = math.sqrt(2 / (layer.in_features + layer.out_features))
        assert float(layer.weight.std()) == pytest.approx(expected, rel=0.02)
        assert float(layer.weight.abs().max()) > 3.5 * expected  # a uniform one would end at 1.7
    for layer in [*linears(model.bottom), *linears(model.top)[:-1]]:
        assert float(layer.bias.std()) == pytest.approx(math.sqrt(1 / layer.out_features), rel=0.2)
    assert linears(model.top)[-1].bias.item() != 0


def test_the_layer_norm_variant_normalises_after_each_hidden_relu_and_the_embeddings() -> None:
    torch.manual_seed(0)
    model = DLRM(table_rows=10, embedding_dim=4, bottom=[5], top=[7, 6], layer_norm=True)
    kinds = [type(layer).__name__ for layer in (*model.bottom, *model.top)]
    assert kinds == ["Linear", "ReLU", "LayerNorm"] * 4 + ["Linear"]
    norms = [layer for layer in model.modules() if isinstance(layer, nn.LayerNorm)]
    assert {layer.eps for layer in norms} == {1e-6}
    assert [layer.normalized_shape[0] for layer in norms] == [4, 5, 4, 7, 6]
    seen: list[Tensor] = []
    model.embedding_norm.register_forward_hook(lambda module, given, result: seen.append(result))
    model(inputs(3))
    assert seen[0].shape == (3, CATEGORIES, 4)
    assert float(seen[0].detach().mean(-1).abs().max()) < 1e-5


def test_the_residual_variant_has_algoperfs_widths_and_no_products() -> None:
    torch.manual_seed(0)
    options = DLRMOptions.model_validate({"name": "any", "residual": True, "table_rows": 10})
    with torch.device("meta"):
        model = DLRM.of(options)
    widths = [(m.in_features, m.out_features) for m in model.modules() if isinstance(m, nn.Linear)]
    assert widths == [(13, 256), (256, 256), (256, 256), (3584, 256), *[(256, 256)] * 3, (256, 1)]
    small = DLRM(table_rows=50, embedding_dim=3, bottom=[4, 4, 4], top=[5, 5], residual=True).double().eval()
    examples = inputs(6)
    expected = [by_hand_residual(small, example) for example in examples]
    assert small(examples).tolist() == pytest.approx(expected)


def by_hand_residual(model: DLRM, example: Tensor) -> float:
    first, *others, last = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
    hidden = (first.weight @ example[:DENSE] + first.bias).relu()
    for layer in others[:2]:
        hidden = hidden + (layer.weight @ hidden + layer.bias).relu()
    rows = [model.table[int(key) % len(model.table)] for key in example[DENSE:]]
    hidden = torch.cat([hidden, *rows])
    hidden = (others[2].weight @ hidden + others[2].bias).relu()
    hidden = hidden + (others[3].weight @ hidden + others[3].bias).relu()
    return (last.weight @ hidden + last.bias).item()


def test_residual_layers_have_one_width() -> None:
    with pytest.raises(ValidationError, match="layers have one width"):
        DLRMOptions.model_validate({"name": "any", "residual": True, "top": [5, 6]})


def test_the_table_s_initial_values_can_be_given_another_end() -> None:
    torch.manual_seed(0)
    table = DLRM(table_rows=1000, embedding_init=1.0).table.detach()
    assert 0.99 < table.max() <= 1
    assert float(table.mean()) == pytest.approx(0.5, abs=0.005)


@pytest.mark.parametrize(
    "variant", [{"layer_norm": True}, {"residual": True, "bottom": [6] * 3, "top": [6] * 2}]
)
def test_variants_have_forward_mode_derivatives_in_every_parameter(variant: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = DLRM(**{"table_rows": 40, "embedding_dim": 6, "bottom": [5], "top": [7, 4], **variant}).double()
    line = Line(model, loss_of("bce_with_logits"), [torch.randn_like(p) for p in model.parameters()])
    batch = {"inputs": inputs(9), "targets": torch.randint(0, 2, (9,)).double()}
    forward, difference = (route(line, batch).read() for route in (by_jvp, by_finite_difference))
    assert forward.slope == pytest.approx(difference.slope, rel=1e-5)
    assert forward.curvature == pytest.approx(difference.curvature, rel=1e-5)
