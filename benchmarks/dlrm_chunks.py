"""A plain step of DLRM-small with one table, beside one that puts four chunks together in every forward pass.

Bar: 1.3 × faster, at the thesis' 128 rows of the table for each example of a batch. AlgoPerf's
model has four parameters, which it concatenates and then indexes; that is the last one here.
Run: python -m benchmarks.dlrm_chunks [--batch N] [--device cuda]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median

import torch
from alphagrid.trainer.optimizers import OPTIMIZERS
from alphagrid.trainer.workloads.criteo.columns import CATEGORIES, DENSE
from alphagrid.trainer.workloads.dlrm import DLRM
from torch import Tensor, nn
from torch.nn.utils import parametrize

from benchmarks.harness import interleaved, load, processor, table

ROWS_PER_EXAMPLE = 128
CHUNKS = 4
BAR = 1.3


class Chunks(nn.Module):
    """A table as four parameters, put together whenever it is asked for."""

    def forward(self, *chunks: Tensor) -> Tensor:
        """Return the table."""
        return torch.cat(chunks)

    def right_inverse(self, whole: Tensor) -> tuple[Tensor, ...]:
        """Return its chunks."""
        return tuple(chunk.clone() for chunk in whole.chunk(CHUNKS))


class Chunked(DLRM):
    """DLRM-small that puts its table together once in a forward pass."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the logits."""
        with parametrize.cached():
            return super().forward(inputs)


class Indexed(Chunked):
    """The same, its rows taken by indexing the table, as AlgoPerf does."""

    def look_up(self, rows: Tensor) -> Tensor:
        """Return rows of the table."""
        return self.table[rows]


def step_of(model: DLRM, batch: int, device: str) -> Callable[[], object]:
    """Return a task that takes one step of NAdamW on the same examples."""
    model = model.to(device).train()
    entry = OPTIMIZERS.entry("nadamw")
    stepper = entry.load()(entry.options.model_validate({"name": "nadamw"}), list(model.parameters()))
    hashes = torch.randint(0, 2**31, (batch, CATEGORIES), device=device).double()
    inputs = torch.cat([torch.rand(batch, DENSE, device=device).double(), hashes], 1)
    targets = torch.randint(0, 2, (batch,), device=device).float()

    def step() -> None:
        stepper.optimizer.zero_grad(set_to_none=True)
        loss = nn.functional.binary_cross_entropy_with_logits(model(inputs), targets)
        torch.autograd.backward(loss)
        stepper.step()
        if device == "cuda":
            torch.cuda.synchronize()

    return step


def timed(steps: dict[str, Callable[[], object]], repetitions: int, device: str) -> dict[str, float]:
    """Return median seconds of each: on a CPU those of its one thread, which others do not change."""
    if device == "cuda":
        return interleaved(steps, repetitions)
    for step in steps.values():
        step()
    rounds = [[_processor_seconds(step) for step in steps.values()] for _ in range(repetitions)]
    return dict(zip(steps, map(median, zip(*rounds, strict=True)), strict=True))


def _processor_seconds(step: Callable[[], object]) -> float:
    """Return the seconds of one step; the harness's clock counts in hundredths, too few for one."""
    before = time.process_time()
    step()
    return time.process_time() - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repetitions", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = ROWS_PER_EXAMPLE * options.batch
    models = {"one table": DLRM, "four chunks": Chunked, "four chunks, indexed": Indexed}
    steps = {}
    for name, kind in models.items():
        model = kind(table_rows=rows)
        if kind is not DLRM:
            parametrize.register_parametrization(model, "table", Chunks())
        steps[name] = step_of(model, options.batch, options.device)
    seconds = timed(steps, options.repetitions, options.device)
    base = seconds["one table"]
    print(f"{processor(options.device)}; load {load()}; table {rows} × 128, batch {options.batch}")
    print(
        table(
            [
                ("", "step", "ratio"),
                *((n, f"{1e3 * s:.1f} ms", f"{s / base:.2f}") for n, s in seconds.items()),
            ]
        )
    )
    print(f"bar: {BAR} × faster with one table")


if __name__ == "__main__":
    main()
