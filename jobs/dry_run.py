"""Dry runs: what a submission would do."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ..cluster_profiles.loader import Profile, load_profile
from ..problems import Place
from .garbage_collector import collector_paused
from .schedulers import SCHEDULERS
from .specification.experiment import Experiment


def choose_profile(experiment: Experiment, option: str | None = None) -> Profile:
    """Return the profile to use: that of `--profile`, else the specification's, with its `resources`.

    The specification's own profile must exist even where `--profile` names another. A path in the
    specification is relative to it, one in `option` to the working directory.

    Raises:
        UserError: one of the two does not exist or is wrong.
    """
    document = experiment.document

    def place(path: tuple[str | int, ...]) -> Place:
        return document.place("resources", *path)

    spec_profile = load_profile(
        experiment.profile,
        experiment.resources,
        folder=experiment.spec_folder,
        place=place,
        asked_at=document.place("profile"),
    )
    return spec_profile if option is None else load_profile(option, experiment.resources, place=place)


@collector_paused()
def dry_run(experiment: Experiment, profile: Profile, limit: int | None = None) -> dict[str, Any]:
    """Return what `submit --dry-run --json` prints: the runs, sbatch calls and GPU-hours at most.

    GPU-hours are runs × hours × GPUs; null where GPUs are asked for without a time limit. Both count at most
    `limit` runs.
    """
    runs = [
        {
            "id": run.id,
            "name": run.name,
            "baseline": run.baseline,
            "params": run.params,
            "config": run.config.as_dict(),
        }
        for run in experiment.runs
    ]
    run_count = len(runs[:limit])
    calls = SCHEDULERS[profile.cluster].submit_calls(run_count, profile)
    return {
        "experiment": experiment.name,
        "runs": runs,
        "sbatch_calls": calls,
        "gpu_hours": gpu_hours(run_count, profile),
    }


def gpu_hours(runs: int, profile: Profile) -> float | None:
    """Return the maximum GPU-hours of `runs` runs; None if the profile has no time limit."""
    if not profile.uses_slurm or not profile.gpus:
        return 0.0
    return None if profile.hours is None else runs * profile.hours * profile.gpus


def dry_run_warnings(experiment: Experiment, environ: Mapping[str, str] = os.environ) -> list[str]:
    """Return the warnings of a dry run: excludes without effect, and variables that are not set."""
    unset = [f"${{{name}}} is not set here" for name in experiment.variables if name not in environ]
    return [*experiment.warnings, *unset]
