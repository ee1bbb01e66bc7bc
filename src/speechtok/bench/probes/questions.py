"""What is asked about the utterances of a manifest: transcripts, aligned phones, or classes named by a column."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from speechtok.bench.facts import Item, item_of
from speechtok.bench.probes.recipe import DEV, PARTS, TEST, TRAIN, ProbeData
from speechtok.errors import ConfigError, NotSupportedError
from speechtok.guidance.verification import UNNAMED
from speechtok.train.data import evenly, read_manifest

SHARES = {TEST: 0.2, DEV: 0.1}
"""Of the utterances of a class where the parts are drawn within classes; the rest is for training."""


class Question(NamedTuple):
    """One utterance and the right answer, as text."""

    item: Item
    answer: str
    """Transcript, name of the class, or, for phones, the name in the file of segments; empty where there is none."""


class Label(NamedTuple):
    """Where a class is written: a column, or a key in its JSON."""

    column: str
    key: str = ""

    @classmethod
    def parse(cls, text: str) -> Label:
        """``column`` or ``column:key``.

        Raises:
            ConfigError: a part is empty.
        """
        column, colon, key = text.partition(":")
        if not column or (colon and not key):
            raise ConfigError(f"label {text!r} names no column; write column, or column:key where it holds JSON")
        return cls(column, key)


def columns_of(path: str | Path) -> list[str]:
    """Names in the first line of a manifest.

    Raises:
        ConfigError: it cannot be read.
    """
    return list(next(_lines(path), ()))


def labels_of(path: str | Path, split: str, label: Label) -> list[str]:
    """The class of every row of a split, in the order of ``read_manifest``; empty where the row has none.

    Raises:
        NotSupportedError: the manifest has no such column.
        ConfigError: a cell that should hold JSON does not; the message names its line.
    """
    lines = _lines(path)
    names = next(lines, [])
    if label.column not in names:
        raise NotSupportedError(f"{path}: has no column {label.column!r}, only {', '.join(names)}")
    place, of_split = names.index(label.column), names.index("split")
    return [
        _class(cells[place] if place < len(cells) else "", label, f"{path} line {number}")
        for number, cells in enumerate(lines, 2)
        if len(cells) > of_split and cells[of_split] == split
    ]


def _class(cell: str, label: Label, where: str) -> str:
    if not label.key or not cell:
        return cell.strip()
    try:
        values = json.loads(cell)
    except ValueError as error:
        raise ConfigError(f"{where}: column {label.column} holds no JSON ({error}); give the column alone") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{where}: column {label.column} holds no mapping, so it has no key {label.key!r}")
    found = values.get(label.key)
    return "" if found is None else str(found).strip()


def _lines(path: str | Path) -> Iterator[list[str]]:
    try:
        with Path(path).open(newline="", encoding="utf-8") as file:
            yield from csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot read this manifest ({error}); give a tab-separated file") from error


def questions_of(data: ProbeData, goal: str, split: str) -> list[Question]:
    """All rows of a split of all manifests, or ``data.limit`` of them.

    Raises:
        ConfigError, NotSupportedError: as ``read_manifest`` and ``labels_of``.
    """
    found = []
    for manifest in data.manifests:
        utterances, folder = read_manifest(manifest, split), Path(manifest).parent
        items = [item_of(utterance, folder) for utterance in utterances]
        if goal == "classes":
            answers = labels_of(manifest, split, Label.parse(data.label))
            nobody = UNNAMED if data.label == "speaker" else ()
            answers = ["" if answer.lower() in nobody else answer for answer in answers]
        else:
            answers = [u.text if goal == "characters" else item.name for u, item in zip(utterances, items, strict=True)]
        found += [Question(*pair) for pair in zip(items, answers, strict=True)]
    return [found[i] for i in evenly(len(found), data.limit or len(found))]


def within_classes(questions: Sequence[Question], least: int, seed: int) -> dict[str, list[Question]]:
    """The three parts, drawn at random from every class that has at least ``least`` utterances.

    Raises:
        NotSupportedError: fewer than two classes have so many.
    """
    classes: dict[str, list[Question]] = {}
    for question in questions:
        if question.answer:
            classes.setdefault(question.answer, []).append(question)
    large = {name: found for name, found in sorted(classes.items()) if len(found) >= least}
    if len(large) < 2:
        raise NotSupportedError(f"{len(large)} classes have {least} utterances or more; lower data.least")
    draws, parts = np.random.default_rng(seed), {part: [] for part in PARTS}
    for found in large.values():
        order = draws.permutation(len(found))
        for part, share in SHARES.items():
            taken, order = np.split(order, [max(1, round(share * len(found)))])
            parts[part] += [found[i] for i in taken]
        parts[TRAIN] += [found[i] for i in order]
    return parts
