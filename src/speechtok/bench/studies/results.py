"""What ``speechtok bench`` left in a folder, as the studies ask for it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from speechtok.bench.bitrates import row_bitrate
from speechtok.bench.facts import ORIGINAL
from speechtok.bench.statistics import Estimate, paired_difference
from speechtok.bench.tables import Shown
from speechtok.bench.tasks import ALL, FIRST, level_role, load_task
from speechtok.errors import ConfigError
from speechtok.train.log import read_log

RECONSTRUCTION = "reconstruction"
FORMAT = "speechtok.bench"
SUMMARY, ROWS = "summary.json", "rows.jsonl"
Values = dict[str, tuple[float | None, float]]
"""Value and weight by utterance."""


class Stage(NamedTuple):
    """A tokenizer at a number of levels, which is where a figure is taken."""

    tokenizer: str
    levels: int | None
    """None for vectors and text, which have no levels."""

    def __str__(self) -> str:
        return self.tokenizer if self.levels is None else f"{self.tokenizer}, {self.levels} of its levels"


@dataclass(frozen=True)
class BenchResults:
    """A summary, and the rows of its utterances where they are beside it."""

    document: Mapping[str, Any]
    folder: Path | None = None
    """Where the rows and the cache are; None where only the summary is known."""
    _pairs: dict[tuple[str, str, Stage], Values] = field(default_factory=dict, repr=False)

    @classmethod
    def read(cls, place: str | Path) -> BenchResults:
        """The folder of a benchmark, or its summary alone under any name.

        Raises:
            ConfigError: there is no such thing, or it is not the summary of a benchmark.
        """
        place = Path(place)
        path = place / SUMMARY if place.is_dir() else place
        document = read_document(path, FORMAT, "speechtok bench")
        found = cls(document, place if place.is_dir() else None)
        if found.has_rows:
            for row in read_log(place / ROWS):
                key = row["task"], row["measure"], Stage(row["tokenizer"], row["levels"])
                if row["role"] in found.roles(key[2]):
                    found._pairs.setdefault(key, {})[row["utterance"]] = row["value"], row["weight"]
        return found

    @property
    def has_rows(self) -> bool:
        """Whether there is something to pair."""
        return self.folder is not None and (self.folder / ROWS).is_file()

    @cached_property
    def tokenizers(self) -> dict[str, Mapping[str, Any]]:
        """What is known about each tokenizer, by name."""
        return {one["name"]: one for one in self.document["tokenizers"]}

    def full(self, name: str) -> Stage:
        """A tokenizer with all its levels."""
        return Stage(name, self.tokenizers[name]["levels"] or None)

    def stages(self, name: str, measure: str, task: str = RECONSTRUCTION) -> list[Stage]:
        """Where a measure has a figure, by rising numbers of levels."""
        found = {
            Stage(name, row["levels"])
            for row in self.document["summary"]
            if (row["tokenizer"], row["task"], row["measure"]) == (name, task, measure) and row["mean"] is not None
        }
        return sorted((one for one in found if self.figure(one, measure, task)), key=lambda one: one.levels or 0)

    def figure(self, stage: Stage, measure: str, task: str = RECONSTRUCTION) -> Mapping[str, Any] | None:
        """The summary row of a measure, or None where nothing was measured."""
        for row in self.document["summary"]:
            what = row["tokenizer"], row["levels"], row["task"], row["measure"]
            fits = what == (*stage, task, measure) and row["role"] in self.roles(stage)
            if fits and row["mean"] is not None:
                return row
        return None

    def of_recordings(self, measure: str) -> Mapping[str, Any] | None:
        """The figure of the recordings themselves, such as what the judge makes of them."""
        rows = [row for row in self.document["summary"] if row["tokenizer"] == ORIGINAL and row["measure"] == measure]
        return next((row for row in rows if row["mean"] is not None), None)

    def roles(self, stage: Stage) -> tuple[str, ...]:
        """What rows about so many levels call it; those about one level alone, or about chance, are none of them."""
        about = self.tokenizers.get(stage.tokenizer)
        if about is None or stage.levels is None:
            return (ALL,)
        return (level_role(stage.levels, about["levels"]), *((FIRST,) if stage.levels == 1 else ()))

    def bitrate(self, stage: Stage) -> float | None:
        """Nominal bit/s."""
        return row_bitrate(self.document, stage._asdict())

    def values(self, stage: Stage, measure: str, task: str = RECONSTRUCTION) -> Values:
        """Value and weight of every utterance; nothing where there are no rows."""
        return self._pairs.get((task, measure, stage), {})

    def difference(self, ours: Stage, theirs: Stage, measure: str, task: str = RECONSTRUCTION) -> Estimate | None:
        """``ours`` less ``theirs`` over the utterances of both, or None where nothing pairs."""
        first, second = self.values(ours, measure, task), self.values(theirs, measure, task)
        common: Sequence[str] = [name for name in first if name in second]
        weights = [first[name][1] for name in common]
        found = paired_difference(
            [first[name][0] for name in common], [second[name][0] for name in common], weights=weights
        )
        return found if found.n else None


def read_document(path: Path, kind: str, maker: str) -> Mapping[str, Any]:
    """A result of one ``format``.

    Raises:
        ConfigError: it cannot be read, or is something else.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is no JSON"
        raise ConfigError(f"{path}: cannot be read: {reason}; make it with {maker}") from error
    if not isinstance(document, dict) or document.get("format") != kind:
        raise ConfigError(f"{path}: its format is not {kind}; name what {maker} has written")
    return document


def shown(measure: str, task: str = RECONSTRUCTION) -> Shown:
    """How a measure is called, and which way is better."""
    return load_task(task).MEASURES[measure]
