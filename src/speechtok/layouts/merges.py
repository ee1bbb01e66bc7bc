"""Pairs of units that became units of their own: what acoustic byte-pair encoding learns, in numbers alone."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from speechtok.checks import whole, wholes
from speechtok.errors import TokenError

MAX_UNIT = 1024
"""Base units that a merged one may hold. Pairs of pairs double, so a few dozen lines could ask for all memory."""


@dataclass(frozen=True)
class Merges:
    """Byte-pair merges over base units 0 .. base-1, in the order in which they were learned.

    `pairs[i]` names two units, each a base unit or made by an earlier pair. A pair makes the next free number, unless
    another pair already made the same sequence of base units: then both lead to that one. Raises TokenError for a pair
    of units that do not exist yet, or that hold more than MAX_UNIT base units together.
    """

    base: int = 0
    pairs: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "base", whole("the number of base units", self.base, 0))
        object.__setattr__(self, "pairs", tuple(wholes("a pair", pair, 0) for pair in self.pairs))
        _ = self.merged

    def __len__(self) -> int:
        """Units that the pairs made."""
        return len(self.merged)

    @cached_property
    def merged(self) -> tuple[tuple[int, ...], ...]:
        """Base units of each unit beyond the base, in order."""
        made: dict[tuple[int, ...], None] = {}
        units: list[tuple[int, ...]] = []
        for number, pair in enumerate(self.pairs):
            if len(pair) != 2 or max(pair) >= self.base + len(units):
                raise TokenError(f"pair {number} {pair} does not name two units that exist by then")
            unit = sum(((one,) if one < self.base else units[one - self.base] for one in pair), ())
            if len(unit) > MAX_UNIT:
                raise TokenError(f"pair {number} makes a unit of {len(unit)} base units; at most {MAX_UNIT} are read")
            if unit not in made:
                made[unit] = None
                units.append(unit)
        return tuple(units)
