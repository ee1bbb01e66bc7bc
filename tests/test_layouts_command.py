"""``speechtok layout``: files in, files out, one line for every mistake."""

import json

import numpy as np
import pytest

from speechtok.layouts import Vocabulary
from speechtok.layouts.arrays import open_arrays
from speechtok.tokens import Tokens
from test_layouts import make

SUFFIX = ".tokens.safetensors"


@pytest.fixture
def files(tmp_path):
    """Three token files of three levels."""
    random = np.random.default_rng(0)
    paths = [tmp_path / f"{name}{SUFFIX}" for name in ("a.one", "b", "c")]
    for path in paths:
        make(np.repeat(random.integers(0, 8, (3, 20)), 2, axis=1), missing=5).save(path)
    return paths


@pytest.mark.parametrize("name", ["flat", "delay", "parallel", "coarse", "split", "dedup", "bpe"])
def test_there_and_back(cli, files, tmp_path, name):
    code, out, err = cli("layout", *files, "--as", name, "-o", tmp_path / "all.npy", "--json")
    assert (code, err) == (0, [])
    said = json.loads(out)
    opened = open_arrays(tmp_path / "all.npy")
    assert (said["utterances"], said["steps"]) == (3, len(np.load(tmp_path / "all.npy")))
    assert opened.layout.name == said["layout"] == name
    assert cli("layout", tmp_path / "all.npy", "--as", "tokens", "-o", tmp_path / "back")[0] == 0
    for path in files:
        assert Tokens.load(tmp_path / "back" / path.name) == Tokens.load(path)


def test_byte_pairs_from_the_command(cli, files, tmp_path):
    code, out, _ = cli("layout", "train-bpe", *files, "-o", tmp_path / "bpe.json", "--size", 12, "--json")
    assert code == 0 and json.loads(out)["levels"] == 1
    assert Vocabulary.load(tmp_path / "bpe.json", "abc").merges.base == 8
    command = (
        "layout",
        *files,
        "--as",
        "bpe",
        "--vocabulary",
        tmp_path / "bpe.json",
        "-o",
        tmp_path / "a.bin",
        "--bare",
    )
    assert cli(*command)[0] == 0
    opened = open_arrays(tmp_path / "a.bin")
    assert opened.tokens(0) == Tokens.load(files[0]).take(1)
    assert opened.offsets[-1] < 3 * 40


def test_a_named_vocabulary_is_written_once_and_used_again(cli, files, tmp_path):
    vocabulary = tmp_path / "v.json"
    options = ("--as", "dedup", "--vocabulary", vocabulary)
    choice = ("--semantic", "--durations", 5, "--text-size", 100)
    assert cli("layout", files[0], *options, *choice, "-o", tmp_path / "a.bin")[0] == 0
    assert cli("layout", files[1], *options, "-o", tmp_path / "b.bin")[0] == 0
    made = Vocabulary.load(vocabulary)
    assert open_arrays(tmp_path / "b.bin").layout.vocabulary == made
    assert (made.levels, made.durations, made.text_size) == (1, 5, 100)
    code, _, (line,) = cli("layout", files[2], *options, "--text-size", 7, "-o", tmp_path / "c.bin")
    assert code == 2 and "leave --text-size out" in line


def test_a_folder_of_datasets(cli, files, tmp_path):
    datasets = pytest.importorskip("datasets", reason="pip install 'speechtok[layouts]'")
    code, out, _ = cli("layout", *files, "--as", "delay", "-o", f"{tmp_path}/set/", "--json")
    assert code == 0 and json.loads(out)["steps"] == 3 * (40 + 2 + 2)
    assert datasets.load_from_disk(str(tmp_path / "set"))["id"][0] == "a.one"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param(("b", "-o", "x.bin"), "say which layout with --as", id="no-layout"),
        pytest.param(("b", "--as", "spiral", "-o", "x.bin"), "no layout 'spiral'", id="unknown-layout"),
        pytest.param(("b", "--as", "flat", "-o", "x.txt"), "end it in .bin or .npy", id="suffix"),
        pytest.param(("b", "b", "--as", "flat", "-o", "x.bin"), "the id 'b'", id="twice"),
        pytest.param(("none", "--as", "flat", "-o", "x.bin"), "no such file", id="missing"),
        pytest.param(("b", "other", "--as", "flat", "-o", "x.bin"), "other.tokens.safetensors: ", id="other-tokenizer"),
        pytest.param(("b", "c", "--as", "tokens", "-o", "back"), "reads one file", id="two-back"),
        pytest.param(("b", "--as", "tokens", "-o", "back"), "is no file of sequences", id="no-sequences"),
        pytest.param(("train-bpe", "b", "-o", "x.json"), "--size N", id="no-size"),
        pytest.param(("train-bpe", "b", "-o", "x.json", "--size", "8"), "more than the 8 codes", id="small-size"),
        pytest.param(("train-bpe", "-o", "x.json", "--size", "80"), "TOKENS...", id="nothing-to-train-on"),
        pytest.param(
            ("b", "--as", "split", "--vocabulary", "v.json", "--semantic", "-o", "x.bin"), "split", id="split"
        ),
    ],
)
def test_mistakes_cost_one_line_and_leave_nothing(cli, files, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    make([[1], [2], [3]], fingerprint="other").save(f"other{SUFFIX}")
    before = sorted(tmp_path.iterdir())
    named = [f"{word}{SUFFIX}" if word in ("b", "c", "none", "other") else word for word in arguments]
    code, out, (line,) = cli("layout", *named)
    assert (code, out) == (2, "") and words in line
    assert sorted(tmp_path.iterdir()) == before
