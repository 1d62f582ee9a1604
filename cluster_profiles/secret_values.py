"""Find literal secrets in a profile. Submissions, job scripts and logs would keep them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from .env_values import VARIABLE
from .profile import Profile

SECRET = re.compile(r"(?:.*_)?(?:KEY|TOKEN|SECRET)|.*PASSWORD.*", re.IGNORECASE)
"""Names of variables that usually hold a secret. Use `fullmatch`."""
ASSIGNMENT = re.compile(r"(?:^|[\s;&,(])([A-Za-z_]\w*)=(?![\"']?\$)(?=[^\s;&,)])", re.ASCII)
"""An assignment of a literal value to a variable, in a line of shell or in sbatch's `export`."""


def literal_secrets(profile: Profile) -> list[tuple[str, str]]:
    """Return the literal values that look like secrets, as pairs (key of the profile, variable)."""
    assignments = [(f"env.{name}", name) for name, value in profile.env.items() if _is_literal(value)]
    assignments += [("setup", name) for line in profile.setup for name in ASSIGNMENT.findall(line)]
    assignments += [
        ("sbatch.export", name) for name in ASSIGNMENT.findall(str(profile.sbatch.get("export", "")))
    ]
    return [(key, name) for key, name in dict.fromkeys(assignments) if SECRET.fullmatch(name)]


def warnings(profile: Profile) -> Iterator[str]:
    """Yield a warning for each literal secret of a profile, with what to write instead."""
    for key, name in literal_secrets(profile):
        yield (
            f"profile {profile.name}: {key}: the value of {name} looks like a secret, and submissions and "
            f"job scripts keep it; {advice(name)}"
        )


def advice(name: str) -> str:
    """Return what to write instead of a literal secret."""
    return f"export {name} where you submit, and write env: {{{name}: '${{{name}}}'}}"


def _is_literal(value: str) -> bool:
    return bool(value) and not VARIABLE.search(value)
