"""What an update costs by our NAdamW, beside torch's own NAdam and AdamW, each in its `foreach` form.

Only the update is timed, on gradients that are there already.
Run: python -m benchmarks.optimizers [--device cuda]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from alphagrid.trainer.optimizers.nadamw import NAdamW
from torch import Tensor

from benchmarks.harness import interleaved, load, processor, table

SHAPES: dict[str, list[tuple[int, ...]]] = {
    "one table of 2^17 × 128": [(2**17, 128)],
    "an MLP, 6 tensors": [(784, 512), (512,), (512, 512), (512,), (512, 10), (10,)],
    "200 small tensors": [(32, 32)] * 100 + [(32,)] * 100,
}
REPETITIONS = 21


def optimizers(shapes: list[tuple[int, ...]], device: str) -> dict[str, torch.optim.Optimizer]:
    """Return each optimizer over parameters of its own, with gradients in place."""
    made: dict[str, torch.optim.Optimizer] = {
        "NAdamW": NAdamW(parameters(shapes, device), 1e-3, 0.93, 0.995, 1e-8, 0.08),
        "torch NAdam": torch.optim.NAdam(
            parameters(shapes, device), 1e-3, weight_decay=0.08, decoupled_weight_decay=True, foreach=True
        ),
        "torch AdamW": torch.optim.AdamW(parameters(shapes, device), 1e-3, weight_decay=0.08, foreach=True),
    }
    return made


def parameters(shapes: list[tuple[int, ...]], device: str) -> list[Tensor]:
    """Return parameters with gradients."""
    made = [torch.randn(shape, device=device, requires_grad=True) for shape in shapes]
    for parameter in made:
        parameter.grad = torch.randn_like(parameter)
    return made


def update(optimizer: torch.optim.Optimizer, device: str) -> Callable[[], object]:
    """Return a task that takes one step, and waits for the device."""

    def step() -> None:
        optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()

    return step


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    device = parser.parse_args().device
    torch.set_num_threads(1)
    print(f"{processor(device)}, 1 thread, load {load()}")
    rows: list[tuple[str, ...]] = [
        ("update of", "NAdamW", "torch NAdam", "torch AdamW", "NAdamW / AdamW", "NAdamW / NAdam")
    ]
    for name, shapes in SHAPES.items():
        seconds = interleaved(
            {key: update(made, device) for key, made in optimizers(shapes, device).items()}, REPETITIONS
        )
        ours, nadam, adamw = seconds.values()
        times = [f"{1000 * value:.2f} ms" for value in (ours, nadam, adamw)]
        rows.append((name, *times, f"{ours / adamw:.2f}", f"{ours / nadam:.2f}"))
    print(table(rows))


if __name__ == "__main__":
    main()
