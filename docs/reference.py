"""Write docs/reference/ from the code: `make docs`. A test compares what is committed with what this prints.

commands.md comes from the command line's own definitions, keys.md from the models that validate a config.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from alphagrid.cli import app
from alphagrid.cluster_profiles.profile import Profile
from alphagrid.trainer.alpha.policies import POLICIES
from alphagrid.trainer.config import TrainingConfig
from alphagrid.trainer.optimizers import OPTIMIZERS
from alphagrid.trainer.registry import Registry
from alphagrid.trainer.schedules import SCHEDULES
from alphagrid.trainer.workloads import WORKLOADS
from pydantic import BaseModel
from typer.main import get_command

FOLDER = Path(__file__).parent / "reference"
NOTICE = "<!-- Written by docs/reference.py (make docs); change the code, not this file. -->\n"
REGISTRIES = {"workload": WORKLOADS, "optimizer": OPTIMIZERS, "schedule": SCHEDULES, "alpha": POLICIES}
SECTIONS = ("eval", "checkpoint", "stop", "log")


def pages() -> dict[str, str]:
    """Return the text of every page by its name."""
    return {"commands.md": commands_page(), "keys.md": keys_page()}


def commands_page() -> str:
    """Return every command with its arguments and options."""
    parts = [NOTICE, "# Commands\n"]
    for name, command in _commands(get_command(app), "alphagrid"):
        parts += [f"## `{name}`\n", f"{_line(command.help)}\n", *_parameters(command)]
        if command.epilog:
            parts.append(f"{_example(command.epilog)}\n")
    return "\n".join(parts)


def keys_page() -> str:
    """Return every key of a run's config and of a profile."""
    parts = [
        NOTICE,
        "# Keys\n",
        "## Top of a config\n",
        *_fields(TrainingConfig, skip=(*REGISTRIES, *SECTIONS)),
    ]
    for section, registry in REGISTRIES.items():
        parts += [f"## `{section}`\n", *_registry(registry)]
    for section in SECTIONS:
        model = TrainingConfig.model_fields[section].annotation
        assert isinstance(model, type)
        parts += [f"## `{section}`\n", f"{_line(model.__doc__)}\n", *_fields(model)]
    parts += ["## Profile, and `resources` of a specification\n", *_fields(Profile)]
    return "\n".join(parts)


def _commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    children = getattr(command, "commands", None)
    if not children:
        yield name, command
        return
    for child_name, child in children.items():
        yield from _commands(child, f"{name} {child_name}")


def _parameters(command: Any) -> list[str]:
    rows = ["| argument or option | |", "|---|---|"]
    for parameter in command.params:
        names = " ".join(parameter.opts) if parameter.param_type_name == "option" else _metavar(parameter)
        rows.append(f"| `{names}` | {_cell(getattr(parameter, 'help', '') or '')} |")
    return ["\n".join(rows) + "\n"] if len(rows) > 2 else []


def _metavar(parameter: Any) -> str:
    return str(parameter.metavar or parameter.name.upper()).replace("|", "\\|")


def _registry(registry: Registry) -> list[str]:
    parts = []
    for name, entry in registry.entries.items():
        parts += [
            f"### `{registry.tag}: {name}`\n",
            f"{_line(entry.options.__doc__)}\n",
            *_fields(entry.options, (registry.tag,)),
        ]
    return parts


def _fields(model: type[BaseModel], skip: tuple[str, ...] = ()) -> list[str]:
    rows = ["| key | default | |", "|---|---|---|"]
    for name, field in model.model_fields.items():
        if name not in skip:
            default = "required" if field.is_required() else f"`{_default(field.default)}`"
            rows.append(f"| `{name}` | {default} | {_cell(_description(model, name))} |")
    return ["\n".join(rows) + "\n"] if len(rows) > 2 else []


def _description(model: type[BaseModel], key: str) -> str:
    """Return what the model says of a key, or the nearest of its bases that says anything."""
    bases = [base for base in model.__mro__ if issubclass(base, BaseModel) and key in base.model_fields]
    return next((told for base in bases if (told := base.model_fields[key].description)), "")


def _default(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


def _line(text: str | None) -> str:
    return re.sub(r"\s+", " ", text or "").strip()


def _cell(text: str) -> str:
    return _line(text).replace("|", "\\|")


def _example(epilog: str) -> str:
    return re.sub(r"^Example: (.*)$", r"Example: `\1`", _line(epilog))


def main() -> None:
    """Write the pages."""
    FOLDER.mkdir(exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
