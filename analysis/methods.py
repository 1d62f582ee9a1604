"""Names of methods: what a run does with its learning rate."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

MOST = 3
"""The maximum number of keys that a distinct name has; all keys where fewer are ambiguous."""
UNTOLD = ("seed", "stop", "checkpoint")
"""Keys that do not belong to the identity of a configuration."""

MISSING = "no such key"
SCHEDULE_FREE = "schedule_free"
"""Optimizers whose name begins so are methods by themselves: without a schedule they are not `constant`."""

Config = Mapping[str, Any]
Item = TypeVar("Item")


def method_names(configs: Sequence[Config]) -> list[str]:
    """Name each config by its policy that acts, else its schedule, else `constant`.

    The optimizer is named where it is not the usual one; configs that still share a name although they
    differ get the keys in which they do.
    """
    optimizers = Counter(_section_name(config, "optimizer") for config in configs)
    usual = optimizers.most_common(1)[0][0] if optimizers else ""
    return distinct_names([_method_name(config, usual) for config in configs], configs)


def group_by_workload(
    items: Iterable[Item], config_of: Callable[[Item], Config]
) -> list[tuple[str, list[Item]]]:
    """Return the items of each workload with a distinct name of it, in the order in which they come."""
    groups: dict[str, list[Item]] = {}
    for item in items:
        groups.setdefault(canonical_text(config_of(item).get("workload")), []).append(item)
    sections = [config_of(group[0]).get("workload") or {} for group in groups.values()]
    names = distinct_names([str(section.get("name", "workload")) for section in sections], sections)
    return list(zip(names, groups.values(), strict=True))


def distinct_names(names: Sequence[str], configs: Sequence[Config]) -> list[str]:
    """Add what differs, where names coincide and configs do not: `ema (scale 2)`."""
    groups: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        groups.setdefault(name, []).append(place)
    distinct = list(names)
    for places in groups.values():
        for place, details in zip(
            places, _differing_settings([configs[place] for place in places]), strict=True
        ):
            distinct[place] += f" ({details})" if details else ""
    return distinct


def _differing_settings(configs: Sequence[Config]) -> list[str]:
    """Return, for each config, the first keys in which they differ, with its values: as many as it takes."""
    leaves = [flatten(without_keys(config, *UNTOLD)) for config in configs]
    keys = dict.fromkeys(key for config_leaves in leaves for key in config_leaves)
    differing = [
        key
        for key in keys
        if len({canonical_text(config_leaves.get(key, MISSING)) for config_leaves in leaves}) > 1
    ]
    parts = [
        [(key, config_leaves[key]) for key in differing if key in config_leaves] for config_leaves in leaves
    ]
    short = [_settings_text(settings[:MOST]) for settings in parts]
    return (
        short if len(set(short)) == len(set(map(canonical_text, parts))) else list(map(_settings_text, parts))
    )


def _settings_text(parts: Sequence[tuple[str, Any]]) -> str:
    return ", ".join(f"{key.rpartition('.')[2]} {scalar_text(value)}" for key, value in parts)


def flatten(config: Config, prefix: str = "") -> dict[str, Any]:
    """Return the leaves of a config by their dotted keys."""
    leaves: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            leaves |= flatten(value, f"{prefix}{key}.")
        else:
            leaves[prefix + key] = value
    return leaves


def without_keys(config: Config, *keys: str) -> dict[str, Any]:
    """Return a config without some of its keys, which may be dotted."""
    remaining = {key: value for key, value in config.items() if key not in keys}
    for section, dot, key in (key.partition(".") for key in keys):
        if dot and isinstance(remaining.get(section), Mapping):
            remaining[section] = without_keys(remaining[section], key)
    return remaining


def canonical_text(value: Any) -> str:
    """Return a value as text by which it can be compared."""
    return json.dumps(value, sort_keys=True)


def alpha_acts(config: Config) -> bool:
    """Return whether α* changes what is done, and is not merely observed."""
    policy: str = (config.get("alpha") or {}).get("policy", "observe")
    return policy != "observe"


def _method_name(config: Config, usual: str) -> str:
    optimizer = _section_name(config, "optimizer")
    if alpha_acts(config):
        name = str(config["alpha"]["policy"])
    elif config.get("schedule"):
        name = _section_name(config, "schedule")
    else:
        needs_name = optimizer != usual or optimizer.startswith(SCHEDULE_FREE)
        return optimizer if needs_name else "constant"
    return name if optimizer == usual else f"{name}, {optimizer}"


def _section_name(config: Config, section: str) -> str:
    return str((config.get(section) or {}).get("name", ""))


def scalar_text(value: Any) -> str:
    """Return a value of a config as short text."""
    if value is None:
        return "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
