"""Options of the optimizers, free of torch.

`nadamw` and `schedule_free_adamw` default to AlgoPerf's values, torch's own optimizers to torch's.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from ..registry import Section

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, lt=1)]


class OptimizerOptions(Section):
    """What every optimizer takes."""

    linear_in_lr: ClassVar[bool] = True
    """Whether the learning rate merely scales the step, so that a policy may set it."""

    name: str
    lr: Positive | None
    """Learning rate η; with a schedule, its peak. With alpha.policy `ema` it may be left out (null): the
    policy then finds it; given, it is the rate until the policy has one."""


class NAdamWOptions(OptimizerOptions):
    """Nesterov Adam with decoupled weight decay, AlgoPerf's self-tuning baseline."""

    lr: Positive | None = 0.0017486387539278373
    beta1: Share = 0.93266073836
    """Decay β₁ of the running mean of gradients, per step."""
    beta2: Share = 0.9955159689799007
    """Decay β₂ of the running mean of squared gradients, per step."""
    eps: NonNegative = 1e-8
    """Added to the denominator of the step, against division by zero."""
    weight_decay: NonNegative = 0.08121616522670176
    """Factor λ: a step also takes η·λ·θ off the parameters θ, apart from the gradient."""


class ScheduleFreeAdamWOptions(OptimizerOptions):
    """Schedule-Free AdamW as in AlgoPerf's winning entry (its restarts left out).

    It is evaluated at its average x, where the running statistics of batch normalisation are computed for
    each evaluation, over the last 50 training batches.
    """

    linear_in_lr: ClassVar[bool] = False

    lr: Positive | None = 0.0025
    beta1: Annotated[float, Field(gt=0, lt=1)] = 0.9
    """Share of the average x in the point y = (1 − β₁)·z + β₁·x at which gradients are taken."""
    beta2: Share = 0.9955159689799007
    """Decay β₂ of the running mean of squared gradients, per step."""
    eps: NonNegative = 1e-8
    """Added to the denominator of the step, against division by zero."""
    weight_decay: NonNegative = 0.08121616522670176
    """Factor λ: λ·y is added to the direction of the step, apart from the gradient."""
    warmup_steps: Annotated[int, Field(ge=0)] = 159
    """Steps over which the learning rate rises linearly to `lr`."""
    r: NonNegative = 0.75
    """Step t weighs tʳ in the average x."""
    weight_lr_power: NonNegative = 2.0
    """That weight is multiplied by the largest learning rate so far, raised to this power."""


class SGDOptions(OptimizerOptions):
    """Stochastic gradient descent, with momentum if given."""

    lr: Positive | None = 1e-3
    momentum: Share = 0.0
    """Decay of the running sum of gradients, per step; 0 for none."""
    dampening: Share = 0.0
    """Share of a new gradient that the running sum leaves out."""
    weight_decay: NonNegative = 0.0
    """Factor λ: λ·θ is added to the gradient."""
    nesterov: bool = False
    """Whether the momentum is Nesterov's (needs `momentum`, and no `dampening`)."""


class AdamOptions(OptimizerOptions):
    """Adam and its relatives in torch.optim that share its options."""

    lr: Positive | None = 1e-3
    beta1: Share = 0.9
    """Decay β₁ of the running mean of gradients, per step."""
    beta2: Share = 0.999
    """Decay β₂ of the running mean of squared gradients, per step."""
    eps: NonNegative = 1e-8
    """Added to the denominator of the step, against division by zero."""
    weight_decay: NonNegative = 0.0
    """Factor λ: λ·θ is added to the gradient."""


class AdamWOptions(AdamOptions):
    """Adam with decoupled weight decay."""

    weight_decay: NonNegative = 1e-2
    """Factor λ: a step also takes η·λ·θ off the parameters θ, apart from the gradient."""


class NAdamOptions(AdamOptions):
    """torch's NAdam, another algorithm than `nadamw`."""

    lr: Positive | None = 2e-3
    momentum_decay: NonNegative = 4e-3
    """Factor ψ in the schedule of the momentum, β₁·(1 − 0.96^(t·ψ) / 2) at step t."""
    decoupled_weight_decay: bool = False
    """Whether `weight_decay` acts on the parameters directly, as in AdamW."""


class RMSpropOptions(OptimizerOptions):
    """RMSprop."""

    lr: Positive | None = 1e-2
    alpha: Share = 0.99
    """Decay of the running mean of squared gradients, per step (nothing to do with α*)."""
    eps: NonNegative = 1e-8
    """Added to the denominator of the step, against division by zero."""
    weight_decay: NonNegative = 0.0
    """Factor λ: λ·θ is added to the gradient."""
    momentum: Share = 0.0
    """Decay of the running sum of steps, per step; 0 for none."""
    centered: bool = False
    """Whether to divide by the standard deviation of gradients, not by their root mean square."""


class AdagradOptions(OptimizerOptions):
    """Adagrad."""

    lr: Positive | None = 1e-2
    lr_decay: NonNegative = 0.0
    """Factor κ in the learning rate of step t, η / (1 + (t − 1)·κ)."""
    weight_decay: NonNegative = 0.0
    """Factor λ: λ·θ is added to the gradient."""
    initial_accumulator_value: NonNegative = 0.0
    """What the sums of squared gradients start from."""
    eps: NonNegative = 1e-10
    """Added to the denominator of the step, against division by zero."""
