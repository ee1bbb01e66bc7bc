"""Scheme D: text tokens as a value and its file, vocabularies, recognisers, and the one that works offline."""

from __future__ import annotations

import dataclasses
import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import speechtok
from speechtok.anytokens import load_tokens
from speechtok.audio import Audio, read
from speechtok.errors import CheckpointError, ConfigError, NotSupportedError, TokenError
from speechtok.text_tokens import TextTokens
from speechtok.tokenizers.recognisers import PocketSphinx, Transcript, TransformersRecogniser, pieces
from speechtok.tokenizers.text import BytePairs, ModelVocabulary, TextTokenizer, save_text, train_bpe
from speechtok.verify import verify
from tiny import signal

pytest.importorskip("tokenizers")
RATE = 16000
TEXTS = ["the cat sat on the mat", "the dog sat", "a cat and a dog", "the mat"] * 5


class Counter:
    """A recogniser that says one word per tenth of a second that is loud, at a known time."""

    sample_rate, facts = 8000, "counter"

    def section(self):
        return {"kind": "counter"}

    def transcribe(self, samples: np.ndarray) -> Transcript:
        tenths = [start for start in range(0, len(samples), 800) if np.abs(samples[start : start + 800]).max() > 0.1]
        times = np.array([(start, min(start + 800, len(samples))) for start in tenths], np.int64).reshape(-1, 2)
        return Transcript(" ".join(["cat"] * len(tenths)), times)


def make(**changes) -> TextTokens:
    fields = {"ids": np.array([3, 1]), "text": "the cat", "vocabulary_size": 9, "sample_rate": 100, "num_samples": 200}
    own = {"tokenizer": "t", "fingerprint": "f", "times": np.array([[0, 50], [60, 200]])}
    return TextTokens(**(fields | own | changes))


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory) -> BytePairs:
    path = tmp_path_factory.mktemp("bpe") / "bpe.json"
    path.write_text(train_bpe(TEXTS, 300))
    return BytePairs(path)


@pytest.fixture(scope="module")
def tokenizer(vocabulary) -> TextTokenizer:
    return TextTokenizer(Counter(), vocabulary, "counter")


# the value


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="timed"),
        pytest.param({"times": None}, id="untimed"),
        pytest.param({"text": "naïve ✓"}, id="not-ascii"),
        pytest.param({"text": "", "ids": np.zeros(0, int), "times": np.zeros((0, 2), int)}, id="silence"),
    ],
)
def test_a_saved_file_loads_as_what_was_saved(tmp_path, changes):
    tokens = make(**changes)
    tokens.save(tmp_path / "t")
    for loaded in (TextTokens.load(tmp_path / "t"), load_tokens(tmp_path / "t")):
        assert loaded == tokens and loaded.text == tokens.text and np.array_equal(loaded.ids, tokens.ids)
        assert repr(loaded.words) == repr(tokens.words)


def test_words_have_times_in_seconds():
    assert make().words == (("the", 0.0, 0.5), ("cat", 0.6, 2.0))
    assert math.isnan(make(times=None).words[0].start)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"ids": np.array([9])}, "leave the vocabulary of 9", id="id"),
        pytest.param({"ids": np.array([0.5])}, "whole numbers", id="fraction"),
        pytest.param({"times": np.array([[0, 50]])}, r"\[2, 2\]", id="words"),
        pytest.param({"times": np.array([[0, 50], [60, 201]])}, "at most 200 samples", id="late"),
        pytest.param({"times": np.array([[50, 0], [60, 70]])}, "must rise", id="backwards"),
        pytest.param({"text": 3}, "text must be text", id="text"),
    ],
)
def test_contradictions_are_refused(changes, message):
    with pytest.raises(TokenError, match=message):
        make(**changes)


def test_text_has_a_bitrate_but_no_frames():
    assert make().bitrate == pytest.approx(2 / 2.0 * math.log2(9))
    with pytest.raises(NotSupportedError, match="no frames"):
        make().frames  # noqa: B018


# vocabularies


@given(text=st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=30))
def test_byte_pairs_say_any_text_and_give_it_back_in_lower_case(vocabulary, text):
    ids = vocabulary.encode(text)
    assert all(0 <= number < vocabulary.size for number in ids)
    assert vocabulary.decode(ids).split() == text.lower().split()


def test_byte_pairs_learn_frequent_words(vocabulary):
    assert vocabulary.size > 256 and len(vocabulary.encode("the cat")) == 2


def test_the_same_texts_train_the_same_vocabulary():
    assert train_bpe(TEXTS, 300) == train_bpe(list(TEXTS), 300)


def test_a_damaged_vocabulary_is_refused(tmp_path):
    (tmp_path / "bpe.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"bpe\.json: no vocabulary"):
        BytePairs(tmp_path / "bpe.json")


# tokenizers


def loud(seconds: float) -> Audio:
    return signal(seconds, 8000)


def test_encode_gives_ids_text_and_times(tokenizer):
    tokens = tokenizer.encode(loud(0.35))
    assert tokens.text == "cat cat cat cat" and tokens.num_samples == 2800
    assert tokens.words[3] == ("cat", 0.3, 0.35)
    assert tokenizer.decode(tokens) == tokens.text == tokenizer.text(tokens.ids)


def test_silence_has_no_words(tokenizer):
    tokens = tokenizer.encode(Audio(np.zeros(1, np.float32), 8000))
    assert (tokens.text, len(tokens.ids), tokens.words, tokenizer.decode(tokens)) == ("", 0, (), "")


@given(seconds=st.floats(0.5, 3), length=st.integers(1, 40000))
def test_pieces_cover_everything_once_and_stay_short(seconds, length):
    found = list(pieces(loud(length / 8000).samples[:length], 8000, seconds))
    assert found[0].start == 0 and found[-1].stop == length
    assert all(a.stop == b.start for a, b in pairwise(found))
    assert all(0 < part.stop - part.start <= max(2, round(seconds * 8000)) for part in found)


def test_long_audio_is_cut_in_pauses(tokenizer):
    speech, pause = loud(1.0).samples, np.zeros(4000, np.float32)
    audio = Audio(np.concatenate([speech, pause] * 3), 8000)
    cut = [part.stop for part in pieces(audio.samples, 8000, 2.0)][:-1]
    assert cut and all(np.abs(audio.samples[stop - 100 : stop + 100]).max() == 0 for stop in cut)
    assert tokenizer.in_windows(2.0).encode(audio).text == tokenizer.encode(audio).text


def test_verify_says_what_does_not_apply_and_finds_nothing_broken(tokenizer):
    checks = {check.name: check for check in verify(tokenizer, [loud(1.0), loud(0.7)])}
    assert {name: check.measured for name, check in checks.items() if check.passed is False} == {}
    assert checks["same codes twice"].passed and checks["batch == single"].passed and checks["token file"].passed
    assert "does not apply: counter has no frames" in checks["length law"].promise
    assert "decodes to str" in checks["long decode"].promise


def test_what_text_cannot_do_is_one_line(tokenizer):
    tokens = tokenizer.encode(loud(0.2))
    with pytest.raises(ConfigError, match="no levels"):
        tokenizer.encode(loud(0.2), levels=1)
    with pytest.raises(TokenError, match="not by counter"):
        tokenizer.decode(dataclasses.replace(tokens, fingerprint="x"))
    with pytest.raises(TokenError, match="leave the vocabulary"):
        tokenizer.text([tokenizer.vocabulary.size])
    with pytest.raises(NotSupportedError, match="no frames and no fixed rate"):
        tokenizer.frame_rate  # noqa: B018
    assert tokenizer.describe()["frame_rate"] is None


def test_the_command_writes_text_and_refuses_audio(tokenizer, cli, clip, tmp_path):
    path = tmp_path / "a.tokens.safetensors"
    code, out, err = cli("encode", clip, "-o", path, load=lambda *_, **__: tokenizer)
    assert (code, err) == (0, []) and "words" in out
    assert cli("decode", path, "-o", tmp_path / "a.txt", load=lambda *_, **__: tokenizer)[0] == 0
    assert (tmp_path / "a.txt").read_text() == load_tokens(path).text + "\n"
    for arguments in (["-o", tmp_path / "a.wav"], ["-o", tmp_path / "b.txt", "--levels", "1"]):
        code, _, err = cli("decode", path, *arguments, load=lambda *_, **__: tokenizer)
        assert code == 2 and len(err) == 1
    assert not (tmp_path / "a.wav").exists() and not (tmp_path / "b.txt").exists()
    assert '"text"' in cli("info", path, "--json")[1]


# recognisers


@pytest.fixture(scope="module")
def ctc(tmp_path_factory):
    """A folder with a tiny CTC recogniser of random weights."""
    transformers = pytest.importorskip("transformers")
    import json

    import torch

    torch.manual_seed(3)
    folder = tmp_path_factory.mktemp("ctc")
    letters = ["<pad>", "<s>", "</s>", "<unk>", "|", *"ABCDE"]
    (folder / "vocab.json").write_text(json.dumps({letter: i for i, letter in enumerate(letters)}))
    words = transformers.Wav2Vec2CTCTokenizer(folder / "vocab.json", word_delimiter_token="|")
    heard = transformers.Wav2Vec2FeatureExtractor(sampling_rate=RATE, do_normalize=True)
    transformers.Wav2Vec2Processor(heard, words).save_pretrained(folder)
    config = transformers.Wav2Vec2Config(
        vocab_size=len(letters), pad_token_id=0, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, conv_dim=(8,) * 7, num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=2,
    )  # fmt: skip
    network = transformers.Wav2Vec2ForCTC(config)
    with torch.no_grad():
        network.lm_head.weight.mul_(40)
        network.lm_head.bias[1:4] = -1000  # no recogniser says <s>, </s> or <unk>
    network.save_pretrained(folder)
    return folder


def test_a_ctc_recogniser_says_what_transformers_says_with_times(ctc):
    import torch

    recogniser = TransformersRecogniser.load(str(ctc))
    audio = signal(2.0, RATE)
    said = recogniser.transcribe(audio.samples)
    heard = recogniser.processor.feature_extractor(audio.samples, sampling_rate=RATE, return_tensors="pt")
    with torch.no_grad():
        ids = recogniser.network(**heard).logits.argmax(-1)
    assert said.text == " ".join(recogniser.processor.batch_decode(ids)[0].split()) and said.text
    assert said.times.shape == (len(said.text.split()), 2) and (np.diff(said.times, axis=1) > 0).all()


def test_a_folder_with_the_models_own_vocabulary(ctc, tmp_path):
    recogniser = TransformersRecogniser.load(str(ctc))
    tokenizer = TextTokenizer(recogniser, ModelVocabulary(recogniser.processor.tokenizer), "ctc", licence="CC0")
    save_text(tokenizer, tmp_path / "d")
    loaded = speechtok.load(tmp_path / "d")
    tokens = loaded.encode(signal(1.0, RATE))
    assert (loaded.scheme, loaded.fingerprint) == ("D", tokenizer.fingerprint)
    assert tokens == dataclasses.replace(tokenizer.encode(signal(1.0, RATE)), tokenizer="d")
    assert loaded.decode(tokens) == tokens.text


@pytest.mark.parametrize(
    ("section", "message"),
    [
        pytest.param({"recogniser": {"kind": "x"}, "vocabulary": {"kind": "bpe"}}, "recogniser", id="recogniser"),
        pytest.param({"recogniser": {}}, "vocabulary in its config.json must be a mapping", id="no-vocabulary"),
        pytest.param({"recogniser": {"kind": "transformers", "model": 5}}, "must be a mapping", id="no-vocabulary-5"),
        pytest.param(
            {"recogniser": {"kind": "transformers", "model": 5}, "vocabulary": {"kind": "bpe"}}, "names 5", id="number"
        ),
        pytest.param(
            {"recogniser": {"kind": "x"}, "vocabulary": {"kind": "bpe"}, "piece_seconds": 0}, "above 0", id="seconds"
        ),
    ],
)
def test_a_damaged_folder_is_one_line(tokenizer, tmp_path, section, message):
    import json

    save_text(tokenizer, tmp_path)
    config = tmp_path / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"text": section}))
    with pytest.raises(CheckpointError, match=message):
        speechtok.load(tmp_path)


@pytest.mark.parametrize("samples", [1, 399], ids=str)
def test_a_ctc_recogniser_takes_less_than_a_window(ctc, samples):
    said = TransformersRecogniser.load(str(ctc)).transcribe(signal(1.0, RATE).samples[:samples])
    assert said.times.shape == (len(said.text.split()), 2) and (said.times <= samples).all()


CHANGES = {
    "preprocessor": lambda one: setattr(one.processor.feature_extractor, "do_normalize", False),
    "network": lambda one: setattr(one.network.config, "hidden_act", "relu"),
    "vocabulary": lambda one: setattr(one.processor.tokenizer, "do_lower_case", True),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_changes_the_words_changes_the_fingerprint(ctc, vocabulary, change):
    recogniser, other = (TransformersRecogniser.load(str(ctc)) for _ in range(2))
    same = TextTokenizer(recogniser, vocabulary, "a").fingerprint
    assert TextTokenizer(other, vocabulary, "b").fingerprint == same
    change(other)
    assert TextTokenizer(other, vocabulary, "b").fingerprint != same


def test_merges_are_facts_of_a_fast_vocabulary():
    from tokenizers import Tokenizer

    transformers = pytest.importorskip("transformers")
    vocabularies = []
    for lower in (True, False):
        text = train_bpe(TEXTS, 300)
        fast = Tokenizer.from_str(text if lower else text.replace('"Lowercase"', '"NFC"'))
        vocabularies.append(ModelVocabulary(transformers.PreTrainedTokenizerFast(tokenizer_object=fast)))
    assert vocabularies[0].encode("A cat") != vocabularies[1].encode("A cat")
    assert vocabularies[0].facts != vocabularies[1].facts


def test_other_pieces_are_another_tokenizer(tokenizer):
    other = tokenizer.in_windows(0.5)
    assert tokenizer.fingerprint != other.fingerprint == tokenizer.in_windows(0.5).fingerprint


def test_a_folder_keeps_the_pieces_and_the_search(vocabulary, tmp_path):
    pytest.importorskip("pocketsphinx")
    made = TextTokenizer(PocketSphinx(fwdflat=False), vocabulary, "made", piece_seconds=7.5)
    save_text(made, tmp_path)
    loaded = speechtok.load(tmp_path)
    assert (loaded.piece_seconds, loaded.fingerprint) == (7.5, made.fingerprint)
    assert made.fingerprint != TextTokenizer(PocketSphinx(), vocabulary, "made", piece_seconds=7.5).fingerprint


def test_the_bundled_one_hears_words_at_their_times(demo_clips):
    pytest.importorskip("pocketsphinx")
    tokenizer = speechtok.load("pocketsphinx-text")
    clip = next(path for path in demo_clips if path.name == "ls-1688.flac")
    audio = read(clip)
    start = Audio(audio.samples[: audio.rate], audio.rate)
    before = tokenizer.encode(start)
    tokens = tokenizer.encode(Audio(audio.samples[: int(2.6 * audio.rate)], audio.rate))
    assert {"always", "people"} <= set(tokens.text.split())
    assert tokenizer.decode(tokens) == tokens.text
    starts = [word.start for word in tokens.words]
    assert starts == sorted(starts) and 0.4 < starts[0] < 0.7  # half a second of silence comes first
    assert tokenizer.encode(Audio(np.zeros(1, np.float32), 16000)).num_samples == 1
    assert tokenizer.encode(start) == before  # nothing of the utterances between is left in the decoder
