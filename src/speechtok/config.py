"""Settings as dataclasses: from plain mappings and YAML files, with ``dotted.name=value`` overrides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

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


def _parse(kind: type[Settings], values: Any, overrides: list[str], where: str) -> Settings:
    from argparse import ArgumentError

    import jsonargparse

    if not isinstance(values, dict):
        raise ConfigError(f"{where}: expected a mapping of settings, found {type(values).__name__}")
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(kind)
    try:
        parsed = parser.parse_object(values)
        if overrides:
            parsed = parser.parse_args(overrides, namespace=parsed)
        return kind(**parser.instantiate(parsed).as_dict())
    except (ArgumentError, TypeError, ValueError) as error:
        raise ConfigError(f"{where}: {error}") from error
