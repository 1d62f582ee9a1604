"""scikit-learn's handwritten digits (Alpaydin & Kaynak, UCI 1998; bundled with the package), and an MLP."""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import torch
from torch import Tensor, nn

from .base import InMemoryWorkload
from .options import DigitsOptions

SPLITS = {"train": slice(0, 1197), "validation": slice(1197, 1497), "test": slice(1497, 1797)}
CLASSES = 10


class DigitsData(InMemoryWorkload):
    """1,797 images of 8×8 grey values: 1,197 to train, 300 to validate, 300 to test."""

    loss = "cross_entropy"

    def data(self, split: str) -> dict[str, Tensor]:
        """Return `inputs` [B, 64] in [0, 1] and `targets` [B]."""
        inputs, targets = _digits()
        return {"inputs": inputs[SPLITS[split]], "targets": targets[SPLITS[split]]}


class Digits(DigitsData):
    """Classification of the digits by an MLP."""

    Options = DigitsOptions
    options: DigitsOptions

    def model(self) -> nn.Module:
        """Return an MLP with the options' hidden layers."""
        layers: list[nn.Module] = []
        widths = [64, *self.options.hidden]
        for fan_in, fan_out in pairwise(widths):
            layers.append(nn.Linear(fan_in, fan_out))
            if self.options.batch_norm:
                layers.append(nn.BatchNorm1d(fan_out))
            layers.append(nn.ReLU())
            if self.options.dropout:
                layers.append(nn.Dropout(self.options.dropout))
        return nn.Sequential(*layers, nn.Linear(widths[-1], CLASSES))


@cache
def _digits() -> tuple[Tensor, Tensor]:
    """Load the images and shuffle them once and for all: the file is ordered by writer."""
    from sklearn.datasets import load_digits  # 0.7 s to import: only where digits are trained

    images, labels = load_digits(return_X_y=True)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    return torch.tensor(images, dtype=torch.float32)[order] / 16, torch.tensor(labels)[order]
