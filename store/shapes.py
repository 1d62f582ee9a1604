"""Checks of a recorded config, which another version or a user may have written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .files import read_object
from .layout import RunFiles

SECTIONS = ("workload", "optimizer", "schedule", "alpha", "eval", "checkpoint", "stop", "log")
TEXTS = {
    "workload": ("name",),
    "optimizer": ("name",),
    "schedule": ("name",),
    "alpha": ("policy", "estimator"),
}
AMOUNTS = {
    "workload": ("batch_size", "accumulate"),
    "optimizer": ("lr",),
    "schedule": ("total_steps",),
    "alpha": ("start_step", "interval", "count"),
    "stop": ("steps", "train_seconds"),
    "log": ("every_steps",),
}
LARGEST = 2**63
"""Upper limit of numbers in files: SQLite's integers, and sums and squares of floats stay finite."""


def config_problem(config: Mapping[str, Any]) -> str | None:
    """Return the problem of a config that was read from a file, or None; missing keys are allowed."""
    for section in SECTIONS:
        keys = config.get(section)
        if keys is None:
            continue
        if not isinstance(keys, Mapping):
            return f"{section} is no mapping"
        for key in TEXTS.get(section, ()):
            if not isinstance(keys.get(key), str | None):
                return f"{section}.{key} is no text"
        for key in AMOUNTS.get(section, ()):
            if not is_amount(keys.get(key)):
                return f"{section}.{key} should be a number of at least 0"
    if not isinstance(config.get("seed"), int | None):
        return "seed is no whole number"
    if not isinstance(config.get("device"), str | None):
        return "device is no text"
    threads = config.get("threads")
    return None if threads is None or (isinstance(threads, int) and threads >= 1) else "threads is no number"


def read_config(run: RunFiles) -> dict[str, Any]:
    """Return a run's copy of its config.

    Raises:
        OSError: the file cannot be read, or is not a regular file.
        ValueError: the file is not a config.
    """
    config = read_object(run.config)
    if (problem := config_problem(config)) is not None:
        raise ValueError(problem)
    return config


def is_amount(value: Any) -> bool:
    """Return whether a value is None, or a number of at least 0 and below `LARGEST`."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value is None or (is_number and 0 <= value < LARGEST)
