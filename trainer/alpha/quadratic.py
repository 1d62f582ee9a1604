"""The loss along a vector, to second order: slope, curvature, and how well a batch determines them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from ..losses import weigh

SLOPE, CURVATURE, LOSS, WEIGHT = range(4)


@dataclass(frozen=True)
class Reading:
    """The loss along a vector v as plain numbers: slope vᵀg, curvature vᵀGv, and the mean loss.

    The variances and the covariance are those of slope and curvature as means over a batch's examples,
    given v; NaN where the route has no values per example.
    """

    slope: float
    curvature: float
    loss: float = math.nan
    slope_variance: float = math.nan
    covariance: float = math.nan
    curvature_variance: float = math.nan

    @property
    def ratio(self) -> float:
        """vᵀg / vᵀGv, NaN where the curvature is zero."""
        return self.slope / self.curvature if self.curvature else math.nan

    @property
    def ratio_variance(self) -> float:
        """Its variance by the delta method: (σ²_s − 2rσ_sc + r²σ²_c) / c²."""
        if not self.curvature:
            return math.nan
        r = self.ratio
        spread = self.slope_variance - 2 * r * self.covariance + r * r * self.curvature_variance
        return max(spread, 0.0) / self.curvature**2 if spread == spread else math.nan

    def moved_back(self, scale: float) -> Reading:
        """Return the same parabola seen from θ − scale·v."""
        return replace(
            self,
            slope=self.slope - scale * self.curvature,
            slope_variance=self.slope_variance
            - 2 * scale * self.covariance
            + scale**2 * self.curvature_variance,
            covariance=self.covariance - scale * self.curvature_variance,
        )


@dataclass(frozen=True)
class Quadratic:
    """The loss along a vector v on a batch, as sums that stay on the device until they are read.

    Each example i has four numbers: its slopes, curvatures and losses, weighted and summed over its
    elements (the tokens of a text, say), and its weight. `totals` [4] are their sums over the `examples`,
    `products` [4, 4] the sums of their products (None where a route has none), in float64.
    """

    totals: Tensor
    products: Tensor | None
    examples: int
    slope_of_batch: Tensor | None = None
    """The slope where it comes from a batch of `slope_examples`, of which this one is a share."""
    slope_examples: int = 0

    @classmethod
    def of(
        cls, slopes: Tensor, curvatures: Tensor, losses: Tensor, weights: Tensor | None, examples: int = 0
    ) -> Self:
        """Sum up values per element, each [B], [B, …] or [B·…]; without weights every element counts one.

        `examples` is B, where the values themselves may be flattened.

        Raises:
            UserError: there is not one weight for each element.
        """
        columns = (slopes, curvatures, losses, torch.ones_like(losses))
        weighted = columns if weights is None else tuple(weigh(column, weights) for column in columns)
        rows = torch.stack([_per_example(column, examples) for column in weighted], -1).double()
        return cls(rows.sum(0), rows.mT @ rows, len(rows))

    @classmethod
    def exact(cls, slope: Tensor, curvature: Tensor, loss: Tensor) -> Self:
        """Take a batch's slope, curvature and mean loss as they are, without values per example."""
        totals = torch.stack([slope, curvature, loss, torch.ones_like(slope)]).double()
        return cls(totals, None, 1)

    def __add__(self, other: Quadratic) -> Quadratic:
        """Return the quadratic of both batches' examples together."""
        assert self.products is not None
        assert other.products is not None
        products = self.products + other.products
        return Quadratic(self.totals + other.totals, products, self.examples + other.examples)

    @property
    def slope(self) -> Tensor:
        """vᵀg."""
        return (
            self.totals[SLOPE] / self.totals[WEIGHT] if self.slope_of_batch is None else self.slope_of_batch
        )

    @property
    def curvature(self) -> Tensor:
        """vᵀGv."""
        return self.totals[CURVATURE] / self.totals[WEIGHT]

    @property
    def loss(self) -> Tensor:
        """The mean loss."""
        return self.totals[LOSS] / self.totals[WEIGHT]

    def with_slope(self, slope: Tensor, examples: int) -> Quadratic:
        """Take the slope from a batch of `examples` that this one is a share of.

        Its variance, and its covariance with the curvature, are the share's, scaled to the batch.
        """
        return replace(self, slope_of_batch=slope, slope_examples=examples)

    def read(self) -> Reading:
        """Return plain numbers; this waits for the device."""
        parts = [self.totals]
        if self.slope_of_batch is not None:
            parts.append(self.slope_of_batch.double().view(1))
        if self.products is not None:
            parts.append(self.products.flatten())
        numbers = torch.cat(parts).tolist()
        total = numbers[WEIGHT]
        if not total:  # the weights of all examples are 0
            return Reading(math.nan, math.nan, math.nan)
        slope, curvature, loss = (numbers[part] / total for part in (SLOPE, CURVATURE, LOSS))
        if self.products is None:
            return Reading(slope if self.slope_of_batch is None else numbers[4], curvature, loss)
        variances = _variances(numbers[-16:], slope, curvature, total, self.examples)
        if self.slope_of_batch is None:
            return Reading(slope, curvature, loss, *variances)
        share = self.examples / self.slope_examples
        return Reading(numbers[4], curvature, loss, variances[0] * share, variances[1] * share, variances[2])


@dataclass(frozen=True)
class Crossed:
    """The slope of one batch and the curvature of another, drawn apart."""

    slope_of: Quadratic
    curvature_of: Quadratic

    def read(self) -> Reading:
        """Return plain numbers; this waits for the device."""
        first, second = self.slope_of.read(), self.curvature_of.read()
        covariance = 0.0 * first.slope_variance * second.curvature_variance  # NaN where one is not known
        return Reading(
            first.slope,
            second.curvature,
            first.loss,
            first.slope_variance,
            covariance,
            second.curvature_variance,
        )


def _variances(
    products: Sequence[float], slope: float, curvature: float, total: float, n: int
) -> tuple[float, float, float]:
    """Return the (co)variances of the ratios Σwx / Σw over n examples, to first order in 1/n."""
    if n < 2 or not total:
        return math.nan, math.nan, math.nan
    row = [products[4 * i : 4 * i + 4] for i in range(4)]

    def residual(i: int, j: int, mean_i: float, mean_j: float) -> float:
        return (
            row[i][j]
            - mean_i * row[WEIGHT][j]
            - mean_j * row[i][WEIGHT]
            + mean_i * mean_j * row[WEIGHT][WEIGHT]
        )

    scale = n / (n - 1) / total**2
    return (
        scale * max(residual(SLOPE, SLOPE, slope, slope), 0.0),
        scale * residual(SLOPE, CURVATURE, slope, curvature),
        scale * max(residual(CURVATURE, CURVATURE, curvature, curvature), 0.0),
    )


def _per_example(values: Tensor, examples: int) -> Tensor:
    """Sum values over the elements of each example."""
    if values.dim() == 1 and 0 < examples < len(values) and len(values) % examples == 0:
        values = values.reshape(examples, -1)
    return values.flatten(1).sum(1) if values.dim() > 1 else values
