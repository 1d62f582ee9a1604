"""What only a GPU can show; skipped where torch sees none."""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from alphagrid.jobs.runs.attempts import read as attempts_of
from alphagrid.store.journal import Journal
from alphagrid.store.layout import RunFiles
from alphagrid.trainer import checkpoint
from alphagrid.trainer.clock import Clock
from alphagrid.trainer.config import TrainingConfig
from alphagrid.trainer.recorder import Recorder
from alphagrid.trainer.session import Session
from alphagrid.trainer.step import take_step
from alphagrid.trainer.stopping import StopRequest
from alphagrid.trainer.timers import CudaTimer

if TYPE_CHECKING:
    from tests.conftest import Lab

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")

CONFIG: dict[str, Any] = {
    "workload": {"name": "digits_mlp"},
    "optimizer": {"name": "nadamw"},
    "eval": {"every_steps": 10**6, "splits": ["validation"]},
    "stop": {"steps": 10**6},
    "log": {"every_steps": 1000},
    "device": "cuda",
}


def synchronisations(tmp_path: Path, steps: int, **sections: Any) -> int:
    """Take steps outside logging ones; return how often the host waited for the device."""
    config = TrainingConfig.model_validate({**CONFIG, **sections})
    session = Session(config, Clock(CudaTimer()))
    run = RunFiles(tmp_path)
    journal = Journal.create(run.journal(1))
    recorder = Recorder(session, run, journal, 1, StopRequest(), time.perf_counter)
    for _ in range(3):  # the first steps load kernels, and evaluate
        recorder.after_step(take_step(session))
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for _ in range(steps):
                recorder.after_step(take_step(session))
    finally:
        torch.cuda.set_sync_debug_mode("default")
        journal.close()
    return sum("synchroniz" in str(warning.message) for warning in caught)


def test_a_plain_step_never_waits_for_the_device(tmp_path: Path) -> None:
    assert synchronisations(tmp_path, 20) == 0


@pytest.mark.parametrize("estimator", ["unbiased", "lookahead"])
def test_a_step_that_observes_alpha_never_waits_for_the_device(tmp_path: Path, estimator: str) -> None:
    assert synchronisations(tmp_path, 20, alpha={"policy": "observe", "estimator": estimator}) == 0


def test_a_window_of_medians_waits_once_at_its_end(tmp_path: Path) -> None:
    alpha = {"policy": "median", "estimator": "lookahead", "interval": 20, "count": 10}
    assert synchronisations(tmp_path, 20, alpha=alpha) <= 10  # one reading a value, all in one step


def test_the_clock_accounts_for_the_time_the_device_took(tmp_path: Path) -> None:
    config = TrainingConfig.model_validate(CONFIG)
    session = Session(config, Clock(CudaTimer()))
    take_step(session)
    session.clock.settle()
    session.clock.take_window()
    started = time.perf_counter()
    for _ in range(200):
        take_step(session)
    session.clock.settle()
    seconds = time.perf_counter() - started
    assert sum(session.clock.take_window()["seconds"].values()) == pytest.approx(seconds, rel=0.05)


WORKLOADS: list[dict[str, Any]] = [
    {"name": "digits_mlp", "dropout": 0.2, "batch_norm": True},
    {"name": "digits_cnn"},
    {"name": "char_transformer", "evaluation_windows": 8},
    {"name": "dlrm_synthetic", "table_rows": 1000, "batch_size": 64, "evaluation_examples": 64},
]
ALPHAS: list[dict[str, Any] | None] = [
    None,
    {"policy": "median", "estimator": "unbiased", "interval": 6, "count": 3},
    {"policy": "median", "estimator": "lookahead", "interval": 6, "count": 3},
    {"policy": "ema", "max_growth": 2.0},
    {"policy": "observe", "also": ["biased", "hybrid"]},
]


def trained(config: TrainingConfig, steps: int, state: dict[str, Any] | None = None) -> Session:
    """Take steps from the beginning, or from a checkpoint's state on."""
    session = Session(config, Clock(CudaTimer()))
    if state is not None:
        session.load_state_dict(state)
    for _ in range(steps):
        take_step(session)
    return session


def differing(left: Any, right: Any, name: str = "") -> list[str]:
    """Return the names of all leaves that are not equal to the bit; times are."""
    if isinstance(left, dict):
        assert left.keys() == right.keys(), name
        return [
            n for key in left if key != "clock" for n in differing(left[key], right[key], f"{name}.{key}")
        ]
    if isinstance(left, (list, tuple)):
        assert len(left) == len(right), name
        return [
            n
            for i, pair in enumerate(zip(left, right, strict=True))
            for n in differing(*pair, f"{name}[{i}]")
        ]
    if isinstance(left, torch.Tensor):
        same = torch.equal(left.cpu().nan_to_num(), right.cpu().nan_to_num())
    else:
        same = left == right or left != left
    return [] if same or name.endswith(".train_seconds") else [name]


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda section: section["name"])
@pytest.mark.parametrize(
    "alpha", ALPHAS, ids=lambda section: section and section.get("estimator", section["policy"])
)
def test_a_run_cut_in_two_equals_the_whole_one_bit_for_bit(
    tmp_path: Path, workload: dict[str, Any], alpha: dict[str, Any] | None
) -> None:
    sections = {"workload": workload, **({} if alpha is None else {"alpha": alpha})}
    config = TrainingConfig.model_validate({**CONFIG, "deterministic": True, **sections})
    whole = trained(config, 14)
    first = trained(config, 8)  # within the second window of α*
    run = RunFiles(tmp_path)
    checkpoint.write(run, first.step, 1, first.state_dict(), keep=2)
    (file,) = checkpoint.available(run)
    second = trained(config, 6, checkpoint.read(file))
    assert differing(whole.state_dict(), second.state_dict()) == []


@pytest.mark.parametrize("workload", WORKLOADS[1:], ids=lambda section: section["name"])
@pytest.mark.parametrize("estimator", ["unbiased", "lookahead"])
def test_the_first_alphas_are_those_of_a_cpu(workload: dict[str, Any], estimator: str) -> None:
    found: dict[str, list[float]] = {}
    for device in ("cpu", "cuda"):
        alpha = {"policy": "observe", "estimator": estimator}
        config = TrainingConfig.model_validate(
            {**CONFIG, "device": device, "workload": workload, "alpha": alpha}
        )
        session = Session(config, Clock(CudaTimer()))
        taken = [take_step(session) for _ in range(4)]
        readings = [m.reading(estimator) for one in taken for m in one.measurements]  # type: ignore[arg-type]
        found[device] = [float(value) for r in readings for value in (r.slope, r.curvature, r.loss)]
    assert len(found["cpu"]) >= 9
    assert found["cuda"] == pytest.approx(found["cpu"], rel=2e-3)


def test_a_submitted_run_trains_on_the_gpu_and_names_it(lab: Lab) -> None:
    alpha = {"policy": "median", "estimator": "lookahead", "interval": 20, "count": 5}
    lab.submit(100, **{**CONFIG, "alpha": alpha, "stop": {"steps": 100}})
    lab.until_all_are("completed")
    (run_id,) = lab.states()
    start = lab.records(run_id)[0]
    assert start["gpu"] == torch.cuda.get_device_name()
    assert start["driver"]
    assert start["cuda"] == torch.version.cuda
    assert len(attempts_of(lab.files.run(run_id))) == 1


def test_a_budget_of_time_is_kept_to_the_step(lab: Lab) -> None:
    lab.submit(100, **{**CONFIG, "stop": {"train_seconds": 2.0}})
    lab.until_all_are("completed")
    (run_id,) = lab.states()
    windows = [record for record in lab.records(run_id) if record["kind"] == "window"]
    assert 1.9 < windows[-1]["train_seconds"] < 2.02
