"""Whether runs that met a fault are whole, and how many steps the fault cost them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from alphagrid.store import queries, submissions
from alphagrid.store.database import Store, open_store
from alphagrid.store.layout import Root

from tests.slurm.waiting import until

if TYPE_CHECKING:
    from tests.slurm.conftest import Experiment, Slurm


def assert_whole(experiment: Experiment) -> int:
    """Show that no row of any completed run is missing or doubled; return how many steps were done again."""
    with open_store(Root(experiment.files.path.parent)) as store:
        store.sync()
        assert store.check() == []
        rows = queries.runs(store.db, experiment.name)
        assert rows
        assert {row.end_status for row in rows} == {"completed"}
        return sum(_assert_run_whole(store, row) for row in rows)


def _assert_run_whole(store: Store, row: queries.RunRow) -> int:
    steps: int = row.config["stop"]["steps"]
    every, evaluate_every = row.config["log"]["every_steps"], row.config["eval"]["every_steps"]
    windows = queries.windows(store.db, row.key)
    assert [window.step for window in windows] == sorted({*range(every, steps + 1, every), steps})
    assert [window.step - window.steps for window in windows] == [0, *(w.step for w in windows[:-1])]
    evaluated = [evaluation.step for evaluation in queries.evaluations(store.db, row.key)]
    assert evaluated == sorted({*range(1, steps + 1, evaluate_every), steps})
    measured = [(alpha.step, alpha.repeat) for alpha in queries.alphas(store.db, row.key)]
    assert measured == [(step, 0) for step in range(steps) if _measures(row.config, step)]
    assert sum(window.alpha_steps for window in windows) == len(measured)
    attempts = queries.attempts(store.db, row.key)
    assert [attempt.attempt for attempt in attempts] == list(range(1, len(attempts) + 1))
    return sum(max(0, old.step - (new.resume_step or 0)) for old, new in pairwise(attempts))


def _measures(config: Mapping[str, Any], step: int) -> bool:
    alpha = config["alpha"]
    if alpha is None:
        return False
    since: int = step - alpha["start_step"]
    return bool(since >= 0 and since % alpha["interval"] < alpha["count"])


def assert_sent(experiment: Experiment, slurm: Slurm, jobs: int = 1) -> None:
    """Show that each run went out in so many jobs, by what was written down and by what Slurm was given."""
    sent = submissions.read_all(experiment.files)
    written = [(run_id, job.job_id) for submission in sent for run_id, job in submission.jobs.items()]
    assert set(Counter(run_id for run_id, _ in written).values()) == {jobs}
    # accounting has a job's comment once it has ended, which is a moment after its run has
    until(lambda: not slurm.queue_of(experiment.name), "all have ended")
    expected = Counter(job for _, job in written)
    until(lambda: Counter(jobs_given(experiment, slurm)) == expected, f"Slurm was given {expected}")


def jobs_given(experiment: Experiment, slurm: Slurm) -> list[str]:
    """What Slurm's accounting knows under the experiment's submissions; a requeued job counts once."""
    comments = {f"alphagrid:{submission.id}" for submission in submissions.read_all(experiment.files)}
    columns = ("--allocations", "--starttime=now-1days", "--format=jobid,comment")
    told = slurm.run("sacct", "--noheader", "--parsable2", *columns)
    lines = [line.split("|") for line in told.splitlines()]
    return [job for job, comment in lines if comment in comments]
