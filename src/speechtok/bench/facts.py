"""Facts about a tokenizer on single utterances, kept so that nothing is measured twice.

A fact is a number, a transcript or a row of codes, or the reason why there is none. Facts lie in JSON lines by the
tokenizer's fingerprint, are written as soon as they are known, and belong to the very bytes of the recording. As a
program of its own (``python -m speechtok.bench.facts``) this measures a share of a job beside other processes.
"""

from __future__ import annotations

import hashlib
import json
import math
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

import speechtok
from speechtok.audio import Audio, probe, read
from speechtok.bench.judge import NORMALISERS, POCKETSPHINX, Judge, load_judge
from speechtok.bench.melody import melody_scores
from speechtok.bench.metrics import UNREADABLE, Score, score
from speechtok.bench.predictors import PREDICTED, dnsmos
from speechtok.bench.reconstruction import level_choices, reconstruct
from speechtok.bench.voice import RESEMBLYZER, Remembered, VoiceEncoder, load_encoder, voice_cosine
from speechtok.config import from_mapping, require_whole
from speechtok.errors import AudioError, ConfigError, SpeechtokError, run_module
from speechtok.files import make_folder, write_text_atomic
from speechtok.guidance.phones import utterance_name
from speechtok.processes import child_environment
from speechtok.tokenizers.base import Tokenizer
from speechtok.train.data import Utterance, read_manifest
from speechtok.train.log import read_log

QUALITY = ("pesq_wb", "stoi", "mel_distance")
ORIGINAL = "original"
"""Fingerprint of the recordings themselves."""
MELODY = "melody"
"""The kind of fact that holds all scores of ``melody.melody_scores``: the pitch is followed once for them."""
CODES = "codes@1"
"""The fact that holds the codes of level one."""


@dataclass
class Evaluation:
    """What is measured, and on what."""

    data: str = "data.tsv"
    """Manifest with the columns path, split, speaker and text."""
    split: str = "dev"
    utterances: int = 40
    """How many, spread evenly over the speakers."""
    longest: float = 10.0
    """Longer recordings are left out, in seconds."""
    phones: str | None = None
    """``phones.tsv`` of ``speechtok align``; null measures no phones."""
    phone_utterances: int = 0
    """How many utterances of any length have their codes held against phones, spread likewise; 0 takes the split. These
    are only encoded, and PNMI comes out too high where there are few frames per code."""
    judge: str | None = POCKETSPHINX
    """A recogniser, see ``load_judge``; null measures no error rates."""
    normaliser: str = "plain"
    voice: str | None = RESEMBLYZER
    """A speaker encoder, see ``load_encoder``; null measures no voices."""
    processes: int = 1

    def __post_init__(self) -> None:
        require_whole(self, 1, "utterances", "processes", section="evaluation.")
        require_whole(self, 0, "phone_utterances", section="evaluation.")
        if self.normaliser not in NORMALISERS:
            raise ConfigError(f"evaluation.normaliser is {self.normaliser!r}; there are {', '.join(NORMALISERS)}")


class Item(NamedTuple):
    """One utterance of an evaluation."""

    name: str
    key: str
    """Its name and the digest of its bytes."""
    utterance: Utterance


class Fact(NamedTuple):
    """What became of one measurement."""

    value: Any
    failure: str | None = None


class Facts:
    """The facts of one fingerprint in a folder, by item and by what was measured.

    Args:
        share: which process writes; each has a file of its own, and reads those of all.
    """

    def __init__(self, folder: Path, fingerprint: str, share: int = 0):
        self._path = folder / f"{fingerprint}.{share}.jsonl"
        self._whole = False
        """Whether a last line that a kill cut short is out of the way."""
        self._known: dict[tuple[str, str], Fact] = {}
        for path in sorted(folder.glob(f"{fingerprint}.*.jsonl")):
            self._known |= {(row["item"], row["what"]): Fact(row["value"], row["failure"]) for row in read_log(path)}

    def __getitem__(self, place: tuple[Item, str]) -> Fact:
        item, what = place
        return self._known[item.key, what]

    def missing(self, item: Item, wanted: Iterable[str]) -> list[str]:
        """Those of the wanted facts that are not known."""
        return [what for what in wanted if (item.key, what) not in self._known]

    def of(self, what: str) -> dict[str, Fact]:
        """All facts of one kind, by the keys of their items."""
        return {key: fact for (key, kind), fact in self._known.items() if kind == what}

    def add(self, item: Item, found: dict[str, Fact]) -> None:
        """Remember and write down."""
        rows = [{"item": item.key, "what": what, **fact._asdict()} for what, fact in found.items()]
        if not self._whole:
            make_folder(self._path.parent)
            if self._path.exists():
                write_text_atomic(self._path, _lines(read_log(self._path)))
            self._whole = True
        with self._path.open("a", encoding="utf-8") as file:
            file.write(_lines(rows))
        self._known |= {(item.key, what): fact for what, fact in found.items()}


class Tools:
    """Recogniser and speaker network, loaded when first needed."""

    def __init__(self, evaluation: Evaluation):
        self.evaluation = evaluation

    @cached_property
    def judge(self) -> Judge:
        """The recogniser."""
        return load_judge(self.evaluation.judge)

    @cached_property
    def voice(self) -> VoiceEncoder:
        """The speaker network. Every tokenizer is compared with the same recordings."""
        return Remembered(load_encoder(self.evaluation.voice))


def choose_items(evaluation: Evaluation) -> list[Item]:
    """The utterances of an evaluation: short enough, as many of each speaker as there are, evenly over their lists.

    A file that cannot be read stays among them, to be counted.

    Raises:
        ConfigError: the manifest cannot be read, or all its recordings are too long.
    """
    return _spread(evaluation, evaluation.longest, evaluation.utterances)


def choose_phone_items(evaluation: Evaluation) -> list[Item]:
    """The utterances whose codes are held against phones, chosen likewise; none where there are no phones.

    Raises:
        ConfigError: the manifest cannot be read.
    """
    return choose_counted_items(evaluation) if evaluation.phones else []


def choose_counted_items(evaluation: Evaluation) -> list[Item]:
    """``phone_utterances`` of any length, whether or not there are phones; raises as ``choose_phone_items``."""
    return _spread(evaluation, math.inf, evaluation.phone_utterances or None)


def _spread(evaluation: Evaluation, longest: float, count: int | None) -> list[Item]:
    folder = Path(evaluation.data).parent
    speakers: dict[str, list[Utterance]] = {}
    for utterance in read_manifest(evaluation.data, evaluation.split):
        if longest == math.inf or _seconds(utterance.path) <= longest:
            speakers.setdefault(utterance.speaker, []).append(utterance)
    if not speakers:
        raise ConfigError(f"{evaluation.data}: nothing in {evaluation.split} is within {longest} s")
    turns = chain.from_iterable(zip_longest(*([name] * len(found) for name, found in speakers.items())))
    order = [name for name in turns if name is not None][:count]
    chosen = []
    for name, found in speakers.items():
        places = np.linspace(0, len(found) - 1, order.count(name)).round().astype(int)
        chosen += [found[place] for place in places]
    return [item_of(utterance, folder) for utterance in chosen]


def wanted_facts(evaluation: Evaluation, levels: Sequence[int]) -> list[str]:
    """Names of all facts about a tokenizer, ``kind:tool@levels``; without levels those of the recordings."""
    judged = [f"heard:{evaluation.judge}"] if evaluation.judge else []
    if not levels:
        return [f"{what}@0" for what in judged]
    voiced = [f"voice_cosine:{evaluation.voice}"] if evaluation.voice else []
    return [f"{what}@{count}" for count in levels for what in (*QUALITY, *voiced, *judged)]


def kind_and_levels(what: str) -> tuple[str, int]:
    """Kind of a fact, and of how many levels it is (0: of the recording)."""
    name, _, count = what.rpartition("@")
    return name.partition(":")[0], int(count)


def first_and_all(tokenizer: Tokenizer) -> tuple[int, ...]:
    """The numbers of levels that are decoded."""
    return level_choices((1,), tokenizer)


def measure(
    tokenizer: Tokenizer | None, items: Sequence[Item], phone_items: Sequence[Item], facts: Facts, tools: Tools
) -> int:
    """Measure what is not known yet of a tokenizer, or of the recordings (None); returns how many items that were."""
    wanted = wanted_facts(tools.evaluation, first_and_all(tokenizer) if tokenizer else ())
    label = tokenizer.name if tokenizer else ORIGINAL
    jobs = [(item, wanted) for item in items] + [(item, [CODES]) for item in phone_items if tokenizer]
    return collect(jobs, facts, lambda item, missing: _measured(tokenizer, item, missing, tools), label)


def collect(
    jobs: Sequence[tuple[Item, Sequence[str]]],
    facts: Facts,
    work: Callable[[Item, list[str]], dict[str, Fact]],
    label: str,
) -> int:
    """Have ``work`` measure the wanted facts of each item that are not known yet, and keep them at once.

    Returns:
        how many items that were. A bar on a terminal shows them under ``label``.
    """
    waiting = [(item, missing) for item, names in jobs if (missing := facts.missing(item, names))]
    for item, missing in tqdm(waiting, desc=label, unit="file", disable=None):
        facts.add(item, work(item, missing))
    return len(waiting)


def _measured(tokenizer: Tokenizer | None, item: Item, missing: Sequence[str], tools: Tools) -> dict[str, Fact]:
    try:
        original = read(item.utterance.path)
    except AudioError:
        return {what: Fact(None, UNREADABLE) for what in missing}
    if tokenizer is None:
        return {what: pair_fact(what, original, original, tools) for what in missing}
    try:
        result = reconstruct(tokenizer, original, {kind_and_levels(what)[1] for what in missing if what != CODES})
    except SpeechtokError as error:
        return {what: Fact(None, f"{tokenizer.name} cannot reconstruct it: {error}") for what in missing}
    found = {}
    for what in missing:
        if what == CODES:
            found[what] = Fact(result.tokens.codes[0].tolist())
        else:
            found[what] = pair_fact(what, result.original, result.decoded[kind_and_levels(what)[1]], tools)
    return found


def pair_fact(what: str, original: Audio, heard: Audio, tools: Tools) -> Fact:
    """One fact about what became of a recording: a transcript, several scores of its melody, or one score."""
    kind, _ = kind_and_levels(what)
    if kind == "heard":
        return Fact(tools.judge.transcribe(heard))
    if kind == "voice_cosine":
        return _known(voice_cosine(tools.voice, original, heard))
    if kind == MELODY:
        return _several(melody_scores(original, heard))
    if kind == PREDICTED:
        return _several(dnsmos(heard))
    return _known(score(kind, original.samples, heard.samples, original.rate))


def _several(scores: dict[str, Score]) -> Fact:
    return Fact({name: [one.value, one.failure] for name, one in scores.items()})


def _known(found: Score) -> Fact:
    return Fact(found.value, found.failure)


def _lines(rows: Iterable[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def item_of(utterance: Utterance, folder: Path) -> Item:
    """An utterance below ``folder`` with its name and its key."""
    name = utterance_name(utterance.path, folder)
    try:
        digest = hashlib.sha256(utterance.path.read_bytes()).hexdigest()[:12]
    except OSError:
        digest = "missing"
    return Item(name, f"{name} {digest}", utterance)


def _seconds(path: Path) -> float:
    try:
        return probe(path).seconds
    except AudioError:
        return 0.0


# -- processes ------------------------------------------------------------------------------------------------------


def measure_models(models: Sequence[str | Path | None], evaluation: Evaluation, cache: Path) -> None:
    """Measure several models (None: the recordings) in ``evaluation.processes`` processes.

    Raises:
        ConfigError: a process failed; it has said why.
        SpeechtokError: a model cannot be loaded, or a tool is missing.
    """
    job = {"models": [model and str(model) for model in models], "evaluation": asdict(evaluation), "cache": str(cache)}
    if evaluation.processes == 1:
        run_share(job, 0, 1)
        return
    workers = []
    try:
        for share in range(evaluation.processes):
            command = [sys.executable, "-m", "speechtok.bench.facts", json.dumps(job), str(share)]
            workers.append(subprocess.Popen(command, env=child_environment() | {"OMP_NUM_THREADS": "1"}))
        failed = [worker.wait() for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    if any(failed):
        raise ConfigError("a measuring process failed; mend what it says above and start again, nothing is lost")


def run_share(job: dict[str, Any], share: int, shares: int) -> None:
    """Every ``shares``-th utterance of a job, from number ``share`` on."""
    evaluation = from_mapping(Evaluation, job["evaluation"], "the job")
    items, phone_items = (choose(evaluation)[share::shares] for choose in (choose_items, choose_phone_items))
    tools, cache = Tools(evaluation), Path(job["cache"])
    for model in job["models"]:
        tokenizer = speechtok.load(model) if model else None
        fingerprint = tokenizer.fingerprint if tokenizer else ORIGINAL
        measure(tokenizer, items, phone_items, Facts(cache, fingerprint, share), tools)


def main() -> int:
    """One share, as ``measure_models`` starts it: the job as JSON and the number of the share."""
    job = json.loads(sys.argv[1])
    run_share(job, int(sys.argv[2]), job["evaluation"]["processes"])
    return 0


if __name__ == "__main__":
    run_module(main)
