"""How units sound again: words, voice and melody of a resynthesis whose prompt is the utterance itself or another one.

python -m speechtok.bench.vocoding --data MANIFEST.tsv --split test --model speechtok-units -o DIR

A prompt from the same utterance tells the vocoder more than its voice: what is measured then is flattered. So every
utterance is also spoken with a prompt from another utterance of its speaker, and in the vocoder's own voice.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

import speechtok
from speechtok.audio import Audio, read
from speechtok.bench.conversion import SOURCE, Tools, table
from speechtok.bench.facts import UNREADABLE, Evaluation, Item, choose_items
from speechtok.bench.judge import POCKETSPHINX, error_scores, load_judge
from speechtok.bench.metrics import Score
from speechtok.bench.pitch import pitch_correlation
from speechtok.bench.reconstruction import versions
from speechtok.bench.scoring import score_row
from speechtok.bench.statistics import summarize
from speechtok.bench.voice import RESEMBLYZER, Remembered, load_encoder, voice_cosine
from speechtok.errors import AudioError, ConfigError, run_module
from speechtok.files import make_folder, write_text_atomic
from speechtok.tokenizers.base import Tokenizer

FORMAT, VERSION = "speechtok.vocoding", 1
SAME, OTHER, OWN = "same utterance", "another utterance", "the vocoder's own voice"
ROLES = (SOURCE, SAME, OTHER, OWN)
TO_PROMPT = "cosine_to_prompt"
MEASURES = {
    "wer": "WER ↓",
    TO_PROMPT: "voice cosine to the prompt ↑",
    "cosine_to_source": "voice cosine to the utterance ↑",
    "pitch_correlation": "pitch correlation with the utterance ↑",
}
ALONE = "its speaker has no other utterance"


class Spoken(NamedTuple):
    """An utterance, and another one of its speaker where there is one."""

    item: Item
    other: Item | None


def choose_spoken(evaluation: Evaluation) -> list[Spoken]:
    """Utterances spread over the speakers, each with another of its speaker's; the same ones in every run."""
    items, draws, chosen = choose_items(evaluation), np.random.default_rng(0), []
    for item in items:
        own = [one for one in items if one.utterance.speaker == item.utterance.speaker and one.name != item.name]
        chosen.append(Spoken(item, own[draws.integers(len(own))] if own and item.utterance.speaker else None))
    return chosen


def evaluate(tokenizer: Tokenizer, spoken: Sequence[Spoken], tools: Tools) -> dict[str, Any]:
    """Speak and rate every utterance; plain types: ``n``, ``summary`` (a row per role and measure), ``utterances``.

    Raises:
        ConfigError: the tokenizer cannot be given a voice.
    """
    if not tokenizer.voices:
        raise ConfigError(f"{tokenizer.name} cannot be given a voice; measure units with a vocoder that can")
    scores: dict[str, list[dict[str, Score]]] = {role: [] for role in ROLES}
    rows = []
    for one in tqdm(spoken, desc="speaking", unit="utterance", disable=None):
        for role, found in _rated(tokenizer, one, tools).items():
            scores[role].append(found)
            rows.append({"utterance": one.item.name, "role": role} | score_row(found))
    head = {"tokenizer": tokenizer.name, "fingerprint": tokenizer.fingerprint}
    summary = [
        head | {"measure": measure, "role": role} | summarize(found[measure] for found in scores[role]).to_dict()
        for role in ROLES
        for measure in measures_of(role)
    ]
    return {"n": len(spoken), "summary": summary, "utterances": rows}


def measures_of(role: str) -> list[str]:
    """What can be asked of a role: no recording is the prompt of the vocoder's own voice."""
    return [measure for measure in MEASURES if (role, measure) != (OWN, TO_PROMPT)]


def _rated(tokenizer: Tokenizer, one: Spoken, tools: Tools) -> dict[str, dict[str, Score]]:
    """Scores of one utterance by role and measure."""
    try:
        source = read(one.item.utterance.path).resample(tokenizer.sample_rate)
        other = one.other and read(one.other.utterance.path).resample(tokenizer.sample_rate)
    except AudioError:
        return {role: _failed(role, UNREADABLE) for role in ROLES}
    tokens, text = tokenizer.encode(source), one.item.utterance.text
    rated = {SOURCE: _scores(text, source, source, source, tools)}
    for role, prompt in ((SAME, source), (OTHER, other)):
        if prompt is None:
            rated[role] = _failed(role, ALONE)
        else:
            rated[role] = _scores(text, tokenizer.with_voice(prompt).decode(tokens), source, prompt, tools)
    return rated | {OWN: _scores(text, tokenizer.decode(tokens), source, None, tools)}


def _scores(text: str, audio: Audio, source: Audio, prompt: Audio | None, tools: Tools) -> dict[str, Score]:
    to_prompt = {} if prompt is None else {TO_PROMPT: voice_cosine(tools.encoder, audio, prompt)}
    return to_prompt | {
        "wer": error_scores(text, tools.judge.transcribe(audio))[0],
        "cosine_to_source": voice_cosine(tools.encoder, audio, source),
        "pitch_correlation": pitch_correlation(source, audio),
    }


def _failed(role: str, reason: str) -> dict[str, Score]:
    return {measure: Score(measure, None, reason) for measure in measures_of(role)}


def main(arguments: list[str] | None = None) -> int:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="manifest: path, split, speaker, text")
    parser.add_argument("--split", default="test")
    parser.add_argument("--model", required=True, help="a tokenizer that can be given a voice")
    parser.add_argument("--limit", type=int, default=50, help="utterances, spread over the speakers (default: 50)")
    parser.add_argument("--longest", type=float, default=20.0, help="leave out longer recordings, in seconds")
    parser.add_argument("--judge", default=POCKETSPHINX)
    parser.add_argument("--encoder", default=RESEMBLYZER)
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of vocoding.json and vocoding.md")
    options = parser.parse_args(arguments)
    evaluation = Evaluation(str(options.data), options.split, utterances=options.limit, longest=options.longest)
    spoken, tokenizer = choose_spoken(evaluation), speechtok.load(options.model)
    tools = Tools(load_judge(options.judge), Remembered(load_encoder(options.encoder)))
    found = evaluate(tokenizer, spoken, tools)
    settings = {"data": options.data.name, "split": options.split, "limit": options.limit, "longest": options.longest}
    settings |= {"judge": tools.judge.name, "encoder": tools.encoder.name}
    document = {"format": FORMAT, "version": VERSION, "settings": settings, "versions": versions(), **found}
    folder = make_folder(options.output)
    write_text_atomic(folder / "vocoding.json", json.dumps(document, indent=1) + "\n")
    page = table(found["summary"], MEASURES, "prompt")
    write_text_atomic(folder / "vocoding.md", page)
    print(page)
    return 0


if __name__ == "__main__":
    run_module(main)
