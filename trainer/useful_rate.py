"""Detect a policy that finds no learning rate, so that the run would end untrained."""

from __future__ import annotations

from ..errors import UserError
from .alpha.options import NEGLIGIBLE_RATE
from .session import Session
from .step import StepResult

NO_USE = 1e-3
"""A rate below this share of `optimizer.lr`, at which a schedule starts or has ended, trains nothing."""


def require_useful_rate(session: Session, result: StepResult) -> None:
    """Check, after a step with a rejected α*, that the current learning rate is useful.

    Raises:
        UserError: the rate is still the policy's negligible initial one, and its patience is exhausted.
    """
    reasons = [event.details.get("reason") for event in result.events if event.name == "rejected"]
    policy, alpha, rate = session.policy, session.config.alpha, result.learning_rate
    if not reasons or alpha is None or not 0 < policy.patience <= policy.misses:
        return
    config_rate = session.config.optimizer.lr
    if config_rate is None:
        hint = "give optimizer.lr; a loss without curvature along the step (L1, hinge) has no α*"
    elif rate <= NO_USE * config_rate and rate == session.scheduled_rate(alpha.start_step):
        hint = "let alpha.start_step be a step at which the schedule has a useful rate"
    else:
        return
    raise UserError(
        f"alpha.policy {alpha.policy} has found no learning rate: {policy.misses} values or windows of α* "
        f"were rejected (last reason: {reasons[-1]}), and steps are taken at a rate of {rate:.3g}",
        hint,
    )


def missing_rate(session: Session) -> str | None:
    """Return a warning if a run without `optimizer.lr` ends before its policy has set a rate."""
    alpha, rate = session.config.alpha, session.stepper.learning_rate
    if alpha is None or session.config.optimizer.lr is not None or rate != NEGLIGIBLE_RATE:
        return None
    return (
        f"alpha.policy {alpha.policy} has set no learning rate in {session.step} steps: all of them were "
        f"taken at {rate:.3g}, which trains next to nothing"
    )
