"""Options of the bundled workloads, free of torch."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ..registry import Section


class WorkloadOptions(Section):
    """What every workload takes; a workload's own options subclass this."""

    name: str
    batch_size: Annotated[int, Field(ge=1)] = 128
    """Examples per training batch; a batch for α* has as many."""


class DigitsOptions(WorkloadOptions):
    """scikit-learn's handwritten digits: 8×8 grey values, 10 classes, 1,797 examples; an MLP."""

    hidden: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1)] = [128, 64]
    """Widths of the hidden layers."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of hidden units dropped in training."""
    batch_norm: bool = False
    """Batch normalisation before each hidden activation."""


class LeastSquaresOptions(WorkloadOptions):
    """Linear least squares on a given or drawn data set: the case in which α* is exact."""

    features: Annotated[int, Field(ge=1)] = 8
    """Inputs of an example, and weights of the model."""
    examples: Annotated[int, Field(ge=1)] = 256
    """Examples drawn for each split."""
    noise: Annotated[float, Field(ge=0)] = 0.1
    """Standard deviation of the noise on the targets."""
