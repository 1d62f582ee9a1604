"""Parameters that a forward pass changes: training is as torch makes it, or the run says why it cannot be."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
import torch
from alphagrid.errors import UserError
from alphagrid.trainer import parameter_changes
from alphagrid.trainer.checkpoint import available, read
from alphagrid.trainer.clock import Clock
from alphagrid.trainer.config import TrainingConfig
from alphagrid.trainer.parameter_changes import changed, marks, written
from alphagrid.trainer.session import Session
from alphagrid.trainer.step import take_step
from alphagrid.trainer.stopping import StopRequest
from alphagrid.trainer.streams import Batch
from alphagrid.trainer.warm_up import warm_up
from alphagrid.trainer.workloads.least_squares import LeastSquares
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from tests.trainer.conftest import Trained, TrainRun

Config = dict[str, Any]
RUN: Config = {
    "workload": {"name": "least_squares", "examples": 96, "features": 4, "batch_size": 8},
    "optimizer": {"name": "nadamw", "lr": 0.05},
    "eval": {"every_steps": 3, "splits": ["validation"]},
    "stop": {"steps": 6},
    "device": "cpu",
}
ALPHAS: list[Config] = [
    {"policy": "observe"},
    {"policy": "observe", "estimator": "lookahead", "start_step": 100},
    {"policy": "ema"},
]


def indices(inputs: Tensor) -> Tensor:
    return (10 * inputs[:, :2]).long().remainder(40)


class Table(nn.Module):
    def __init__(self, kind: type[nn.Embedding | nn.EmbeddingBag] = nn.Embedding) -> None:
        super().__init__()
        self.table = kind(40, 6, max_norm=1.0)
        self.out = nn.Linear(6, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        rows = self.table(indices(inputs))
        outputs: Tensor = self.out(rows.mean(1) if rows.dim() == 3 else rows)
        return outputs


class Functional(Table):
    """Renormalises without a module that says so; `small`: not the rows that it starts from."""

    def __init__(self, small: bool = False) -> None:
        super().__init__()
        self.table.max_norm = None
        if small:
            nn.init.normal_(self.table.weight, std=1e-3)

    def forward(self, inputs: Tensor) -> Tensor:
        rows = F.embedding(indices(inputs), self.table.weight, max_norm=1.0)
        outputs: Tensor = self.out(rows.mean(1))
        return outputs


class Initialised(nn.Module):
    """Shifts by the mean of the first batch, after which a flag says that this is done."""

    def __init__(self, flag: str) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(4))
        self.out = nn.Linear(4, 1)
        if flag == "buffer":
            self.register_buffer("done", torch.tensor(False))
        else:
            self.done = False

    def forward(self, inputs: Tensor) -> Tensor:
        if not self.done:
            self.shift.data.copy_(inputs.mean(0))
            if isinstance(self.done, Tensor):
                self.done.fill_(True)
            else:
                self.done = True
        outputs: Tensor = self.out(inputs - self.shift)
        return outputs


class Average(nn.Module):
    """Keeps a running mean in a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(4), requires_grad=False)
        self.out = nn.Linear(4, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        with torch.no_grad():
            self.mean.lerp_(inputs.mean(0), 0.1)
        outputs: Tensor = self.out(inputs - self.mean)
        return outputs


MODELS: dict[str, Callable[[], nn.Module]] = {
    "table": Table,
    "bag": lambda: Table(nn.EmbeddingBag),
    "functional": Functional,
    "small": lambda: Functional(small=True),
    "flag in a buffer": lambda: Initialised("buffer"),
    "average": Average,
}
NAMES = {
    "table": "table.weight", "bag": "table.weight", "functional": "table.weight", "small": "table.weight",
    "flag in a buffer": "shift", "average": "mean",
}  # fmt: skip


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], nn.Module]], None]:
    """Return a function that gives the bundled workload another model."""
    return lambda model: monkeypatch.setattr(LeastSquares, "model", lambda workload: model())


@pytest.fixture(params=MODELS)
def name(request: pytest.FixtureRequest, use: Callable[[Any], None]) -> str:
    use(MODELS[request.param])
    return str(request.param)


def parameters(trained: Trained) -> dict[str, Tensor]:
    state: dict[str, Tensor] = read(available(trained.run)[-1])["model"]
    return state


def are_equal(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return all(torch.equal(left[key], right[key]) for key in left)


def by_hand(steps: int) -> dict[str, Tensor]:
    """Return the parameters after steps that nothing but training was done beside."""
    session = Session(TrainingConfig.model_validate(RUN), Clock())
    for index in range(steps):
        session.forward_backward([session.train_batch(index)])
        session.stepper.learning_rate = session.scheduled_rate(index)
        session.stepper.step()
    return {key: value.clone() for key, value in session.model.state_dict().items()}


def test_a_plain_run_is_torchs_training(name: str, train_run: TrainRun) -> None:
    trained = train_run({**RUN, "eval": {"every_steps": 1, "splits": ["validation"]}})
    assert are_equal(parameters(trained), by_hand(6))
    assert not trained.events("warning")


def test_a_resumed_run_equals_an_undisturbed_one(name: str, train_run: TrainRun) -> None:
    whole = train_run(RUN, "whole")
    for steps in (2, 4):
        train_run({**RUN, "stop": {"steps": steps}}, "cut")
    assert are_equal(parameters(train_run(RUN, "cut")), parameters(whole))


def test_an_evaluation_that_a_resumed_run_makes_first_changes_nothing(
    name: str, train_run: TrainRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train_run(RUN, "whole")
    stop, split = StopRequest(), LeastSquares.split

    def interrupting(workload: LeastSquares, name: str) -> Iterator[Batch]:
        stop.request("the test says so")
        yield from split(workload, name)

    with monkeypatch.context() as patched:
        patched.setattr(LeastSquares, "split", interrupting)
        assert train_run(RUN, "cut", stop_request=stop).outcome.status == "interrupted"
    resumed = train_run(RUN, "cut")
    found, expected = (
        [(record["step"], record["splits"]) for record in trained.of_kind("evaluation")]
        for trained in (resumed, whole)
    )
    assert found == expected
    assert are_equal(parameters(resumed), parameters(whole))


def test_the_warm_up_pass_leaves_no_trace(name: str) -> None:
    session = Session(TrainingConfig.model_validate(RUN), Clock())
    before = {key: value.clone() for key, value in session.model.state_dict().items()}
    start = session.generators.state()
    warm_up(session)
    assert are_equal(before, session.model.state_dict())
    assert not session.generators.drawn_since(start)


@pytest.mark.parametrize("alpha", ALPHAS, ids=str)
def test_alpha_is_refused_with_the_name_and_the_cause(name: str, train_run: TrainRun, alpha: Config) -> None:
    with pytest.raises(UserError, match=f"parameter {NAMES[name]}") as raised:
        train_run({**RUN, "alpha": alpha})
    assert "pass changes" in raised.value.message
    assert "the passes of α* would change training" in raised.value.message
    assert "leave out alpha" in str(raised.value.hint)


def test_a_flag_that_no_checkpoint_holds_ends_the_run_with_what_to_do(
    use: Callable[[Any], None], train_run: TrainRun
) -> None:
    use(lambda: Initialised("attribute"))
    with pytest.raises(UserError, match="first forward pass changes its parameter shift") as raised:
        train_run(RUN)
    assert "register_buffer" in str(raised.value.hint)


def test_a_resumed_run_does_not_lose_its_parameters_to_such_a_flag(use: Callable[[Any], None]) -> None:
    use(lambda: Initialised("attribute"))
    first = Session(TrainingConfig.model_validate(RUN), Clock())
    for _ in range(3):
        take_step(first)
    state = copy.deepcopy(first.state_dict())
    resumed = Session(TrainingConfig.model_validate(RUN), Clock())
    resumed.load_state_dict(state)
    with pytest.raises(UserError, match="first forward pass changes its parameter shift"):
        warm_up(resumed)


def test_a_model_that_is_not_built_twice_alike_is_told(
    use: Callable[[Any], None], train_run: TrainRun
) -> None:
    made: list[nn.Module] = []

    def once() -> nn.Module:
        made.append(made[0] if made else Initialised("buffer"))
        return made[0]

    use(once)
    with pytest.raises(UserError, match="does not build the same model again"):
        train_run(RUN)


class Marked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.arange(24.0).view(4, 6).t())
        self.short = nn.Parameter(torch.ones(5, dtype=torch.bfloat16))
        self.phase = nn.Parameter(torch.ones(3, dtype=torch.complex64))
        self.scalar = nn.Parameter(torch.ones(()))
        self.empty = nn.Parameter(torch.ones(0))
        self.sparse = nn.Parameter(torch.eye(3).to_sparse())
        self.lazy = nn.LazyLinear(2)
        with torch.inference_mode():
            self.frozen = nn.Parameter(torch.ones(2), requires_grad=False)


def swap(model: Marked) -> None:
    model.weight.data[[0, 1]] = model.weight.data[[1, 0]].clone()


CHANGES: list[tuple[str, Callable[[Marked], Any]]] = [
    ("weight", swap),
    ("weight", lambda model: model.weight.data[5, 3].add_(1e-5)),
    ("short", lambda model: model.short.data[4].neg_()),
    ("phase", lambda model: model.phase.data[2].mul_(1j)),
    ("scalar", lambda model: model.scalar.data.add_(1)),
    ("sparse", lambda model: model.sparse.data._values().add_(1)),
]


@pytest.mark.parametrize("chunk", [1 << 20, 4])
@pytest.mark.parametrize(("parameter", "change"), CHANGES)
def test_every_change_of_a_value_is_seen(
    monkeypatch: pytest.MonkeyPatch, parameter: str, change: Callable[[Marked], Any], chunk: int
) -> None:
    monkeypatch.setattr(parameter_changes, "CHUNK", chunk)
    model = Marked()
    before = marks(model)
    assert changed(before, marks(model)) == set()
    change(model)
    assert changed(before, marks(model)) == {parameter}


def test_writing_the_same_values_is_seen_too() -> None:
    model = Marked()
    before = marks(model)
    with torch.no_grad():
        model.weight.clamp_(min=-1)
    assert changed(before, marks(model)) == set()
    assert written(before, marks(model)) == {"weight"}
