"""A corpus read back: by id, as a stream, by other programs, and in their formats."""

import io
import json
import tarfile

import numpy as np
import pytest

import speechtok
from speechtok.errors import NotSupportedError, OutputError, TokenFileError
from speechtok.layouts.arrays import open_arrays
from tiny import tiny_tokenizer
from tiny_corpus import make_sounds, run, tree

pa = pytest.importorskip("pyarrow", reason="pip install 'speechtok[corpus]'")
pq = pytest.importorskip("pyarrow.parquet", reason="pip install 'speechtok[corpus]'")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, model):
    """A corpus with the columns speaker and text."""
    base = tmp_path_factory.mktemp("reading")
    sounds = make_sounds(base / "sounds", 7, bad=False)
    rows = [f"{path.relative_to(sounds)}\ts{i % 2}\ttext {i}" for i, path in enumerate(sorted(sounds.rglob("*.wav")))]
    (sounds / "all.tsv").write_text("path\tspeaker\ttext\n" + "\n".join(rows) + "\n")
    run(sounds / "all.tsv", base / "corpus", model)
    return base / "corpus"


@pytest.fixture(scope="module")
def corpus(folder):
    return speechtok.open(folder)


def copied(folder, to):
    for name, data in tree(folder).items():
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        (to / name).write_bytes(data)
    return to


def test_it_is_a_mapping(corpus, model):
    assert len(corpus) == len(corpus.ids) == len(list(corpus)) == 7
    assert corpus.ids[:2] == ("a/00", "a/02") and "a/00" in corpus and "c" not in corpus
    assert dict(corpus.items()) == {name: corpus[name] for name in corpus}
    assert corpus.row("a/02") == {"speaker": "s1", "text": "text 1"}
    assert model.decode(corpus["b/05"]).samples.size == corpus["b/05"].num_samples
    assert corpus.seconds == pytest.approx(sum(tokens.seconds for tokens in corpus.values()))
    with pytest.raises(KeyError):
        corpus["c"]


def test_iteration_holds_one_group_of_rows(folder, monkeypatch):
    read, groups = pq.ParquetFile.read_row_group, []
    monkeypatch.setattr(pq.ParquetFile, "read_row_group", lambda self, *a, **k: groups.append(a) or read(self, *a, **k))
    stream = speechtok.open(folder).items()
    next(stream)
    assert len(groups) == 1
    assert len(list(stream)) == 6 and len(groups) == 3


def test_damage_is_found(folder, tmp_path):
    speechtok.open(folder).verify()
    bad = copied(folder, tmp_path / "bad")
    path = bad / "shards/00001.parquet"
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    with pytest.raises(TokenFileError, match=r"00001\.parquet: damaged or altered"):
        speechtok.open(bad).verify()
    path.write_bytes(b"no parquet")
    with pytest.raises(TokenFileError, match=r"00001\.parquet: damaged, or no shard of tokens"):
        speechtok.open(bad)


def test_shards_of_two_tokenizers_are_never_mixed(folder, tmp_path):
    mixed = copied(folder, tmp_path / "mixed")
    other = tmp_path / "other"
    run(make_sounds(tmp_path / "sounds", 3, bad=False), other, tiny_tokenizer("frame", seed=1))
    (mixed / "shards/00001.parquet").write_bytes((other / "shards/00000.parquet").read_bytes())
    with pytest.raises(TokenFileError, match=r"00001\.parquet: was made by tiny-frame \(\w+\), and the corpus by"):
        speechtok.open(mixed)


def test_what_is_no_corpus_is_refused(tmp_path):
    with pytest.raises(TokenFileError, match="holds no corpus of tokens; make one with `speechtok tokenize`"):
        speechtok.open(tmp_path)


def test_the_fingerprint_stands_in_the_schema(corpus):
    metadata = pq.read_schema(corpus.shards[0]).metadata
    assert metadata[b"fingerprint"].decode() == corpus.fingerprint
    about = json.loads(metadata[b"speechtok"])
    assert about["header"]["codebook_sizes"] == [32] * 4 and about["header"]["semantic_levels"] == [0]


def test_duckdb_reads_the_shards(folder, corpus):
    duckdb = pytest.importorskip("duckdb", reason="pip install duckdb")
    query = f"select id, codes, speaker from '{folder}/shards/*.parquet' where speaker = 's1' order by id"
    for name, codes, speaker in duckdb.sql(query).fetchall():
        assert (np.array(codes) == corpus[name].codes).all() and speaker == "s1"


def test_polars_reads_the_shards(folder, corpus):
    polars = pytest.importorskip("polars", reason="pip install polars")
    frame = polars.read_parquet(f"{folder}/shards/*.parquet")
    assert frame.schema["codes"] == polars.List(polars.List(polars.UInt16))
    for name, codes in zip(frame["id"], frame["codes"].to_list(), strict=True):
        assert (np.array(codes) == corpus[name].codes).all()


def test_datasets(folder, corpus, cli, tmp_path):
    datasets = pytest.importorskip("datasets", reason="pip install 'speechtok[layouts]'")
    assert cli("export-corpus", folder, "--to", "datasets", "-o", tmp_path / "set")[0] == 0
    found = datasets.load_from_disk(str(tmp_path / "set"))
    assert found["id"][:] == list(corpus.ids) and np.array(found[3]["codes"]).shape[0] == 4


def test_webdataset_tars(folder, corpus, cli, tmp_path):
    for name in ("one", "two"):
        code, out, _ = cli("export-corpus", folder, "--to", "webdataset", "-o", tmp_path / name, "--size", 3)
        assert code == 0 and "7 recordings" in out
    assert tree(tmp_path / "one") == tree(tmp_path / "two")
    with tarfile.open(tmp_path / "one/000001.tar") as tar:
        assert tar.getnames()[:2] == ["a/06.codes.npy", "a/06.json"]
        codes = np.load(io.BytesIO(tar.extractfile("a/06.codes.npy").read()))
        about = json.load(tar.extractfile("a/06.json"))
    assert codes.dtype == np.uint16 and (codes == corpus["a/06"].codes).all()
    assert about["id"] == "a/06" and about["fingerprint"] == corpus.fingerprint and about["text"] == "text 3"


def test_webdataset_itself_reads_the_tars(folder, corpus, cli, tmp_path):
    webdataset = pytest.importorskip("webdataset", reason="pip install webdataset")
    assert cli("export-corpus", folder, "--to", "webdataset", "-o", tmp_path / "tars")[0] == 0
    samples = list(webdataset.WebDataset(str(tmp_path / "tars/000000.tar"), shardshuffle=False).decode())
    assert [sample["__key__"] for sample in samples] == list(corpus.ids)
    assert all((sample["codes.npy"] == corpus[sample["__key__"]].codes).all() for sample in samples)


def test_lhotse_shar(folder, corpus, cli, tmp_path):
    lhotse = pytest.importorskip("lhotse", reason="pip install 'speechtok[lhotse]'")
    assert cli("export-corpus", folder, "--to", "shar", "-o", tmp_path / "shar", "--size", 4)[0] == 0
    cuts = list(lhotse.CutSet.from_shar(in_dir=tmp_path / "shar"))
    assert [cut.id for cut in cuts] == list(corpus.ids)
    assert all((cut.load_codes() == corpus[cut.id].codes).all() for cut in cuts)
    assert cuts[1].supervisions[0].text == "text 1" and cuts[1].custom["fingerprint"] == corpus.fingerprint


@pytest.mark.parametrize("layout", ["flat", "delay", "dedup"])
def test_one_flat_array(folder, corpus, cli, tmp_path, layout):
    options = ("--to", "flat", "--layout", layout, "-o", tmp_path / "all.bin")
    assert cli("export-corpus", folder, *options)[0] == 0
    opened = open_arrays(tmp_path / "all.bin")
    assert opened.ids == corpus.ids and opened.array.dtype == np.uint16
    assert all(opened.tokens(i) == corpus[name] for i, name in enumerate(corpus.ids))


@pytest.mark.parametrize(
    "options, message",
    [
        (("--to", "shar", "--layout", "flat"), "--layout belongs to --to flat"),
        (("--to", "datasets", "--size", "3"), "--size belongs to --to webdataset and shar"),
        (("--to", "webdataset", "--size", "0"), "--size is 0"),
    ],
)
def test_options_of_other_formats_are_refused(folder, cli, tmp_path, options, message):
    code, _, (line,) = cli("export-corpus", folder, *options, "-o", tmp_path / "out")
    assert code == 2 and message in line


def test_a_full_folder_is_not_written_into(folder, corpus, tmp_path):
    from speechtok.corpus.exporters.webdataset import write_webdataset

    (tmp_path / "x").write_text("mine")
    with pytest.raises(OutputError, match="exists and is no empty folder"):
        write_webdataset(corpus, tmp_path)


def test_text_and_soft_tokens_have_no_layout(tmp_path):
    from speechtok.corpus.exporters.flat import write_flat
    from speechtok.tokenizers.features import MelFeatures
    from speechtok.tokenizers.soft import SoftTokenizer

    run(make_sounds(tmp_path / "s", 2, bad=False), tmp_path / "c", SoftTokenizer(MelFeatures(8000, 160, 40, 20), "mel"))
    with pytest.raises(NotSupportedError, match=r"holds speechtok\.soft, and a layout takes codes"):
        write_flat(speechtok.open(tmp_path / "c"), tmp_path / "x.bin")
