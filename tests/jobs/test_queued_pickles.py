"""Jobs that wait in Slurm's queue hold pickles of an older version: what these name stays importable."""

from __future__ import annotations

import pickle
from pathlib import Path

from alphagrid.jobs import worker
from submitit.core.utils import DelayedSubmission

OLD = Path(__file__).parents[1] / "data" / "queued_job" / "submitted.pkl"
"""As submitit wrote it when `alphagrid.jobs.worker` was one module."""


def test_a_job_that_an_older_version_queued_finds_the_worker() -> None:
    assert b"alphagrid.jobs.worker" in OLD.read_bytes()
    assert b"alphagrid.jobs.worker.worker" not in OLD.read_bytes()
    job = DelayedSubmission.load(OLD)
    assert job.function is worker.run_attempt
    assert job.args == ("/data/runs", "exp", "0123456789", "20261129T120000-0a1b2c")


def test_a_job_that_is_queued_now_finds_it_too() -> None:
    assert pickle.loads(pickle.dumps(worker.run_attempt)) is worker.run_attempt
