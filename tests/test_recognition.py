"""Error rates of a recogniser on a manifest: what counts, what fails, how models are compared."""

import json

import pytest

from speechtok.audio import read
from speechtok.bench import recognition
from speechtok.bench.judge import error_scores
from speechtok.bench.recognition import (
    choose_utterances,
    differences,
    main,
    recognition_scores,
    search_of,
    summary_of,
)
from speechtok.chain.recogniser import save_recogniser
from speechtok.chain.saved import digest_of, tokens_section
from speechtok.errors import CheckpointError, ConfigError
from test_train_asr import TEXTS, spoken  # noqa: F401 - a fixture
from tiny_chain import tiny_recogniser
from tiny_speaking import tiny_vocabulary

pytest.importorskip("jiwer", reason="error rates are counted by jiwer")
pytest.importorskip("tokenizers", reason="text vocabularies are made by tokenizers")


class Parrot:
    """Says one text, whatever it hears."""

    def __init__(self, text):
        self.text = text

    def transcribe(self, audio):
        assert audio.seconds > 0
        return self.text


@pytest.fixture
def broken(spoken):  # noqa: F811
    """Four utterances of one split, of which one cannot be read and one has no text."""
    rows = ["path\tsplit\tspeaker\ttext", *(f"{i}.wav\ttest\ts\t{text}" for i, text in enumerate(TEXTS))]
    rows[2] = "1.wav\ttest\ts\t"
    (spoken / "test.tsv").write_text("\n".join(rows) + "\n")
    (spoken / "3.wav").write_bytes(b"no audio")
    return spoken / "test.tsv"


def test_rates_are_those_of_the_corpus_and_failures_are_counted_by_reason(broken):
    found = recognition_scores(Parrot("the cat"), choose_utterances(broken, "test"))
    summary = summary_of(found)
    # "the cat sat" lacks one word of three, "the cat" none of two
    assert summary["wer"].mean == pytest.approx(1 / 5) and summary["wer"].n == 2
    assert summary["cer"].mean == pytest.approx(4 / 18)
    assert dict(summary["cer"].reasons) == {"no reference text": 1, "the file cannot be read": 1}
    rows = [one.row() for one in found]
    assert rows[0]["heard"] == "the cat" and rows[0]["weight/wer"] == 3 and rows[3]["heard"] is None
    assert rows[3]["failures"] == dict.fromkeys(("wer", "cer"), "the file cannot be read")


def test_differences_are_paired_and_weighted_as_the_rates_are(broken):
    items = choose_utterances(broken, "test")
    one, other = (recognition_scores(Parrot(text), items) for text in ("the cat sat", "the cat"))
    for measure, found in differences(one, other).items():
        expected = summary_of(one)[measure].mean - summary_of(other)[measure].mean
        assert found.mean == pytest.approx(expected) and found.n == 2 and found.failed == 2


def test_utterances_are_spread_over_the_split(broken):
    assert [name for name, _ in choose_utterances(broken, "test", 2)] == ["0", "3"]


def test_searches_by_name():
    assert search_of("ctc", 5, 0.3).ctc_weight == 1 and search_of("attention", 5, 0.3).ctc_weight == 0
    assert search_of("joint", 7, 0.4).ctc_weight == 0.4 and search_of("joint", 7, 0.4).beam == 7


def recogniser_folder(tokenizer, place):
    save_recogniser(tiny_recogniser(34, sizes=(32,)), tiny_vocabulary(), place, tokens_section(tokenizer))
    return place


@pytest.mark.parametrize("search", ["ctc", "attention", "joint"])
def test_the_command_writes_what_was_heard(broken, model, folder, search, capsys):
    place = recogniser_folder(model, broken.parent / "asr")
    out = broken.parent / "out.json"
    options = ["--model", place, "--data", broken, "--search", search, "--beam", "2", "--tokenizer", folder, "-o", out]
    assert main([*map(str, options)]) == 0
    document = json.loads(out.read_text())
    said = capsys.readouterr().out
    assert "1 failed: no reference text" in said and "'plain'" in said
    assert document["settings"]["normaliser"] == "plain" and document["search"]["beam"] == 2
    first = document["utterances"][0]
    transcriber = recognition.Transcriber.load(place, search_of(search, 2, 0.3), str(folder))
    assert first["heard"] == transcriber.transcribe(read(broken.parent / "0.wav"))
    assert first["cer"] == error_scores(TEXTS[0], first["heard"])[1].value
    assert document["summary"]["wer"]["n"] == 2


def test_what_cannot_be_measured_is_refused_in_one_line(broken, model, folder):
    with pytest.raises(ConfigError, match="-1 utterances cannot be measured"):
        choose_utterances(broken, "test", -1)
    with pytest.raises(ConfigError, match="no row has split 'dev'"):
        choose_utterances(broken, "dev")
    broken.write_text("path\tsplit\n0.wav\ttest\n")
    with pytest.raises(ConfigError, match="no utterance of split 'test' has a text"):
        choose_utterances(broken, "test")
    with pytest.raises(CheckpointError, match=r"has no model\.safetensors"):
        digest_of(broken.parent)
