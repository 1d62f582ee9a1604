"""Schedule-Free AdamW (Defazio et al. 2024), through the authors' package."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from .options import ScheduleFreeAdamWOptions
from .stepper import Stepper


class ScheduleFreeStepper(Stepper):
    """Trains at y, is evaluated at the average x; d = y₁ − y₀ is no multiple of the learning rate."""

    absolute = False
    evaluates_elsewhere = True

    @contextmanager
    def evaluation(self) -> Iterator[None]:
        """Put the parameters at x; afterwards at a copy of y, since the round trip is not exact."""
        y = [p.detach().clone() for p in self.parameters]
        self.optimizer.eval()  # type: ignore[attr-defined]
        try:
            yield
        finally:
            with torch.no_grad():
                torch._foreach_copy_(self.parameters, y)
            for group in self.optimizer.param_groups:
                group["train_mode"] = True


def build(options: ScheduleFreeAdamWOptions, parameters: list[Tensor]) -> Stepper:
    """Return the stepper over `parameters`, in training mode."""
    from schedulefree import AdamWScheduleFree

    settings = options.model_dump(exclude={"name", "beta1", "beta2"})
    optimizer = AdamWScheduleFree(parameters, betas=(options.beta1, options.beta2), **settings)
    optimizer.train()
    return ScheduleFreeStepper(optimizer, overwrites_gradient=True)
