"""The number of passes of a run over its training data."""

from __future__ import annotations

from .data import RunData


def epochs(run: RunData) -> float | None:
    """Return steps · batch / training examples; None where the journal lacks their number.

    The thesis prints "≈ 0.66" for experiment 1; 85,328 · 32,768 / 4,195,197,692 is 0.6665.
    """
    workload = run.config_section("workload")
    batch, examples = workload.get("batch_size"), train_examples(run)
    if batch is None or not examples:
        return None
    return epochs_of_steps(run.row.step, batch * (workload.get("accumulate") or 1), examples)


def epochs_of_steps(steps: int, batch: int, examples: int) -> float:
    """Return the number of passes over `examples` in a number of steps."""
    return steps * batch / examples


def train_examples(run: RunData) -> int | None:
    """Return the size of the training data, from the newest start of training that recorded it."""
    sizes = [event.details.get("train_examples") for event in run.events if event.event == "training_started"]
    return next((int(number) for number in reversed(sizes) if number), None)
