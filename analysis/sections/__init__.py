"""The sections of a report: one class each, listed here in the order of the report."""

from __future__ import annotations

from ..comparison import ReportData
from .alpha_beginning import AlphaBeginningSection
from .alpha_components import AlphaComponentsSection
from .alpha_diagnostics import AlphaDiagnosticsSection
from .alpha_dispersion import AlphaDispersionSection
from .alpha_noise import AlphaNoiseSection
from .alpha_observations import AlphaObservationsSection
from .attempts import AttemptsSection
from .base import ReportSection
from .baseline_differences import BaselineDifferencesSection
from .batch_scaling import BatchScalingSection
from .best_and_worst import BestAndWorstSection
from .bias_over_passes import BiasOverPassesSection
from .budget import BudgetSection
from .correlations import CorrelationsSection
from .expected_best import ExpectedBestSection
from .learning_rates import LearningRatesSection
from .loss_over_budget import LossOverStepsSection, LossOverTimeSection
from .loss_splits import LossSplitsSection
from .optimizers import OptimizersSection
from .published import PublishedSection
from .rates_within_budget import RatesWithinBudgetSection
from .rejections import RejectionsSection
from .robustness import RobustnessSection
from .schedules import SchedulesSection
from .step_timings import StepTimingsSection
from .throughput import ThroughputSection
from .time_to_result import TimeToResultSection

SECTIONS: tuple[ReportSection, ...] = (
    BudgetSection(),
    BaselineDifferencesSection(),
    BestAndWorstSection(),
    PublishedSection(),
    ExpectedBestSection(),
    TimeToResultSection(),
    RobustnessSection(),
    OptimizersSection(),
    LossOverTimeSection(),
    LossOverStepsSection(),
    LossSplitsSection(),
    SchedulesSection(),
    LearningRatesSection(),
    RejectionsSection(),
    RatesWithinBudgetSection(),
    CorrelationsSection(),
    AlphaObservationsSection(),
    AlphaDispersionSection(),
    AlphaComponentsSection(),
    AlphaBeginningSection(),
    AlphaNoiseSection(),
    AlphaDiagnosticsSection(),
    BatchScalingSection(),
    BiasOverPassesSection(),
    ThroughputSection(),
    StepTimingsSection(),
    AttemptsSection(),
)


def applicable_sections(data: ReportData) -> list[ReportSection]:
    """Return the sections that apply to `data`."""
    return [section for section in SECTIONS if section.applies(data)]
