"""torch's own optimizers by name."""

from __future__ import annotations

import torch
from torch import Tensor

from .options import OptimizerOptions
from .stepper import Stepper

CLASSES: dict[str, type[torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "nadam": torch.optim.NAdam,
    "radam": torch.optim.RAdam,
    "adamax": torch.optim.Adamax,
    "rmsprop": torch.optim.RMSprop,
    "adagrad": torch.optim.Adagrad,
}


def build(options: OptimizerOptions, parameters: list[Tensor]) -> Stepper:
    """Return a stepper of the torch optimizer called `options.name`; beta1 and beta2 become its betas."""
    settings = options.model_dump(exclude={"name"})
    if "beta1" in settings:
        settings["betas"] = (settings.pop("beta1"), settings.pop("beta2"))
    # SGD's form for many tensors, the one that torch takes on a GPU, adds Nesterov's momentum to the gradient
    overwrites = bool(settings.get("nesterov"))
    return Stepper(CLASSES[options.name](parameters, **settings), overwrites_gradient=overwrites)
