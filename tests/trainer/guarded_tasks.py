"""Models whose α* would be wrong, each in another way, and some that only look like it."""

# mypy: disable-error-code="no-any-return,no-untyped-call,override,attr-defined"

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from alphagrid.trainer.streams import Batch, Stream
from alphagrid.trainer.workloads.base import InMemoryWorkload
from alphagrid.trainer.workloads.options import WorkloadOptions
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional as F

WIDTH = 12


class Net(nn.Module):
    """A small network; what differs is what happens to its hidden layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(8, WIDTH), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.hidden(self.first(inputs).relu())
        outputs: Tensor = self.last(hidden)
        return outputs

    def hidden(self, hidden: Tensor) -> Tensor:
        changed: Tensor = self.second(hidden)
        return changed.relu()


class ListedParameter(Net):
    def __init__(self) -> None:
        super().__init__()
        self.listed = [self.second.weight]

    def hidden(self, hidden: Tensor) -> Tensor:
        return F.linear(self.second(hidden).relu(), self.listed[0])


SHARE = 8
"""Rows of a pass that the models below treat in another way than those after them."""


class ListedAmong(ListedParameter):
    """Reads the listed parameter for some rows of a pass."""

    def hidden(self, hidden: Tensor) -> Tensor:
        hidden = self.second(hidden).relu()
        parts = hidden[:SHARE], hidden[SHARE:]
        return torch.cat([F.linear(part, weight) for part, weight in zip(parts, self.weights(), strict=True)])

    def weights(self) -> tuple[Tensor, Tensor]:
        raise NotImplementedError


class ListedForTheFirst(ListedAmong):
    def weights(self) -> tuple[Tensor, Tensor]:
        return self.listed[0], self.second.weight


class ListedForTheOthers(ListedAmong):
    def weights(self) -> tuple[Tensor, Tensor]:
        return self.second.weight, self.listed[0]


class ClosedOver(Net):
    def __init__(self) -> None:
        super().__init__()
        weight = self.second.weight
        self.function = lambda hidden: F.linear(hidden, weight).tanh()

    def hidden(self, hidden: Tensor) -> Tensor:
        changed: Tensor = self.function(hidden) + self.second(hidden)
        return changed


class BehindAProperty(Net):
    """Reads a layer that is registered, through an object that is no module."""

    def __init__(self) -> None:
        super().__init__()
        self.holder = {"weights": (self.second.weight, self.second.bias)}

    def hidden(self, hidden: Tensor) -> Tensor:
        weight, bias = self.holder["weights"]
        return F.linear(hidden, weight, bias).relu()


class StatisticsWithoutGradient(Net):
    def hidden(self, hidden: Tensor) -> Tensor:
        hidden = self.second(hidden)
        with torch.no_grad():
            mean, deviation = hidden.mean(0), hidden.std(0) + 1e-3
        return ((hidden - mean) / deviation).relu()


class Detached(Net):
    def hidden(self, hidden: Tensor) -> Tensor:
        hidden = self.second(hidden)
        return hidden / hidden.detach().norm(dim=1, keepdim=True)


class Data(Net):
    def hidden(self, hidden: Tensor) -> Tensor:
        return F.linear(hidden, self.second.weight.data).relu() + self.second(hidden).tanh()


class Items(Net):
    def __init__(self) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.ones(()))

    def hidden(self, hidden: Tensor) -> Tensor:
        return self.second(hidden) * self.temperature.item()


class ThroughNumpy(Net):
    def hidden(self, hidden: Tensor) -> Tensor:
        weight = torch.from_numpy(self.second.weight.detach().cpu().numpy().copy())
        return hidden @ weight.to(hidden) + self.second(hidden).tanh()


class StraightThrough(Net):
    def hidden(self, hidden: Tensor) -> Tensor:
        hidden = self.second(hidden).tanh()
        return hidden + ((4 * hidden).round() / 4 - hidden).detach()


class WrongJvp(Function):
    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x * x.abs()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return 2 * ctx.saved_tensors[0].abs() * grad

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor) -> Tensor:
        return ctx.saved_tensors[0].abs() * tangent


class WrongBackward(Function):
    """Has no forward derivative: finite differences take its place."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x.abs()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return ctx.saved_tensors[0].abs() * grad


class RightBackward(WrongBackward):
    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return 2 * ctx.saved_tensors[0].abs() * grad


class Custom(Net):
    function: type[Function]

    def hidden(self, hidden: Tensor) -> Tensor:
        changed: Tensor = self.function.apply(self.second(hidden))
        return changed


class CustomJvp(Custom):
    function = WrongJvp


class CustomBackward(Custom):
    function = WrongBackward


class CustomRight(Custom):
    function = RightBackward


class HiddenGenerator(Net):
    """Draws from a generator that nothing finds."""

    def __init__(self) -> None:
        super().__init__()
        numbers = np.random.default_rng(0)
        self.draw = lambda: numbers.standard_normal()

    def hidden(self, hidden: Tensor) -> Tensor:
        return self.second(hidden).relu() * (1 + self.draw())


class Dead(Net):
    """Sits on the kink of every activation: its inputs count nothing, its biases are zero."""

    def __init__(self) -> None:
        super().__init__()
        with torch.no_grad():
            for p in self.parameters():
                p.zero_()


class Constant(Net):
    """Has a loss that no parameter changes."""

    def hidden(self, hidden: Tensor) -> Tensor:
        return torch.zeros_like(hidden)


class Tied(Net):
    def __init__(self) -> None:
        super().__init__()
        self.third = nn.Linear(WIDTH, WIDTH)
        self.third.weight = self.second.weight

    def hidden(self, hidden: Tensor) -> Tensor:
        changed: Tensor = self.third(self.second(hidden).relu())
        return changed


class LowPrecision(Net):
    def hidden(self, hidden: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            changed = self.second(hidden).relu()
        return changed.float()


class ListedAndHalved(ListedParameter):
    """Also computes something of no consequence in bfloat16, which has a coarse tolerance."""

    def forward(self, inputs: Tensor) -> Tensor:
        nothing = (inputs[:, :1].bfloat16() * 0).float()
        return super().forward(inputs) + nothing.to(inputs)


class DetachedLowPrecision(Net):
    def hidden(self, hidden: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            hidden = self.second(hidden)
            hidden = hidden + hidden.tanh().detach()
        return hidden.float()


class Halved(LowPrecision):
    """Needs its bfloat16."""

    def hidden(self, hidden: Tensor) -> Tensor:
        halved: Tensor = super().hidden(hidden).to(torch.bfloat16)
        assert halved.dtype == torch.bfloat16
        return halved.float()


class Compiled(Net):
    """Has a part that torch compiles as a whole, which is not possible under a mode of dispatch."""

    def __init__(self) -> None:
        super().__init__()
        self.whole = torch.compile(torch.tanh, backend="eager", fullgraph=True)

    def hidden(self, hidden: Tensor) -> Tensor:
        changed: Tensor = self.whole(self.second(hidden))
        return changed


class CompiledListed(Compiled):
    """Reads a parameter through a list besides."""

    def __init__(self) -> None:
        super().__init__()
        self.listed = [self.second.weight]

    def hidden(self, hidden: Tensor) -> Tensor:
        return F.linear(super().hidden(hidden), self.listed[0])


class Jumping(Net):
    """Sends each example through one of two ways, by a threshold."""

    def hidden(self, hidden: Tensor) -> Tensor:
        score = self.second(hidden)
        return torch.where(score[:, :1] > score[:, 1:2], score, -score)


class Gaps(Net):
    """Has an attention, dropout, normalisations, pooling: what forward mode and backpropagation share."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.drop, self.layer = nn.BatchNorm1d(WIDTH), nn.Dropout(0.4), nn.LayerNorm(WIDTH)
        self.attention = nn.MultiheadAttention(WIDTH, 2, batch_first=True)

    def hidden(self, hidden: Tensor) -> Tensor:
        hidden = self.drop(self.norm(self.second(hidden)))
        found: Tensor = self.attention(hidden[:, None], hidden[:, None], hidden[:, None])[0]
        return self.layer(found[:, 0] + hidden.abs() + F.max_pool1d(hidden, 3, 1, 1)).clamp(-1, 1)


class Padding(Net):
    """Reads tokens, most of them padding, whose rows have no gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(9, 8, padding_idx=0)
        self.bag = nn.EmbeddingBag(9, 8, padding_idx=0)

    def forward(self, inputs: Tensor) -> Tensor:
        tokens = (2 * inputs).long().clamp(0, 8)
        return super().forward(self.table(tokens).mean(1) + self.bag(tokens))


class ByKernel(Net):
    """Masks its units otherwise where attention may take a fused kernel, as its dropout does on a GPU."""

    def hidden(self, hidden: Tensor) -> Tensor:
        changed: Tensor = self.second(hidden).relu()
        mask = torch.arange(WIDTH) % 3 != (0 if torch.backends.cuda.flash_sdp_enabled() else 1)
        return changed * mask


class OnTheEdge(Net):
    """Leaves the domain of its logarithm where its parameters are moved aside as far as usual."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((), 0.003))

    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs) * self.scale.log()


class AtTheVeryEdge(OnTheEdge):
    """Leaves it by a difference's step."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((), 1e-6))


class ListedOnTheEdge(OnTheEdge, ListedParameter):
    """Does so, and reads a parameter through a list."""


class Turns(Detached):
    """Has a wrong gradient at its first parameters, and aside of them a hidden dependence instead."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def hidden(self, hidden: Tensor) -> Tensor:
        if self.weight.abs() < 1e-3:
            with torch.no_grad():
                mean = hidden.mean(0)
            hidden = hidden - mean
        return hidden + 30 * self.weight * super().hidden(hidden)


class Infinite(Net):
    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs) * torch.inf


class ShiftsInputs(Net):
    def forward(self, inputs: Tensor) -> Tensor:
        inputs += 1.0
        return super().forward(inputs.mul_(0.7))


class ShiftedInputs(Net):
    """Computes what ShiftsInputs does, and leaves its inputs as they are."""

    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward((inputs + 1.0) * 0.7)


class ShiftsInputsInEvaluations(Net):
    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs if self.training else inputs.add_(1.0))


class Table(Net):
    """Has all but its whole size in one table."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(2**18, 64)

    def forward(self, inputs: Tensor) -> Tensor:
        tokens = (1000 * inputs.abs()).long()
        return super().forward(self.table(tokens).mean(2))


class ListedTable(Table, ListedParameter):
    """Reads a parameter through a list: the guard looks twice."""


class GuardedOptions(WorkloadOptions):
    model: str
    dtype: str = "float32"
    empty: bool = False


class Guarded(InMemoryWorkload):
    Options = GuardedOptions
    loss = "cross_entropy"
    options: GuardedOptions

    def data(self, split: str) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(len(split))
        inputs = torch.randn(200, 8, generator=generator).to(getattr(torch, self.options.dtype))
        if self.options.empty:
            inputs.zero_()
        return {"inputs": inputs, "targets": torch.randint(0, 3, (200,), generator=generator)}

    def model(self) -> nn.Module:
        model: nn.Module = globals()[self.options.model]()
        return model.to(getattr(torch, self.options.dtype))


class DrawingLoss(Guarded):
    @staticmethod
    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(F.dropout(outputs, 0.2), targets, reduction="none")


class ShiftsTargets(Guarded):
    @staticmethod
    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        targets += 1
        targets %= 3
        return F.cross_entropy(outputs, targets, reduction="none")


class ShiftedTargets(Guarded):
    """Computes what ShiftsTargets does, and leaves its targets as they are."""

    @staticmethod
    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs, (targets + 1) % 3, reduction="none")


class SameTensors(Guarded):
    """Gives the very tensors that it keeps, as a stream of one batch may."""

    def stream(self, name: str, seed: int) -> Stream:
        data = self._split_data("train")

        class Kept:
            def batch(self, index: int) -> Batch:
                return data

        return Kept()
