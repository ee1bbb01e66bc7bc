"""A manifest: one recording a line, tab-separated with a header (``.tsv``) or as JSON objects (``.jsonl``).

``path`` is needed and relative to the manifest; ``id`` (else the path without its suffix), ``start`` and ``duration``
in seconds (a part of the file) and ``split`` have their meaning, and ``seconds`` says how long a recording is; all
other columns are carried over, ``split`` with them.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from speechtok.corpus.recording import Recording, stamp_of
from speechtok.errors import ConfigError

OWN = ("path", "id", "start", "duration", "seconds")


def accepts(path: Path) -> bool:
    """Files that end in ``.tsv`` or ``.jsonl``."""
    return path.suffix in (".tsv", ".jsonl")


def recordings(path: Path, split: str | None) -> Iterator[Recording]:
    """In the order of the lines.

    Raises:
        ConfigError: a file that cannot be read, a line without path, or a number that is none; names the line.
    """
    folder = path.absolute().parent
    for number, row in _rows(path):
        where = f"{path} line {number}"
        if split is not None:
            if "split" not in row:
                raise ConfigError(f"{where}: has no column split; leave --split out")
            if row["split"] != split:
                continue
        name = row.get("path")
        if not isinstance(name, str) or not name:
            raise ConfigError(f"{where}: has no path; a manifest needs the column path")
        file = os.path.normpath(folder / name)
        columns = {key: value for key, value in row.items() if key not in OWN}
        yield Recording(
            str(row.get("id") or Path(name).with_suffix("").as_posix()),
            file,
            start=_number(row, "start", where),
            seconds=_number(row, "duration", where),
            columns=columns,
            length=_number(row, "seconds", where),
            stamp=stamp_of(file),
        )


def _rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Line numbers and what the lines say."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            if path.suffix == ".tsv":
                rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
                for number, row in enumerate(rows, 2):
                    if None in row:
                        raise ConfigError(f"{path} line {number}: has more columns than the header; mend the line")
                    yield number, row
            else:
                for number, line in enumerate(file, 1):
                    if line.strip():
                        yield number, _object(line, f"{path} line {number}")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path}: cannot read this manifest ({error}); give a .tsv or .jsonl file") from error


def _object(line: str, where: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise ConfigError(f"{where}: is no JSON ({error}); write one object a line") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{where}: is no JSON object; write one object a line")
    return value


def _number(row: Mapping[str, Any], name: str, where: str) -> float | None:
    value = row.get(name)
    if value is None or value == "":
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = -1.0
    if not 0 <= number < float("inf"):
        raise ConfigError(f"{where}: {name} is {value!r}; give a number of seconds, or leave it empty")
    return number
