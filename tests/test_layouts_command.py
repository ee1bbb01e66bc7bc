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
        pytest.param(
            ("b", "--as", "flat", "--vocabulary", "v/v.json", "-o", "x.bin"), "there is no folder", id="no-place"
        ),
        pytest.param(
            ("b", "other", "--as", "flat", "--vocabulary", "v.json", "-o", "x.bin"), "other", id="no-lone-vocabulary"
        ),
        pytest.param(("b", "--as", "dedup", "--durations", "0", "-o", "x.bin"), "durations", id="no-durations"),
        pytest.param(("b", "--as", "flat", "--size", "9", "-o", "x.bin"), "leave --size out", id="size-of-flat"),
        pytest.param(
            ("train-bpe", "b", "-o", "x.json", "--size", "80", "--vocabulary", "v"), "--vocabulary", id="bpe-of-bpe"
        ),
        pytest.param(("train-bpe", "b", "-o", "x.json", "--size", "80", "--bare"), "--bare", id="bare-training"),
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


@pytest.mark.parametrize(
    ("out", "vocabulary"),
    [
        pytest.param("x.bin", "x.bin", id="data"),
        pytest.param("x.bin", "x.bin.json", id="index"),
        pytest.param("x.bin", "link.json", id="link-to-the-index"),
        pytest.param("set/", "set/v.json", id="inside-the-folder"),
    ],
)
@pytest.mark.parametrize("exists", [True, False], ids=["old", "new"])
def test_a_vocabulary_where_the_output_goes_is_refused(cli, files, tmp_path, monkeypatch, out, vocabulary, exists):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link.json").symlink_to(tmp_path / "x.bin.json")
    if exists:
        (tmp_path / "set").mkdir()
        Vocabulary.of(Tokens.load(files[0])).save(vocabulary)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    code, said, (line,) = cli("layout", *files, "--as", "flat", "--vocabulary", vocabulary, "-o", out)
    assert (code, said) == (2, "") and "--vocabulary lies where" in line
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_an_index_that_is_an_input_is_kept(cli, files, tmp_path):
    index = files[1].rename(tmp_path / "x.bin.json")
    before = index.read_bytes()
    code, _, (line,) = cli("layout", files[0], index, "--as", "flat", "-o", tmp_path / "x.bin")
    assert code == 2 and "is also an input" in line
    assert index.read_bytes() == before


def test_reading_back_into_the_current_folder(cli, files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kept = [Tokens.load(path) for path in files]
    assert cli("layout", *files, "--as", "flat", "-o", "all.bin")[0] == 0
    for path in files:
        path.unlink()
    assert cli("layout", "all.bin", "--as", "tokens", "-o", ".")[0] == 0
    assert [Tokens.load(path) for path in files] == kept


def test_reading_back_never_replaces_what_it_reads(cli, tmp_path):
    tokens = tmp_path / f"a{SUFFIX}"
    make([[1]]).save(tokens)
    assert cli("layout", tokens, "--as", "flat", "-o", tmp_path / "all.npy")[0] == 0
    tokens.unlink()
    tokens.symlink_to(tmp_path / "all.npy.json")
    code, _, (line,) = cli("layout", tmp_path / "all.npy", "--as", "tokens", "-o", tmp_path)
    assert code == 2 and "is also an input" in line
    assert len(open_arrays(tmp_path / "all.npy")) == 1


@pytest.mark.parametrize(
    "option",
    [
        pytest.param(option, id=option[0])
        for option in (
            ("--levels", 1), ("--semantic",), ("--acoustic",), ("--text-size", 0), ("--shared",), ("--durations", 0),
            ("--bare",), ("--size", 9), ("--vocabulary", "v.json"),
        )
    ],
)  # fmt: skip
def test_options_that_do_not_apply_on_the_way_back_are_refused(cli, files, tmp_path, option):
    assert cli("layout", *files, "--as", "flat", "-o", tmp_path / "all.bin")[0] == 0
    code, _, (line,) = cli("layout", tmp_path / "all.bin", "--as", "tokens", "-o", tmp_path / "back", *option)
    assert code == 2 and f"leave {option[0]} out" in line
    assert not (tmp_path / "back").exists()


def test_a_zero_that_is_given_is_no_absent_option(cli, files, tmp_path):
    Vocabulary.of(Tokens.load(files[0])).save(tmp_path / "v.json")
    command = ("layout", files[0], "--as", "flat", "--vocabulary", tmp_path / "v.json", "-o", tmp_path / "a.bin")
    for option in ("--text-size", "--durations", "--levels"):
        code, _, (line,) = cli(*command, option, 0)
        assert code == 2 and f"leave {option} out" in line
