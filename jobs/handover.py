"""Handing a submission over: written down first, then, on Slurm, put into the queue."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from ..cluster_profiles.loader import Profile
from ..errors import SystemRefused
from ..slurm import scontrol
from ..slurm.sbatch import TooMany
from ..store import submissions
from ..store.claims import Owner
from ..store.layout import ExperimentFiles
from ..store.locks import FileLock
from ..store.submissions import JobRef, Submission
from . import duplicates
from .delivery import Delivery
from .standing import newest

log = logging.getLogger("alphagrid")


@dataclass(frozen=True)
class HandedOver:
    """What became of a submission's runs, by their ids."""

    sent: tuple[str, ...] = ()
    unsent: tuple[str, ...] = ()
    """Those for which the cluster had no room; the next `submit` sends them."""
    limit: str | None = None
    """What the cluster said to that."""

    def __add__(self, other: HandedOver) -> HandedOver:
        """Return both together."""
        return HandedOver(self.sent + other.sent, self.unsent + other.unsent, self.limit or other.limit)


def hand_over(
    files: ExperimentFiles,
    submission: Submission,
    profile: Profile,
    lock: FileLock,
    past: Sequence[Submission],
) -> HandedOver:
    """Write the submission down; on Slurm, put its jobs into the queue.

    The lock stays held until the last sbatch has ended, should this process be killed before.

    Raises:
        SystemRefused: the file system, or sbatch for another reason than their number, refused.
    """
    ids = tuple(entry.id for entry in submission.runs)
    goes_to_slurm = profile.cluster == "slurm" and bool(ids)
    if goes_to_slurm:
        site = scontrol.cluster_name()
        submission = submission.model_copy(update={"site": site, "submitter": Owner.current()})
    submissions.write(files, submission)
    if not goes_to_slurm:
        return HandedOver(ids)

    def record(jobs: Mapping[str, JobRef], lost: Collection[str]) -> None:
        nonlocal submission
        runs = [entry for entry in submission.runs if entry.id not in lost]
        submission = submissions.amend(files, submission, jobs=dict(jobs), runs=runs)

    delivery = Delivery(files, submission, profile, record, past, (lock.descriptor,))
    try:
        delivery.run()
    except SystemRefused as error:
        refused = submissions.amend(
            files, submission, jobs=delivery.jobs, refusal=error.message, submitter=None
        )
        unsent = tuple(
            run_id for run_id in ids if run_id not in delivery.jobs and run_id not in delivery.lost
        )
        if isinstance(error, TooMany):
            _shorten(files, refused, past)
            return HandedOver(tuple(delivery.jobs), unsent, error.message)
        sent = f"sent {len(delivery.jobs)} of {len(ids)} runs"
        raise SystemRefused(f"{error.message} ({sent})", error.hint) from error
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            sent = f"sent {len(delivery.jobs)} of {len(ids)} runs"
            log.warning("interrupted: %s; submit again sends the rest", sent)
        with suppress(OSError, SystemRefused):  # `duplicates.may_be_at_work` ends with this process, too
            submissions.amend(files, submission, submitter=None)
        raise
    finally:
        if delivery.lost:
            log.warning("%s", duplicates.description(delivery.lost))
    submissions.amend(files, submission, submitter=None)
    return HandedOver(tuple(delivery.jobs))


def _shorten(files: ExperimentFiles, refused: Submission, past: Sequence[Submission]) -> None:
    """Leave out of a submission what an earlier one says already: which runs wait for room.

    Whoever submits every minute until all is sent leaves no long file each time.
    """
    sent = newest(past)
    told = {
        run_id for run_id, one in sent.items() if one.submission.refusal and run_id not in one.submission.jobs
    }
    runs = [entry for entry in refused.runs if entry.id in refused.jobs or entry.id not in told]
    if runs or past[-1].named != refused.named:
        submissions.amend(files, refused, runs=runs)
    else:
        submissions.remove(files, refused)
