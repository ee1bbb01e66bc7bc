"""Which tokens for which task: what the literature advises, put beside what was measured and what is at hand.

The advice is data (``assets/choose.yaml``): one rule per statement, with its source. Rules rank the five schemes; the
constraints say which models are possible; figures on disk move what was measured to be better in front of what was
measured to be worse. A model without figures gets no number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import yaml

from speechtok.bench.figures import ALL, FIRST, WHOLE, Figure, Results
from speechtok.errors import ConfigError
from speechtok.tokenizers.published import ModelEntry
from speechtok.tokens import nominal_bitrate

GUIDE = Path(__file__).parents[1] / "assets" / "choose.yaml"
PROBES = (1000.0, 200.0)
"""Bitrates tried to see what a budget would change."""
Thing = TypeVar("Thing")


@dataclass(frozen=True)
class Constraints:
    """What a model must keep."""

    bitrate: float | None = None
    """At most so many bit/s; fewer levels are taken where that helps."""
    causal: bool = False
    offline: bool = False
    """Bundled with the package."""

    def __post_init__(self) -> None:
        if self.bitrate is not None and not self.bitrate > 0:
            raise ConfigError(f"a bitrate of {self.bitrate:g} bit/s holds nothing; give more than 0")

    @property
    def words(self) -> str:
        """For people; empty where there are none."""
        budget = [f"at most {self.bitrate:g} bit/s"] if self.bitrate is not None else []
        return ", ".join(budget + [name for name in ("causal", "offline") if getattr(self, name)])


@dataclass(frozen=True)
class Rule:
    """One statement of a source about one scheme."""

    id: str
    scheme: str
    points: int
    reason: str
    source: str
    tasks: list[str] = field(default_factory=list)
    """Empty: any."""
    when: dict[str, Any] = field(default_factory=dict)

    def applies(self, task: str, constraints: Constraints) -> bool:
        """Whether the rule speaks about this task under these constraints."""
        limit = self.when.get("bitrate_below")
        return (
            (not self.tasks or task in self.tasks)
            and (limit is None or (constraints.bitrate is not None and constraints.bitrate < limit))
            and (not self.when.get("causal") or constraints.causal)
        )


@dataclass(frozen=True)
class Wanted:
    """A figure that matters to a task."""

    measure: str
    role: str
    better: str


@dataclass(frozen=True)
class Task:
    """What somebody wants to do; the first of the figures decides between models."""

    about: str
    command: str
    figures: list[Wanted]
    changes: list[str]
    measure: str
    """The benchmark that would put figures on disk."""
    needs: str = ""
    """A ``voice`` to exchange, or a ``stream``."""


@dataclass(frozen=True)
class Scheme:
    """One of the five kinds of tokens: what it costs, and how to begin where no model is at hand."""

    title: str
    costs: list[str]
    start: list[str]
    start_causal: list[str] = field(default_factory=list)
    """The same where the model must be causal; empty where nothing here makes one."""


@dataclass(frozen=True)
class Guide:
    """The whole of the advice."""

    sources: dict[str, str]
    schemes: dict[str, Scheme]
    tasks: dict[str, Task]
    rules: list[Rule]


class Model(NamedTuple):
    """A model that keeps the constraints."""

    entry: ModelEntry
    levels: int
    """How many of its levels the bitrate allows; 0 where it has none."""
    figures: tuple[Figure, ...]
    """Those that matter to the task, the deciding one first."""

    @property
    def bitrate(self) -> float | None:
        """Bit/s of these levels; None for vectors and text."""
        if self.entry.bitrate is None:
            return None
        return nominal_bitrate(self.entry.frame_rate, self.entry.codebook_sizes[: self.levels])

    def to_dict(self) -> dict[str, Any]:
        """Plain types, for JSON."""
        entry = {
            name: getattr(self.entry, name) for name in ("name", "bundled", "causal", "licence_weights", "verified")
        }
        figures = [figure.to_dict() for figure in self.figures]
        return entry | {"levels": self.levels, "bitrate": self.bitrate, "figures": figures}


class Option(NamedTuple):
    """A scheme in its place of the ranking."""

    letter: str
    scheme: Scheme
    rules: tuple[Rule, ...]
    models: tuple[Model, ...]
    left_out: tuple[tuple[str, str], ...]
    """Models of the scheme that break a constraint, and which."""
    start: tuple[str, ...]
    """How to come by a model that keeps them; empty where nothing here makes one."""

    @property
    def points(self) -> int:
        """Sum over the rules."""
        return sum(rule.points for rule in self.rules)

    def to_dict(self) -> dict[str, Any]:
        """Plain types, for JSON."""
        return {
            "scheme": self.letter, "title": self.scheme.title, "points": self.points,
            "reasons": [asdict(rule) for rule in self.rules], "costs": self.scheme.costs,
            "models": [model.to_dict() for model in self.models], "left_out": dict(self.left_out),
        }  # fmt: skip


class Recommendation(NamedTuple):
    """The answer: schemes, the best first, and everything it rests on."""

    task: str
    constraints: Constraints
    options: tuple[Option, ...]
    moved: tuple[str, ...]
    """What figures changed in the order, in words."""
    changes: tuple[str, ...]
    """What would make another choice the better one."""
    commands: tuple[str, ...]
    """What to run next."""

    @property
    def used(self) -> list[Figure]:
        """Every figure that was looked at."""
        return [figure for option in self.options for model in option.models for figure in model.figures]

    def to_dict(self) -> dict[str, Any]:
        """Plain types, for JSON."""
        return {
            "task": self.task, "constraints": asdict(self.constraints),
            "ranking": [option.to_dict() for option in self.options], "moved_by_figures": list(self.moved),
            "would_change": list(self.changes), "next": list(self.commands),
            "figures_from": sorted({figure.file for figure in self.used}),
        }  # fmt: skip


@cache
def read_guide() -> Guide:
    """The advice that comes with the package."""
    raw = yaml.safe_load(GUIDE.read_text(encoding="utf-8"))
    tasks = {
        name: Task(**task | {"figures": [Wanted(**wanted) for wanted in task["figures"]]})
        for name, task in raw["tasks"].items()
    }
    schemes = {letter: Scheme(**scheme) for letter, scheme in raw["schemes"].items()}
    return Guide(raw["sources"], schemes, tasks, [Rule(**rule) for rule in raw["rules"]])


def choose(
    task: str, constraints: Constraints, entries: Sequence[ModelEntry], results: Results | None = None
) -> Recommendation:
    """Rank the schemes for a task.

    Args:
        task: a name of ``read_guide().tasks``.
        constraints: models that break them are left out, and schemes left without a model go to the end.
        entries: what there is, as ``speechtok.models()`` lists it.
        results: figures from disk.

    Raises:
        ConfigError: no such task.
    """
    guide, results = read_guide(), results or Results()
    if task not in guide.tasks:
        raise ConfigError(f"no task {task!r}; there are {', '.join(guide.tasks)}")
    options, moved = _ranked(task, constraints, entries, results)
    changes = [*_flips(task, constraints, entries, results, options[0]), *guide.tasks[task].changes]
    commands = _commands(guide.tasks[task], options[0])
    return Recommendation(task, constraints, options, moved, tuple(changes), commands)


def _ranked(
    task: str, constraints: Constraints, entries: Sequence[ModelEntry], results: Results
) -> tuple[tuple[Option, ...], tuple[str, ...]]:
    guide = read_guide()
    wanted, moved = guide.tasks[task].figures, []
    options = []
    for letter, scheme in guide.schemes.items():
        own = [entry for entry in entries if entry.scheme == letter]
        rules = tuple(rule for rule in guide.rules if rule.scheme == letter and rule.applies(task, constraints))
        broken = {entry.name: _broken(entry, guide.tasks[task], constraints) for entry in own}
        models = [_model(entry, constraints, wanted, results) for entry in own if not broken[entry.name]]
        models.sort(key=lambda model: not model.entry.bundled)
        ordered = _by_figures(models, lambda model: model.figures, wanted[0], moved)
        left_out = tuple((name, why) for name, why in broken.items() if why)
        start = scheme.start_causal if constraints.causal or guide.tasks[task].needs == "stream" else scheme.start
        options.append(Option(letter, scheme, rules, tuple(ordered), left_out, tuple(start)))
    options.sort(key=lambda option: (bool(constraints.words) and not option.models, -option.points))
    ordered = _by_figures(options, lambda option: option.models[0].figures if option.models else (), wanted[0], moved)
    return tuple(ordered), tuple(moved)


def _broken(entry: ModelEntry, task: Task, constraints: Constraints) -> str:
    """Why a model is out of the question, or nothing."""
    if task.needs == "voice" and not entry.converts:
        return "no voice to exchange"
    if constraints.offline and not entry.bundled:
        return "not bundled, or a package it needs is missing"
    if (constraints.causal or task.needs == "stream") and not entry.causal:
        return "not causal"
    if task.needs == "stream" and not entry.streams:
        return "not in a stream: transformers runs it on the whole recording"
    if constraints.bitrate is not None and not _levels(entry, constraints) and entry.hop is not None:
        return (
            f"even one level is more than {constraints.bitrate:g} bit/s" if entry.levels else "vectors have no bitrate"
        )
    return ""


def _levels(entry: ModelEntry, constraints: Constraints) -> int:
    """How many of the levels the bitrate allows."""
    if constraints.bitrate is None or entry.bitrate is None:
        return entry.levels
    sizes, limit = entry.codebook_sizes, constraints.bitrate
    return max(k for k in range(entry.levels + 1) if nominal_bitrate(entry.frame_rate, sizes[:k]) <= limit)


def _model(entry: ModelEntry, constraints: Constraints, wanted: Sequence[Wanted], results: Results) -> Model:
    levels = _levels(entry, constraints)
    figures = [
        figure
        for one in wanted
        for figure in results.figures
        if figure.tokenizer == entry.name
        and figure.measure == one.measure
        and _is_about(figure, one.role, entry, levels)
    ]
    return Model(entry, levels, tuple(figures))


def _is_about(figure: Figure, role: str, entry: ModelEntry, levels: int) -> bool:
    """Whether a figure has this role when only so many levels are used."""
    if role == FIRST:  # vectors and text have no levels: all that they are
        return figure.role == FIRST or figure.levels == 1 or (not entry.levels and figure.role == ALL)
    if role != ALL:
        return figure.role == role or (entry.conversion == "voice" and figure.role == WHOLE)
    return figure.levels == levels if levels < entry.levels else figure.role == ALL


def _by_figures(
    things: Sequence[Thing], figures: Callable[[Thing], Sequence[Figure]], wanted: Wanted, moved: list[str]
) -> list[Thing]:
    """Neighbours change places where the later one was clearly measured to be better, until none does.

    Every exchange removes one contradiction to a measurement and adds none, so this ends.
    """
    order = list(things)
    changed = True
    while changed:
        changed = False
        for i in range(len(order) - 1):
            words = _beats(figures(order[i + 1]), figures(order[i]), wanted)
            if words:
                order[i], order[i + 1] = order[i + 1], order[i]
                moved.append(words)
                changed = True
    return order


def _beats(first: Sequence[Figure], second: Sequence[Figure], wanted: Wanted) -> str:
    """How the first is clearly better (intervals apart, same recordings and tools), in words; else nothing."""
    for a in first:
        for b in second:
            if a.measure != wanted.measure or not a.comparable(b) or None in (a.low, a.high, b.low, b.high):
                continue
            if (a.low > b.high) if wanted.better == "higher" else (a.high < b.low):
                return f"{a.tokenizer} before {b.tokenizer}: {a.measure} {a.mean:.3g} against {b.mean:.3g} ({a.data})"
    return ""


def _flips(
    task: str, constraints: Constraints, entries: Sequence[ModelEntry], results: Results, leader: Option
) -> list[str]:
    """Constraints, and figures, without or with which another scheme would lead."""
    found = []
    for words, other, known in _variations(constraints, results):
        first = _ranked(task, other, entries, known)[0][0]
        if first.letter != leader.letter:
            found.append(f"{words}: {first.letter} would lead, {first.scheme.title}.")
    return found


def _variations(constraints: Constraints, results: Results) -> list[tuple[str, Constraints, Results]]:
    tried = []
    for name in ("causal", "offline"):
        is_set = getattr(constraints, name)
        tried.append((f"Without --{name}" if is_set else f"With --{name}", replace(constraints, **{name: not is_set})))
    for limit in (None,) if constraints.bitrate is not None else PROBES:
        words = "Without --bitrate" if limit is None else f"With --bitrate {limit:g}"
        tried.append((words, replace(constraints, bitrate=limit)))
    without = [("Without the figures on disk", constraints, Results())] if results.figures else []
    return [(words, other, results) for words, other in tried] + without


def _commands(task: Task, option: Option) -> tuple[str, ...]:
    """What to run next: the task itself with the leading model, or how to come by one."""
    if not option.models:
        return option.start
    model = option.models[0]
    name, levels = model.entry.name, f" --levels {model.levels}" if model.levels < model.entry.levels else ""
    can_be_measured = bool(model.entry.levels) and not model.figures
    measure = (task.measure.format(model=name),) if can_be_measured else ()
    return (task.command.format(model=name, levels=levels), *measure)
