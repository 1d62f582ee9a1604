"""Generators of random numbers that a model holds."""

from __future__ import annotations

import torch
from alphagrid.trainer.randomness import module_generators
from torch import nn


class Noisy(nn.Module):
    """Holds a generator as an attribute, and two in containers."""

    def __init__(self) -> None:
        super().__init__()
        self.own = torch.Generator()
        self.listed = [None, self.own, torch.Generator()]
        self.named = {"mask": (torch.Generator(),)}


def test_the_generators_of_all_modules_are_found_once_and_by_name() -> None:
    inner = Noisy()
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5), inner)
    found = module_generators(model)
    assert list(found) == ["2.own", "2.listed.2", "2.named.mask.0"]
    assert found["2.own"] is inner.own
    assert list(module_generators(inner)) == ["own", "listed.2", "named.mask.0"]
    assert module_generators(nn.Linear(2, 2)) == {}
