"""The parts of a run, built from its config: the state of a checkpoint and the tools of a step."""

from __future__ import annotations

import os
import random
from collections.abc import Collection, Iterable, Iterator
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from . import batch_statistics, randomness
from .alpha.options import NEGLIGIBLE_RATE
from .alpha.policies import POLICIES
from .alpha.policies.base import Policy
from .alpha.probe import Probe
from .alpha.routing import Router
from .alpha.summary import AlphaSummary
from .cadence import Cadence
from .clock import Clock
from .config import TrainingConfig
from .gradient import accumulate, forward_backward
from .losses import Loss, loss_of
from .module_state import ModuleState
from .optimizers import OPTIMIZERS
from .optimizers.stepper import Stepper
from .parameter_changes import renormalised
from .repeatability import Rereading, hidden_state, warning_of
from .schedules import learning_rate
from .streams import Batch, Prefetched, Stream, derive, to_device
from .window import Window
from .workloads import WORKLOADS
from .workloads.base import Workload


class Session:
    """The parts of a run. `state_dict` is the checkpoint: each part adds its state."""

    def __init__(self, config: TrainingConfig, clock: Clock) -> None:
        self.config = config
        self.clock = clock
        self.accumulate = config.workload.accumulate
        self.device = device_of(config)
        _prepare_torch(config, self.device)
        self.workload: Workload = WORKLOADS.entry(config.workload.name).load()(config.workload)
        self.loss: Loss = loss_of(self.workload.loss)
        self.model = self._build_model()
        self.generators = randomness.Generators(self.model)
        self.module_state = ModuleState(self.model)
        self.changing = renormalised(self.model)  # names of parameters that any forward pass changes
        self._restored: dict[str, Any] | None = None
        self.stepper = self._build_stepper()
        self.policy = self._build_policy()
        self.evaluations = Cadence(config.eval.every_steps, config.eval.every_seconds)
        self.window = Window(self.device)
        self.alphas = AlphaSummary()
        self.warnings: list[str] = []
        self.step = 0
        self.evaluation_pending = False
        self.last_evaluated = 0
        self._train = self._build_stream("train")
        self.rereading = Rereading(self._train)
        self._probe_stream = self._build_stream("probe")
        self.probe = self._build_probe()
        _seed_everything(derive(config.seed, "training"))  # last: the imports above may draw random numbers

    def train_batch(self, index: int, part: int = 0) -> Batch:
        """Return the batch that step `index` trains on, or one part of it where it accumulates several."""
        position = index * self.accumulate + part
        batch = self._train.batch(position)
        self.rereading.keep(position, batch)
        return self._on_device(batch)

    def compare_batches(self) -> None:
        """Warn if the second read of the first batch gave another batch; no step is charged for this."""
        if (warning := warning_of(self.rereading.compare)) is not None:
            self.warnings.append(warning)

    def look_for_hidden_state(self) -> None:
        """Warn if passes over the first batch depend on state that no checkpoint holds."""
        if self.rereading.first is not None:
            batch = self._on_device(self.rereading.first[1])
            checks = (
                lambda: self.rereading.ahead(self.generators),
                lambda: hidden_state(self.model, self.loss, self.generators, batch, self.changing),
            )
            self.warnings += [warning for check in checks if (warning := warning_of(check)) is not None]

    def probe_batches(self, index: int) -> list[Batch]:
        """Return B₁ for step `index`, from a separate stream, so that observing changes no training order."""
        positions = range(index * self.accumulate, (index + 1) * self.accumulate)
        return [self._on_device(self._probe_stream.batch(position)) for position in positions]

    def batches_for_statistics(self) -> Iterator[Batch]:
        """Yield the last training batches, if an evaluation computes running statistics on them."""
        if self.stepper.evaluates_elsewhere:
            stop = self.step * self.accumulate
            for index in range(max(0, stop - batch_statistics.BATCHES), stop):
                yield self._on_device(self._statistics_stream.batch(index))

    def scheduled_rate(self, index: int) -> float:
        """Return η of the schedule for step `index`."""
        return learning_rate(self.config.schedule, self._base_rate, index)

    def forward_backward(self, batches: Iterable[Batch]) -> Tensor:
        """Compute the mean loss of all batches of a step, and its gradient; return the loss.

        The batches pass through the model one after the other.
        """
        self.stepper.optimizer.zero_grad(set_to_none=True)
        if self.accumulate > 1:
            return accumulate(self.model, self.loss, batches)
        (batch,) = batches
        if self.probe is not None and (fused := self.probe.train_and_look(batch)) is not None:
            return fused
        return forward_backward(self.model, self.loss, batch)

    def keeps_batches(self, index: int) -> bool:
        """Return whether step `index` keeps its batches: it has only one, or α* uses them again."""
        awaits = self.probe is not None and self.probe.awaited is not None
        return self.accumulate == 1 or awaits or self.measures(index)

    def measures(self, index: int) -> bool:
        """Return whether step `index` measures α*."""
        return self.config.alpha is not None and self.config.alpha.measures(index)

    def kind(self, index: int) -> str:
        """Return the kind of step `index`: `alpha` if its cost includes α*, else `plain`."""
        return "alpha" if self.config.alpha is not None and self.config.alpha.pays(index) else "plain"

    def put_back(self, names: Collection[str]) -> None:
        """Restore the values that parameters had before the first pass of this attempt.

        The values come from a newly built model, and from the checkpoint if there is one.
        """
        with self.generators.preserved():
            origin = self._build_model()
            if self._restored is not None:
                ModuleState(origin).load_state_dict(self._restored["modules"], self.device)
                origin.load_state_dict(self._restored["model"])
        values = dict(origin.named_parameters())
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                if name in names and name in values:
                    parameter.copy_(values[name])

    def state_dict(self) -> dict[str, Any]:
        """Return all state that the next steps depend on."""
        return {
            "step": self.step,
            "model": self.model.state_dict(),
            "modules": self.module_state.state_dict(),
            "optimizer": self.stepper.state_dict(),
            "policy": self.policy.state_dict(),
            "probe": {} if self.probe is None else self.probe.state_dict(),
            "alphas": self.alphas.state_dict(),
            "randomness": randomness.snapshot(),
            "clock": self.clock.state_dict(),
            "evaluations": self.evaluations.state_dict(),
            "evaluation": {
                "pending": self.evaluation_pending,
                "last": self.last_evaluated,
                "computes_statistics": True,
                "changing": sorted(self.changing),
            },
            "window": self.window.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._restored = {part: state.get(part) for part in ("model", "modules")}
        self.step = state["step"]
        self.warnings += self.module_state.load_state_dict(state.get("modules"), self.device)
        self.model.load_state_dict(state["model"])
        self.stepper.load_state_dict(state["optimizer"])
        self.policy.load_state_dict(state["policy"])
        if self.probe is not None:
            self.probe.load_state_dict(state["probe"])
        self.alphas.load_state_dict(state["alphas"])
        randomness.restore(state["randomness"])
        self.clock.load_state_dict(state["clock"])
        self.evaluations.load_state_dict(state["evaluations"])
        self.evaluation_pending = state["evaluation"]["pending"]
        self.last_evaluated = state["evaluation"]["last"]
        self.changing |= set(state["evaluation"].get("changing", ()))
        computed = state["evaluation"].get("computes_statistics", False)
        if self.stepper.evaluates_elsewhere and not computed and any(True for _ in self.model.buffers()):
            self.warnings.append(
                f"evaluations up to step {self.step} used the running statistics of training; those after it "
                f"compute them at the averaged parameters of {self.config.optimizer.name}"
            )
        self.window.load_state_dict(state["window"])

    @cached_property
    def _statistics_stream(self) -> Stream:
        """A second stream of the training batches, without prefetching."""
        return self.workload.stream("train", self.config.seed)

    def _build_stream(self, name: str) -> Stream:
        stream = self.workload.stream(name, self.config.seed)
        if not self.workload.prefetch:
            return stream
        return Prefetched(stream, self.workload.prefetch, pinned=self.device.type == "cuda")

    def _on_device(self, batch: Batch) -> Batch:
        return to_device(batch, self.device)

    def _build_model(self) -> nn.Module:
        _seed_everything(derive(self.config.seed, "model"))
        model = self.workload.model().to(self.device)
        return model.train()

    @property
    def _base_rate(self) -> float:
        rate = self.config.optimizer.lr
        return NEGLIGIBLE_RATE if rate is None else rate

    def _build_stepper(self) -> Stepper:
        options = self.config.optimizer.model_copy(update={"lr": self._base_rate})
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        stepper: Stepper = OPTIMIZERS.entry(options.name).load()(options, parameters)
        return stepper

    def _build_policy(self) -> Policy:
        options = self.config.alpha
        if options is None:
            return Policy()
        policy: Policy = POLICIES.entry(options.policy).load()(options)
        return policy

    def _build_probe(self) -> Probe | None:
        options = self.config.alpha
        if options is None:
            return None
        router = Router(
            options, self.model, self.loss, self.warnings.append, self.clock.curvature, self.generators
        )
        return Probe(options, router, self.stepper, self.probe_batches, self.clock, self.config.seed)


def device_of(config: TrainingConfig) -> torch.device:
    """Return the device a config runs on here."""
    if config.device != "auto":
        return torch.device(config.device)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _prepare_torch(config: TrainingConfig, device: torch.device) -> None:
    torch.set_num_threads(config.threads)
    if config.deterministic and device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS requires it
    torch.use_deterministic_algorithms(config.deterministic, warn_only=True)


def _seed_everything(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
