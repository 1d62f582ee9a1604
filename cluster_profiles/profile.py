"""A cluster profile: where and with what resources runs run."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

RESERVED = {
    "array": "alphagrid makes the arrays; see throttle and max_array",
    "comment": "alphagrid finds its jobs by it",
    "hold": "alphagrid holds and releases its arrays",
    "job-name": "it is the experiment's name",
    "output": "see alphagrid logs",
    "error": "see alphagrid logs",
    "nodes": "a run is one task on one node",
    "ntasks": "a run is one task on one node",
    "ntasks-per-node": "a run is one task on one node",
    "wrap": "alphagrid writes the script",
    "time": "use hours",
    "mem": "use memory",
    "cpus-per-task": "use cpus",
    "signal": "use signal_seconds",
    "no-requeue": "use requeue",
    **dict.fromkeys(
        ("partition", "gres", "account", "qos", "constraint", "exclude", "requeue"),
        "it is a key of the profile",
    ),
    "mail-user": "use mail_user",
    "clusters": "one submission goes to one cluster; choose it where you submit",
    "parsable": "alphagrid reads what sbatch prints",
    "test-only": "see alphagrid profiles check",
    "wait": "see alphagrid submit --wait",
}
"""Options of sbatch that have their own key or their own meaning here."""


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("should be one line without control characters")
    return text


def _word(text: str) -> str:
    if not text or _printable(text).split() != [text] or text.startswith("-"):
        raise ValueError(f"'{text}' should be one word, without spaces and not beginning with '-'")
    return text


def _memory(value: Any) -> Any:
    if not (isinstance(value, str) and re.fullmatch(r"0|[1-9][0-9]*[KMGT]?", value)):
        raise ValueError(f"should be written as for Slurm, such as 80G or 512M, not '{value}'")
    return value


def _gres(text: str) -> str:
    if not re.fullmatch(
        r"[A-Za-z0-9_]+(:[A-Za-z0-9_.-]+){0,2}(,[A-Za-z0-9_]+(:[A-Za-z0-9_.-]+){0,2})*", text
    ):
        raise ValueError(f"'{text}' should be written as for Slurm, such as gpu:a100:1")
    return text


def _number_as_text(value: Any) -> Any:
    _check_finite(value)
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _check_finite(value: Any) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"should be a finite number, not {value}")


def _variable_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise ValueError(f"'{name}' cannot name an environment variable")
    return name


def _sbatch_key(key: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9_-]*", key):
        raise ValueError(f"'{key}' should be a long option of sbatch without dashes before it, such as nice")
    if reason := RESERVED.get(key.replace("_", "-")):
        raise ValueError(f"'{key}' cannot be given here: {reason}")
    return key


def _sbatch_value(value: Any) -> Any:
    if not isinstance(value, str | int | float):
        raise ValueError("should be a text, a number, or true for an option without a value")
    _check_finite(value)
    return _printable(value) if isinstance(value, str) else value


Word = Annotated[str, AfterValidator(_word)]
Line = Annotated[str, AfterValidator(_printable)]
EnvValue = Annotated[str, BeforeValidator(_number_as_text), AfterValidator(_printable)]
Count = Annotated[int, Field(ge=1)]


class Profile(BaseModel):
    """How runs reach a machine. Keys that a cluster has no use for are ignored there."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    name: str
    """Name of the file, without its ending; no key of it."""
    cluster: Literal["slurm", "local", "debug"]
    """slurm: job arrays; local: background processes on this machine; debug: in the submitting process."""
    partition: Word | None = None
    gres: Annotated[Word, AfterValidator(_gres)] | None = None
    """GPUs and the like, as Slurm writes them: gpu:a100:1."""
    account: Word | None = None
    qos: Word | None = None
    constraint: Word | None = None
    exclude: Word | None = None
    """Nodes not to use, as Slurm writes them: node[3-5],node9."""
    cpus: Count | None = None
    """CPU cores of a run."""
    memory: Annotated[str, BeforeValidator(_memory)] | None = None
    """Memory of a run, as Slurm writes it: 80G."""
    hours: Annotated[float, Field(gt=0)] | None = None
    """Time limit of one job; a run that needs longer goes on in the next."""
    requeue: bool = True
    """Whether Slurm puts a preempted or failed job back into the queue."""
    signal_seconds: Count | None = None
    """How long before the time limit a run is told to write its checkpoint."""
    throttle: Count | None = None
    """Jobs of an array that may run at a time."""
    max_array: Count | None = None
    """Jobs of an array; the cluster's MaxArraySize if it is not 1001."""
    max_parallel: Count | None = None
    """Runs at a time on this machine (default: one per GPU used, or as many as the cores allow)."""
    setup: list[Line] = []
    """Lines of shell to run before the run begins, such as `module load cuda`."""
    env: dict[Annotated[str, AfterValidator(_variable_name)], EnvValue] = {}
    """Environment variables of the runs."""
    mail_user: Word | None = None
    """Where Slurm mails when jobs end or fail."""
    sbatch: dict[
        Annotated[str, AfterValidator(_sbatch_key)], Annotated[Any, AfterValidator(_sbatch_value)]
    ] = {}
    """Any other long option of sbatch, such as reservation or nice; true for one without a value."""

    @property
    def gpus(self) -> int:
        """GPUs of one run, as far as `gres` and the options of `sbatch` tell."""
        requests = (self.gres or "").split(",")
        counts = [_count(parts[1:]) for request in requests if (parts := request.split(":"))[0] == "gpu"]
        options = ("gpus", "gpus-per-node", "gpus-per-task")
        given = [value for key, value in self.sbatch.items() if key.replace("_", "-") in options]
        return sum(counts) or max((_count(str(value).split(":")) for value in given), default=0)


def _count(parts: list[str]) -> int:
    """Return the number in `['a100', '2']`, `['2']` or `['a100']` (one)."""
    return int(parts[-1]) if parts and parts[-1].isdecimal() else 1
