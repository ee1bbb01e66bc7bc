"""How well voices are converted by mixing levels: words kept, voice taken over, melody kept, by level range.

python -m speechtok.bench.conversion --data MANIFEST.tsv --split test -o DIR
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

import speechtok
from speechtok.audio import Audio, read
from speechtok.bench.facts import UNREADABLE, Evaluation, Item, choose_items
from speechtok.bench.figures import WHOLE
from speechtok.bench.judge import POCKETSPHINX, Judge, error_scores, load_judge
from speechtok.bench.metrics import Score
from speechtok.bench.pitch import pitch_correlation
from speechtok.bench.reconstruction import estimate_text, versions
from speechtok.bench.scoring import score_row
from speechtok.bench.statistics import summarize
from speechtok.bench.voice import RESEMBLYZER, Remembered, VoiceEncoder, load_encoder, voice_cosine
from speechtok.errors import AudioError, ConfigError, run_module
from speechtok.files import make_folder, write_text_atomic
from speechtok.guidance.verification import UNNAMED
from speechtok.tokenizers.base import Tokenizer
from speechtok.tokenizers.conversion import checked_levels, convert_voice, levels_text, parse_levels

FORMAT, VERSION = "speechtok.conversion", 1
RANGES = ("2", "2:4", "2:8")
"""Those of the paper's table."""
SOURCE, RESYNTHESIS = "source", "resynthesis"
"""What every range is held against: the recording itself, and the recording decoded from all its own levels."""
MEASURES = {
    "wer": "WER ↓",
    "cosine_to_target": "voice cosine to target ↑",
    "cosine_to_source": "voice cosine to source ↓",
    "pitch_correlation": "pitch correlation with source ↑",
}


class Pair(NamedTuple):
    """Whose words, and whose voice."""

    source: Item
    target: Item


class Tools(NamedTuple):
    """What listens to the results."""

    judge: Judge
    encoder: VoiceEncoder


def choose_pairs(evaluation: Evaluation) -> list[Pair]:
    """Utterances spread evenly over the speakers, each with one of another speaker; the same ones in every run.

    Raises:
        ConfigError: fewer than two named speakers.
    """
    pairs = pair_up(choose_items(evaluation))
    if not pairs:
        raise ConfigError(f"{evaluation.data}: converting voices needs two named speakers in {evaluation.split}")
    return pairs


def pair_up(items: Sequence[Item]) -> list[Pair]:
    """Each item of a named speaker with one of another, the same ones in every run; none where there is one speaker."""
    items = [item for item in items if item.utterance.speaker.lower() not in UNNAMED]
    if len({item.utterance.speaker for item in items}) < 2:
        return []
    draws, pairs = np.random.default_rng(0), []
    for item in items:
        others = [other for other in items if other.utterance.speaker != item.utterance.speaker]
        pairs.append(Pair(item, others[draws.integers(len(others))]))
    return pairs


def evaluate(tokenizer: Tokenizer, pairs: Sequence[Pair], ranges: Sequence[slice], tools: Tools) -> dict[str, Any]:
    """Convert and rate every pair; plain types: ``n``, ``summary`` (a row per range and measure) and ``pairs``.

    A tokenizer with ``voices`` takes each target's voice as a whole, whatever the ranges.

    Raises:
        ConfigError, NotSupportedError: as ``convert_voice``, before any work.
    """
    checked = [None] if tokenizer.voices else [checked_levels(tokenizer, one) for one in ranges]
    names = [SOURCE, RESYNTHESIS, *(WHOLE if one is None else levels_text(one) for one in checked)]
    scores: dict[str, list[dict[str, Score]]] = {name: [] for name in names}
    rows = []
    for pair in tqdm(pairs, desc="converting", unit="pair", disable=None):
        for name, found in rated(tokenizer, pair, checked, tools, names).items():
            scores[name].append(found)
            who = {"source": pair.source.name, "target": pair.target.name, "role": name}
            rows.append(who | score_row(found))
    head = {"tokenizer": tokenizer.name, "fingerprint": tokenizer.fingerprint}
    summary = [
        head | {"measure": measure, "role": name} | summarize(one[measure] for one in scores[name]).to_dict()
        for name in names
        for measure in MEASURES
    ]
    return {"n": len(pairs), "summary": summary, "pairs": rows}


def rated(
    tokenizer: Tokenizer, pair: Pair, ranges: Sequence[slice | None], tools: Tools, names: Sequence[str]
) -> dict[str, dict[str, Score]]:
    """Scores of one pair by name and measure."""
    try:
        source, target = (read(item.utterance.path).resample(tokenizer.sample_rate) for item in pair)
    except AudioError:
        return {name: {measure: Score(measure, None, UNREADABLE) for measure in MEASURES} for name in names}
    own = tokenizer.encode(source)
    other = target if tokenizer.voices else tokenizer.encode(target)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the page says once whether the first level was guided
        heard = [source, tokenizer.decode(own), *(convert_voice(tokenizer, own, other, one) for one in ranges)]
    text = pair.source.utterance.text
    return {name: _scores(text, audio, source, target, tools) for name, audio in zip(names, heard, strict=True)}


def _scores(text: str, audio: Audio, source: Audio, target: Audio, tools: Tools) -> dict[str, Score]:
    return {
        "wer": error_scores(text, tools.judge.transcribe(audio))[0],
        "cosine_to_target": voice_cosine(tools.encoder, audio, target),
        "cosine_to_source": voice_cosine(tools.encoder, audio, source),
        "pitch_correlation": pitch_correlation(source, audio),
    }


def markdown(document: dict[str, Any]) -> str:
    """The table for people: one line per range, means with 95 % intervals and failures."""
    summary, settings, tokenizer = document["summary"], document["settings"], document["tokenizer"]
    taught = "was taught content" if tokenizer["semantic_levels"] else "was NOT taught content"
    return (
        f"# Voice conversion with {tokenizer['name']}\n\n{document['n']} pairs of different speakers from"
        f" {settings['data']}, split {settings['split']}; judge {settings['judge']}, voices {settings['encoder']}. The"
        f" first level of this model {taught}. Mean [95 % interval over pairs].\n\n"
        + table(summary, MEASURES, "levels of the target")
        + f"\n`{SOURCE}` is the recording itself, `{RESYNTHESIS}` the recording decoded from all its own levels.\n"
    )


def table(summary: Sequence[dict[str, Any]], measures: Mapping[str, str], first: str) -> str:
    """Markdown of the rows of a summary: a line per role, a column per measure, means with 95 % intervals and failures.

    Args:
        measures: headings by measure.
        first: heading of the roles.
    """
    cells = {(row["role"], row["measure"]): estimate_text(row, 3) for row in summary}
    lines = [[first, *measures.values()], ["---"] * (1 + len(measures))]
    roles = dict.fromkeys(row["role"] for row in summary)
    lines += [[role, *(cells.get((role, one), "") for one in measures)] for role in roles]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command: writes ``conversion.json`` and ``conversion.md`` and prints the latter."""
    options = _parser().parse_args(arguments)
    ranges = [parse_levels(text) for text in options.levels]
    evaluation = Evaluation(
        str(options.data), options.split, utterances=options.limit, longest=options.longest
    )  # fmt: skip
    pairs = choose_pairs(evaluation)
    tokenizer = speechtok.load(options.model)
    tools = Tools(load_judge(options.judge), Remembered(load_encoder(options.encoder)))
    result = evaluate(tokenizer, pairs, ranges, tools)
    settings = {
        "data": options.data.name, "split": options.split, "limit": options.limit, "longest": options.longest,
        "levels": options.levels, "judge": tools.judge.name, "encoder": tools.encoder.name, "confidence": 0.95,
    }  # fmt: skip
    document = {"format": FORMAT, "version": VERSION, "tokenizer": tokenizer.describe(), "settings": settings}
    document |= {"versions": versions(), **result}
    folder, page = make_folder(options.output), markdown(document)
    write_text_atomic(folder / "conversion.json", json.dumps(document, indent=1) + "\n")
    write_text_atomic(folder / "conversion.md", page)
    print(page)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m speechtok.bench.conversion", description=__doc__.split("\n")[0])
    parser.add_argument("--data", required=True, type=Path, help="manifest with the columns path, split, speaker, text")
    parser.add_argument("--split", default="test")
    parser.add_argument("--model", help="a name of `speechtok models`, a folder or a Hub id; bundled model")
    parser.add_argument("--levels", nargs="+", default=list(RANGES), metavar="RANGE", help="such as 2 2:4 2:8")
    parser.add_argument("--limit", type=int, default=40, help="pairs (default: 40)")
    parser.add_argument("--longest", type=float, default=10.0, help="leave out longer recordings, in seconds")
    parser.add_argument("--judge", default=POCKETSPHINX, help="pocketsphinx, or a recogniser of transformers")
    parser.add_argument("--encoder", default=RESEMBLYZER, help="resemblyzer, or an ECAPA-TDNN: file, folder or Hub id")
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="DIR", help="folder of the result")
    return parser


if __name__ == "__main__":
    run_module(main)
