"""Tasks with a memory that no checkpoint holds, and some that only look like it."""

from __future__ import annotations

import random
from typing import Any

import torch
from alphagrid.trainer.streams import Batch, Stream
from alphagrid.trainer.workloads.base import InMemoryWorkload
from alphagrid.trainer.workloads.options import WorkloadOptions
from torch import Tensor, nn

PASSES = [0]


class Hidden(nn.Module):
    """Adds what it kept of the pass before."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[Tensor] = [torch.zeros(2)]

    def forward(self, inputs: Tensor) -> Tensor:
        outputs = inputs + self.kept[0]
        self.kept[0] = outputs.detach().mean(0)
        return outputs


class Counter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.passes = 0

    def forward(self, inputs: Tensor) -> Tensor:
        self.passes += 1
        return inputs / self.passes


class Elsewhere(nn.Module):
    """Counts its passes in its file."""

    def forward(self, inputs: Tensor) -> Tensor:
        PASSES[0] += 1
        return inputs / PASSES[0]


class Unregistered(nn.Module):
    """Has a module in a list, which is no module's."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = [nn.BatchNorm1d(2)]

    def forward(self, inputs: Tensor) -> Tensor:
        mean: Any = self.norms[0].running_mean
        outputs: Tensor = inputs - mean.clone()
        mean.add_(inputs.detach().mean(0))
        return outputs


class Harmless(nn.Module):
    """Keeps what it made, counts, draws and caches: nothing of it changes what it returns."""

    total: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(2)
        self.generator = torch.Generator().manual_seed(1)
        self.python = random.Random(2)
        self.register_buffer("total", torch.zeros(()), persistent=False)
        self.cache: Tensor | None = None
        self.last: Tensor | None = None
        self.calls = 0

    def forward(self, inputs: Tensor) -> Tensor:
        self.calls += 1
        if self.cache is None:
            self.cache = torch.ones(2) * 2
        self.total += 1
        noise = torch.randn(2, generator=self.generator) + torch.rand(2) + self.python.random()
        self.last = self.norm(inputs) * self.cache * self.total + noise
        return nn.functional.dropout(self.last, 0.5)


class InPlace(nn.Module):
    def forward(self, inputs: Tensor) -> Tensor:
        return inputs.mul_(2)


class Inference(nn.Module):
    """Keeps a tensor that was made in inference mode: torch counts no changes of it."""

    def __init__(self) -> None:
        super().__init__()
        with torch.inference_mode():
            self.features = torch.ones(2)

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs + self.features


class Once(nn.Module):
    """Refuses a second pass of training without a gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.passes = 0

    def forward(self, inputs: Tensor) -> Tensor:
        if self.training and not torch.is_grad_enabled():
            self.passes += 1
            if self.passes > 1:
                raise LookupError("no more passes")
        return inputs


MODULES = {
    "inference": Inference, "once": Once,
    "hidden": Hidden, "counter": Counter, "elsewhere": Elsewhere, "unregistered": Unregistered,
    "harmless": Harmless, "in_place": InPlace,
}  # fmt: skip


class Counting:
    """Gives one batch after the other, whatever it is asked for."""

    def __init__(self, stream: Stream) -> None:
        self.stream, self.number = stream, 0

    def batch(self, index: int) -> Batch:
        self.number += 1
        return self.stream.batch(self.number)


class Drawing:
    """Adds noise from torch's own generator, or from one of the stream's."""

    def __init__(self, stream: Stream, generator: torch.Generator | None) -> None:
        self.stream, self.generator = stream, generator

    def batch(self, index: int) -> Batch:
        batch: dict[str, Any] = dict(self.stream.batch(index))
        batch["inputs"] = batch["inputs"] + torch.randn(2, generator=self.generator)
        return batch


class InOrder:
    """Refuses to give a batch for a third time."""

    def __init__(self, stream: Stream) -> None:
        self.stream, self.read = stream, [0] * 40

    def batch(self, index: int) -> Batch:
        self.read[index] += 1
        if self.read[index] > 1:
            raise LookupError("read before")
        return self.stream.batch(index)


class MemoryOptions(WorkloadOptions):
    memory: str = "harmless"
    data: str = "stream"


class Memory(InMemoryWorkload):
    Options = MemoryOptions
    loss = "mse"
    options: MemoryOptions

    def data(self, split: str) -> dict[str, Tensor]:
        draw = torch.randn(40, 3, generator=torch.Generator().manual_seed(len(split)))
        return {"inputs": draw[:, :2], "targets": draw[:, 2:]}

    def stream(self, name: str, seed: int) -> Stream:
        stream = super().stream(name, seed)
        own = torch.Generator().manual_seed(seed)
        made: dict[str, Stream] = {
            "counting": Counting(stream),
            "in_order": InOrder(stream),
            "own": Drawing(stream, own),
            "global": Drawing(stream, None),
        }
        return made.get(self.options.data, stream)

    def model(self) -> nn.Module:
        return nn.Sequential(MODULES[self.options.memory](), nn.Linear(2, 1))


class ReadAhead(Memory):
    prefetch = 2
