"""Text vocabularies, pairs of codes and text, and batches of whole utterances."""

import os
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speechtok.chain.text import TextVocabulary
from speechtok.errors import CheckpointError, ConfigError
from speechtok.train.batches import POOL, Batches
from speechtok.train.pairs import Pairs, texts_of
from tiny import tiny_tokenizer

pytest.importorskip("tokenizers", reason="text vocabularies are made by tokenizers")

TEXTS = ["The cat sat on the mat.", "It\u2019s THE other cat's mat!", "that hat, that fat hat"]
VOCABULARY = TextVocabulary.train(TEXTS, 40)


@given(st.lists(st.text("abcdefghijklmnopqrstuvwxyz'", min_size=1, max_size=8), min_size=1, max_size=6))
def test_texts_come_back_in_the_plain_form(words):
    from speechtok.guidance.writing import plain

    written = plain(" ".join(words))
    if not written:
        return
    ids = VOCABULARY.encode(" ".join(words))
    assert VOCABULARY.decode(ids) == written and min(ids) > VOCABULARY.eos
    assert VOCABULARY.decode([VOCABULARY.bos, *ids, VOCABULARY.eos, VOCABULARY.pad]) == written


def test_frequent_pieces_become_symbols():
    assert len(VOCABULARY.encode("the cat")) < len("the cat") and VOCABULARY.size == 40
    assert TextVocabulary.train(TEXTS, 10_000).size < 10_000


def test_a_vocabulary_is_the_same_whoever_learns_and_reads_it():
    again = TextVocabulary.train(TEXTS, 40)
    assert again.to_json() == VOCABULARY.to_json() and again.digest == VOCABULARY.digest
    read = TextVocabulary.from_json(VOCABULARY.to_json())
    assert read.digest == VOCABULARY.digest and read.encode(TEXTS[1]) == VOCABULARY.encode(TEXTS[1])


@pytest.mark.parametrize(
    ("text", "message"),
    [("route 66", "unknown symbols 6 "), ("caf\u00e9 \u03b2", "unknown symbols \u00e9 \u03b2 "), (" ... ", "no word")],
)
def test_texts_that_cannot_be_written_are_refused(text, message):
    with pytest.raises(ConfigError, match=message) as caught:
        VOCABULARY.encode(text)
    assert "\n" not in str(caught.value)
    assert VOCABULARY.unknown(text) == ([] if message == "no word" else message.split()[2:])


def test_nothing_to_learn_from_and_too_few_symbols_are_refused():
    with pytest.raises(ConfigError, match="no text has any word"):
        TextVocabulary.train(["...", ""], 100)
    with pytest.raises(ConfigError, match="ask for at least 30"):
        TextVocabulary.train(TEXTS, 20)
    with pytest.raises(ConfigError, match="number 40 does not exist"):
        VOCABULARY.decode([40])


@pytest.mark.parametrize("damage", ["", "[]", '{"format": "speechtok.text", "version": 1}', "cut", "merge"])
def test_damaged_files_are_refused(damage):
    text = VOCABULARY.to_json()
    text = {"cut": text[:-40], "merge": text.replace('"merges": [', '"merges": [["x", "q"], ')}.get(damage, damage)
    with pytest.raises(CheckpointError, match=r"a\.json: is no text vocabulary"):
        TextVocabulary.from_json(text, "a.json")


# -- batches --------------------------------------------------------------------------------------------------------


@given(st.integers(1, 90), st.integers(1, 7), st.integers(0, 99))
def test_every_utterance_comes_exactly_once_per_epoch(count, batch, seed):
    lengths = np.random.default_rng(seed).integers(1, 50, count)
    batches = Batches(lengths, batch, seed)
    steps = batches.steps_per_epoch
    for epoch in range(2):
        drawn = [batches(epoch * steps + step) for step in range(steps)]
        assert sorted(np.concatenate(drawn).tolist()) == list(range(count))
        sizes = {len(one) for one in drawn}
        assert max(sizes) <= batch and max(sizes) - min(sizes) <= 1
        assert {batches.epoch(epoch * steps + step) for step in range(steps)} == {epoch}
    assert batches(steps - 1).tolist() == Batches(lengths, batch, seed)(steps - 1).tolist()


def test_lengths_are_alike_in_a_batch_and_orders_differ():
    lengths = np.random.default_rng(0).integers(1, 1000, 500)
    batches = Batches(lengths, 8, 0)
    assert np.mean([np.ptp(lengths[batches(step)]) for step in range(2 * POOL)]) < 100
    assert batches(0).tolist() != batches(batches.steps_per_epoch).tolist() != Batches(lengths, 8, 1)(0).tolist()


def test_processes_share_a_step():
    batches = Batches(np.arange(1, 8), 7, 0)
    shares = [batches.share_of(0, SimpleNamespace(process=i, processes=3)) for i in range(3)]
    assert sorted(np.concatenate(shares).tolist()) == list(range(7))
    with pytest.raises(ConfigError, match="cannot be shared by 8"):
        batches.share_of(0, SimpleNamespace(process=0, processes=8))
    with pytest.raises(ConfigError, match="no utterance"):
        Batches(np.zeros(0), 4, 0)


# -- pairs ----------------------------------------------------------------------------------------------------------


def test_pairs_hold_what_the_tokenizer_says(corpus, capsys):
    from speechtok.audio import Audio, read, write

    rows = (corpus / "corpus.tsv").read_text().splitlines()
    rows[2] = "1.wav\ttrain\tt\t"
    rows[3] = "2.wav\ttrain\ts\troute 66"
    (corpus / "corpus.tsv").write_text("\n".join(rows) + "\n")
    manifests, tokenizer = [str(corpus / "corpus.tsv")], tiny_tokenizer()
    assert texts_of(manifests, "train") == ["text", "route 66"]
    vocabulary = TextVocabulary.train(["text"], 32)
    pairs = Pairs.build(manifests, "train", tokenizer, vocabulary, corpus / "cache", levels=2)
    assert capsys.readouterr().out.startswith("train: 1 utterances, 0.00 h; 1 left out: without transcript; 1 left out")
    assert (pairs.names, pairs.texts, pairs.speakers, len(pairs)) == (["0"], ["text"], ["s"], 1)
    wanted = tokenizer.encode(read(corpus / "0.wav"), 2).codes
    assert pairs.codes[0].dtype == np.int64 and pairs.codes[0].tolist() == wanted.tolist()
    assert pairs.text[0].tolist() == vocabulary.encode("text") and pairs.rate == tokenizer.frame_rate
    again = Pairs.build(manifests, "train", tokenizer, vocabulary, corpus / "cache", levels=2)
    assert again.digest == pairs.digest
    one = Pairs.build(manifests, "train", tokenizer, vocabulary, corpus / "cache", levels=2, limit=1)
    assert one.digest == pairs.digest
    assert Pairs.build(manifests, "train", tokenizer, vocabulary, corpus / "cache").digest != pairs.digest
    (corpus / "again").mkdir()
    loud = np.clip(5 * read(corpus / "0.wav").samples, -1, 1)  # of one name and length
    write(corpus / "again/0.wav", Audio(loud, 16000))
    os.utime(corpus / "again/0.wav", (1, 1))
    (corpus / "again/corpus.tsv").write_text("\n".join(rows[:2]) + "\n")
    other = Pairs.build([str(corpus / "again/corpus.tsv")], "train", tokenizer, vocabulary, corpus / "cache", levels=2)
    assert other.names == pairs.names and other.codes[0].tolist() != wanted.tolist()
    with pytest.raises(ConfigError, match=r"longer than 0\.2 s"):
        Pairs.build(manifests, "train", tokenizer, vocabulary, corpus / "cache", longest=0.2)


def test_speeds_make_copies_of_other_length_and_speaker(corpus):
    import soxr

    from speechtok.audio import Audio, read
    from speechtok.train.spoken import SpokenConfig

    manifests, tokenizer = [str(corpus / "corpus.tsv")], tiny_tokenizer()
    vocabulary = TextVocabulary.train(texts_of(manifests, "train"), 32)
    config = SpokenConfig(manifests, cache=str(corpus / "cache"), speeds=[1.0, 0.8])
    plain = Pairs.build(manifests, "train", tokenizer, vocabulary, cache=corpus / "cache")
    both = Pairs.build(manifests, "train", tokenizer, vocabulary, **config.pairing("train"))
    n = len(plain)
    assert (len(both), both.names[:n], both.texts) == (2 * n, plain.names, plain.texts * 2)
    assert [one.tolist() for one in both.codes[:n]] == [one.tolist() for one in plain.codes]
    assert both.names[n] == f"{plain.names[0]}@0.8" and both.speakers[n] == f"{plain.speakers[0]}@0.8"
    wave = read(corpus / "0.wav", tokenizer.sample_rate).samples
    slow = tokenizer.encode(Audio(soxr.resample(wave, 0.8, 1.0), tokenizer.sample_rate), 1).codes
    assert both.codes[n].shape == slow.shape and np.mean(both.codes[n] == slow) > 0.9  # int16 between file and codes
    assert slow.shape[1] == pytest.approx(plain.lengths[0] / 0.8, abs=1)
    assert config.pairing("dev")["speeds"] == [1.0]
    for wrong in ([], [1.0, 1.0], [3.0]):
        with pytest.raises(ConfigError, match=r"data\.speeds"):
            SpokenConfig(manifests, speeds=wrong)
