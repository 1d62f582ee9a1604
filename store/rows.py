"""Rows that queries return."""

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
    """The fields of a submission that locate the runs that it sent."""

    id: str
    cluster: str
    refusal: str | None
    site: str | None
    """The name of its Slurm cluster."""


@dataclass(frozen=True)
class RunRow:
    """A run and its progress."""

    key: int
    """The run's number in this index; a rebuild may change it."""
    experiment: str
    id: str
    name: str
    baseline: str | None
    params: dict[str, Any]
    config: Mapping[str, Any]
    """With the newest `stop`."""
    stop: Mapping[str, Any]
    """The `stop` of that config; empty if no submission sends the run."""
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
    """Least finite loss of all evaluations, except at a stop that the run has passed since."""
    end_status: str | None
    """Of the newest attempt; None until it has ended."""
    end_reason: str | None
    end_time: float | None
    end_submission: str | None
    last_event: str | None
    """`interrupted` or `crash`, if the newest attempt recorded one."""
    last_event_reason: str | None
    attempt_submission: str | None
    """The submission that the newest attempt belongs to."""
    last_submission: str | None
    """The newest submission that sends the run."""
    submitted: float | None
    """When that submission was created."""
    job: Job | None
    """The job that it submitted for the run."""
    cancelled: bool
    """Whether the cancel marker names the newest submission that sends the run."""
    superseded: int
    """Records of older attempts that a newer one repeated: windows, evaluations, α*, rate events."""
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
    """By split, the number of examples that the loss averages over."""
    seconds: float
    at_stop: bool
    """Whether the evaluation took place only because the run stopped there."""


class Loss(NamedTuple):
    """One evaluation of one split, as a light tuple for queries with many rows."""

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
    """Median seconds per step: `plain` and `alpha` without the wait for data, and `data`, that wait."""
    alpha_parts: dict[str, float] = field(default_factory=dict)
    """Seconds spent on α*, acting or not: `curvature` (products with G) and `other`."""


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
    """Fraction of negative values."""


@dataclass(frozen=True)
class AlphaRow:
    """Measurement of the step with 0-based index `step`, or of the steps from `first_step` to it."""

    step: int
    repeat: int
    attempt: int
    train_seconds: float
    learning_rate: float | None
    estimates: dict[str, Estimate]
    """By estimator; empty if the row summarises a window."""
    direction_norm: float | None
    gradient_norm: float | None
    cosine: float | None
    """Between d and the gradient on its batch B₂."""
    train_loss: float | None
    probe_loss: float | None
    train_slope: float | None = None
    lookahead_cosine: float | None = None
    """Between d and the gradient on the next training batch, at θ₁."""
    probe_cosine: float | None = None
    """Between d and the gradient on the second batch B₁, at θ₀."""
    reduction_ratio: float | None = None
    first_step: int | None = None
    """First step of the summarised window; None for a single step."""
    summaries: dict[str, dict[str, EstimateSummary]] = field(default_factory=dict)
    """By estimator and quantity (`alpha_rel`, `alpha_abs`, `slope`, `curvature`)."""


@dataclass(frozen=True)
class EventRow:
    """One event; superseded rate events are left out."""

    step: int
    train_seconds: float
    time: float
    attempt: int
    event: str
    details: dict[str, Any]


@dataclass(frozen=True)
class AttemptRow:
    """One attempt: its start record and its progress."""

    attempt: int
    resume_step: int | None
    """None until the `start` record has arrived, like the other fields of that record."""
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
    """Whether it has an `end` record."""

    @property
    def missing(self) -> int:
        """Records that are missing by their sequence numbers and are not among the bad lines."""
        return max(0, self.last_seq + 1 - self.records - self.bad)
