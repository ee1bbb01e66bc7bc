"""JSON files that say what they are: a format and a version."""

from __future__ import annotations

import json
import os
from typing import Any

from speechtok.errors import TokenFileError
from speechtok.files import StrPath, refuse_special


def read_json(path: StrPath) -> Any:
    """The content of a JSON file; raises TokenFileError in one line where there is none."""
    name = os.fspath(path)
    try:
        refuse_special(path)
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except OSError as error:
        raise TokenFileError(f"{name}: cannot be read: {error.strerror}; check the name") from error
    except (ValueError, RecursionError) as error:
        raise TokenFileError(f"{name}: is not JSON ({error}); write it again with `speechtok layout`") from error


def require_format(values: Any, kind: str, version: int, where: str, fix: str) -> None:
    """Raise TokenFileError unless this is a JSON object of this format and no newer version."""
    if not isinstance(values, dict) or values.get("format") != kind:
        raise TokenFileError(f"{where}: is no {kind} file; {fix}")
    if values.get("version") != version:
        raise TokenFileError(
            f"{where}: version {values.get('version')!r}, this release reads {version}; upgrade speechtok"
        )
