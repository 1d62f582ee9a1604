"""Timing for the benchmarks: medians of interleaved repetitions, and the hardware they were taken on."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median


def hardware() -> str:
    """Return the processor and how many cores of it this process may use."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    processor = names[0] if names else platform.machine()
    return f"{processor}, {len(os.sched_getaffinity(0))} cores, Python {platform.python_version()}"


def processor(device: str) -> str:
    """Return what computes: the GPU and torch's version for it, or the hardware."""
    if device == "cpu":
        return hardware()
    import torch

    return f"{torch.cuda.get_device_name()}, torch {torch.__version__}"


def load() -> str:
    """Return how many processes wanted to run, on average over the last minute and the last five."""
    return "{:.1f}, {:.1f}".format(*os.getloadavg()[:2])


def processor_seconds(task: Callable[[], object]) -> float:
    """Run a task; return the processor time that this process and its children took, whatever others did."""
    before = os.times()
    task()
    return sum(after - start for after, start in zip(os.times()[:4], before[:4], strict=True))


def interleaved(tasks: Mapping[str, Callable[[], object]], repetitions: int) -> dict[str, float]:
    """Run the tasks in turn, after one round of warm-up; return the median seconds of each."""
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for repetition in range(repetitions + 1):
        for name, task in tasks.items():
            start = time.perf_counter()
            task()
            if repetition:
                seconds[name].append(time.perf_counter() - start)
    return {name: median(values) for name, values in seconds.items()}


def command(*arguments: str) -> Callable[[], object]:
    """Return a task that runs a command and reads away what it prints."""

    def run() -> object:
        return subprocess.run(arguments, check=True, capture_output=True)

    return run


def table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows of text in aligned columns."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows
    )
