"""Options of sbatch that a profile may give in `sbatch`, and those that would break how jobs are submitted.

sbatch(1) takes long options by any unambiguous prefix (`--parsab`), so prefixes are refused as well.
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
"""Options of sbatch that have their own key or their own meaning here."""
ALLOWED_PREFIXES = frozenset({"export"})
"""Whole names of options that are also the beginning of a reserved one."""
PRINTS_A_LIST = "help"
"""As the value of gres, hint, gpu-bind and others: sbatch prints what there is and submits nothing."""


def check_key(key: str) -> str:
    """Return the name of an option as it is, if a profile may give it.

    Raises:
        ValueError: why not.
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
    """Return the value of an option as it is, if sbatch can take it.

    Raises:
        ValueError: why not.
    """
    if value is False:
        raise ValueError("should be left out, because sbatch has no value for false")
    if not isinstance(value, str | int | float):
        raise ValueError("should be a text, a number, or true for an option without a value")
    if isinstance(value, str):
        check_no_list(value)
    return value


def check_no_list(text: str) -> str:
    """Return a value as it is, unless sbatch prints a list of values in place of submitting.

    Raises:
        ValueError: it does.
    """
    if PRINTS_A_LIST in text.split(","):
        raise ValueError(f"'{text}' makes sbatch print a list and submit nothing")
    return text


def not_exported(options: Mapping[str, Any], names: Iterable[str]) -> list[str]:
    """Return which variables of the submitter do not reach a job with these options, because of `export`.

    A login shell on the node may set them all the same.
    """
    export = options.get("export")
    if export is None:
        return []
    exported = {part.partition("=")[0] for part in str(export).split(",")}
    if any(name.upper() == "ALL" for name in exported):
        return []
    return [name for name in names if name not in exported]
