"""What differs between tokenizers, utterance by utterance: paired intervals over rows of several of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from speechtok.bench.statistics import paired_difference
from speechtok.bench.tasks import TASKS

Key = tuple[str, str, str]
"""Task, measure and role: numbers of levels are paired by role, the first of one with the first of another."""
Values = dict[str, tuple[float | None, float]]
"""Value and weight by utterance."""


def differences(rows: Iterable[dict[str, Any]], reference: str) -> list[dict[str, Any]]:
    """Every tokenizer less the reference, over the utterances of both, as plain JSON.

    Args:
        rows: of utterances, as ``tasks.utterance_rows`` makes them; only tasks whose rows are ``paired`` count.
        reference: name of a tokenizer; without rows of it there is no difference.
    """
    found: dict[str, dict[Key, Values]] = {}
    for row in rows:
        if TASKS[row["task"]].paired:
            key = row["task"], row["measure"], row["role"]
            values = found.setdefault(row["tokenizer"], {}).setdefault(key, {})
            values[row["utterance"]] = row["value"], row["weight"]
    base = found.get(reference, {})
    return [
        {"tokenizer": name, "reference": reference} | _difference(key, values, base[key])
        for name, figures in found.items()
        if name != reference
        for key, values in figures.items()
        if key in base
    ]


def _difference(key: Key, ours: Values, theirs: Values) -> dict[str, Any]:
    common: Sequence[str] = [name for name in ours if name in theirs]
    estimate = paired_difference(
        [ours[name][0] for name in common],
        [theirs[name][0] for name in common],
        weights=[ours[name][1] for name in common],
    )
    return dict(zip(("task", "measure", "role"), key, strict=True)) | estimate.to_dict()
