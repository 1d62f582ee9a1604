"""What queries answer with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple


@dataclass(frozen=True)
class Job:
    """A job of a cluster; ids are reused, so the time of submission belongs to the identity."""

    cluster: str
    job_id: str
    submitted: float | None = None


@dataclass(frozen=True)
class SenderRow:
    """What one has to know of a submission to ask about the runs that it sent."""

    id: str
    cluster: str
    refusal: str | None
    site: str | None
    """The name of its Slurm cluster."""


@dataclass(frozen=True)
class RunRow:
    """A run, and where it stands."""

    key: int
    """The run's number in this index; it may be another one after a rebuild."""
    experiment: str
    id: str
    name: str
    baseline: str | None
    params: dict[str, Any]
    config: Mapping[str, Any]
    """With the newest `stop`."""
    stop: Mapping[str, Any]
    """Of that config; empty where no submission tells it."""
    named: bool
    """Whether the newest submission's specification names it."""
    attempts: int
    first_attempt_time: float | None
    last_seen: float | None
    """Time of its newest record."""
    step: int
    train_seconds: float
    learning_rate: float | None
    best_validation_loss: float | None
    """Least finite one of all its evaluations, but for one at a stop that it has passed since."""
    end_status: str | None
    """From the newest attempt: None while that has not ended, whatever earlier ones did."""
    end_reason: str | None
    end_time: float | None
    end_submission: str | None
    last_event: str | None
    """`interrupted` or `crash`, if the newest attempt says so."""
    last_event_reason: str | None
    attempt_submission: str | None
    """The submission that the newest attempt belongs to."""
    last_submission: str | None
    """The newest submission that sends the run."""
    submitted: float | None
    """When that was created."""
    job: Job | None
    """The job that it gave the run to."""
    cancelled: bool
    """Whether the cancel marker names the newest submission that sends the run."""
    superseded: int
    """Windows, evaluations, α* and accepted or rejected rates of older attempts that were done again."""
    checkpoint_step: int | None
    checkpoint_bytes: int | None
    checkpoint_seconds: float | None


@dataclass(frozen=True)
class EvaluationRow:
    """The losses at one step."""

    step: int
    train_seconds: float
    attempt: int
    time: float
    losses: dict[str, float]
    """By split."""
    examples: dict[str, float]
    """By split: how many the loss averages over."""
    seconds: float
    at_stop: bool
    """Whether it took place only because the run stopped there."""


class Loss(NamedTuple):
    """One evaluation of one split, for those who want very many of them."""

    step: int
    train_seconds: float
    loss: float
    at_stop: bool


@dataclass(frozen=True)
class WindowRow:
    """A window of steps that ends with `step` steps done."""

    step: int
    train_seconds: float
    attempt: int
    time: float
    steps: int
    alpha_steps: int
    loss: float
    """Mean training loss."""
    lr_min: float
    lr_mean: float
    lr_max: float
    seconds: dict[str, float]
    """By category, spent since the last window."""
    costs: dict[str, float] = field(default_factory=dict)
    """Median seconds per step: of `plain` and `alpha` ones without their wait for data; of that, `data`."""
    alpha_parts: dict[str, float] = field(default_factory=dict)
    """Of the seconds spent on α*, whether it acts or not: `curvature` (products with G) and `other`."""


@dataclass(frozen=True)
class Estimate:
    """One estimator's α*, relative and absolute, from a slope and a curvature, with standard errors."""

    alpha_rel: float | None = None
    alpha_abs: float | None = None
    slope: float | None = None
    curvature: float | None = None
    alpha_rel_se: float | None = None
    slope_se: float | None = None
    curvature_se: float | None = None


@dataclass(frozen=True)
class EstimateSummary:
    """Statistics of one quantity of one estimator over a window of steps."""

    n: int
    """Values that are finite."""
    mean: float
    median: float
    sd: float | None
    """None for a single value."""
    negative: float
    """Share of negative values."""


@dataclass(frozen=True)
class AlphaRow:
    """What the step with the 0-based index `step` measured, or the steps from `first_step` to it together."""

    step: int
    repeat: int
    attempt: int
    train_seconds: float
    learning_rate: float | None
    estimates: dict[str, Estimate]
    """By estimator; empty where a window is summed up."""
    direction_norm: float | None
    gradient_norm: float | None
    cosine: float | None
    """Of d and the gradient on its own batch B₂."""
    train_loss: float | None
    probe_loss: float | None
    train_slope: float | None = None
    lookahead_cosine: float | None = None
    """Of d and the gradient on the next training batch, at θ₁."""
    probe_cosine: float | None = None
    """Of d and the gradient on the second batch B₁, at θ₀."""
    reduction_ratio: float | None = None
    first_step: int | None = None
    """First step of the window that is summed up; None for a single step."""
    summaries: dict[str, dict[str, EstimateSummary]] = field(default_factory=dict)
    """By estimator and quantity (`alpha_rel`, `alpha_abs`, `slope`, `curvature`)."""


@dataclass(frozen=True)
class EventRow:
    """Something that happened; accepted and rejected rates that were done again are left out."""

    step: int
    train_seconds: float
    time: float
    attempt: int
    event: str
    details: dict[str, Any]


@dataclass(frozen=True)
class AttemptRow:
    """One attempt: what it started with and how far it came."""

    attempt: int
    resume_step: int | None
    """None while its `start` record has not arrived; so are the others that it brings."""
    fresh: bool
    submission: str | None
    time: float | None
    host: str | None
    pid: int | None
    device: str | None
    gpu: str | None
    threads: int | None
    versions: dict[str, str]
    stop: dict[str, Any]
    job: Job | None
    last_seen: float | None
    step: int
    train_seconds: float
    checkpoint_step: int | None
    end_status: str | None
    end_reason: str | None
    last_event: str | None
    last_event_reason: str | None


@dataclass(frozen=True)
class JournalRow:
    """How far a journal has been read."""

    experiment: str
    id: str
    attempt: int
    size: int
    offset: int
    records: int
    bad: int
    last_seq: int
    ended: bool
    """Whether it says how the run ended."""

    @property
    def missing(self) -> int:
        """Records that the sequence numbers tell of, and that are neither there nor among the bad lines."""
        return max(0, self.last_seq + 1 - self.records - self.bad)
