"""A judge that knows the vocabulary: PocketSphinx with word pairs of the texts under test.

With its own trigrams PocketSphinx understands little of difficult speech, and what a tokenizer takes away is lost among
its errors. Knowing which words can be said, and which follow which, it errs far less and tells tokenizers apart better.
Its rates are those of a small closed task: they rank, and compare with nothing else.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from speechtok.bench.judge import POCKETSPHINX, SEARCH, RecogniserJudge
from speechtok.errors import ConfigError
from speechtok.guidance.pronounce import pronounce, words_of
from speechtok.tokenizers.recognisers import PocketSphinx
from speechtok.train.data import read_manifest

START, END = "<s>", "</s>"
DISCOUNT = 0.5
"""Taken from the count of every pair, for pairs that were not seen."""


class ClosedJudge(RecogniserJudge):
    """PocketSphinx that expects the words of ``texts``.

    Words that neither its dictionary nor their parts say how to pronounce are never understood.

    Args:
        texts: transcripts of all utterances that will be judged.
        name: what reports call it.

    Raises:
        ConfigError: PocketSphinx is not installed, or no text has a word.
    """

    def __init__(self, texts: Sequence[str], name: str):
        recogniser = PocketSphinx(**SEARCH)
        sentences = [words for text in texts if (words := words_of(text))]
        if not sentences:
            raise ConfigError(f"{name}: no text has a word, so there is nothing to expect; fill the column text")
        recogniser.expect(_pronounced(sentences, recogniser), bigrams(sentences))
        super().__init__(recogniser, name)


def closed_judge(manifest: str, split: str) -> ClosedJudge:
    """The judge that expects the texts of a split; its name says so.

    Raises:
        ConfigError: the manifest cannot be read, or see ``ClosedJudge``.
    """
    texts = [utterance.text for utterance in read_manifest(manifest, split)]
    return ClosedJudge(texts, f"{POCKETSPHINX} that expects the texts of {Path(manifest).name}, {split}")


def _pronounced(sentences: Sequence[Sequence[str]], recogniser: PocketSphinx) -> dict[str, str]:
    """Phones of the words that the dictionary lacks."""
    words = {word for sentence in sentences for word in sentence}
    missing = sorted(word for word in words if not recogniser.phones(word))
    found = {word: pronounce(word, recogniser.phones) for word in missing}
    return {word: phones for word, phones in found.items() if phones}


def bigrams(sentences: Sequence[Sequence[str]]) -> str:
    """Word pairs with absolute discounting and back-off to single words, in the ARPA format."""
    whole = [[START, *sentence, END] for sentence in sentences]
    # a sentence begins once, but nothing ever leads to its beginning
    singles = Counter(word for sentence in whole for word in sentence[1:])
    pairs = Counter(pair for sentence in whole for pair in pairwise(sentence))
    firsts, followers = Counter(), Counter()
    for (first, _), count in pairs.items():
        firsts[first] += count
        followers[first] += 1
    total = sum(singles.values())
    single = {word: count / total for word, count in singles.items()}
    reached = Counter()
    for first, second in pairs:
        reached[first] += single[second]
    lines = ["\\data\\", f"ngram 1={len(singles) + 1}", f"ngram 2={len(pairs)}", "", "\\1-grams:"]
    for word in sorted({START, *singles}):
        left = DISCOUNT * followers[word] / firsts[word] if firsts[word] else 1.0
        backoff = left / max(1e-6, 1 - reached[word])
        lines.append(f"{_log(single.get(word, 0))} {word} {_log(backoff)}")
    lines += ["", "\\2-grams:"]
    for (first, second), count in sorted(pairs.items()):
        probability = (count - DISCOUNT) / firsts[first]
        lines.append(f"{_log(probability)} {first} {second}")
    return "\n".join([*lines, "", "\\end\\", ""])


def _log(probability: float) -> str:
    return f"{math.log10(probability) if probability > 0 else -99.0:.6f}"
