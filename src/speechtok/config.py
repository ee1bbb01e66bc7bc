"""Settings as dataclasses: from plain mappings and YAML files, with ``dotted.name=value`` overrides."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from speechtok.errors import ConfigError

Settings = TypeVar("Settings")
ABOUT_NULL = "- Expected a <class 'NoneType'>"
ABOUT_UNIONS = (
    *("Does not validate against", "Subtypes:", "Errors:", "- Problem with given class_path", ABOUT_NULL),
    "Given value",
)
"""How lines of the parser's messages begin that say nothing of what is wrong with a section."""
OTHER_CLASSES = ("class_path", "init_args", "dict_kwargs")
"""Words by which the parser would import a class that the settings name."""
SHIPPED = Path(__file__).parent / "recipes", Path(__file__).parents[2] / "recipes"
"""Where recipes lie: in an installed package, in a checkout."""


def from_mapping(kind: type[Settings], values: Mapping[str, Any], where: str) -> Settings:
    """Dataclass ``kind`` from nested plain values; what is missing keeps its default.

    Args:
        kind: a dataclass, whose annotations are checked.
        values: nested plain types, as JSON or YAML give them.
        where: named in the error message.

    Raises:
        ConfigError: an unknown setting or a value of another type.
    """
    return _parse(kind, dict(values) if isinstance(values, Mapping) else values, where)


def from_yaml(kind: type[Settings], path: str | Path, overrides: Sequence[str] = ()) -> Settings:
    """Dataclass ``kind`` from a YAML file, changed by overrides such as ``codec.frame.width=256``.

    Values are written as in YAML; ``null`` switches a section off where it may be.

    Raises:
        ConfigError: a file that cannot be read, an unknown setting or a value of another type.
    """
    return _parse(kind, _overridden(kind, read_yaml(path), overrides), str(path))


def recipe_path(path: str | Path) -> Path:
    """The file itself, or for ``recipes/NAME`` where there is none the one that came with the package."""
    path = Path(path)
    if not path.exists() and path.parent == Path("recipes"):
        beside = (folder / path.name for folder in SHIPPED)
        return next((file for file in beside if file.is_file()), path)
    return path


def read_yaml(path: str | Path) -> Any:
    """Plain values of a YAML file.

    Raises:
        ConfigError: it cannot be read.
    """
    import yaml

    try:
        return yaml.safe_load(recipe_path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read as YAML ({error})") from error


def with_overrides(settings: Settings, overrides: Sequence[str], where: str) -> Settings:
    """Settings changed by overrides, as in ``from_yaml``; themselves without any.

    Args:
        settings: a dataclass of dataclasses and plain values.
        where: named in the error message.

    Raises:
        ConfigError: an unknown setting or a value of another type.
    """
    kind = type(settings)
    return _parse(kind, _overridden(kind, asdict(settings), overrides), where) if overrides else settings


def require_whole(settings: Any, least: int, *names: str, section: str = "") -> None:
    """Refuse settings that are no whole number of at least ``least``.

    Args:
        settings: holds them as attributes.
        section: what stands before the names in the message, such as ``frame.``.

    Raises:
        ConfigError: names the first such setting.
    """
    for name in names:
        value = getattr(settings, name)
        if not isinstance(value, int) or value < least:
            raise ConfigError(f"{section}{name} must be a whole number of at least {least}, not {value!r}")


def require_weights(settings: Any, *names: str, section: str = "") -> None:
    """Refuse settings that cannot weigh a loss: below zero, infinite or no numbers.

    Raises:
        ConfigError: names the first such setting.
    """
    for name in names:
        value = getattr(settings, name)
        if not isinstance(value, int | float) or not 0 <= value < math.inf:
            raise ConfigError(f"{section}{name} is {value!r}; a weight is a number of at least 0")


def _overridden(kind: type, values: Any, overrides: Sequence[str]) -> Any:
    for override in overrides:
        name, equals, text = override.partition("=")
        if not equals:
            raise ConfigError(f"{override!r} changes nothing; write overrides as name=value")
        if isinstance(values, dict):
            values = _override(kind, values, name, text)
    return values


def _override(kind: type | None, values: dict[str, Any], name: str, text: str) -> dict[str, Any]:
    """``values`` with the setting of a dotted name replaced by what ``text`` says; a mapping joins its section.

    All overrides are put in place before anything is checked, so that settings that need each other can be changed
    together, in any order.
    """
    import yaml

    first, _, rest = name.partition(".")
    section, inner = _section(kind, first), values.get(first)
    inner = inner if isinstance(inner, dict) else {}
    if rest:
        return values | {first: _override(section, inner, rest, text)}
    if section is None:
        return values | {first: text}
    try:
        given = yaml.safe_load(text)
    except yaml.YAMLError:
        given = text
    return values | {first: inner | given if isinstance(given, dict) else given}


def _section(kind: type | None, name: str) -> type | None:
    """The dataclass of a setting that is a section, whether or not it may be null."""
    hint = get_type_hints(kind).get(name) if kind is not None else None
    found = [one for one in (hint, *get_args(hint)) if isinstance(one, type) and is_dataclass(one)]
    return found[0] if found else None


def _parse(kind: type[Settings], values: Any, where: str) -> Settings:
    from argparse import ArgumentError

    import jsonargparse

    if not isinstance(values, dict):
        raise ConfigError(f"{where}: expected a mapping of settings, found {type(values).__name__}")
    _require_mappings(kind, values, where)
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(kind)
    try:
        return kind(**parser.instantiate(parser.parse_object(values)).as_dict())
    except (ArgumentError, TypeError, ValueError) as error:
        raise ConfigError(f"{where}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """The error's text in one line, without what the parser adds where a section may be null."""
    lines = [line.strip() for line in str(error).splitlines()]
    if ABOUT_NULL in lines:
        lines = [line.removeprefix("- ") for line in lines if not line.startswith(ABOUT_UNIONS)]
    return " ".join(lines)


def _require_mappings(kind: type, values: dict[Any, Any], where: str, prefix: str = "") -> None:
    """Refuse whatever is no mapping where a nested dataclass belongs.

    The parser takes a string there for the name of another file to read, which settings that were downloaded must
    not bring about; nor may they reach the same place by a dotted name, or name classes to import.
    """
    dotted = [name for name in values if not isinstance(name, str) or "." in name or name in OTHER_CLASSES]
    if dotted:
        raise ConfigError(f"{where}: {prefix}{dotted[0]} is no name of a setting; nest mappings instead of dots")
    hints = get_type_hints(kind)
    for name, value in values.items():
        section = _section(kind, name)
        if section is None or (value is None and type(None) in get_args(hints[name])):
            continue
        if not isinstance(value, dict):
            raise ConfigError(f"{where}: {prefix}{name} must be a mapping of settings, not {value!r}")
        _require_mappings(section, value, where, f"{prefix}{name}.")
