"""The cluster profile: where runs execute, and with which resources."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from . import env_values, sbatch_options


def _check_printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("should be one line without control characters")
    return text


def _check_word(text: str) -> str:
    if not text or _check_printable(text).split() != [text] or text.startswith("-"):
        raise ValueError(f"'{text}' should be one word, without spaces and not beginning with '-'")
    return text


def _check_memory(value: Any) -> Any:
    if not (isinstance(value, str) and re.fullmatch(r"0|[1-9][0-9]*[KMGT]?", value)):
        raise ValueError(f"should be written as for Slurm, such as 80G or 512M, not '{value}'")
    return value


def _check_gres(text: str) -> str:
    if not re.fullmatch(
        r"[A-Za-z0-9_]+(:[A-Za-z0-9_.-]+){0,2}(,[A-Za-z0-9_]+(:[A-Za-z0-9_.-]+){0,2})*", text
    ):
        raise ValueError(f"'{text}' should be written as for Slurm, such as gpu:a100:1")
    return sbatch_options.check_no_list(text)


def _number_as_text(value: Any) -> Any:
    _check_finite(value)
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _check_finite(value: Any) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"should be a finite number, not {value}")


def _check_option_value(value: Any) -> Any:
    _check_finite(value)
    return _check_printable(value) if isinstance(value, str) else value


Word = Annotated[str, AfterValidator(_check_word)]
Line = Annotated[str, AfterValidator(_check_printable)]
EnvName = Annotated[str, AfterValidator(env_values.check_name)]
EnvValue = Annotated[
    str,
    BeforeValidator(_number_as_text),
    AfterValidator(_check_printable),
    AfterValidator(env_values.check_value),
]
OptionName = Annotated[str, AfterValidator(sbatch_options.check_key)]
OptionValue = Annotated[Any, AfterValidator(sbatch_options.check_value), AfterValidator(_check_option_value)]
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
    gres: Annotated[Word, AfterValidator(_check_gres)] | None = None
    """GPUs and the like, as Slurm writes them: gpu:a100:1."""
    account: Word | None = None
    qos: Word | None = None
    constraint: Word | None = None
    exclude: Word | None = None
    """Nodes not to use, as Slurm writes them: node[3-5],node9."""
    cpus: Count | None = None
    """CPU cores of a run."""
    memory: Annotated[str, BeforeValidator(_check_memory)] | None = None
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
    env: dict[EnvName, EnvValue] = {}
    """Environment variables of the runs; `${NAME}` is expanded where a run runs, all else is literal."""
    mail_user: Word | None = None
    """Where Slurm mails when jobs end or fail."""
    sbatch: dict[OptionName, OptionValue] = {}
    """Any other long option of sbatch, such as reservation or nice; true for one without a value."""

    @property
    def uses_slurm(self) -> bool:
        """Return whether runs execute on a Slurm cluster."""
        return self.cluster == "slurm"

    @property
    def gpus(self) -> int:
        """Return the number of GPUs of one run, from `gres` and the options in `sbatch`."""
        requests = (self.gres or "").split(",")
        counts = [_count(parts[1:]) for request in requests if (parts := request.split(":"))[0] == "gpu"]
        options = ("gpus", "gpus-per-node", "gpus-per-task")
        values = [value for key, value in self.sbatch.items() if key.replace("_", "-") in options]
        return sum(counts) or max((_count(str(value).split(":")) for value in values), default=0)


def _count(parts: list[str]) -> int:
    """Return the number in `['a100', '2']`, `['2']` or `['a100']` (1)."""
    return int(parts[-1]) if parts and parts[-1].isdecimal() else 1
