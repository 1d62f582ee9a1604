"""A run whose checkpoints could not be loaded again fails at the first one, which names the key."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from alphagrid.errors import UserError
from alphagrid.store.layout import Root, RunFiles
from alphagrid.trainer import checkpoint_writer
from alphagrid.trainer.stopping import StopRequest

if TYPE_CHECKING:
    from tests.conftest import Lab
    from tests.trainer.conftest import TrainRun

KEY = "model.1._extra_state.best.1.loss"


@pytest.fixture(autouse=True)
def _tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


def config(odd: str, steps: int = 40, every_seconds: float = 1e-9) -> dict[str, Any]:
    return {
        "workload": {"name": "odd_state_task:OddTask", "odd": odd, "batch_size": 10},
        "optimizer": {"name": "sgd", "lr": 0.01},
        "eval": {"every_steps": 1000},
        "log": {"every_steps": 1},
        "checkpoint": {"every_seconds": every_seconds},
        "stop": {"steps": steps},
        "device": "cpu",
    }


def run_of(folder: Path) -> RunFiles:
    return Root(folder).experiment("test").run("0123456789")


@pytest.mark.parametrize(
    ("odd", "told"),
    [
        ("scalar", f"{KEY} holds a NumPy scalar"),
        ("array", f"{KEY} holds a NumPy array"),
        ("path", f"{KEY} holds an object of pathlib.PurePosixPath"),
        ("key", f"{KEY} (a key) holds a NumPy scalar"),
        ("function", f"{KEY}: "),
    ],
)
@pytest.mark.parametrize("background", [False, True], ids=["at once", "behind training"])
def test_what_could_not_be_loaded_fails_the_run_at_once_and_leaves_no_checkpoint(
    train_run: TrainRun,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    odd: str,
    told: str,
    background: bool,
) -> None:
    monkeypatch.setattr(checkpoint_writer, "BACKGROUND_BYTES", 0 if background else 1 << 40)
    with pytest.raises(UserError) as caught:
        train_run(config(odd))
    assert told in caught.value.message
    assert "get_extra_state" in str(caught.value.hint)
    assert not run_of(tmp_path).checkpoints()
    assert not run_of(tmp_path).torn_checkpoints()


def test_the_run_fails_with_the_key(lab: Lab) -> None:
    shutil.copy(Path(__file__).with_name("odd_state_task.py"), lab.folder)
    odd = {key: value for key, value in config("scalar").items() if key not in ("stop", "device")}
    (run_id,) = lab.submit(20, cluster="debug", **odd).sent
    assert lab.states() == {run_id: "failed"}
    (reason,) = lab.reasons()
    assert f"{KEY} holds a NumPy scalar" in str(reason)
    assert not lab.files.run(run_id).checkpoints()


def test_the_first_checkpoint_may_be_the_last_one(train_run: TrainRun) -> None:
    with pytest.raises(UserError, match="a NumPy scalar"):
        train_run(config("scalar", every_seconds=1e9))


def test_a_stop_request_does_not_wait_for_it_and_the_next_attempt_names_the_key(train_run: TrainRun) -> None:
    stop = StopRequest()
    stop.request("the test says so")
    assert train_run(config("scalar"), stop_request=stop).outcome.status == "interrupted"
    with pytest.raises(UserError, match=f"{KEY} holds a NumPy scalar") as caught:
        train_run(config("scalar"))
    assert "alphagrid retry" in str(caught.value.hint)


def test_one_checkpoint_of_an_attempt_is_read_back_without_its_tensors(
    train_run: TrainRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[Any] = []
    load = torch.load

    def noting(*args: Any, **kwargs: Any) -> Any:
        loads.append(kwargs.get("mmap"))
        return load(*args, **kwargs)

    monkeypatch.setattr(torch, "load", noting)
    trained = train_run(config("nothing"))
    assert len(trained.of_kind("checkpoint")) > 1
    assert loads == [True]
