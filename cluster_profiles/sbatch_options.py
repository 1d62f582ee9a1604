"""Check the sbatch options that a profile sets in `sbatch`, and refuse those that would break submission.

sbatch(1) accepts any unambiguous prefix of a long option (`--parsab`), so prefixes are refused as well.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

RESERVED = {
    "array": "alphagrid makes the arrays; see throttle and max_array",
    "comment": "alphagrid finds its jobs by it",
    "hold": "alphagrid holds and releases its arrays",
    "job-name": "it is EXPERIMENT.SUBMISSION, by which alphagrid finds its jobs",
    "output": "see alphagrid logs",
    "error": "see alphagrid logs",
    "open-mode": "logs of all attempts are kept; see alphagrid logs",
    "input": "runs read no standard input",
    "wrap": "alphagrid writes the script",
    "time": "use hours",
    "mem": "use memory",
    "cpus-per-task": "use cpus",
    "signal": "use signal_seconds",
    "no-requeue": "use requeue",
    **dict.fromkeys(
        ("nodes", "ntasks", "ntasks-per-node", "tasks-per-node", "ntasks-per-gpu"),
        "a run is one task on one node",
    ),
    **dict.fromkeys(
        ("partition", "gres", "account", "qos", "constraint", "exclude", "requeue"),
        "it is a key of the profile",
    ),
    "mail-user": "use mail_user",
    **dict.fromkeys(
        ("clusters", "cluster-constraint"),
        "one submission goes to one cluster; choose it where you submit",
    ),
    **dict.fromkeys(("parsable", "quiet", "verbose"), "alphagrid reads what sbatch prints"),
    **dict.fromkeys(("help", "usage", "version", "autocomplete"), "sbatch prints it and submits nothing"),
    "test-only": "see alphagrid profiles check",
    "wait": "see alphagrid submit --wait",
    "export-file": "use env or setup",
    **dict.fromkeys(("uid", "gid"), "jobs are submitted as you"),
}
"""sbatch options that a profile must not set, and the reason."""
ALLOWED_PREFIXES = frozenset({"export"})
"""Names of options that are also prefixes of a reserved option."""
PRINTS_A_LIST = "help"
"""A value of gres, hint, gpu-bind and others with which sbatch prints a list and submits nothing."""


def check_key(key: str) -> str:
    """Return the name of an option unchanged, if a profile may set it.

    Raises:
        ValueError: a profile must not set it. The message says why.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_-]*", key):
        raise ValueError(f"'{key}' should be a long option of sbatch without dashes before it, such as nice")
    option = key.replace("_", "-")
    if reason := RESERVED.get(option):
        raise ValueError(f"'{key}' cannot be given here: {reason}")
    if option not in ALLOWED_PREFIXES:
        for name, reason in RESERVED.items():
            if name.startswith(option):
                raise ValueError(f"'{key}' cannot be given here: sbatch may take it for {name} ({reason})")
    return key


def check_value(value: Any) -> Any:
    """Return the value of an option unchanged, if sbatch accepts it.

    Raises:
        ValueError: sbatch does not accept it. The message says why.
    """
    if value is False:
        raise ValueError("should be left out, because sbatch has no value for false")
    if not isinstance(value, str | int | float):
        raise ValueError("should be a text, a number, or true for an option without a value")
    if isinstance(value, str):
        check_no_list(value)
    return value


def check_no_list(text: str) -> str:
    """Return a value unchanged, unless it makes sbatch print a list instead of submitting a job.

    Raises:
        ValueError: the value makes sbatch print a list.
    """
    if PRINTS_A_LIST in text.split(","):
        raise ValueError(f"'{text}' makes sbatch print a list and submit nothing")
    return text


def not_exported(options: Mapping[str, Any], names: Iterable[str]) -> list[str]:
    """Return the submitter's variables that the option `export` withholds from a job.

    A login shell on the node may still set them.
    """
    export = options.get("export")
    if export is None:
        return []
    exported = {part.partition("=")[0] for part in str(export).split(",")}
    if any(name.upper() == "ALL" for name in exported):
        return []
    return [name for name in names if name not in exported]
