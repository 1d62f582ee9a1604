"""Everything one run consists of, built from its config: what a checkpoint holds and a step uses."""

from __future__ import annotations

import logging
import os
import random
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from . import randomness
from .alpha.measurement import Probe
from .alpha.policies import POLICIES
from .alpha.policies.base import Policy
from .cadence import Cadence
from .clock import Clock
from .config import TrainingConfig
from .losses import Loss, loss_of, mean
from .optimizers import OPTIMIZERS
from .optimizers.stepper import Stepper
from .schedules import learning_rate
from .streams import Batch, Prefetched, Stream, derive, to_device
from .window import Window
from .workloads import WORKLOADS
from .workloads.base import Workload

log = logging.getLogger("alphagrid")


class Session:
    """The parts of a run. `state_dict` is the checkpoint: each part tells what it must remember."""

    def __init__(self, config: TrainingConfig, clock: Clock) -> None:
        self.config = config
        self.clock = clock
        self.device = _device(config)
        _prepare_torch(config, self.device)
        self.workload: Workload = WORKLOADS.entry(config.workload.name).load()(config.workload)
        self.loss: Loss = loss_of(self.workload.loss)
        self.model = self._model()
        self.stepper = self._stepper()
        self.policy = self._policy()
        self.evaluations = Cadence(config.eval.every_steps, config.eval.every_seconds)
        self.window = Window(self.device)
        self.step = 0
        self.evaluation_pending = False
        self.last_evaluated = 0
        self._train = self._stream("train")
        self._probe_stream = self.workload.stream("probe", config.seed)
        self.probe = self._probe()
        _seed_everything(derive(config.seed, "training"))  # last: what is imported until here may draw, too

    def train_batch(self, index: int) -> Batch:
        """Return the batch that step `index` trains on."""
        return self._on_device(self._train.batch(index))

    def probe_batch(self, index: int) -> Batch:
        """Return B₁ for step `index`: from a stream of its own, so that observing changes no order."""
        return self._on_device(self._probe_stream.batch(index))

    def scheduled_rate(self, index: int) -> float:
        """Return η of the schedule for step `index`."""
        return learning_rate(self.config.schedule, self.config.optimizer.lr, index)

    def forward_backward(self, batch: Batch) -> Tensor:
        """Compute the batch's mean loss and its gradient; return the loss, detached."""
        self.stepper.optimizer.zero_grad(set_to_none=True)
        values = self.loss.values(self.model(batch["inputs"]), batch["targets"])
        loss = mean(values, batch.get("weights"))
        torch.autograd.backward(loss)
        return loss.detach()

    def settle(self) -> None:
        """Wait for the device on the clock: the work that is still queued there belongs to steps taken."""
        if self.device.type == "cuda":
            with self.clock.charge("forward_backward"):
                torch.cuda.synchronize(self.device)

    def measures(self, index: int) -> bool:
        """Tell whether step `index` measures α*."""
        return self.config.alpha is not None and self.config.alpha.measures(index)

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the steps to come depend on."""
        return {
            "step": self.step,
            "model": self.model.state_dict(),
            "optimizer": self.stepper.state_dict(),
            "policy": self.policy.state_dict(),
            "randomness": randomness.snapshot(),
            "clock": self.clock.state_dict(),
            "evaluations": self.evaluations.state_dict(),
            "evaluation": {"pending": self.evaluation_pending, "last": self.last_evaluated},
            "window": self.window.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.step = state["step"]
        self.model.load_state_dict(state["model"])
        self.stepper.load_state_dict(state["optimizer"])
        self.policy.load_state_dict(state["policy"])
        randomness.restore(state["randomness"])
        self.clock.load_state_dict(state["clock"])
        self.evaluations.load_state_dict(state["evaluations"])
        self.evaluation_pending = state["evaluation"]["pending"]
        self.last_evaluated = state["evaluation"]["last"]
        self.window.load_state_dict(state["window"])

    def _stream(self, name: str) -> Stream:
        stream = self.workload.stream(name, self.config.seed)
        return Prefetched(stream, self.workload.prefetch) if self.workload.prefetch else stream

    def _on_device(self, batch: Batch) -> Batch:
        moved: Batch = to_device(batch, self.device)
        return moved

    def _model(self) -> nn.Module:
        _seed_everything(derive(self.config.seed, "model"))
        model = self.workload.model().to(self.device)
        return model.train()

    def _stepper(self) -> Stepper:
        options = self.config.optimizer
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        stepper: Stepper = OPTIMIZERS.entry(options.name).load()(options, parameters)
        return stepper

    def _policy(self) -> Policy:
        options = self.config.alpha
        if options is None:
            return Policy()
        policy: Policy = POLICIES.entry(options.policy).load()(options)
        return policy

    def _probe(self) -> Probe | None:
        options = self.config.alpha
        if options is None:
            return None
        return Probe(
            options, self.model, self.loss, self.stepper, self.probe_batch, self.clock, self.config.seed
        )


def _device(config: TrainingConfig) -> torch.device:
    if config.device != "auto":
        return torch.device(config.device)
    if torch.cuda.is_available():
        return torch.device("cuda")
    log.warning("torch sees no GPU: training on the CPU (device: cpu says that you mean it)")
    return torch.device("cpu")


def _prepare_torch(config: TrainingConfig, device: torch.device) -> None:
    torch.set_num_threads(config.threads)
    if config.deterministic and device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it
    torch.use_deterministic_algorithms(config.deterministic, warn_only=True)


def _seed_everything(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
