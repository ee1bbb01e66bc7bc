"""Error rates by hand and by jiwer, what counts as a failure, and judges that do not remember."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speechtok.audio import Audio, read
from speechtok.bench import judge as judges
from speechtok.bench.judge import PocketSphinxJudge, RecogniserJudge, error_scores, load_judge, plain
from speechtok.bench.statistics import paired_difference, summarize
from speechtok.clips import bundled_clips
from speechtok.errors import CheckpointError, ConfigError
from speechtok.guidance.teachers import load_semantic_teacher, load_speaker_teacher
from speechtok.tokenizers.recognisers import Transcript

jiwer = pytest.importorskip("jiwer", reason="error rates need jiwer")
WORDS = st.lists(st.sampled_from(["a", "bb", "ccc", "it's", "19"]), max_size=6)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("THE CAT, the Cat!", "the cat the cat", id="case-and-punctuation"),
        pytest.param("It\u2019s o'clock 'quoted'", "it's o'clock quoted", id="apostrophes"),
        pytest.param("twenty-one_two\nthree", "twenty one two three", id="separators"),
        pytest.param("19 \u00c9t\u00e9s", "19 \u00e9t\u00e9s", id="numbers-and-accents-stay"),
        pytest.param("... -- !", "", id="nothing"),
    ],
)
def test_the_plain_normaliser(text, words):
    assert plain(text) == words
    assert plain(words) == words


@pytest.mark.parametrize(
    ("heard", "wer", "cer"),
    [
        pytest.param("the cat sat", 0, 0, id="right"),
        pytest.param("the cat", 1 / 3, 4 / 11, id="deletion"),
        pytest.param("the bat sat", 1 / 3, 1 / 11, id="substitution"),
        pytest.param("the cat sat on a mat", 1, 9 / 11, id="insertions"),
        pytest.param("", 1, 1, id="nothing-heard-is-all-deletions"),
    ],
)
def test_error_rates_by_hand(heard, wer, cer):
    words, characters = error_scores("The cat SAT.", heard)
    assert (words.value, words.weight, words.failure) == (pytest.approx(wer), 3, None)
    assert (characters.value, characters.weight) == (pytest.approx(cer), 11)


@given(st.lists(st.tuples(WORDS.filter(len), WORDS), min_size=1, max_size=6))
def test_the_mean_of_many_is_the_rate_of_the_corpus(pairs):
    texts = [(" ".join(reference), " ".join(heard)) for reference, heard in pairs]
    references, heard = map(list, zip(*texts, strict=True))
    words, characters = zip(*(error_scores(*pair) for pair in texts), strict=True)
    assert summarize(words).mean == pytest.approx(jiwer.wer(references, heard))
    assert summarize(characters).mean == pytest.approx(jiwer.cer(references, heard))


def test_no_reference_text_is_a_counted_failure_and_moves_no_mean():
    good = [error_scores("a b c d", "a b c x")[0], error_scores("a b", "a b")[0]]
    bad = error_scores("...", "a")
    assert [one.value for one in bad] == [None, None]
    with_bad, without = summarize([*good, bad[0]]), summarize(good)
    assert (with_bad.mean, with_bad.low, with_bad.high, with_bad.n) == (without.mean, without.low, without.high, 2)
    assert without.mean == pytest.approx(1 / 6) and (with_bad.failed, without.failed) == (1, 0)
    assert with_bad.reasons == (("no reference text", 1),)


def test_a_long_utterance_counts_more():
    scores = [error_scores("a " * 9, "a " * 9)[0], error_scores("a", "b")[0]]
    assert summarize(scores).mean == pytest.approx(1 / 10)
    difference = paired_difference([0.0, 1.0], [0.0, 0.0], weights=[9, 1])
    assert difference.mean == pytest.approx(1 / 10)


def test_whispers_normaliser_writes_numbers_as_digits():
    pytest.importorskip("transformers", reason="Whisper's normaliser needs transformers")
    words, _ = error_scores("Nineteen cats don't.", "19 cats do not", judges.whisper_english)
    assert (words.value, words.weight) == (0, 4)


# -- judges ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sphinx():
    pytest.importorskip("pocketsphinx", reason="this judge needs pocketsphinx")
    return PocketSphinxJudge()


@pytest.fixture(scope="module")
def clips():
    """Two seconds of two recordings."""
    return [Audio(read(clip.path).samples[:32000], 16000) for clip in bundled_clips()[:2]]


def test_what_was_heard_before_does_not_matter(sphinx, clips):
    first, second = (sphinx.transcribe(clip) for clip in clips)
    assert first and second and first != second
    assert [sphinx.transcribe(clip) for clip in reversed(clips)] == [second, first]


@pytest.mark.parametrize("count", [1, 100, 800])
def test_what_is_too_short_for_a_word_says_nothing(sphinx, count):
    assert sphinx.transcribe(Audio(np.zeros(count, np.float32), 16000)) == ""


def test_other_rates_are_resampled(sphinx, clips):
    again = sphinx.transcribe(clips[0].resample(48000))
    assert error_scores(sphinx.transcribe(clips[0]), again)[0].value < 0.5


@pytest.mark.parametrize(
    ("module", "build", "extra"),
    [
        pytest.param("pocketsphinx", PocketSphinxJudge, "speechtok[text]", id="pocketsphinx"),
        pytest.param("jiwer", lambda: error_scores("a", "b"), "speechtok[bench]", id="jiwer"),
    ],
)
def test_a_missing_package_is_one_line_with_the_fix(monkeypatch, module, build, extra):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=r"pip install") as caught:
        build()
    assert extra in str(caught.value)


@pytest.fixture(scope="module")
def recogniser(tmp_path_factory):
    """A wav2vec 2.0 with CTC and random weights, as a folder."""
    transformers = pytest.importorskip("transformers", reason="this judge needs transformers")
    import torch

    folder = tmp_path_factory.mktemp("recogniser")
    letters = ["<pad>", "<s>", "</s>", "<unk>", "|", *"ABCDEFGH"]
    (folder / "vocab.json").write_text(json.dumps({letter: i for i, letter in enumerate(letters)}))
    torch.manual_seed(0)
    config = transformers.Wav2Vec2Config(
        vocab_size=len(letters), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        conv_dim=(8, 8), conv_stride=(20, 16), conv_kernel=(20, 16), num_feat_extract_layers=2,
        num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2,
    )  # fmt: skip
    transformers.Wav2Vec2ForCTC(config).save_pretrained(folder)
    transformers.Wav2Vec2Processor(
        transformers.Wav2Vec2FeatureExtractor(sampling_rate=16000),
        transformers.Wav2Vec2CTCTokenizer(folder / "vocab.json"),
    ).save_pretrained(folder)
    return folder


def test_a_recogniser_of_transformers_is_a_judge(recogniser, clips):
    judge = load_judge(str(recogniser))
    assert judge.name == str(recogniser)
    heard = judge.transcribe(clips[0])
    assert heard and heard == judge.transcribe(clips[0]) != judge.transcribe(clips[1])


def test_what_is_long_is_heard_in_pieces(clips):
    class Counter:
        sample_rate = 8000

        def transcribe(self, samples):
            return Transcript(f"{len(samples)}" if samples.any() else "", None)

    long = Audio(np.concatenate([np.full(16000 * 40, 0.1, np.float32), np.zeros(16000 * 30, np.float32)]), 16000)
    heard = RecogniserJudge(Counter(), "counter").transcribe(long).split()
    assert len(heard) >= 2 and max(map(int, heard)) <= 8000 * 30
    assert RecogniserJudge(Counter(), "counter").transcribe(clips[0]) == "16000"


def test_a_folder_that_holds_no_recogniser_is_refused(tmp_path):
    pytest.importorskip("transformers", reason="this judge needs transformers")
    with pytest.raises(CheckpointError, match="cannot load this recogniser"):
        load_judge(str(tmp_path))


@pytest.mark.parametrize("load", [load_judge, load_semantic_teacher, load_speaker_teacher])
def test_a_name_that_can_be_nowhere_is_refused_at_once(load, monkeypatch):
    """The Hub's client would ask for it again and again."""
    monkeypatch.setattr("socket.socket", lambda *_, **__: pytest.fail("the network was asked"))
    with pytest.raises(CheckpointError, match=r"none: no such (judge|teacher) here, and no Hub id"):
        load("none")
