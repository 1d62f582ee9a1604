"""Select runs on the command line: by name, id, state, or the values of their keys."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from ..documents import parse_value
from ..errors import UserError
from ..printable import visible
from ..problems import nearest
from .runs.states import STATES

HINT = "give a run's name or id, a state, key=value, --failed or --all"


class Selectable(Protocol):
    """The attributes of a run that selectors use."""

    @property
    def id(self) -> str:
        """The run's id."""

    @property
    def name(self) -> str:
        """The run's readable name."""

    @property
    def state(self) -> str:
        """The run's state."""

    @property
    def params(self) -> Mapping[str, Any]:
        """The dotted keys that the grid set."""

    @property
    def config(self) -> Mapping[str, Any]:
        """The whole config."""


Run = TypeVar("Run", bound=Selectable)


def select(
    runs: Sequence[Run], selectors: Sequence[str], *, failed: bool = False, everything: bool = False
) -> list[Run]:
    """Return the selected runs, in their order.

    Names, ids (or the unique beginning of an id) and states add runs; each `key=value` then filters them. A
    word is read as a state first, then as a whole id, a name, and the beginning of an id.

    Raises:
        UserError: there is no selector, a selector is unknown, or no run matches.
    """
    if not (selectors or failed or everything):
        raise UserError("which runs?", HINT)
    filters = [selector for selector in selectors if "=" in selector]
    names = [selector for selector in selectors if "=" not in selector] + (["failed"] if failed else [])
    chosen = set() if names and not everything else {run.id for run in runs}
    for name in names:
        chosen |= {run.id for run in _runs_named(runs, name)}
    selected = [
        run
        for run in runs
        if run.id in chosen and all(_matches_condition(run, condition) for condition in filters)
    ]
    if not selected:
        raise UserError(
            f"no run matches {' '.join([*names, *filters]) or 'here'}", _no_match_hint(runs, names, filters)
        )
    return selected


def _runs_named(runs: Sequence[Run], name: str) -> list[Run]:
    if name in STATES:
        return [run for run in runs if run.state == name]
    exact = [run for run in runs if run.id == name] or [run for run in runs if run.name == name]
    if exact:
        return exact
    beginning = [run for run in runs if run.id.startswith(name)]
    if len(beginning) == 1:
        return beginning
    if beginning:
        raise UserError(
            f"'{name}' begins {len(beginning)} ids", f"for example {beginning[0].id}, {beginning[1].id}"
        )
    guess = nearest(name, [*(run.name for run in runs), *STATES])
    raise UserError(
        f"no run, id or state is called '{name}'", f"did you mean '{visible(guess)}'?" if guess else HINT
    )


def _matches_condition(run: Selectable, condition: str) -> bool:
    key, _, text = condition.partition("=")
    expected = parse_value(text, f"'{condition}'") if text else None
    value = run.params[key] if key in run.params else _config_value(run.config, key)
    return bool(value == expected) and isinstance(value, bool) == isinstance(expected, bool)


def _config_value(config: Mapping[str, Any], key: str) -> Any:
    """Return a config's value at a dotted key; NaN, which equals nothing, if the key is missing."""
    value: Any = config
    for part in key.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return float("nan")
        value = value[part]
    return value


def _no_match_hint(runs: Sequence[Selectable], names: Iterable[str], filters: Iterable[str]) -> str:
    called = [run for run in runs if run.name in STATES and run.name in names]
    if called:
        return f"'{called[0].name}' means a state; the run of that name is chosen by its id, {called[0].id}"
    keys = {key for run in runs for key in run.params}
    for condition in filters:
        key, _, _ = condition.partition("=")
        values = sorted({str(run.params[key]) for run in runs if key in run.params})
        if values:
            return f"{key} is one of {', '.join(values[:10])}"
        if guess := nearest(key, keys):
            return f"did you mean {guess}=…?"
    states = dict.fromkeys(run.state for run in runs)
    return f"runs are {', '.join(states)}" if states else HINT
