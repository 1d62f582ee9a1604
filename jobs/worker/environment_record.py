"""The environment record of an attempt: its device and versions, for the `start` record."""

from __future__ import annotations

import hashlib
import platform
import re
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path
from typing import Any

from ...trainer.config import TrainingConfig

PACKAGES = (
    "numpy",
    "scipy",
    "scikit-learn",
    "curvlinops-for-pytorch",
    "schedulefree",
    "submitit",
    "pydantic",
)
ROOMS = ("cluster_profiles", "jobs", "store", "trainer")
"""Packages of alphagrid whose code a run executes."""
DRIVER = Path("/proc/driver/nvidia/version")


def versions() -> dict[str, str | None]:
    """Return the versions that determine a run's numbers; None for a package that is not installed."""
    return {
        "python": platform.python_version(),
        "torch": _installed_version("torch"),
        "alphagrid": f"{_installed_version('alphagrid')}+{source_hash()}",
    }


@cache
def source_hash() -> str:
    """Return eight hexadecimal digits of a hash of alphagrid's modules; an installation may be edited."""
    top = Path(__file__).parents[2]
    digest = hashlib.sha256()
    for path in sorted(
        [*top.glob("*.py"), *(module for name in ROOMS for module in (top / name).rglob("*.py"))]
    ):
        digest.update(f"{path.relative_to(top)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:8]


def packages(workload: str) -> dict[str, str]:
    """Return the versions of further packages, including that of an import-path workload."""
    names = [
        *PACKAGES,
        *(packages_distributions().get(re.split("[.:]", workload)[0], ()) if ":" in workload else ()),
    ]
    installed_versions = {name: _installed_version(name) for name in names}
    return {name: number for name, number in installed_versions.items() if number is not None}


def _installed_version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def hardware(config: TrainingConfig) -> dict[str, str | None]:
    """Return the run's device, the GPU's name, and the CUDA and driver versions; this imports torch."""
    import torch

    cuda = config.device != "cpu" and torch.cuda.is_available()
    return {
        "device": "cuda" if cuda else "cpu",
        "gpu": torch.cuda.get_device_name() if cuda else None,
        "cuda": torch.version.cuda if cuda else None,
        "driver": driver() if cuda else None,
    }


def driver(file: Path = DRIVER) -> str | None:
    """Return the version of the NVIDIA driver; None if there is no driver or no version in its file."""
    try:
        match = re.search(r"Kernel Module.*?\s(\d+(?:\.\d+)+)", file.read_text())
    except OSError:
        return None
    return match[1] if match else None


def changed_versions(before: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """Return a warning if an attempt's versions differ from those of the attempt before; None if not."""
    changes = [
        f"{name} {before[name]} → {now[name]}"
        for name in now
        if before.get(name) is not None and before[name] != now[name]
    ]
    return f"other versions than in the attempt before: {', '.join(changes)}" if changes else None
