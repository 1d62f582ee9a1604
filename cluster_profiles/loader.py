"""Load a profile by name or path: read it, extend it, override its keys and validate it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ..documents import read_document
from ..errors import UserError
from ..problems import KeyPath, Place, Problem, nearest, problems_of, refuse, suggestion
from .profile import Profile

__all__ = ["Profile", "Setting", "describe", "load_profile", "profile_names"]

SHIPPED = Path(__file__).parent
"""The folder of the profiles that are loaded by name."""

NOT_IN_RESOURCES = {
    "cluster": "choose another profile instead: --profile NAME",
    "extends": "choose another profile instead: --profile NAME",
    "setup": "its lines are shell, and a specification must not bring shell with it: put them into a profile",
}

Places = Callable[[KeyPath], Place]


@dataclass(frozen=True)
class Setting:
    """A key of a resolved profile, its value, and the file and line that set it (None: the default)."""

    key: str
    value: Any
    place: Place | None


@dataclass(frozen=True)
class _LocatedValue:
    """A value, and a function that returns the file and line of each of its parts."""

    value: Any
    place: Places


def profile_names(folder: Path = SHIPPED) -> list[str]:
    """Return the names of the profiles in `cluster_profiles/`."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def load_profile(
    profile: str,
    resources: Mapping[str, Any] | None = None,
    *,
    folder: Path | None = None,
    place: Places | None = None,
    asked_at: Place | None = None,
) -> Profile:
    """Return the profile with a name or path. `resources` override its keys.

    A path contains a slash or ends in .yaml or .yml. It is relative to `folder` (default: the working
    directory). `place` returns the file and line of a key path in `resources`. `asked_at` is the file and
    line that name the profile.

    Raises:
        UserError: the profile does not exist, extends itself, or has an invalid value.
    """
    return _validate(profile, _merge_layers(profile, resources, folder, place, asked_at))


def describe(
    profile: str,
    resources: Mapping[str, Any] | None = None,
    *,
    folder: Path | None = None,
    place: Places | None = None,
) -> list[Setting]:
    """Return every key of a resolved profile with the source of its value.

    The arguments are those of `load_profile`.
    """
    located_values = _merge_layers(profile, resources, folder, place)
    values = _validate(profile, located_values).model_dump()
    return [
        Setting(key, value, located_values[key].place((key,)) if key in located_values else None)
        for key, value in values.items()
        if key != "name"
    ]


def _merge_layers(
    profile: str,
    resources: Mapping[str, Any] | None,
    folder: Path | None,
    place: Places | None,
    asked_at: Place | None = None,
) -> dict[str, _LocatedValue]:
    layers = _file_layers(_profile_path(profile, folder, asked_at), ())
    where = place or (lambda path: Place("resources"))
    return {**layers, **_resource_layer(resources or {}, where)}


def _profile_path(profile: str, folder: Path | None, requested_at: Place | None) -> Path:
    """Return the file of a profile. `requested_at` is the file and line that name the profile."""
    if "/" in profile or profile.endswith((".yaml", ".yml")):
        return (folder or Path()) / Path(profile).expanduser()
    if profile in profile_names():
        return SHIPPED / f"{profile}.yaml"
    prefix = f"{requested_at}: " if requested_at else ""
    names = ", ".join(profile_names())
    guess = nearest(profile, profile_names())
    raise UserError(
        f"{prefix}there is no profile '{profile}'" + (f"; did you mean '{guess}'?" if guess else ""),
        f"there are {names} (see `alphagrid profiles list`); a path such as ./my-site.yaml is a profile too",
    )


def _file_layers(path: Path, below: tuple[Path, ...]) -> dict[str, _LocatedValue]:
    """Return the keys of a file and of the profiles that it extends. The keys of the file win."""
    document = read_document(path)
    if not isinstance(document.value, dict):
        raise UserError(f"{document.place()}: a profile is a mapping with the key 'cluster' or 'extends'")
    own_values = {
        key: _LocatedValue(value, lambda at: document.place(*at))
        for key, value in document.value.items()
        if key != "extends"
    }
    if "extends" not in document.value:
        return own_values
    return {**_read_base(document.value["extends"], document.place("extends"), (*below, path)), **own_values}


def _read_base(base: Any, place: Place, chain: tuple[Path, ...]) -> dict[str, _LocatedValue]:
    if not isinstance(base, str):
        refuse([Problem(place, "extends", "should be the name or path of one profile")])
    path = _profile_path(base, chain[-1].parent, place)
    if path.resolve() in [file.resolve() for file in chain]:
        circle = " extends ".join(file.stem for file in (*chain, path))
        refuse([Problem(place, "extends", f"goes in a circle: {circle}")])
    return _file_layers(path, chain)


def _resource_layer(resources: Mapping[str, Any], place: Places) -> dict[str, _LocatedValue]:
    allowed_keys = [key for key in Profile.model_fields if key != "name" and key not in NOT_IN_RESOURCES]
    problems = [
        Problem(
            place((key,)),
            f"resources.{key}",
            f"cannot be set here; {NOT_IN_RESOURCES[key]}"
            if key in NOT_IN_RESOURCES
            else f"unknown key{suggestion(key, allowed_keys)}",
        )
        for key in resources
        if key not in allowed_keys
    ]
    if problems:
        refuse(problems)
    return {key: _LocatedValue(value, place) for key, value in resources.items()}


def _validate(profile: str, located_values: Mapping[str, _LocatedValue]) -> Profile:
    """Validate the merged keys. A null value restores the default of its key."""
    unnamed = {key: located for key, located in located_values.items() if key != "name"}
    data = {key: located.value for key, located in unnamed.items() if located.value is not None}
    problems = [
        Problem(
            located_values["name"].place(("name",)), "name", "unknown key; the file's name is the profile's"
        )
        for key in located_values
        if key == "name"
    ]
    try:
        loaded = Profile.model_validate({**data, "name": Path(profile).stem})
    except ValidationError as error:
        problems += problems_of(error, data, lambda at: _place(at, located_values, profile), _allowed_keys)
    if problems:
        refuse(problems)
    return loaded


def _place(at: KeyPath, located_values: Mapping[str, _LocatedValue], profile: str) -> Place:
    located = located_values.get(str(at[0]))
    return located.place(at) if located else Place(f"profile '{profile}'")


def _allowed_keys(section: KeyPath) -> list[str]:
    return [] if section else ["extends", *(key for key in Profile.model_fields if key != "name")]
