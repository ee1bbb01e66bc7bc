"""Vocabularies, arrays and datasets on disk: what was written comes back, and other tokenizers' files are refused."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speechtok.errors import ConfigError, OutputError, SpeechtokError, TokenError, TokenFileError
from speechtok.layouts import LAYOUTS, Merges, Vocabulary, get, train_bpe
from speechtok.layouts.arrays import open_arrays, write_arrays
from speechtok.layouts.rates import steps_per_second, unit_rates
from test_layouts import CODES, HOP, any_layout, any_tokens, make


def utterances(count=3, frames=20, sizes=8, **changes):
    random = np.random.default_rng(1)
    return [
        (f"u{i}", make(np.repeat(random.integers(0, sizes, (2, frames + i)), 2, axis=1), sizes, missing=i, **changes))
        for i in range(count)
    ]


# vocabularies


@given(data=st.data(), tokens=any_tokens())
def test_a_vocabulary_comes_back_from_json(data, tokens):
    vocabulary = data.draw(any_layout(tokens)).vocabulary
    again = Vocabulary.from_dict(json.loads(json.dumps(vocabulary.to_dict())), "file", tokens.fingerprint)
    assert again == vocabulary and again.size == vocabulary.size


def test_ids_are_laid_out_as_documented(tmp_path):
    vocabulary = Vocabulary.of(make(CODES, (8, 6)), text_size=100, special={"eos": 2}, durations=5)
    vocabulary = vocabulary.with_merges(Merges(14, ((0, 8), (14, 14))))
    vocabulary.save(tmp_path / "v.json")
    values = json.loads((tmp_path / "v.json").read_text())
    assert values["special"] == {"bos": 100, "eos": 2, "pad": 101, "sep": 102}
    assert values["levels"] == [{"level": 0, "first": 103, "size": 8}, {"level": 1, "first": 111, "size": 6}]
    assert values["durations"] == {"first": 117, "size": 5}
    assert values["merges"] == {"first": 122, "size": 2, "pairs": [[0, 8], [14, 14]]}
    assert values["size"] == vocabulary.size == 124
    assert vocabulary.merges.merged == ((0, 8), (0, 8, 0, 8))
    assert Vocabulary.load(tmp_path / "v.json", "abc") == vocabulary


def test_another_fingerprint_is_refused(tmp_path):
    Vocabulary.of(make(CODES)).save(tmp_path / "v.json")
    with pytest.raises(TokenFileError, match=r"v\.json was made for another tokenizer \(abc\).*\(other\)"):
        Vocabulary.load(tmp_path / "v.json", "other")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param({"special": {"cls": 1}}, "'cls' is no special id", id="unknown-special"),
        pytest.param({"special": {"bos": 1, "eos": 1}}, "four numbers", id="equal-specials"),
        pytest.param({"special": {"bos": -1}}, "bos must be", id="negative-special"),
        pytest.param({"text_size": 1.5}, "text_size", id="text-size-not-whole"),
        pytest.param({"durations": -1}, "durations", id="negative-durations"),
    ],
)
def test_impossible_vocabularies_are_refused(arguments, words):
    with pytest.raises(TokenError, match=words):
        Vocabulary.of(make(CODES), **arguments)


def edited(change) -> str:
    values = Vocabulary.of(make(CODES), text_size=4, durations=3).to_dict()
    change(values)
    return json.dumps(values)


DAMAGED = {
    "not-json": ("{", "is not JSON"),
    "nested": ("[" * 100_000, "is not JSON"),
    "a-list": ("[]", "is no speechtok.vocabulary"),
    "another-format": ('{"format": "x"}', "is no speechtok.vocabulary"),
    "newer": (edited(lambda v: v.update(version=2)), "version 2.*upgrade"),
    "no-levels": (edited(lambda v: v.pop("levels")), "lacks a field"),
    "levels-overlap": (edited(lambda v: v["levels"][1].update(first=9)), "level 0 and level 1 overlap"),
    "level-in-text": (edited(lambda v: v["levels"][0].update(first=0)), "overlap"),
    "special-in-a-level": (edited(lambda v: v["special"].update(pad=9)), "pad is 9, which belongs to level 0"),
    "word-for-number": (edited(lambda v: v["special"].update(pad="x")), "pad must be a whole number"),
    "no-hop": (edited(lambda v: v.update(hop=0)), "hop"),
    "merge-of-nothing": (edited(lambda v: v["merges"].update(first=99, pairs=[[0, 99]])), "pair 0"),
    "merge-of-three": (edited(lambda v: v["merges"].update(first=99, pairs=[[0, 1, 2]])), "pair 0"),
    "doubling": (
        edited(lambda v: v["merges"].update(first=99, pairs=[[0, 0], *([i, i] for i in range(16, 90))])),
        "at most 1024",
    ),
}


@pytest.mark.parametrize(("content", "words"), DAMAGED.values(), ids=DAMAGED.keys())
def test_damaged_vocabularies_are_refused_in_one_line(tmp_path, content, words):
    (tmp_path / "v.json").write_text(content)
    with pytest.raises(TokenFileError, match=words) as caught:
        Vocabulary.load(tmp_path / "v.json")
    assert "v.json" in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_vocabulary_is_refused(tmp_path):
    with pytest.raises(TokenFileError, match="No such file"):
        Vocabulary.load(tmp_path / "v.json")


def test_select_takes_the_levels_of_the_vocabulary():
    tokens = make([[1, 2], [3, 4], [5, 6]])
    assert Vocabulary.of(tokens.take(1)).select(tokens) == tokens.take(1)
    assert Vocabulary.of(tokens.acoustic).select(tokens) == tokens.acoustic
    assert Vocabulary.of(tokens).select(tokens) == tokens
    with pytest.raises(TokenFileError, match=r"levels 0\.\.2, the tokens only 1\.\.2"):
        Vocabulary.of(tokens).select(tokens.acoustic)
    with pytest.raises(TokenFileError, match="codebook_sizes"):
        Vocabulary.of(make([[1]], 16)).select(make([[1], [2]]))


# arrays


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("suffix", [".bin", ".npy"])
def test_arrays_come_back_exactly(tmp_path, name, suffix):
    many = utterances(timbre=np.float32([0.1, 1e-30, 3]))
    vocabulary = train_bpe(Vocabulary.of(many[0][1], durations=9), (tokens for _, tokens in many), 40)
    path = tmp_path / f"all{suffix}"
    written = write_arrays(path, get(name, vocabulary), many)
    opened = open_arrays(path, fingerprint="abc")
    assert [opened.tokens(i) for i in range(len(opened))] == [tokens for _, tokens in many]
    assert opened.ids == written.ids == ("u0", "u1", "u2")
    assert opened.array.dtype == np.uint16 and isinstance(opened.array, np.memmap)
    plain = np.load(path, mmap_mode="r") if suffix == ".npy" else np.fromfile(path, "<u2").reshape(opened.array.shape)
    assert np.array_equal(plain, opened.array)
    one = opened.layout.encode(many[1][1], bos=True, eos=True)
    assert np.array_equal(plain[opened.offsets[1] : opened.offsets[2]].T, one)
    assert opened.seconds == pytest.approx(sum(tokens.seconds for _, tokens in many))
    assert sorted(p.name for p in tmp_path.iterdir()) == [path.name, f"{path.name}.json"]


@pytest.mark.parametrize(("text_size", "kind"), [(65536 - 20, np.uint16), (65536 - 19, np.uint32)])
def test_the_smallest_type_that_holds_the_vocabulary(tmp_path, text_size, kind):
    layout = get("flat", Vocabulary.of(make(CODES), text_size=text_size))
    opened = write_arrays(tmp_path / "a.bin", layout, [("a", make(CODES))])
    assert opened.array.dtype == kind and opened.tokens(0) == make(CODES)


@pytest.fixture
def written(tmp_path):
    layout = get("flat", Vocabulary.of(make(CODES)))
    write_arrays(tmp_path / "a.bin", layout, [("a", make(CODES)), ("b", make(CODES))])
    return tmp_path / "a.bin"


def change_index(path, **values):
    index = path.with_name("a.bin.json")
    index.write_text(json.dumps(json.loads(index.read_text()) | values))


BROKEN = {
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:-2]), "has 30 bytes and its index 32"),
    "altered": (lambda path: path.write_bytes(b"\x07" + path.read_bytes()[1:]), "damaged"),
    "no-data": (lambda path: path.unlink(), "No such file"),
    "no-index": (lambda path: path.with_name("a.bin.json").unlink(), "No such file"),
    "foreign-index": (lambda path: change_index(path, format="x"), "is no speechtok.sequences"),
    "newer": (lambda path: change_index(path, version=9), "upgrade"),
    "other-layout": (lambda path: change_index(path, layout="spiral"), "no layout 'spiral'"),
    "no-layout": (lambda path: change_index(path, layout=None), "does not say its layout"),
    "falling-offsets": (lambda path: change_index(path, offsets=[0, 17, 16]), "do not fit"),
    "short-list": (lambda path: change_index(path, ids=["a"]), "do not fit"),
    "no-numbers": (lambda path: change_index(path, offsets="012"), "offsets"),
}


@pytest.mark.parametrize(("damage", "words"), BROKEN.values(), ids=BROKEN.keys())
def test_broken_arrays_are_refused_in_one_line(written, damage, words):
    damage(written)
    with pytest.raises(TokenFileError, match=words) as caught:
        open_arrays(written)
    assert "a.bin" in str(caught.value) and "\n" not in str(caught.value)


def test_arrays_of_another_tokenizer_are_refused(written):
    with pytest.raises(TokenFileError, match="another tokenizer"):
        open_arrays(written, fingerprint="other")
    with pytest.raises(TokenFileError, match=r"they end in \.bin or \.npy"):
        open_arrays(written.with_name("a.bin.json"))


@pytest.mark.parametrize(
    ("name", "items", "error", "words"),
    [
        pytest.param("a.txt", [("a", make(CODES))], OutputError, r"end in \.bin or \.npy", id="suffix"),
        pytest.param("a.bin", [], ConfigError, "no utterance", id="nothing"),
        pytest.param("a.bin", [("a", make(CODES)), ("a", make(CODES))], ConfigError, "the id 'a'", id="twice"),
        pytest.param("a.bin", [("a", make(CODES, fingerprint="x"))], TokenFileError, "another", id="foreign"),
        pytest.param("no/a.bin", [("a", make(CODES))], OutputError, "no folder", id="no-folder"),
    ],
)
def test_what_cannot_be_written_leaves_nothing(tmp_path, name, items, error, words):
    with pytest.raises(error, match=words):
        write_arrays(tmp_path / name, get("flat", Vocabulary.of(make(CODES))), items)
    assert list(tmp_path.iterdir()) == []


# datasets


@pytest.mark.parametrize("name", ["flat", "delay"])
def test_datasets_come_back_exactly(tmp_path, name):
    datasets = pytest.importorskip("datasets", reason="pip install 'speechtok[layouts]'")
    from speechtok.layouts.huggingface import read_dataset, row_tokens, write_dataset

    many = [*utterances(), ("timbre", make(CODES, timbre=np.float32([0.1, 7])))]
    layout = get(name, Vocabulary.of(many[0][1]))
    write_dataset(tmp_path / "set", layout, many, eos=False)
    rows, again = read_dataset(tmp_path / "set", fingerprint="abc")
    assert rows["id"] == [name for name, _ in many]
    assert [row_tokens(row, again) for row in rows] == [tokens for _, tokens in many]
    plain = datasets.load_from_disk(str(tmp_path / "set")).with_format("numpy")
    assert np.array_equal(np.asarray(plain[0]["input_ids"]).T, layout.encode(many[0][1], bos=True))
    assert [path.name for path in tmp_path.iterdir()] == ["set"]
    with pytest.raises(OutputError, match="no empty folder"):
        write_dataset(tmp_path / "set", layout, many)
    with pytest.raises(TokenFileError, match="another tokenizer"):
        read_dataset(tmp_path / "set", fingerprint="other")
    with pytest.raises(TokenFileError, match="No such file"):
        read_dataset(tmp_path)


ROW = {"id": "a", "input_ids": [5, 15], "num_samples": 300, "timbre": None}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param({"input_ids": None}, "lacks the column 'input_ids'", id="no-ids"),
        pytest.param({"num_samples": None}, "lacks the column 'num_samples'", id="no-samples"),
        pytest.param({"timbre": None}, "lacks the column 'timbre'", id="no-timbre"),
        pytest.param({"input_ids": [[5], [5, 15]]}, "ids", id="ragged"),
        pytest.param({"timbre": "low"}, "timbre", id="timbre-in-words"),
        pytest.param({"num_samples": "300"}, "num_samples", id="samples-in-words"),
    ],
)
def test_rows_that_are_none_are_refused_in_one_line(change, words):
    from speechtok.layouts.huggingface import row_tokens

    layout = get("flat", Vocabulary.of(make([[1], [3]])))
    assert row_tokens(ROW, layout) == make([[1], [3]], missing=20)
    row = {name: value for name, value in (ROW | change).items() if name not in change or value is not None}
    with pytest.raises(TokenError, match=words) as caught:
        row_tokens(row, layout)
    assert "\n" not in str(caught.value)


# byte pairs and rates


def test_byte_pairs_agree_with_the_library_and_keep_the_order_of_training():
    tokenizers = pytest.importorskip("tokenizers", reason="pip install 'speechtok[layouts]'")
    many = [tokens for _, tokens in utterances(8, 200, 5)]
    vocabulary = train_bpe(Vocabulary.of(many[0]), many, 60)
    layout = get("bpe", vocabulary)
    assert len(vocabulary.merges) == 50
    reference = tokenizers.Tokenizer(tokenizers.models.BPE())
    words = [layout.spell(tokens) for tokens in many]
    alphabet = [chr(0xF0000 + unit) for unit in range(10)]
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=60, initial_alphabet=alphabet, min_frequency=2, show_progress=False
    )
    reference.train_from_iterator(words, trainer)
    for tokens, word in zip(many, words, strict=True):
        ours = layout.encode(tokens) - vocabulary.level_starts[0]
        assert ours.tolist() == reference.encode(word).ids
        assert len(ours) < tokens.codes.size


def test_byte_pairs_are_exact_for_codes_never_seen_in_training():
    seen, unseen = make([[0, 1] * 9], 300), make([[0, 1, 299, 0, 1, 150]], 300)
    layout = get("bpe", train_bpe(Vocabulary.of(seen), [seen], 302))
    assert len(layout.vocabulary.merges) == 2
    assert layout.decode(layout.encode(unseen)) == unseen
    assert len(layout.encode(unseen)) == 4


def test_more_codes_than_one_area_of_characters():
    tokens = make([[65533, 65534, 69999, 65533, 65534]], 70000)
    layout = get("bpe", train_bpe(Vocabulary.of(tokens), [tokens], 70001))
    assert layout.encode(tokens).tolist() == [70004, 4 + 69999, 70004]
    assert layout.decode(layout.encode(tokens)) == tokens


@pytest.mark.parametrize(
    ("tokens", "size", "count", "words"),
    [
        pytest.param(make(CODES), 16, 1, "more than the 16 codes", id="no-merge"),
        pytest.param(make(CODES), 20, 0, "no utterance", id="nothing"),
        pytest.param(make(CODES, 100_000), 300_000, 1, "at most 131068 codes", id="too-many-codes"),
    ],
)
def test_impossible_trainings_are_refused(tokens, size, count, words):
    with pytest.raises(ConfigError, match=words):
        train_bpe(Vocabulary.of(tokens), [tokens] * count, size)


def test_rates_by_hand():
    tokens = make([[1, 1, 1, 2, 2, 1, 1, 1, 2, 2]])  # 10 frames of 20 ms, 4 runs
    bpe = Vocabulary.of(tokens).with_merges(Merges(8, ((1, 1), (8, 1), (2, 2), (9, 10))))
    rates = unit_rates([tokens, tokens], bpe)
    assert rates.to_dict() == pytest.approx(
        {"utterances": 2, "seconds": 0.4, "plain": 50, "deduplicated": 20, "with_durations": 40, "bpe": 10}
    )
    assert unit_rates([tokens]).bpe is None
    wide = make(CODES)
    assert steps_per_second(get("delay", Vocabulary.of(wide)), [wide]) == pytest.approx(4 / (3 * HOP / 16000))


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(lambda: unit_rates([]), id="nothing"),
        pytest.param(lambda: steps_per_second(get("flat", Vocabulary.of(make(CODES))), []), id="no-steps"),
        pytest.param(lambda: unit_rates([make(CODES)], Vocabulary.of(make(CODES))), id="no-merges"),
    ],
)
def test_rates_of_nothing_are_refused(wrong):
    with pytest.raises(SpeechtokError):
        wrong()
