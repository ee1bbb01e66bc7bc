"""What was measured on this machine: the figures in the JSON files of the benchmarks, whatever wrote them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from speechtok.errors import ConfigError

FORMATS = "speechtok."
"""How the ``format`` of a result begins."""
NO_TOKENIZERS = tuple(
    f"{FORMATS}{kind}" for kind in ("recognition", "speaking", "adaptation", "chain-study", "studies")
)
"""Results about models that live on tokens, or drawn from other results: they rate no tokenizer."""
FIRST, ALL = "first", "all"
WHOLE = "whole voice"
"""The only range of levels of a tokenizer that speaks in any voice, which mixes none."""
PLAIN = ("reconstruction", "conversion", "codes")
"""Tasks of ``speechtok bench`` whose measures are those of the other benchmarks."""
TOOLS = ("judge", "normaliser", "voice", "encoder", "utterances", "limit", "longest")
"""Settings that figures must share to be compared."""


@dataclass(frozen=True)
class Figure:
    """One number with its interval, and where it stands."""

    tokenizer: str
    fingerprint: str
    """Empty where the file does not say it."""
    measure: str
    role: str
    """``first``: of the first level; ``all``: of all levels; otherwise what the file calls it, such as ``2:4``."""
    levels: int | None
    """How many levels it is about, where the file says so."""
    mean: float
    low: float | None
    high: float | None
    n: int
    data: str
    tools: str
    """Judge, speaker network and choice of recordings; figures of different ones do not compare."""
    file: str

    def to_dict(self) -> dict[str, Any]:
        """Plain types, for JSON."""
        return asdict(self)

    def comparable(self, other: Figure) -> bool:
        """Whether both are one measure on the same recordings, made with the same tools.

        The role is not asked for: to a task, the first level of one tokenizer is what all that another has is.
        """
        parts = ("measure", "data", "tools", "n")
        same = all(getattr(self, part) == getattr(other, part) for part in parts)
        return same and bool(self.data or self.file == other.file)


@dataclass(frozen=True)
class Results:
    """What a folder holds."""

    figures: tuple[Figure, ...] = ()
    files: tuple[str, ...] = ()
    """Those with figures."""
    unreadable: tuple[str, ...] = ()
    """JSON that could not be read, with the reason."""


def read_results(folder: str | Path) -> Results:
    """Every figure in the JSON files below ``folder``. What is damaged is listed, what is no result is passed over.

    Raises:
        ConfigError: no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder of results; run a benchmark, or leave --results out")
    figures: list[Figure] = []
    files, unreadable = [], []
    for path in sorted(folder.rglob("*.json")):
        try:
            found = list(_figures(json.loads(path.read_text(encoding="utf-8")), str(path)))
        except (OSError, ValueError, RecursionError, TypeError, AttributeError, KeyError) as error:
            unreadable.append(f"{path}: {' '.join(str(error).split()) or type(error).__name__}")
            continue
        figures += found
        files += [str(path)] if found else []
    return Results(tuple(figures), tuple(files), tuple(unreadable))


def _figures(document: Any, file: str) -> Iterator[Figure]:
    """A row of a summary is one figure (it names its ``measure``), or has a mapping with a mean for each measure."""
    kind = str(document.get("format", "")) if isinstance(document, dict) else ""
    if not kind.startswith(FORMATS) or kind in NO_TOKENIZERS:
        return
    tokenizer = document.get("tokenizer") or {}
    common = {"data": _data(document), "tools": _tools(document), "file": file}
    for row in document.get("summary", []):
        head = common | {"fingerprint": row.get("fingerprint") or tokenizer.get("fingerprint") or ""}
        head |= {"tokenizer": row["tokenizer"], "levels": row.get("levels"), "role": _role(row, tokenizer)}
        measures = {row["measure"]: row} if "measure" in row else {k: v for k, v in row.items() if _is_estimate(v)}
        for measure, estimate in measures.items():
            if estimate["mean"] is not None:  # nothing measured is no number
                yield Figure(measure=_full_name(measure, row), **head, **_numbers(estimate))


def _full_name(measure: str, row: dict[str, Any]) -> str:
    """A probe's WER is not the judge's, so figures of other tasks than these bear the name of their task."""
    task = row.get("task")
    return measure if task in (None, *PLAIN) else f"{task}.{measure}"


def _data(document: dict[str, Any]) -> str:
    """Which recordings, in words."""
    settings = _settings(document)
    name, split = settings.get("data"), settings.get("split")
    return f"{Path(name).name} {split}" if name and split else ""


def _tools(document: dict[str, Any]) -> str:
    settings = _settings(document)
    return ", ".join(f"{name} {settings[name]}" for name in TOOLS if settings.get(name) is not None)


def _settings(document: dict[str, Any]) -> dict[str, Any]:
    """Those of a benchmark, or of the evaluation in a study."""
    return document.get("settings") or (document.get("study") or {}).get("evaluation") or {}


def _role(row: dict[str, Any], tokenizer: dict[str, Any]) -> str:
    if "role" in row:
        return str(row["role"])
    levels = row.get("levels")
    if levels is None:
        return FIRST if row.get("stream") == "level 0" else str(row.get("stream", ""))
    return ALL if levels == tokenizer.get("levels") else FIRST if levels == 1 else f"{levels} levels"


def _is_estimate(value: Any) -> bool:
    return isinstance(value, dict) and {"mean", "low", "high", "n"} <= set(value)


def _numbers(estimate: dict[str, Any]) -> dict[str, Any]:
    values = {name: estimate[name] for name in ("mean", "low", "high", "n")}
    wrong = [k for k, v in values.items() if v is not None and (type(v) not in (int, float) or not math.isfinite(v))]
    if wrong:
        raise ValueError(f"{wrong[0]} is no finite number: {values[wrong[0]]!r}")
    return values
