"""The ``card`` of a model folder: what people should know, checked before anything is believed. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from speechtok.errors import CheckpointError

SCHEMES = tuple("ABCDE")


@dataclass(frozen=True)
class Card:
    """What the ``card`` of a configuration says, or what holds where it says nothing: a plain codec."""

    scheme: str = "A"
    semantic_levels: tuple[int, ...] = ()
    licence_code: str = "Apache-2.0"
    licence_weights: str = ""
    verified: str = "not stated"
    description: str = ""
    note: str = ""


def read_card(card: Any, levels: int, config: Path) -> Card:
    """The card of ``config``, whose model has ``levels`` levels; scheme E alone means that level 0 is semantic.

    Raises:
        CheckpointError: it says something that cannot be.
    """
    if not isinstance(card, dict):
        raise CheckpointError(f"{config}: its card must be a mapping; restore it")
    card = {field.name: card[field.name] for field in fields(Card) if field.name in card}
    semantic = card.pop("semantic_levels", [0] if card.get("scheme") == "E" else [])
    if not _rising(semantic, levels):
        raise CheckpointError(
            f"{config}: semantic_levels of its card must be a rising list of levels from 0 to {levels - 1},"
            f" not {semantic!r}"
        )
    wrong = [name for name, value in card.items() if not isinstance(value, str)]
    if wrong:
        raise CheckpointError(f"{config}: {wrong[0]} of its card must be text, not {card[wrong[0]]!r}")
    checked = Card(**card, semantic_levels=tuple(semantic))
    if checked.scheme not in SCHEMES:
        raise CheckpointError(f"{config}: scheme of its card must be one of A to E, not {checked.scheme!r}")
    return checked


def _rising(values: Any, limit: int) -> bool:
    """Whether ``values`` is a list of whole numbers below ``limit``, each above the one before."""
    whole = isinstance(values, list) and all(type(value) is int and 0 <= value < limit for value in values)
    return whole and values == sorted(set(values))
