"""scikit-learn's handwritten digits, classified by a small CNN."""

from __future__ import annotations

from itertools import pairwise

from torch import nn

from .digits import CLASSES, DigitsData
from .options import DigitsCNNOptions

SIDE = 8
"""Height and width of an image."""


class DigitsCNN(DigitsData):
    """Classification of the digits by convolutions, each followed by a pooling, and one linear layer."""

    Options = DigitsCNNOptions
    options: DigitsCNNOptions

    def model(self) -> nn.Module:
        """Return a CNN with the options' channels."""
        layers: list[nn.Module] = [nn.Unflatten(1, (1, SIDE, SIDE))]
        channels = [1, *self.options.channels]
        for before, after in pairwise(channels):
            layers.append(nn.Conv2d(before, after, kernel_size=3, padding=1))
            if self.options.batch_norm:
                layers.append(nn.BatchNorm2d(after))
            layers += [nn.ReLU(), nn.MaxPool2d(2)]
        side = SIDE // 2 ** len(self.options.channels)
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels[-1] * side**2, CLASSES))
