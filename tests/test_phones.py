"""Phone alignment on real clips, the pronunciations behind it, and the phonetic measures by hand."""

from __future__ import annotations

import json
import math
import shutil
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speechtok.audio import Audio, read, write
from speechtok.bench.phonetics import joint_counts, phonetic_scores
from speechtok.cli import main
from speechtok.errors import ConfigError
from speechtok.guidance.phones import (
    SILENCE,
    AlignmentError,
    PhoneAligner,
    Segment,
    _segments,
    frame_labels,
    read_segments,
    write_segments,
)
from speechtok.guidance.pronounce import pronounce, words_of

WORDS = {
    "cat": "K AE T", "pitiful": "P IH T AH F AH L", "stop": "S T AA P", "bush": "B UH SH", "happy": "HH AE P IY",
    "rain": "R EY N", "bow": "B OW", "make": "M EY K", "boys": "B OY Z", "need": "N IY D",
}  # fmt: skip


# -- pronunciations -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "phones"),
    [
        pytest.param("cat", "K AE T", id="as-it-stands"),
        pytest.param("cats", "K AE T S", id="plural-voiceless"),
        pytest.param("bow's", "B OW Z", id="possessive-voiced"),
        pytest.param("bushes", "B UH SH AH Z", id="plural-sibilant"),
        pytest.param("boys'", "B OY Z", id="plural-possessive"),
        pytest.param("stopped", "S T AA P T", id="past-doubled"),
        pytest.param("needed", "N IY D AH D", id="past-after-d"),
        pytest.param("making", "M EY K IH NG", id="lost-e"),
        pytest.param("happiness", "HH AE P IY N AH S", id="y-to-i"),
        pytest.param("pitifulness", "P IH T AH F AH L N AH S", id="ending"),
        pytest.param("unhappy", "AH N HH AE P IY", id="start"),
        pytest.param("rainbow", "R EY N B OW", id="compound"),
        pytest.param("xyzzy", None, id="unknown"),
        pytest.param("1990", None, id="number"),
    ],
)
def test_pronunciations(word, phones):
    assert pronounce(word, WORDS.get) == phones


def test_words_of_a_transcript():
    text = "Don\N{RIGHT SINGLE QUOTATION MARK}t go,' said the boys' mother-in-law: 12 o'clock!"
    expected = ["don't", "go", "said", "the", "boys'", "mother", "in", "law", "12", "o'clock"]
    assert words_of(text) == expected


# -- segments -------------------------------------------------------------------------------------------------------


def test_noises_and_neighbouring_silences_become_one_silence():
    entries = [("SIL", 0, 5), ("+NSN+", 5, 3), ("K", 8, 4), ("SIL", 12, 2)]
    assert _segments(entries) == [Segment(0, 0.08, "SIL"), Segment(0.08, 0.12, "K"), Segment(0.12, 0.14, "SIL")]


def test_frame_labels_by_hand():
    segments = [Segment(0.0, 0.03, "SIL"), Segment(0.03, 0.07, "K"), Segment(0.07, 0.10, "AE")]
    # middles of 50 Hz frames: 10, 30, 50, 70, 90, 110 ms
    assert frame_labels(segments, 6, 50) == ["SIL", "K", "K", "AE", "AE", SILENCE]
    assert frame_labels([], 2, 50) == [SILENCE, SILENCE]


@given(st.lists(st.integers(1, 30), min_size=1, max_size=12), st.integers(1, 100))
def test_frame_labels_agree_with_a_search(lengths, frame_rate):
    edges = [0, *np.cumsum(lengths)]
    segments = [Segment(a / 100, b / 100, f"P{i}") for i, (a, b) in enumerate(pairwise(edges))]
    frames = int(edges[-1] / 100 * frame_rate)
    for frame, label in enumerate(frame_labels(segments, frames, frame_rate)):
        middle = (frame + 0.5) / frame_rate
        assert any(s.phone == label and s.start - 1e-6 <= middle <= s.end + 1e-6 for s in segments)


def test_segments_on_disk(tmp_path):
    utterances = {"a/b": [Segment(0.0, 0.12, "SIL"), Segment(0.12, 0.3, "K")], "c": [Segment(0.0, 1.0, "AA")]}
    write_segments(tmp_path / "p.tsv", utterances)
    assert read_segments(tmp_path / "p.tsv") == utterances
    (tmp_path / "p.tsv").write_text("id\tstart\tend\tphone\na\tx\t1\tK\n")
    with pytest.raises(ConfigError, match="phone segments"):
        read_segments(tmp_path / "p.tsv")


# -- alignment of real speech -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def aligner():
    pytest.importorskip("pocketsphinx", reason="alignment needs pocketsphinx")
    return PhoneAligner()


@pytest.fixture(scope="module")
def texts(demo_clips):
    manifest = json.loads((demo_clips[0].parent / "manifest.json").read_text(encoding="utf-8"))
    return {entry["id"]: entry["text"] for entry in manifest["utterances"]}


def test_a_real_sentence_has_its_phones_in_order(aligner, demo_clips, texts):
    clip = next(path for path in demo_clips if path.stem == "ls-2033")
    audio = read(clip)
    segments = aligner.align(audio, texts["ls-2033"])
    phones = [s.phone for s in segments if s.phone != SILENCE]
    assert phones[:9] == ["B", "AY", "AA", "L", "AH", "R", "IH", "P", "L"]  # "By Allah, repl..."
    assert segments[0].start == 0
    assert segments[-1].end == pytest.approx(audio.seconds, abs=0.05)
    assert all(a.end == b.start for a, b in pairwise(segments))
    # what is called silence is quieter than what is called speech
    labels = frame_labels(segments, 215, 50)
    power = [np.square(audio.samples[i * 320 : (i + 1) * 320]).mean() for i in range(215)]
    silent = [label == SILENCE for label in labels]
    assert np.mean(np.array(power)[silent]) < 0.1 * np.mean(np.array(power)[~np.array(silent)])


def test_results_do_not_depend_on_what_came_before(aligner, demo_clips, texts):
    first, other = demo_clips[0], next(path for path in demo_clips if path.stem == "ls-3005")
    before = aligner.align(read(first), texts[first.stem])
    with_built_word = aligner.align(read(other), texts[other.stem])  # "pitifulness" is not in the dictionary
    assert "F AH L N AH S" in " ".join(s.phone for s in with_built_word)
    assert aligner.align(read(first), texts[first.stem]) == before


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param(" ... ", "no transcript", id="no-words"),
        pytest.param("hello qqqxz in 1990", "not in the dictionary: 1990 qqqxz", id="unknown-words"),
        pytest.param("a lobster is " * 30, "does not fit", id="too-many-words"),
    ],
)
def test_what_cannot_be_aligned_says_why(aligner, speech, text, reason):
    with pytest.raises(AlignmentError, match=reason):
        aligner.align(speech(1.0), text)


def test_command_aligns_joins_resumes_and_counts_failures(aligner, demo_clips, texts, tmp_path, capsys):
    rows = ["path\tsplit\ttext"]
    for stem, text in (("ls-2033", texts["ls-2033"]), ("emodb-08", texts["emodb-08"]), ("ls-2609", "")):
        shutil.copy(next(path for path in demo_clips if path.stem == stem), tmp_path)
        rows.append(f"{stem}.flac\tdev\t{text}")
    rows.append("gone.flac\tdev\thello")
    manifest, out = tmp_path / "m.tsv", tmp_path / "out"
    manifest.write_text("\n".join(rows) + "\n", encoding="utf-8")
    assert main(["align", str(manifest), "-o", str(out)]) == 0
    said = capsys.readouterr().out
    assert "1 of 4 utterances (0 from before)" in said
    assert "1 left out: not in the dictionary" in said
    assert list(read_segments(out / "phones.tsv")) == ["ls-2033"]
    failures = (out / "failures.tsv").read_text(encoding="utf-8").splitlines()
    assert [line.split("\t")[0] for line in failures] == ["id", "emodb-08", "ls-2609", "gone"]
    (part,) = (out / "parts").iterdir()
    assert part.name.startswith("ls-2033.")
    stamp, content = part.stat().st_mtime_ns, (out / "phones.tsv").read_bytes()
    assert main(["align", str(manifest), "-o", str(out), "--split", "dev"]) == 0
    assert "(1 from before)" in capsys.readouterr().out
    assert part.stat().st_mtime_ns == stamp
    assert (out / "phones.tsv").read_bytes() == content


class Spelling:
    """Stands in for the aligner: the phones of a word are its letters."""

    def __init__(self, build_unknown=True):
        self.build_unknown = build_unknown

    def align(self, audio, text):
        if not text:
            raise AlignmentError("no transcript")
        return [Segment(i / 10, (i + 1) / 10, letter) for i, letter in enumerate(text + "+" * self.build_unknown)]


@pytest.fixture
def corpus(tmp_path, speech, monkeypatch):
    """Writes a manifest of these texts; its recordings are there already."""
    monkeypatch.setattr("speechtok.guidance.phones.PhoneAligner", Spelling)
    for name in "ab":
        write(tmp_path / f"{name}.wav", speech(0.2))

    def manifest(**texts):
        rows = [f"{name}.wav\tdev\t{text}\n" for name, text in texts.items()]
        (tmp_path / "m.tsv").write_text("path\tsplit\ttext\n" + "".join(rows))
        return ["align", str(tmp_path / "m.tsv"), "-o", str(tmp_path / "out")]

    return manifest


def aligned(tmp_path):
    return {name: "".join(s.phone for s in found) for name, found in read_segments(tmp_path / "out/phones.tsv").items()}


def test_another_transcript_option_or_recording_is_aligned_anew(corpus, tmp_path, speech, capsys):
    assert main(corpus(a="on", b="it")) == 0
    assert aligned(tmp_path) == {"a": "on+", "b": "it+"}
    assert main(corpus(a="off", b="it")) == 0
    assert aligned(tmp_path) == {"a": "off+", "b": "it+"}
    assert main([*corpus(a="off", b="it"), "--dictionary-only"]) == 0
    assert aligned(tmp_path) == {"a": "off", "b": "it"}
    write(tmp_path / "b.wav", speech(0.3))
    assert main([*corpus(a="off", b="it"), "--dictionary-only"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.partition("(")[2] for line in said] == [f"{n} from before)" for n in (0, 1, 0, 1)]


def test_nothing_aligned_is_a_failure_and_keeps_older_phones(corpus, tmp_path, capsys):
    assert main(corpus(a="on", b="")) == 0
    before = aligned(tmp_path)
    capsys.readouterr()
    assert main(corpus(a="", b="")) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "failures.tsv: says why none of 2" in line
    assert aligned(tmp_path) == before
    assert len((tmp_path / "out/failures.tsv").read_text().splitlines()) == 3


@pytest.mark.parametrize("limit", ["0", "-1"])
def test_a_limit_below_one_is_refused(corpus, tmp_path, capsys, limit):
    assert main([*corpus(a="on", b="it"), "--limit", limit]) == 2
    assert f"--limit {limit}" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main([*corpus(a="on", b="it"), "--limit", "1"]) == 0
    assert aligned(tmp_path) == {"a": "on+"}


def test_command_refuses_a_bad_manifest_in_one_line(aligner, tmp_path, capsys):
    (tmp_path / "m.tsv").write_text("file\nx.wav\n")
    for arguments in ([str(tmp_path / "m.tsv")], [str(tmp_path / "nowhere.tsv")]):
        assert main(["align", *arguments, "-o", str(tmp_path / "out")]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_missing_package_is_said_in_one_line(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pocketsphinx", None)
    with pytest.raises(ConfigError, match="speechtok\\[align\\]"):
        PhoneAligner()


# -- measures -------------------------------------------------------------------------------------------------------


def test_scores_by_hand():
    # phones A (6 frames) and B (4); codes 0: A4 B1, 1: A2 B0, 2: A0 B3
    scores = phonetic_scores(np.array([[4, 2, 0], [1, 0, 3]]))
    conditional = 0.5 * (-(0.8 * math.log(0.8) + 0.2 * math.log(0.2)))  # only code 0 leaves doubt, in half the frames
    entropy = -(0.6 * math.log(0.6) + 0.4 * math.log(0.4))
    assert scores.pnmi == pytest.approx((entropy - conditional) / entropy)
    assert scores.phone_purity == pytest.approx((4 + 2 + 3) / 10)
    assert scores.cluster_purity == pytest.approx((4 + 3) / 10)
    assert (scores.frames, scores.phones, scores.codes) == (10, 2, 3)


@pytest.mark.parametrize(
    ("codes", "pnmi", "purity"),
    [
        pytest.param([7, 7, 9, 9], 1, 1, id="renamed-phones"),
        pytest.param([1, 2, 1, 2], 0, 0.5, id="independent"),
        pytest.param([5, 5, 5, 5], 0, 0.5, id="one-code"),
        pytest.param([1, 2, 3, 4], 1, 1, id="a-code-per-frame"),
    ],
)
def test_scores_at_the_limits(codes, pnmi, purity):
    scores = phonetic_scores(joint_counts(["K", "K", "S", "S"], codes))
    assert scores.pnmi == pytest.approx(pnmi)
    assert scores.phone_purity == pytest.approx(purity)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 6)), min_size=1, max_size=60))
def test_scores_stay_in_their_range_and_ignore_names(pairs):
    phones, codes = zip(*pairs, strict=True)
    scores = phonetic_scores(joint_counts(phones, codes))
    assert 0 <= scores.pnmi <= 1 + 1e-9
    assert 1 / len(set(phones)) - 1e-9 <= scores.phone_purity <= 1
    renamed = phonetic_scores(joint_counts([f"p{p}" for p in phones], [100 - c for c in codes]))
    assert renamed.pnmi == pytest.approx(scores.pnmi, abs=1e-9)
    assert renamed.phone_purity == pytest.approx(scores.phone_purity)


def test_counts_need_equally_many_frames():
    with pytest.raises(ValueError, match="equally long"):
        joint_counts(["K"], [1, 2])


def test_another_rate_gives_the_same_phones(aligner, demo_clips, texts):
    clip = next(path for path in demo_clips if path.stem == "ls-2033")
    at_24k = Audio(read(clip, 24000).samples, 24000)
    ours, theirs = (aligner.align(audio, texts["ls-2033"]) for audio in (at_24k, read(clip)))
    assert [s.phone for s in ours if s.phone != SILENCE] == [s.phone for s in theirs if s.phone != SILENCE]
