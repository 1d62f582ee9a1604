"""One attempt of one run, inside its job.

Pickles of jobs that wait in Slurm's queue name `alphagrid.jobs.worker.run_attempt`: it stays importable.
"""

from .running_attempt import Ending
from .worker import EXIT_CODES, attempt_run, conclude_silent_run, run_attempt

__all__ = ["EXIT_CODES", "Ending", "attempt_run", "conclude_silent_run", "run_attempt"]
