"""Where an attempt runs, and with which versions: for its `start` record."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

from ..trainer.config import TrainingConfig


def versions() -> dict[str, str | None]:
    """Return the versions of what decides a run's numbers; None for what is not installed."""

    def installed(package: str) -> str | None:
        try:
            return version(package)
        except PackageNotFoundError:
            return None

    return {
        "python": platform.python_version(),
        "torch": installed("torch"),
        "alphagrid": installed("alphagrid"),
    }


def hardware(config: TrainingConfig) -> dict[str, str | None]:
    """Return the device that the run will be on, and the GPU's name (this imports torch)."""
    import torch

    cuda = config.device != "cpu" and torch.cuda.is_available()
    return {"device": "cuda" if cuda else "cpu", "gpu": torch.cuda.get_device_name() if cuda else None}
