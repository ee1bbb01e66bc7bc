"""The judge that knows the vocabulary: its language model sums to one, and it understands what it expects."""

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

import speechtok
from speechtok.bench.closed import ClosedJudge, bigrams
from speechtok.bench.judge import error_scores, load_judge
from speechtok.clips import bundled_clips
from speechtok.errors import ConfigError


def parsed(arpa: str) -> tuple[dict[str, tuple[float, float]], dict[tuple[str, str], float]]:
    """Probabilities and back-off weights of words, probabilities of pairs."""
    first, second = re.search(r"\\1-grams:\n(.*?)\n\n\\2-grams:\n(.*?)\n\n\\end\\", arpa, re.DOTALL).groups()
    rows = [line.split() for line in first.splitlines()]
    singles = {word: (10 ** float(p), 10 ** float(backoff)) for p, word, backoff in rows}
    pairs = {(one, two): 10 ** float(p) for p, one, two in (line.split() for line in second.splitlines())}
    return singles, pairs


@given(st.lists(st.lists(st.sampled_from("abcd"), min_size=1, max_size=5), min_size=1, max_size=6))
def test_what_may_follow_a_word_sums_to_one(sentences):
    singles, pairs = parsed(bigrams(sentences))
    words = [word for word in singles if word != "<s>"]
    assert math.isclose(sum(singles[word][0] for word in words), 1, abs_tol=1e-4)
    for first in singles:
        if first == "</s>":
            continue
        followers = [pairs.get((first, word), singles[first][1] * singles[word][0]) for word in words]
        # a word after which everything was seen keeps half a count back that nothing can take
        seen = all((first, word) in pairs for word in words)
        assert sum(followers) <= 1 + 1e-3 and (seen or math.isclose(sum(followers), 1, abs_tol=1e-3))


def test_it_understands_more_of_what_it_expects():
    pytest.importorskip("pocketsphinx", reason="pocketsphinx is not installed")
    pytest.importorskip("jiwer", reason="jiwer is not installed")
    clips = [clip for clip in bundled_clips() if clip.language == "en"][:4]
    closed, free = ClosedJudge([clip.text for clip in clips], "closed"), load_judge("pocketsphinx")
    rates = {}
    for judge in (closed, free):
        scores = [error_scores(clip.text, judge.transcribe(speechtok.read(clip.path)))[0] for clip in clips]
        rates[judge] = sum(one.value for one in scores) / len(scores)
    assert rates[closed] < 0.3 and rates[closed] < rates[free]


def test_it_is_named_by_a_manifest(tmp_path):
    pytest.importorskip("pocketsphinx", reason="pocketsphinx is not installed")
    (tmp_path / "data.tsv").write_text("path\tsplit\ttext\na.wav\ttest\tHELLO THERE\nb.wav\tdev\tnothing\n")
    judge = load_judge(f"pocketsphinx:{tmp_path}/data.tsv:test")
    assert judge.name == "pocketsphinx that expects the texts of data.tsv, test"
    assert judge.recogniser.facts != load_judge("pocketsphinx").recogniser.facts
    (tmp_path / "empty.tsv").write_text("path\tsplit\ttext\na.wav\ttest\t\n")
    with pytest.raises(ConfigError, match="fill the column text"):
        load_judge(f"pocketsphinx:{tmp_path}/empty.tsv:test")


def test_words_that_the_dictionary_lacks_are_put_together():
    pytest.importorskip("pocketsphinx", reason="pocketsphinx is not installed")
    judge = ClosedJudge(["the lighthousekeeper sings"], "closed")
    assert judge.recogniser.phones("lighthousekeeper")
