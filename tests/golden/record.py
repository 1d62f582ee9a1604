"""Train the golden runs and print their exact numbers as JSON; with --write, keep them beside this file.

It starts itself anew with the environment below, in which no library picks its code by the processor, and
takes square roots that are correctly rounded: the numbers are the same on every x86-64.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

PORTABLE = {
    "ATEN_CPU_CAPABILITY": "default",
    "MKL_CBWR": "COMPATIBLE",
    "DNNL_MAX_CPU_ISA": "SSE41",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}

DIGITS = {"name": "digits_mlp", "hidden": [16], "batch_size": 64}
WINDOW = {"start_step": 4, "interval": 8, "count": 3, "also": ["biased", "hybrid"]}
COSINE = {"name": "warmup_cosine", "total_steps": 24, "warmup_fraction": 0.1}

RUNS: dict[str, dict[str, Any]] = {
    "nadamw-median": {
        "workload": DIGITS,
        "optimizer": {"name": "nadamw", "lr": 0.01},
        "schedule": COSINE,
        "alpha": {"policy": "median", **WINDOW},
    },
    "nadamw-apply": {
        "workload": DIGITS,
        "optimizer": {"name": "nadamw", "lr": 0.01},
        "alpha": {"policy": "apply", "scale": 0.5, **WINDOW},
    },
    "schedule-free": {
        "workload": DIGITS,
        "optimizer": {"name": "schedule_free_adamw", "lr": 0.01, "warmup_steps": 5},
    },
    "adamw-observe": {
        "workload": DIGITS,
        "optimizer": {"name": "adamw", "lr": 0.01},
        "schedule": {**COSINE, "name": "warmup_linear"},
        "alpha": {"policy": "observe", **WINDOW},
    },
    "sgd-momentum": {
        "workload": {"name": "least_squares"},
        "optimizer": {"name": "sgd", "lr": 0.05, "momentum": 0.9},
    },
    "nadamw-ema": {
        "workload": {**DIGITS, "dropout": 0.2},
        "optimizer": {"name": "nadamw"},
        "alpha": {"policy": "ema", "total_steps": 24, "fill_steps": 3},
    },
    "adamw-lookahead": {
        "workload": DIGITS,
        "optimizer": {"name": "adamw", "lr": 0.01},
        "alpha": {
            "policy": "median",
            "estimator": "lookahead",
            "interval": 8,
            "count": 3,
            "curvature_fraction": 1.0,
        },
    },
    "nadamw-gen": {
        "workload": DIGITS,
        "optimizer": {"name": "nadamw", "lr": 0.01},
        "alpha": {"policy": "gen", "interval": 2},
    },
    "batch-norm-dropout": {
        "workload": {**DIGITS, "dropout": 0.2, "batch_norm": True},
        "optimizer": {"name": "nadamw", "lr": 0.01},
        "alpha": {"policy": "median", **WINDOW},
    },
}
COMMON = {"device": "cpu", "stop": {"steps": 24}, "eval": {"every_steps": 12}, "log": {"every_steps": 1}}


def round_square_roots_correctly() -> Any:
    """Replace torch's square roots for as long as what is returned lives.

    MKL's start from the processor's own approximation (rsqrtps), of which Intel's and AMD's differ.
    """
    import numpy as np
    import torch

    def root(value: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(np.sqrt(value.numpy()))

    library: Any = torch.library.Library("aten", "IMPL")  # type: ignore[no-untyped-call]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that is what overriding a kernel is called
        library.impl("sqrt", root, "CPU")
        library.impl("sqrt_", lambda value: value.copy_(root(value)), "CPU")
        library.impl("sqrt.out", lambda value, *, out: out.copy_(root(value)), "CPU")
    return library


def train(config: dict[str, Any], folder: Path) -> list[dict[str, Any]]:
    """Train a run and return its journal's records."""
    from alphagrid.store.journal import Journal, read
    from alphagrid.store.layout import Root
    from alphagrid.trainer import loop
    from alphagrid.trainer.config import TrainingConfig
    from alphagrid.trainer.resume import Resume
    from alphagrid.trainer.stopping import StopRequest

    run = Root(folder).experiment("golden").run("0123456789")
    journal = Journal.create(run.journal(1))
    loop.train(TrainingConfig.model_validate(config), run, journal, 1, Resume(), StopRequest())
    journal.close()
    return read(run.journal(1)).records


def exact(value: Any) -> Any:
    """Return a value with every float, in nested mappings too, as its exact hexadecimal digits."""
    if isinstance(value, dict):
        return {key: exact(item) for key, item in value.items()}
    return value.hex() if isinstance(value, float) else value


def numbers(records: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what a run has measured, without times."""
    of = {kind: [record for record in records if record["kind"] == kind] for kind in ("window", "alpha")}
    evaluations = [record for record in records if record["kind"] == "evaluation"]
    return {
        "train_loss": [exact(record["loss"]) for record in of["window"]],
        "learning_rate": [exact(record["learning_rate"]["mean"]) for record in of["window"]],
        "evaluation": {
            str(record["step"]): {split: exact(found["loss"]) for split, found in record["splits"].items()}
            for record in evaluations
        },
        "alpha": {str(record["step"]): exact(record["estimates"]) for record in of["alpha"]},
    }


def golden(name: str) -> dict[str, Any]:
    """Train one run; return its config, its numbers, and the release of torch that computed them."""
    import torch

    config = {**COMMON, **RUNS[name]}
    with TemporaryDirectory() as folder:
        found = numbers(train(config, Path(folder)))
    return {"torch": torch.__version__.partition("+")[0], "config": config, **found}


def main() -> None:
    """Print or write all golden runs."""
    kept = round_square_roots_correctly()
    found = {name: golden(name) for name in RUNS}
    del kept
    if "--write" not in sys.argv:
        sys.stdout.write(json.dumps(found))
        return
    for name, content in found.items():
        path = Path(__file__).with_name(f"{name}.json")
        path.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    if PORTABLE.items() <= os.environ.items():
        main()
    else:
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **PORTABLE})
