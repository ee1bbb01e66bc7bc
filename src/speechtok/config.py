"""Settings as dataclasses: from plain mappings and YAML files, with ``dotted.name=value`` overrides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from speechtok.errors import ConfigError

Settings = TypeVar("Settings")


def from_mapping(kind: type[Settings], values: Mapping[str, Any], where: str) -> Settings:
    """Dataclass ``kind`` from nested plain values; what is missing keeps its default.

    Args:
        kind: a dataclass, whose annotations are checked.
        values: nested plain types, as JSON or YAML give them.
        where: named in the error message.

    Raises:
        ConfigError: an unknown setting or a value of another type.
    """
    return _parse(kind, dict(values) if isinstance(values, Mapping) else values, [], where)


def from_yaml(kind: type[Settings], path: str | Path, overrides: Sequence[str] = ()) -> Settings:
    """Dataclass ``kind`` from a YAML file, changed by overrides such as ``codec.frame.width=256``.

    Raises:
        ConfigError: a file that cannot be read, an unknown setting or a value of another type.
    """
    import yaml

    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read as YAML ({error})") from error
    strange = [override for override in overrides if "=" not in override]
    if strange:
        raise ConfigError(f"{strange[0]!r} changes nothing; write overrides as name=value")
    return _parse(kind, values, [f"--{override}" for override in overrides], str(path))


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


def _parse(kind: type[Settings], values: Any, overrides: list[str], where: str) -> Settings:
    from argparse import ArgumentError

    import jsonargparse

    if not isinstance(values, dict):
        raise ConfigError(f"{where}: expected a mapping of settings, found {type(values).__name__}")
    _require_mappings(kind, values, where)
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(kind)
    try:
        parsed = parser.parse_object(values)
        if overrides:
            parsed = parser.parse_args(overrides, namespace=parsed)
        return kind(**parser.instantiate(parsed).as_dict())
    except (ArgumentError, TypeError, ValueError) as error:
        raise ConfigError(f"{where}: {error}") from error


def _require_mappings(kind: type, values: dict[Any, Any], where: str, section: str = "") -> None:
    """Refuse whatever is no mapping where a nested dataclass belongs.

    The parser takes a string there for the name of another file to read, which settings that were downloaded must
    not bring about; nor may they reach the same place by a dotted name.
    """
    dotted = [name for name in values if not isinstance(name, str) or "." in name]
    if dotted:
        raise ConfigError(f"{where}: {section}{dotted[0]} is no name of a setting; nest mappings instead of dots")
    hints = get_type_hints(kind)
    for name, value in values.items():
        hint = hints.get(name)
        nested = [one for one in (hint, *get_args(hint)) if isinstance(one, type) and is_dataclass(one)]
        if not nested or (value is None and type(None) in get_args(hint)):
            continue
        if not isinstance(value, dict):
            raise ConfigError(f"{where}: {section}{name} must be a mapping of settings, not {value!r}")
        _require_mappings(nested[0], value, where, f"{section}{name}.")
