"""What the studies compare, by the names that the tokenizers have in the report."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from speechtok.errors import ConfigError

MARGINS = {"wer": 0.05, "stoi": 0.02, "pesq_wb": 0.2}
"""How much worse than with all levels is still as good, in the unit of each measure."""


@dataclass
class Settings:
    """Names and margins; those of ``recipes/twins.yaml`` by default."""

    reference: str = "mini"
    """The twin that the others are held against."""
    plain: str = "mini-plain"
    """The reference without what looks ahead behind the network."""
    causal: str = "mini-causal"
    """The plain one without look-ahead in the network."""
    rates: list[str] = field(default_factory=lambda: ["mini", "mini-25hz", "mini-12hz"])
    """Twins of several frame rates."""
    margins: dict[str, float] = field(default_factory=lambda: dict(MARGINS))
    """By measure, see ``MARGINS``."""

    def __post_init__(self) -> None:
        for measure, margin in self.margins.items():
            if measure not in MARGINS:
                raise ConfigError(f"margins has no measure {measure!r}; there are {', '.join(MARGINS)}")
            if not (math.isfinite(margin) and margin >= 0):
                raise ConfigError(f"margins.{measure} is {margin}; it must be a number from 0 up")
        self.margins = MARGINS | self.margins
