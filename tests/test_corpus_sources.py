"""Every kind of source gives the same recordings in the same order, and says in one line what it cannot take."""

import json

import numpy as np
import pytest

import speechtok
from speechtok.audio import Audio, read
from speechtok.corpus.reading import Reader, read_ahead
from speechtok.corpus.recording import Recording
from speechtok.corpus.sources import read_source
from speechtok.errors import ConfigError
from tiny import RATE, signal
from tiny_corpus import make_sounds, run


@pytest.fixture
def sounds(tmp_path):
    return make_sounds(tmp_path / "my sounds", 4, bad=False)


def ids(recordings):
    return [recording.id for recording in recordings]


def test_a_folder_is_walked_in_the_order_of_its_names(sounds):
    (sounds / "a/.hidden.wav").write_bytes(b"")
    (sounds / "notes.txt").write_text("no recording")
    speechtok.write(sounds / "a.b.flac", signal(0.1))
    assert ids(read_source(sounds)) == ["a.b", "a/00", "a/02", "b/01", "b/03"]


def test_two_files_of_one_id_are_both_named(sounds):
    speechtok.write(sounds / "a/00.flac", signal(0.1))
    with pytest.raises(ConfigError, match=r"a/00\.flac and .*a/00\.wav both have the id 'a/00'; give each its own"):
        read_source(sounds)


def test_a_tsv_manifest(sounds):
    path = sounds / "all.tsv"
    path.write_text(
        "path\tsplit\tspeaker\ttext\tseconds\tduration\tstart\tid\n"
        "a/00.wav\tdev\ts1\thow are you\t0.2\t\t\t\n"
        "a/02.wav\ttest\ts2\tfine\t0.26\t0.1\t0.05\tpart\n"
    )
    one, two = read_source(path)
    assert (one.id, one.start, one.columns) == ("a/00", None, {"split": "dev", "speaker": "s1", "text": "how are you"})
    assert (two.id, two.start, two.seconds, two.length) == ("part", 0.05, 0.1, 0.26)
    assert one.path == str(sounds / "a/00.wav") and one.stamp is not None
    assert ids(read_source(path, "test")) == ["part"]


def test_a_jsonl_manifest_keeps_the_types_of_its_columns(sounds, model, tmp_path):
    rows = [
        {"path": "a/00.wav", "age": 7, "loud": 0.5, "child": True, "words": ["a"], "codes": "x"},
        {"path": "b/01.wav", "age": None, "loud": 1, "child": False, "words": [], "codes": None},
    ]
    path = sounds / "all.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    pytest.importorskip("pyarrow", reason="pip install 'speechtok[corpus]'")
    run(path, tmp_path / "corpus", model)
    corpus = speechtok.open(tmp_path / "corpus")
    assert corpus.row("a/00") == {"age": 7, "loud": 0.5, "child": True, "words": '["a"]', "source_codes": "x"}
    assert corpus.row("b/01") == {"age": None, "loud": 1.0, "child": False, "words": "[]", "source_codes": None}


def test_kaldi_with_segments_beside_it(sounds):
    (sounds / "wav.scp").write_text(f"r1 {sounds}/a/00.wav\nr2 {sounds}/b/01.wav\n")
    assert ids(read_source(sounds / "wav.scp")) == ["r1", "r2"]
    (sounds / "segments").write_text("u1 r2 0.05 0.15\nu2 r1 0.1 -1\n")
    (sounds / "utt2spk").write_text("u1 anna\nu2 bert\n")
    one, two = read_source(sounds / "wav.scp")
    assert (one.id, one.path, one.start, round(one.seconds, 6)) == ("u1", f"{sounds}/b/01.wav", 0.05, 0.1)
    assert (two.seconds, two.columns) == (None, {"speaker": "bert"})


def test_a_lhotse_cutset(sounds, tmp_path):
    lhotse = pytest.importorskip("lhotse", reason="pip install 'speechtok[lhotse]'")
    recording = lhotse.Recording.from_file(sounds / "a/02.wav")
    said = lhotse.SupervisionSegment("s", recording.id, 0, 0.1, speaker="anna", text="yes")
    whole = lhotse.MonoCut("whole", 0, recording.duration, 0, supervisions=[said], recording=recording)
    part = lhotse.MonoCut("part", 0.05, 0.1, 0, recording=recording)
    path = tmp_path / "cuts.jsonl.gz"
    lhotse.CutSet.from_cuts([whole, part]).to_file(path)
    one, two = read_source(path)
    assert (one.id, one.start, one.columns["speaker"], one.columns["text"]) == ("whole", None, "anna", "yes")
    assert (two.id, two.start, two.seconds) == ("part", 0.05, 0.1)
    heard = Reader(RATE)(two).audio.samples
    assert np.abs(heard - part.load_audio()[0]).max() < 1e-6
    lhotse.CutSet.from_cuts([whole.pad(duration=3)]).to_file(path)
    with pytest.raises(ConfigError, match="is a MixedCut, not a part of one file"):
        read_source(path)
    lhotse.CutSet.from_cuts([whole.perturb_speed(1.1)]).to_file(path)
    with pytest.raises(ConfigError, match="no plain part of a mono file"):
        read_source(path)


def test_a_saved_huggingface_dataset(sounds, tmp_path):
    datasets = pytest.importorskip("datasets", reason="pip install 'speechtok[layouts]'")
    files = sorted(sounds.rglob("*.wav"))
    audio = [{"bytes": path.read_bytes(), "path": path.name} for path in files]
    audio[1] = {"bytes": b"no sound", "path": "x.wav"}
    table = datasets.Dataset.from_dict({"audio": audio, "speaker": list("abcd"), "age": [1, 2, 3, 4]})
    table = table.cast_column("audio", datasets.Audio(decode=False))  # decoding would need torchcodec
    datasets.DatasetDict({"train": table}).save_to_disk(tmp_path / "set")
    with pytest.raises(ConfigError, match="has the splits train; name one with --split"):
        read_source(tmp_path / "set")
    found = read_source(tmp_path / "set", "train")
    assert ids(found) == ["00000000", "00000001", "00000002", "00000003"]
    assert found[2].columns == {"speaker": "c", "age": 3}
    heard = list(read_ahead(found, RATE))
    pairs = [(one, path) for one, path in zip(heard, files, strict=True) if one.audio]
    assert len(pairs) == 3 and all((one.audio.samples == read(path).samples).all() for one, path in pairs)
    assert heard[1].failure == f"{found[1].place}: not audio, or damaged: Format not recognised; export it again"


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("wav.scp", "u1 sph2pipe a.sph |\n", "u1: is a pipe, which is not run here; write its output to a file"),
        ("wav.scp", "u1\n", "line 1: names no file"),
        ("a.tsv", "split\tspeaker\ndev\ta\n", "line 2: has no path; a manifest needs the column path"),
        ("a.tsv", "path\tstart\nx.wav\tsoon\n", "line 2: start is 'soon'; give a number of seconds"),
        ("a.tsv", "path\nx.wav\ty\n", "line 2: has more columns than the header"),
        ("a.tsv", "path\n", "holds no recording"),
        ("a.tsv", "path\nx.wav\nx.flac\n", "both have the id 'x'"),
        ("a.jsonl", "{\n", "line 1: is no JSON"),
        ("a.jsonl", "[]\n", "line 1: is no JSON object"),
        ("a.xyz", "", "is no known kind of source"),
        ("a.tsv", b"\xff\xfe", "cannot read this manifest"),
    ],
)
def test_what_is_wrong_with_a_source_is_said_in_one_line(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(ConfigError) as caught:
        read_source(path)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_names_and_columns_that_are_no_utf8_are_refused(tmp_path):
    (tmp_path / "one.jsonl").write_text(json.dumps({"path": "a.wav", "text": "\ud800"}))
    with pytest.raises(ConfigError, match=r"a\.wav' or its columns are no valid UTF-8"):
        read_source(tmp_path / "one.jsonl")
    folder = tmp_path / "sounds"
    folder.mkdir()
    try:
        (folder / "b\udcff.wav").touch()
    except OSError:
        pytest.skip("this file system holds no such names")
    with pytest.raises(ConfigError, match=r"b\\udcff\.wav' or its columns are no valid UTF-8"):
        read_source(folder)


def test_a_kaldi_text_may_hold_any_separator_of_lines_but_one(tmp_path):
    speechtok.write(tmp_path / "a.wav", signal(0.1))
    (tmp_path / "wav.scp").write_text(f"a {tmp_path}/a.wav\n", encoding="utf-8")
    (tmp_path / "text").write_text("a one\u2028two\n", encoding="utf-8")
    (recording,) = read_source(tmp_path / "wav.scp")
    assert recording.columns["text"] == "one\u2028two"


def test_a_missing_source_and_a_split_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match="no such file or folder"):
        read_source(tmp_path / "absent")
    (tmp_path / "a.tsv").write_text("path\nx.wav\n")
    with pytest.raises(ConfigError, match="has no column split; leave --split out"):
        read_source(tmp_path / "a.tsv", "dev")


def test_parts_of_a_file_are_the_samples_asked_for(tmp_path):
    path = tmp_path / "long.flac"
    speechtok.write(path, signal(2.0))
    whole, reader = read(path), Reader(RATE)
    heard = reader(Recording("x", str(path), 0.5, 0.25))
    assert (heard.audio.samples == whole.samples[RATE // 2 : RATE * 3 // 4]).all()
    assert (reader(Recording("y", str(path), 1.5)).audio.samples == whole.samples[RATE * 3 // 2 :]).all()
    beyond = reader(Recording("z", str(path), 1.5, 3.0))
    assert beyond.failure == f"{path}: lasts 2 s, and a part from 1.5 s to 4.5 s is asked for; mend the source"


def test_reading_ahead_keeps_the_order_and_stops_when_nobody_listens(sounds):
    recordings = read_source(sounds)
    heard = list(read_ahead(recordings, 2 * RATE, ahead=1))
    assert [one.recording for one in heard] == recordings
    assert all(isinstance(one.audio, Audio) and one.audio.rate == 2 * RATE for one in heard)
    stream = read_ahead(recordings, RATE, ahead=1)
    next(stream)
    stream.close()


def test_stereo_is_mixed_down_with_a_note(tmp_path):
    import soundfile

    soundfile.write(tmp_path / "a.wav", np.zeros((800, 2)), RATE)
    heard = Reader(RATE)(Recording("a", str(tmp_path / "a.wav")))
    assert heard.audio is not None and "2 channels mixed" in heard.notes[0]
