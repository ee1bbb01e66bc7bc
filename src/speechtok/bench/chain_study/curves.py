"""What the log of a chain's training says: figures by epoch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from speechtok.errors import ConfigError
from speechtok.train.log import read_log

REPLAY = "replay-"
"""Before the figures on held-out speech of the other domain."""
MEASURES = ("cer/ctc", "cer/attention", "wer/ctc", "wer/attention", "t2s/semantic", "text/gain")


@dataclass(frozen=True)
class Curves:
    """One training."""

    steps: int
    measures: dict[str, list[float]]
    """On held-out speech, a value per epoch."""

    @property
    def epochs(self) -> int:
        """How many it has."""
        return max(map(len, self.measures.values()))


def read_curves(folder: Path) -> Curves:
    """Of the folder of a finished run.

    Raises:
        ConfigError: there is none, or its log lacks an epoch.
    """
    try:
        recipe = json.loads((folder / "recipe.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{folder / 'recipe.json'}: cannot be read ({error}); train this variant again") from error
    rows, steps, every = read_log(folder / "log.jsonl"), recipe["steps"], recipe["validate_every"]
    # a run that was stopped in an epoch has validated there, too
    ends = {row["step"]: row for row in rows if row["kind"] == "validation" and row["step"] % every == 0}
    if sorted(ends) != list(range(every, steps + 1, every)):
        raise ConfigError(f"{folder / 'log.jsonl'}: lacks epochs of this run; train it again in an empty folder")
    names = [prefix + name for prefix in ("", REPLAY) for name in MEASURES if prefix + name in ends[every]]
    measures = {name: [float(ends[step][name]) for step in sorted(ends)] for name in names}
    return Curves(steps, measures)
