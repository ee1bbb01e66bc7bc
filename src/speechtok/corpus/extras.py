"""Libraries that only some corpora need."""

from __future__ import annotations

import importlib
from typing import Any

from speechtok.errors import ConfigError


def library(name: str, extra: str) -> Any:
    """The module of that name; raises ConfigError with the command that installs it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise ConfigError(f"this needs {package} ({error}); pip install 'speechtok[{extra}]'") from error
