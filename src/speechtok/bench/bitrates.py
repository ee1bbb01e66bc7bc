"""Bits per second of what a row of ``summary.json`` is about."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from speechtok.tokens import nominal_bitrate

MEASURE = "nominal_bitrate"


def row_bitrate(document: Mapping[str, Any], row: Mapping[str, Any]) -> float | None:
    """Nominal bit/s of a row's levels; of text, what was measured; None where nobody knows.

    Args:
        document: what ``summary.json`` holds.
    """
    about = next(one for one in document["tokenizers"] if one["name"] == row["tokenizer"])
    if row["levels"]:
        return nominal_bitrate(about["frame_rate"], about["codebook_sizes"][: row["levels"]])
    measured = [
        one["mean"]
        for one in document["summary"]
        if (one["tokenizer"], one["measure"]) == (about["name"], MEASURE) and one["mean"]
    ]
    return about["bitrate"] or (measured[0] if measured else None)
