"""Check and expand the values of a profile's `env`.

`${NAME}` is expanded on the machine that executes the run. Everything else is literal. Variables are set in
the order of the file, so a value may use the variables before it. Text that only a shell would expand
(`$NAME`, `$(…)`, backticks, a leading `~`) is refused, because it would stay literal.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping

from ..errors import UserError
from ..slurm.command import HIDDEN

VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
MALFORMED = re.compile(r"\$\{(?![A-Za-z_][A-Za-z0-9_]*\})")
SHELL = re.compile(r"\$[A-Za-z_]\w*|\$\(|`|^~", re.ASCII)
"""Text that a shell would expand and that this module does not expand."""
RESERVED_PREFIXES = (*HIDDEN, "SUBMITIT_")


def check_name(name: str) -> str:
    """Return the name of a variable unchanged, if a profile may set it.

    Raises:
        ValueError: a profile must not set it. The message says why.
    """
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise ValueError(f"'{name}' cannot name an environment variable")
    if name.startswith(RESERVED_PREFIXES):
        raise ValueError(
            f"'{name}' changes what Slurm's commands do in the job; use a key of the profile or `sbatch`"
        )
    return name


def check_value(text: str) -> str:
    """Return a value unchanged, if it has no text that only a shell would expand.

    Raises:
        ValueError: it has such text.
    """
    if MALFORMED.search(text):
        raise ValueError("'${' must begin a variable, as in ${DATA_DIR}")
    if match := SHELL.search(text):
        raise ValueError(
            f"'{match[0]}' is not expanded here; write ${{NAME}} for a variable; use setup for the rest: "
            "[export NAME=…]"
        )
    return text


def expand(env: Mapping[str, str], environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of `env`, expanded from `environ` and from the variables before them.

    Raises:
        UserError: a variable is not set.
    """
    variables, expanded = dict(environ), {}
    for name, value in env.items():
        if missing := [other for other in VARIABLE.findall(value) if other not in variables]:
            raise UserError(
                _unset_message(name, missing[0]),
                f"export {missing[0]}=… where the run runs (local: before the supervisor starts)",
            )
        variables[name] = expanded[name] = VARIABLE.sub(lambda match: variables[match[1]], value)
    return expanded


def export_lines(env: Mapping[str, str]) -> Iterator[str]:
    """Yield lines of bash that do the same as `expand` and export the result.

    If a variable is not set, the script names it on stderr and ends with exit code 1.
    """
    for name, value in env.items():
        for other in dict.fromkeys(VARIABLE.findall(value)):
            # Check for an exported variable, because bash sets variables that it does not export (UID).
            is_exported = f'[[ $(declare -p {other} 2> /dev/null) == "declare -x"* ]]'
            yield f"{is_exported} || {{ echo {shlex.quote(_unset_message(name, other))} >&2; exit 1; }}"
        yield f"export {name}={_bash_word(value)}"


def _unset_message(name: str, missing: str) -> str:
    return f"env.{name}: ${{{missing}}} is not set"


def _bash_word(value: str) -> str:
    """Return a bash word that expands only the variables in a value."""
    parts = VARIABLE.split(value)  # Literal text and names of variables alternate.
    words = [f'"${{{part}}}"' if index % 2 else shlex.quote(part) for index, part in enumerate(parts) if part]
    return "".join(words) or "''"
