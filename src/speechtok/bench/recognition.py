"""What a recogniser of tokens gets wrong on a manifest: word and character error rates, utterance by utterance.

python -m speechtok.bench.recognition --model DIR --data MANIFEST.tsv --split test -o result.json
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from speechtok.audio import read
from speechtok.bench.judge import error_scores
from speechtok.bench.metrics import UNREADABLE, Score
from speechtok.bench.reconstruction import estimate_text, versions
from speechtok.bench.scoring import score_row
from speechtok.bench.statistics import Estimate, paired_difference, summarize
from speechtok.chain.decoding import SearchConfig
from speechtok.chain.saved import digest_of
from speechtok.chain.transcriber import Transcriber
from speechtok.errors import AudioError, ConfigError, run_module
from speechtok.files import write_text_atomic
from speechtok.guidance.writing import plain
from speechtok.tokenizers.base import Tokenizer
from speechtok.train.data import Utterance, evenly
from speechtok.train.transcripts import utterances_of

FORMAT, VERSION = "speechtok.recognition", 1
NORMALISER = "plain"
"""How reference and result are written before they are compared; see ``guidance.writing``."""
MEASURES = ("wer", "cer")
SEARCHES = {"ctc": 1.0, "attention": 0.0}
"""Weights of CTC in the searches that know one side alone; ``joint`` has its own."""

Item = tuple[str, Utterance]
"""Name and row of a manifest."""


class Recognised(NamedTuple):
    """One utterance."""

    name: str
    speaker: str
    text: str
    """What was said, in the plain form."""
    heard: str | None
    """None where it could not be read."""
    scores: dict[str, Score]
    """``wer`` and ``cer``, weighted by words and characters."""

    def row(self) -> dict[str, Any]:
        """Plain types, ready for JSON, with the weights."""
        weights = {f"weight/{name}": one.weight for name, one in self.scores.items() if one.value is not None}
        said = {"name": self.name, "speaker": self.speaker, "text": self.text, "heard": self.heard}
        return said | score_row(self.scores) | weights


def choose_utterances(manifest: str | Path, split: str, most: int = 0) -> list[Item]:
    """Utterances of a split, spread evenly over it; 0 takes all.

    Raises:
        ConfigError: the manifest cannot be read, no row of the split has a text, or ``most`` is below 0.
    """
    if most < 0:
        raise ConfigError(f"{most} utterances cannot be measured; give --utterances a number above 0, or 0 for all")
    items = utterances_of([str(manifest)], split)
    if not any(plain(utterance.text) for _, utterance in items):
        raise ConfigError(f"{manifest}: no utterance of split {split!r} has a text; error rates need column text")
    return [items[place] for place in evenly(len(items), most or len(items))]


def recognition_scores(transcriber: Transcriber, items: Sequence[Item]) -> list[Recognised]:
    """What is heard in every utterance and how wrong it is; a file that cannot be read, or has no text, is a failure.

    Raises:
        ConfigError: ``jiwer`` is not installed.
    """
    found = []
    for name, utterance in tqdm(items, desc="recognising", unit="file", disable=None):
        said = plain(utterance.text)
        try:
            heard = transcriber.transcribe(read(utterance.path)) if said else None
            scores = error_scores(said, heard or "")
        except AudioError:
            heard, scores = None, [Score(measure, None, UNREADABLE) for measure in MEASURES]
        found.append(Recognised(name, utterance.speaker, said, heard, {one.metric: one for one in scores}))
    return found


def summary_of(found: Sequence[Recognised]) -> dict[str, Estimate]:
    """Rates of the corpus, with bootstrap intervals over utterances."""
    return {measure: summarize(one.scores[measure] for one in found) for measure in MEASURES}


def differences(after: Sequence[Recognised], before: Sequence[Recognised]) -> dict[str, Estimate]:
    """``after - before`` over the same utterances, weighted as the rates are."""
    found = {}
    for measure in MEASURES:
        one, other = ([row.scores[measure] for row in rows] for rows in (after, before))
        weights = [score.weight for score in one]
        found[measure] = paired_difference(*([score.value for score in s] for s in (one, other)), weights=weights)
    return found


def search_of(kind: str, beam: int, ctc_weight: float) -> SearchConfig:
    """``joint`` with that share of CTC, or ``ctc`` or ``attention`` alone; a beam of 1 is greedy."""
    return SearchConfig(beam=beam, ctc_weight=SEARCHES.get(kind, ctc_weight))


def measure(
    folder: str | Path, items: Sequence[Item], search: SearchConfig, tokenizer: str | Tokenizer | None = None
) -> tuple[dict[str, Any], list[Recognised]]:
    """What the recogniser of a folder gets wrong: head and summary as plain types, and every utterance.

    Raises:
        CheckpointError: the recogniser or its tokenizer cannot be loaded, or do not belong together.
        ConfigError: ``jiwer`` is not installed.
    """
    transcriber = Transcriber.load(folder, search, tokenizer)
    found = recognition_scores(transcriber, items)
    model = {"weights": digest_of(folder), "tokenizer": transcriber.tokenizer.name}
    model["fingerprint"] = transcriber.tokenizer.fingerprint
    summary = {name: estimate.to_dict() for name, estimate in summary_of(found).items()}
    return {"model": model, "search": asdict(search), "n": len(found), "summary": summary}, found


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    options = _parser().parse_args(arguments)
    search = search_of(options.search, options.beam, options.ctc_weight)
    error_scores("a", "a")  # a missing package is said before any work
    items = choose_utterances(options.data, options.split, options.utterances)
    about, found = measure(options.model, items, search, options.tokenizer)
    settings = {"data": options.data.name, "split": options.split, "utterances": options.utterances}
    settings |= {"normaliser": NORMALISER, "confidence": 0.95}
    document = {"format": FORMAT, "version": VERSION, "settings": settings, "versions": versions(), **about}
    document["utterances"] = [one.row() for one in found]
    write_text_atomic(options.output, json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    for name, estimate in about["summary"].items():
        print(f"{name.upper()} {estimate_text(estimate, 3)}, {estimate['n']} utterances, {estimate['failed']} failed")
        for reason, count in estimate["reasons"].items():
            print(f"  {count} failed: {reason}")
    print(f"texts compared in the form {NORMALISER!r}; every utterance: {options.output}")
    return 0


def _parser() -> argparse.ArgumentParser:
    own = SearchConfig()
    parser = argparse.ArgumentParser(prog="python -m speechtok.bench.recognition", description=__doc__.split("\n")[0])
    parser.add_argument("--model", required=True, type=Path, metavar="DIR", help="folder of 'speechtok train asr'")
    parser.add_argument("--tokenizer", metavar="MODEL", help="name or folder (default: the one the recogniser knows)")
    parser.add_argument("--data", required=True, type=Path, metavar="MANIFEST", help="columns path, split, text")
    parser.add_argument("--split", default="test")
    parser.add_argument(
        "--utterances", type=int, default=0, metavar="N", help="at most, spread over the split (default: all)"
    )
    parser.add_argument("--search", choices=(*SEARCHES, "joint"), default="joint", help="(default: joint)")
    parser.add_argument("--beam", type=int, default=own.beam, metavar="N", help=f"1 is greedy (default: {own.beam})")
    parser.add_argument(
        "--ctc-weight", type=float, default=own.ctc_weight, metavar="W",
        help=f"share of CTC in a joint search (default: {own.ctc_weight})",
    )  # fmt: skip
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="FILE", help="JSON with every utterance")
    return parser


if __name__ == "__main__":
    run_module(main)
