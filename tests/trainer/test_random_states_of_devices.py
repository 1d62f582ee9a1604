"""Of several CUDA devices only the run's own has its random state saved and restored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from alphagrid.trainer import checkpoint, randomness
from alphagrid.trainer.checkpoint import available, read
from alphagrid.trainer.stopping import StopRequest
from torch import Tensor

if TYPE_CHECKING:
    from tests.trainer.conftest import TrainRun


def one_of(seed: int) -> Tensor:
    return torch.tensor([seed % 256], dtype=torch.uint8)


class Devices:
    """CUDA devices that have nothing but a random state; `own` is the one in use."""

    def __init__(self, patch: pytest.MonkeyPatch, count: int, own: int = 0) -> None:
        self.states = [one_of(number) for number in range(count)]
        self.own = own
        functions: dict[str, Any] = {
            "is_available": lambda: True,
            "is_initialized": lambda: True,
            "device_count": lambda: len(self.states),
            "current_device": lambda: self.own,
            "get_rng_state": lambda device="cuda": self.states[self.own].clone(),
            "get_rng_state_all": lambda: [state.clone() for state in self.states],
            "set_rng_state": lambda state, device="cuda": self.set(self.own, state),
            "set_rng_state_all": self.set_all,
            "manual_seed": lambda seed: self.set(self.own, one_of(seed)),
            "manual_seed_all": lambda seed: self.set_all([one_of(seed)] * len(self.states)),
        }
        for name, function in functions.items():
            patch.setattr(torch.cuda, name, function)

    def set(self, number: int, state: Tensor) -> None:
        self.states[number] = state.clone()

    def set_all(self, states: list[Tensor]) -> None:
        for number, state in enumerate(states):
            self.set(number, state)

    @property
    def numbers(self) -> list[int]:
        return [int(state) for state in self.states]


def test_the_states_of_others_devices_are_neither_read_nor_set(monkeypatch: pytest.MonkeyPatch) -> None:
    devices = Devices(monkeypatch, 3, own=1)
    state = randomness.snapshot()
    assert [int(one) for one in state["torch"][1:]] == [1]
    devices.states = [one_of(7) for _ in devices.states]
    randomness.restore(state)
    assert devices.numbers == [7, 1, 7]
    randomness.seed_torch(9)
    assert devices.numbers == [7, 9, 7]


@pytest.mark.parametrize(("then", "now"), [(4, 1), (1, 4), (2, 2)])
@pytest.mark.parametrize("older", [False, True], ids=["", "of an older alphagrid"])
def test_a_run_goes_on_at_a_node_with_another_number_of_gpus(
    train_run: TrainRun, monkeypatch: pytest.MonkeyPatch, then: int, now: int, older: bool
) -> None:
    config: dict[str, Any] = {
        "workload": {"name": "least_squares"},
        "optimizer": {"name": "sgd", "lr": 0.01},
        "stop": {"steps": 4},
        "device": "cpu",
    }
    stop = StopRequest()
    stop.request("the test says so")
    Devices(monkeypatch, then)
    run = train_run(config, stop_request=stop).run
    (file,) = available(run)
    state = read(file)
    cpu, own = state["randomness"]["torch"]
    own = torch.full_like(own, 99)
    others = [torch.full_like(own, 11)] * (then - 1) if older else []
    state["randomness"]["torch"] = [cpu, own, *others]
    file.path.unlink()
    checkpoint.write(run, file.step, file.attempt, state, keep=2)
    devices = Devices(monkeypatch, now)
    assert train_run(config).outcome.status == "completed"
    assert devices.numbers[0] == 99
    assert len(read(available(run)[-1])["randomness"]["torch"]) == 2


def test_a_checkpoint_from_a_gpu_is_taken_up_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        Devices(patch, 2)
        state = randomness.snapshot()
    randomness.restore(state)
    assert not randomness.torch_snapshot()[1:]
