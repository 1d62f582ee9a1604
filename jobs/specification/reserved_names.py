"""Reserved names: commands read them as a state, an option or a run's id."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from ...documents import Document
from ...problems import Problem, refuse
from ...store import submissions
from ...store.layout import RUN_ID, Root
from ...store.submissions import Submission
from ..runs.states import STATES

if TYPE_CHECKING:
    from .experiment import Experiment

HINT = "give it another name; a baseline that this experiment has had before may keep its name"


def meaning(name: str) -> str | None:
    """Return how commands read `name`; None if only as a run's name."""
    word = name.lower()
    if word in STATES:
        return f"the state '{word}'"
    if word == "all":
        return "all runs"
    if name.startswith("-"):
        return "an option"
    return "a run's id" if RUN_ID.fullmatch(word) else None


def check_names(root: Root, experiment: Experiment) -> None:
    """Refuse the names that `submit` would refuse under this root.

    Raises:
        UserError: as `check_baselines` does.
    """
    if any(meaning(name) for name in experiment.baselines):
        files = root.experiment(experiment.name)
        check_baselines(experiment.baselines, submissions.read_all(files), experiment.document)


def check_baselines(names: Iterable[str], past: Collection[Submission], document: Document) -> None:
    """Refuse new baselines with reserved names; names of earlier submissions stay allowed.

    Raises:
        UserError: a name is reserved; the message says where it was written.
    """
    refused = {name: what for name in names if (what := meaning(name)) is not None}
    if not refused:
        return
    titles = [title for submission in past for title in (*submission.runs, *submission.named.values())]
    earlier_baselines = {title.baseline for title in titles}
    problems = [
        Problem(
            document.place("baselines", name),
            f"baselines.{name}",
            f"cannot name a baseline: on the command line it means {what}",
        )
        for name, what in refused.items()
        if name not in earlier_baselines
    ]
    if problems:
        refuse(problems, HINT)
