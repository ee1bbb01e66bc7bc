"""Speech of a synthesizer as a corpus: what is said, by whom, and that a killed run goes on."""

import os
import shutil
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speechtok.errors import ConfigError
from speechtok.train import synthetic
from speechtok.train.data import read_manifest

WORDS = st.lists(st.sampled_from(["a", "sentence", "of", "ten"]), min_size=1, max_size=30).map(" ".join)


@given(st.lists(WORDS, min_size=1, max_size=6), st.integers(1, 4), st.integers(0, 5), st.integers(0, 99))
def test_every_text_is_said_whole_and_in_order(texts, least, more, seed):
    hours = sum(len(text.split()) for text in texts) * synthetic.SECONDS_PER_WORD / 3600  # once
    found = synthetic.sentences(texts, hours, (least, least + more), ("slt", "awb"), 1.3, seed)
    assert found == synthetic.sentences(texts, hours, (least, least + more), ("slt", "awb"), 1.3, seed)
    said = " ".join(one.text for one in found)
    assert sorted(said.split()) == sorted(" ".join(texts).split())
    assert all(text in said for text in texts)
    assert all(len(one.text.split()) <= least + more for one in found)
    assert {one.voice for one in found} <= {"slt", "awb"} and all(1 / 1.31 < one.stretch < 1.31 for one in found)


def test_settings_that_make_no_sense_are_refused():
    for wrong in ({"words": (3, 2)}, {"hours": 0}, {"stretch": 0.5}, {"voices": ()}, {"texts": []}):
        given = {"texts": ["a b"], "hours": 1.0, "words": (1, 2), "voices": ("slt",), "stretch": 1.2, "seed": 0} | wrong
        with pytest.raises(ConfigError):
            synthetic.sentences(**given)


FLITE = f"""#!{sys.executable}
import sys, numpy, soundfile
options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
if "bad" in options["-t"]:
    sys.exit("no such sound")
soundfile.write(options["-o"], numpy.full(160 * len(options["-t"]), 0.1), 16000)
"""


@pytest.fixture
def flite(tmp_path, monkeypatch):
    """A program of that name, which is as slow as its text is long."""
    program = tmp_path / "bin" / "flite"
    program.parent.mkdir()
    program.write_text(FLITE)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")


def corpus_of(folder, text):
    """A manifest with one sentence to take texts from."""
    folder.mkdir()
    (folder / "texts.tsv").write_text(f"path\tsplit\tspeaker\ttext\nx.wav\ttrain\ts\t{text}\n")
    return ["--texts", str(folder / "texts.tsv"), "--hours", "0.001", "--words", "1", "3"]


def test_a_corpus_is_made_once_and_goes_on(flite, tmp_path, capsys):
    options = [*corpus_of(tmp_path / "in", "one two three four five"), "-o", str(tmp_path / "out")]
    assert synthetic.main(options) == 0
    found = read_manifest(tmp_path / "out/corpus.tsv", "train")
    assert found[0].path.is_file() and found[0].speaker.startswith("flite-")
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in (tmp_path / "out/audio").iterdir()}
    gone = sorted(before)[0]
    gone.unlink()
    assert synthetic.main(options) == 0  # as after a kill
    after = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in (tmp_path / "out/audio").iterdir()}
    assert after.pop(gone)[1] == before.pop(gone)[1] and after == before
    with pytest.raises(ConfigError, match="holds other sentences"):
        synthetic.main([*options, "--seed", "1"])


def test_what_cannot_be_said_and_a_missing_program_are_named(flite, tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match=r"flite cannot say '.*bad.*' as \w+: no such sound"):
        synthetic.main([*corpus_of(tmp_path / "in", "bad"), "-o", str(tmp_path / "out")])
    assert not (tmp_path / "out/corpus.tsv").exists()
    with pytest.raises(ConfigError, match="holds other sentences"):  # sound of an unfinished run is not taken over
        synthetic.main([*corpus_of(tmp_path / "in3", "good"), "-o", str(tmp_path / "out")])
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="flite is not installed"):
        synthetic.main([*corpus_of(tmp_path / "in2", "fine"), "-o", str(tmp_path / "out2")])


@pytest.mark.skipif(not shutil.which("flite"), reason="flite is not installed")
def test_flite_itself_speaks(tmp_path):
    place = synthetic.synthesize([synthetic.Sentence("good morning", "slt", 1.1, "train")], tmp_path / "out", 1)
    (spoken,) = read_manifest(place, "train")
    assert 0.4 < synthetic.probe(spoken.path).seconds < 3
