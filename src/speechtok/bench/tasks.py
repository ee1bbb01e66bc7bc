"""What ``speechtok bench`` measures: the list of tasks, and the contract between a task and the command.

A task is a module with

    measure(tokenizer, speech, folder, options) -> list[dict]

which gives one summary row per figure (``summary_row``) and leaves one row per utterance and figure in ``folder``
(``write_rows``). It is resumable: what ``folder`` holds about (fingerprint, utterance, measure, settings) is not
measured again; ``facts.Facts`` keeps such facts. It raises ``NotSupportedError`` where the whole task means nothing for
a kind of tokenizer, and says so of a single figure with ``does_not_apply``. No number is ever made up.

A module may also have ``prepare(tokenizer, speech, folder, options, share)``, which measures a share of what ``folder``
lacks and concludes nothing: several processes then work at once (see ``suite.sharing``).

It may have ``MEASURES: dict[str, tables.Shown]``, which is how the report names its figures (and in which
order), ``HELP``, one sentence about the task, and ``COLUMNS = "role"`` where the roles and not the measures shall be
the columns of its table. What a measure means stands in ``assets/measures.yaml``. Tasks are imported only when used.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from speechtok.bench.statistics import Estimate, summarize
from speechtok.errors import ConfigError, NotSupportedError
from speechtok.files import make_folder, write_text_atomic

if TYPE_CHECKING:
    from speechtok.bench.facts import Item
    from speechtok.bench.metrics import Score
    from speechtok.tokenizers.base import Tokenizer


class Entry(NamedTuple):
    """One task of the list."""

    module: str
    originals: bool = False
    """Whether it is also asked about the recordings themselves, with None in the place of a tokenizer."""
    paired: bool = False
    """Whether its rows are compared between tokenizers, utterance by utterance."""
    trains: bool = False
    """Whether it needs the train split of a manifest, which may be another one than that of the recordings."""


TASKS = {
    "reconstruction": Entry("speechtok.bench.suite.reconstruction", originals=True, paired=True),
    "conversion": Entry("speechtok.bench.suite.conversion", paired=True),
    "codes": Entry("speechtok.bench.suite.codes"),
    "robustness": Entry("speechtok.bench.suite.robustness", paired=True),
    "sequence": Entry("speechtok.bench.suite.sequence", trains=True),
    "cost": Entry("speechtok.bench.suite.cost"),
    "invariance": Entry("speechtok.bench.suite.invariance"),
    "asr": Entry("speechtok.bench.probes.asr", paired=True, trains=True),
    "mutual_information": Entry("speechtok.bench.probes.mutual_information", trains=True),
    "phones": Entry("speechtok.bench.probes.phones", paired=True, trains=True),
    "intent": Entry("speechtok.bench.probes.intent", paired=True, trains=True),
    "emotion": Entry("speechtok.bench.probes.emotion", paired=True, trains=True),
    "keyword": Entry("speechtok.bench.probes.keyword", paired=True, trains=True),
    "speaker": Entry("speechtok.bench.probes.speaker", paired=True, trains=True),
}
BUNDLED = "bundled clips"
"""What the recordings are called where no manifest names any."""
ALL, FIRST = "all", "first"
"""Roles of figures about all levels of a tokenizer, and about its first one alone."""
NOTHING = {"mean": None, "low": None, "high": None, "n": 0, "failed": 0, "reasons": {}}
"""An estimate where nothing was to be measured."""


Job = TypeVar("Job")


class Share(NamedTuple):
    """Which part of the work is this process's; all of it by default."""

    number: int = 0
    of: int = 1

    def take(self, jobs: Sequence[Job]) -> Sequence[Job]:
        """Every ``of``-th job, from number ``number`` on."""
        return jobs[self.number :: self.of]


EVERYTHING = Share()


@dataclass(frozen=True)
class Speech:
    """The recordings."""

    data: Path | None
    """Manifest with the columns path, split, speaker and text; None for the clips that come with the package."""
    split: str
    items: tuple[Item, ...]
    """Those that are decoded, judged and disturbed."""
    phone_items: tuple[Item, ...] = ()
    """Those whose codes are counted and held against phones; they are only encoded. Empty where they are ``items``."""
    phones: Path | None = None
    """``phones.tsv`` of ``speechtok align``."""

    @property
    def counted(self) -> tuple[Item, ...]:
        """Those whose codes are counted."""
        return self.phone_items or self.items

    @property
    def manifest(self) -> Path:
        """For tasks that also need other splits, such as those that train.

        Raises:
            NotSupportedError: there is none.
        """
        if self.data is None:
            raise NotSupportedError("it needs more speech than the bundled clips; give a manifest with --data")
        return self.data


@dataclass(frozen=True)
class Options:
    """Settings of a run; a task reads what concerns it."""

    quick: bool = False
    """Small and fast: to see whether everything works, not to quote."""
    levels: tuple[int, ...] = (1, 2, 4, 8)
    """Numbers of levels to decode from, as far as there are; all levels always are."""
    judge: str | None = "pocketsphinx"
    """A recogniser, see ``judge.load_judge``; None measures no error rates."""
    normaliser: str = "plain"
    voice: str | None = "resemblyzer"
    """A speaker network, see ``voice.load_encoder``; None measures no voices."""
    asked: tuple[str, ...] = ()
    """Further metrics, of ``metrics.ASKED``."""
    predictors: tuple[str, ...] = ()
    """Of ``predictors.PREDICTORS``."""
    probe: tuple[str, ...] = ()
    """Changes of the probes' recipes, ``name=value``, or ``task.name=value`` for one task."""
    probe_levels: tuple[int, ...] = (1, 0)
    """Numbers of levels that probes read, as far as there are; 0 is all."""
    seed: int = 0
    device: str = "cpu"
    model: str | None = None
    """What ``speechtok.load`` found the tokenizer under; None where it exists in memory only."""


class Task(Protocol):
    """A module of ``TASKS``."""

    def measure(
        self, tokenizer: Tokenizer | None, speech: Speech, folder: Path, options: Options
    ) -> list[dict[str, Any]]:
        """See the module's docstring."""


class Place(NamedTuple):
    """Which figure of a tokenizer and task."""

    measure: str
    role: str
    levels: int | None = None
    """How many levels it is about, where there are any."""


@dataclass(frozen=True)
class About:
    """What every row of one tokenizer and task begins with."""

    tokenizer: str
    fingerprint: str
    task: str = field(kw_only=True)

    @classmethod
    def of(cls, tokenizer: Tokenizer, task: str) -> About:
        """Of a tokenizer."""
        return cls(tokenizer.name, tokenizer.fingerprint, task=task)


def load_task(name: str) -> Any:
    """The module of a task.

    Raises:
        ConfigError: no such task.
    """
    if name not in TASKS:
        raise ConfigError(f"no task {name!r}; there are {', '.join(TASKS)}")
    return importlib.import_module(TASKS[name].module)


def overrides_of(task: str, options: Options) -> list[str]:
    """The settings among ``options.probe`` that are about this task, in their order, without its name."""
    heads = [text.partition(".")[0] for text in options.probe]
    return [
        text.removeprefix(f"{task}.")
        for text, head in zip(options.probe, heads, strict=True)
        if head not in TASKS or head == task
    ]


def level_role(levels: int, all_levels: int) -> str:
    """``all``, ``first`` or such as ``2 levels``."""
    return ALL if levels == all_levels else FIRST if levels == 1 else f"{levels} levels"


def summary_row(
    about: About, measure: str, role: str, estimate: Estimate, levels: int | None = None, **more: Any
) -> dict[str, Any]:
    """One figure as plain JSON: who, what, of how many levels, in which role, and the fields of the estimate."""
    return asdict(about) | {"measure": measure, "role": role, "levels": levels} | estimate.to_dict() | more


def does_not_apply(about: About, reason: str, measure: str = "", role: str = "") -> dict[str, Any]:
    """In the place of a summary row: why there can be no such figure; an empty measure or role stands for all."""
    head = asdict(about) | {"measure": measure, "role": role, "levels": None}
    return head | NOTHING | {"does_not_apply": reason}


def conclude(
    about: About, folder: Path, items: Sequence[Item], scores: Mapping[Place, Sequence[Score]]
) -> list[dict[str, Any]]:
    """Write the rows of all utterances, and return the means: what most tasks end with.

    Args:
        scores: one score per item for every figure.
    """
    rows = (row for place, found in scores.items() for row in utterance_rows(about, place, items, found))
    write_rows(folder, about.fingerprint, rows)
    return [summary_row(about, p.measure, p.role, summarize(found), p.levels) for p, found in scores.items()]


def utterance_rows(
    about: About, place: Place, items: Sequence[Item], scores: Sequence[Score]
) -> Iterator[dict[str, Any]]:
    """One row per utterance: its value and weight, or why there is none."""
    head = asdict(about) | place._asdict()
    for item, score in zip(items, scores, strict=True):
        who = {"utterance": item.name, "speaker": item.utterance.speaker}
        yield head | who | {"value": score.value, "weight": score.weight, "failure": score.failure}


def write_rows(folder: Path, fingerprint: str, rows: Iterable[dict[str, Any]]) -> None:
    """Leave the rows of a tokenizer's utterances where the command collects them."""
    write_text_atomic(rows_path(make_folder(folder), fingerprint), "".join(json.dumps(row) + "\n" for row in rows))


def rows_path(folder: Path, fingerprint: str) -> Path:
    """The file of ``write_rows`` in the folder of a task."""
    return folder / f"rows-{fingerprint}.jsonl"
