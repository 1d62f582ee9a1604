"""Tensors of any layout are compared and copied."""

from __future__ import annotations

import pytest
import torch
from alphagrid.trainer.tensors import copy_into, is_same
from torch import Tensor

LAYOUTS = [torch.strided, torch.sparse_coo, torch.sparse_csr, torch.sparse_csc, torch.sparse_bsr]


def of(layout: torch.layout, *rows: list[float]) -> Tensor:
    dense = torch.tensor(rows)
    if layout is torch.strided:
        return dense
    return dense.to_sparse(layout=layout, blocksize=(1, 1) if layout is torch.sparse_bsr else None)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_another_value_or_another_place_is_not_the_same(layout: torch.layout) -> None:
    matrix = of(layout, [1.0, 0.0], [torch.nan, 2.0])
    assert is_same(matrix, matrix.clone())
    for other in ([1.0, 0.0], [torch.nan, 3.0]), ([0.0, 1.0], [torch.nan, 2.0]), ([1.0, 0.0], [2.0, 0.0]):
        assert not is_same(matrix, of(layout, *other))


def test_another_layout_or_shape_is_not_the_same() -> None:
    assert not is_same(of(torch.strided, [1.0]), of(torch.sparse_coo, [1.0]))
    assert not is_same(of(torch.sparse_coo, [1.0, 0.0]), of(torch.sparse_coo, [1.0, 0.0, 0.0]))


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_a_copy_may_have_more_values_than_there_were(layout: torch.layout) -> None:
    matrix, value = of(layout, [1.0, 0.0], [0.0, 2.0]), of(layout, [1.0, 3.0], [0.0, 2.0])
    copy_into(matrix, value)
    assert is_same(matrix, value)


@pytest.mark.parametrize("layout", [torch.strided, torch.jagged], ids=str)
def test_nested_tensors_are_compared_too(layout: torch.layout) -> None:
    def nested(last: float) -> Tensor:
        return torch.nested.nested_tensor([torch.ones(2), torch.tensor([1.0, 1.0, last])], layout=layout)

    assert is_same(nested(1.0), nested(1.0))
    assert not is_same(nested(1.0), nested(2.0))


def test_types_that_torch_does_not_compare_itself_are_compared() -> None:
    one = torch.ones(2).to(torch.float8_e4m3fn)
    assert is_same(one, one.clone())
    assert not is_same(one, torch.zeros(2).to(torch.float8_e4m3fn))
