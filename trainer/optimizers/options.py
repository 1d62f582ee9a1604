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
    lr: Positive
    """Learning rate η; with a schedule, its peak."""


class NAdamWOptions(OptimizerOptions):
    """Nesterov Adam with decoupled weight decay, AlgoPerf's self-tuning baseline."""

    lr: Positive = 0.0017486387539278373
    beta1: Share = 0.93266073836
    beta2: Share = 0.9955159689799007
    eps: NonNegative = 1e-8
    weight_decay: NonNegative = 0.08121616522670176


class ScheduleFreeAdamWOptions(OptimizerOptions):
    """Schedule-Free AdamW as in AlgoPerf's winning entry (its restarts left out)."""

    linear_in_lr: ClassVar[bool] = False

    lr: Positive = 0.0025
    beta1: Annotated[float, Field(gt=0, lt=1)] = 0.9
    beta2: Share = 0.9955159689799007
    eps: NonNegative = 1e-8
    weight_decay: NonNegative = 0.08121616522670176
    warmup_steps: Annotated[int, Field(ge=0)] = 159
    r: NonNegative = 0.75
    weight_lr_power: NonNegative = 2.0


class SGDOptions(OptimizerOptions):
    """Stochastic gradient descent, with momentum if given."""

    lr: Positive = 1e-3
    momentum: Share = 0.0
    dampening: Share = 0.0
    weight_decay: NonNegative = 0.0
    nesterov: bool = False


class AdamOptions(OptimizerOptions):
    """Adam and its relatives in torch.optim that share its options."""

    lr: Positive = 1e-3
    beta1: Share = 0.9
    beta2: Share = 0.999
    eps: NonNegative = 1e-8
    weight_decay: NonNegative = 0.0


class AdamWOptions(AdamOptions):
    """Adam with decoupled weight decay."""

    weight_decay: NonNegative = 1e-2


class NAdamOptions(AdamOptions):
    """torch's NAdam, another algorithm than `nadamw`."""

    lr: Positive = 2e-3
    momentum_decay: NonNegative = 4e-3
    decoupled_weight_decay: bool = False


class RMSpropOptions(OptimizerOptions):
    """RMSprop."""

    lr: Positive = 1e-2
    alpha: Share = 0.99
    eps: NonNegative = 1e-8
    weight_decay: NonNegative = 0.0
    momentum: Share = 0.0
    centered: bool = False


class AdagradOptions(OptimizerOptions):
    """Adagrad."""

    lr: Positive = 1e-2
    lr_decay: NonNegative = 0.0
    weight_decay: NonNegative = 0.0
    initial_accumulator_value: NonNegative = 0.0
    eps: NonNegative = 1e-10
