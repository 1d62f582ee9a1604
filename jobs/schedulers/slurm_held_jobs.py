"""Submit submitit's Slurm jobs held, in an order that leaves no files behind if sbatch refuses.

submitit writes its pickles, calls sbatch, and then renames the pickles to the names that the job reads. Held
jobs do not start early, so here sbatch comes first, and each pickle is written once, under its final name.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from submitit.core.utils import DelayedSubmission, JobPaths
from submitit.slurm.slurm import SlurmExecutor


class HeldJobs(SlurmExecutor):
    """Jobs that run one function, as an array if there are several; the parameters must include `hold`."""

    def send(self, count: int, call: Callable[[Path], str]) -> str:
        """Write a batch script for `count` jobs, submit it with `call`, and return the job number."""
        if count > 1:
            self.parameters["map_count"] = count
        self.folder.mkdir(parents=True, exist_ok=True)
        script = self.folder / f".submission_file_{uuid.uuid4().hex}.sh"
        script.write_text(self._make_submission_file_text(self._submitit_command_str, ""))
        try:
            number = call(script)
            script.rename(self.folder / f"{number}_submission.sh")
        except BaseException:
            script.unlink(missing_ok=True)
            raise
        return number

    def give(self, number: str, function: Callable[..., Any], calls: Sequence[Sequence[Any]]) -> list[str]:
        """Write the pickle of each job's call; return the job ids, `<array>_<task>` in an array."""
        jobs = [number] if len(calls) == 1 else [f"{number}_{task}" for task in range(len(calls))]
        for job, arguments in zip(jobs, calls, strict=True):
            todo = DelayedSubmission(function, *arguments)
            todo.set_timeout(self.parameters.get("time") or 0, self.max_num_timeout)
            todo.dump(JobPaths(self.folder, job_id=job).submitted_pickle)
        return jobs
