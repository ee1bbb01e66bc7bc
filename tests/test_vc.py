"""Voice conversion by mixing levels: whose codes end up where, what is refused, and the benchmark in miniature."""

from __future__ import annotations

import json
import sys
import warnings
from dataclasses import replace

import numpy as np
import pytest

from speechtok.audio import Audio, read, write
from speechtok.bench import conversion
from speechtok.bench.facts import Evaluation
from speechtok.bench.pitch import pitch_correlation
from speechtok.errors import ConfigError, NotSupportedError, TokenError
from speechtok.tokenizers.conversion import checked_levels, convert_voice, levels_text, mix_levels, parse_levels
from speechtok.tokenizers.two_stage import TwoStageTokenizer
from tiny import HOP, RATE, samples, signal, tiny_tokenizer


@pytest.fixture(scope="module")
def guided():
    return tiny_tokenizer("frame", scheme="E", semantic_levels=(0,))


@pytest.fixture(scope="module")
def unguided():
    return tiny_tokenizer("frame", semantic_levels=())


# whose codes


@pytest.mark.parametrize("other", [1, 3 * HOP, 40 * HOP + 7], ids=["one-sample", "shorter", "longer"])
def test_the_reference_is_repeated_or_cut_to_the_source(guided, other):
    source, reference = guided.encode(samples(10 * HOP + 3)), guided.encode(samples(other, seed=5))
    mixed = mix_levels(source, reference, slice(1, 3))
    assert (mixed.levels, mixed.frames, mixed.num_samples) == (3, 11, 10 * HOP + 3)
    assert (mixed.codes[0] == source.codes[0]).all()
    for frame in range(11):
        assert (mixed.codes[1:, frame] == reference.codes[1:3, frame % reference.frames]).all()
    assert mixed.semantic_levels == (0,)


def test_the_result_lasts_as_long_as_the_source_and_depends_on_both(guided):
    source, first, second = samples(999), signal(0.2, seed=5), signal(0.2, seed=6)
    converted = convert_voice(guided, source, first)
    assert (len(converted), converted.rate) == (999, RATE)
    assert not np.array_equal(converted.samples, convert_voice(guided, source, second).samples)
    assert not np.array_equal(converted.samples, convert_voice(guided, samples(999, seed=9), first).samples)


def test_a_source_lent_to_itself_is_its_own_resynthesis(guided):
    tokens = guided.encode(signal(0.4))
    whole = convert_voice(guided, tokens, tokens, slice(1, None))
    assert np.array_equal(whole.samples, guided.decode(tokens).samples)
    assert np.array_equal(
        convert_voice(guided, tokens, tokens, slice(1, 2)).samples, guided.decode(tokens.take(2)).samples
    )


def test_audio_of_other_rates_is_resampled(guided):
    source, reference = signal(0.3), signal(0.2, seed=4)
    converted = convert_voice(guided, source.resample(2 * RATE), reference.resample(3 * RATE))
    assert (converted.rate, len(converted)) == (RATE, len(source))


def test_tokens_serve_as_well_as_audio_and_only_their_levels_are_needed(guided):
    source, reference = signal(0.3), signal(0.2, seed=4)
    expected = convert_voice(guided, source, reference, slice(1, 3)).samples
    parts = guided.encode(source).semantic, guided.encode(reference).acoustic
    assert np.array_equal(convert_voice(guided, *parts, slice(1, 3)).samples, expected)


def test_a_model_without_guided_level_warns_and_works(guided, unguided):
    with pytest.warns(UserWarning, match="no level that was taught content"):
        assert len(convert_voice(unguided, samples(100), samples(50))) == 100
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        convert_voice(guided, samples(100), samples(50))


# ranges


@pytest.mark.parametrize(
    ("text", "levels"), [("2", slice(1, 2)), ("2:4", slice(1, 4)), ("2:", slice(1, None)), ("12:12", slice(11, 12))]
)
def test_ranges_are_written_as_in_the_paper(text, levels):
    assert parse_levels(text) == levels
    assert parse_levels(levels_text(levels)) == levels


@pytest.mark.parametrize("text", ["", "0", "0:2", ":3", "2-4", "2:4:1", "a", "-1"])
def test_what_is_no_range_is_refused(text):
    with pytest.raises(ConfigError, match="no range"):
        parse_levels(text)


def test_the_default_is_three_levels_after_content(guided):
    assert checked_levels(guided) == slice(1, 4)
    assert checked_levels(tiny_tokenizer("frame", semantic_levels=(0, 1))) == slice(2, 4)


@pytest.mark.parametrize(
    "levels", [slice(0, 2), slice(1, 5), slice(3, 2), slice(2, 2), slice(1, 4, 2), slice(-1, None)], ids=str
)
def test_levels_the_model_cannot_lend_are_refused(guided, levels):
    with pytest.raises(ConfigError, match=r"within 2:4 \(counted from 1\)"):
        convert_voice(guided, samples(100), samples(100), levels)


def test_kinds_without_acoustic_levels_are_refused(guided):
    everything = tiny_tokenizer("frame", semantic_levels=(0, 1, 2, 3))
    with pytest.raises(NotSupportedError, match="no acoustic levels"):
        convert_voice(everything, samples(100), samples(100))
    two_stage = TwoStageTokenizer(everything, guided, "both")
    with pytest.raises(NotSupportedError, match="nothing of the source"):
        convert_voice(two_stage, samples(100), samples(100))


def test_soft_tokens_are_refused():
    import speechtok

    with pytest.raises(NotSupportedError, match="SoftTokens"):
        convert_voice(speechtok.load("logmel-soft"), samples(100), samples(100))


def test_tokens_of_others_or_without_the_levels_are_refused(guided):
    own = guided.encode(samples(100))
    with pytest.raises(TokenError, match="encode both with one tokenizer"):
        convert_voice(guided, own, replace(own, fingerprint="0" * 16))
    strange = replace(own, fingerprint="0" * 16)
    with pytest.raises(TokenError, match="not by tiny-frame"):
        convert_voice(guided, strange, strange)
    with pytest.raises(TokenError, match="reference's tokens hold levels 1:2, and 2:4 are needed"):
        convert_voice(guided, own, own.take(2))
    with pytest.raises(TokenError, match="source's tokens hold levels 2:4, and 1 are needed"):
        convert_voice(guided, own.acoustic, own)


# the command


@pytest.fixture
def two(tmp_path):
    write(tmp_path / "source.wav", signal(0.5))
    write(tmp_path / "voice.wav", signal(0.2, rate=2 * RATE, seed=3))
    return tmp_path


def test_the_command_writes_and_says_what_came_from_whom(cli, two, guided):
    words = ("vc", two / "source.wav", "--voice", two / "voice.wav", "-o", two / "out.wav")
    code, out, err = cli(*words, "--json", load=lambda *_, **__: guided)
    said = json.loads(out)
    assert (code, err) == (0, [])
    assert (said["source_levels"], said["voice_levels"], said["guided"]) == ("1", "2:4", True)
    assert len(read(two / "out.wav")) == len(read(two / "source.wav"))
    code, out, _ = cli(*words, "--levels", "2", load=lambda *_, **__: guided)
    assert code == 0 and "voice levels   2\n" in out


def test_the_command_warns_of_an_unguided_model(cli, two, unguided):
    code, _, err = cli(
        "vc", two / "source.wav", "--voice", two / "voice.wav", "-o", two / "out.wav", load=lambda *_, **__: unguided
    )  # fmt: skip
    assert code == 0 and len(err) == 1 and err[0].startswith("speechtok: warning: tiny-frame has no level")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"--levels": "2:9"}, "levels 2:9 do not suit tiny-frame"),
        ({"--levels": "x"}, "levels 'x' are no range"),
        ({"--voice": "empty.wav"}, "empty.wav"),
        ({"--voice": "missing.wav"}, "missing.wav"),
        ({"-o": "source.wav"}, "also an input"),
        ({"-o": "out.txt"}, "end the name in .wav"),
    ],
    ids=lambda value: "-".join(value.values()) if isinstance(value, dict) else "",
)
def test_the_command_refuses_in_one_line_and_writes_nothing(cli, two, changes, message):
    write_empty(two / "empty.wav")
    options = {"--voice": "voice.wav", "-o": "out.wav"} | changes
    named = {key: value if key == "--levels" else two / value for key, value in options.items()}
    before = (two / "source.wav").read_bytes()
    code, out, err = cli("vc", two / "source.wav", *(word for pair in named.items() for word in pair))
    assert (code, out) == (2, "")
    assert len(err) == 1 and message in err[0]
    assert not (two / "out.wav").exists() and (two / "source.wav").read_bytes() == before


def write_empty(path):
    import soundfile

    soundfile.write(path, np.zeros(0), RATE)


# the benchmark


class Words:
    """A judge that hears how long something is, and nothing of silence."""

    name = "length"

    def transcribe(self, audio):
        return "one two" if audio.samples.any() else ""


class Pitch:
    """A speaker network whose embedding is the place of the strongest frequency."""

    name = "pitch"

    def embed(self, audio):
        angle = np.argmax(np.abs(np.fft.rfft(audio.samples, 4096))) / 4096 * 2 * np.pi
        return np.array([np.cos(angle), np.sin(angle)])


@pytest.fixture
def manifest(tmp_path, speech):
    rows = ["path\tsplit\tspeaker\ttext"]
    for i in range(6):
        write(tmp_path / f"{i}.wav", speech(0.6, RATE, seed=i % 3))
        rows.append(f"{i}.wav\ttest\t{'unknown' if i == 5 else 'abc'[i % 3]}\t{'' if i == 4 else 'one two'}")
    (tmp_path / "data.tsv").write_text("\n".join(rows) + "\n")
    return tmp_path / "data.tsv"


def test_pairs_join_two_named_speakers_and_are_the_same_every_time(manifest):
    evaluation = Evaluation(str(manifest), "test", utterances=40)
    pairs = conversion.choose_pairs(evaluation)
    assert pairs == conversion.choose_pairs(evaluation)
    assert len(pairs) == 5
    assert all(source.utterance.speaker != target.utterance.speaker for source, target in pairs)
    assert "unknown" not in {item.utterance.speaker for pair in pairs for item in pair}


def test_one_speaker_makes_no_pairs(manifest):
    manifest.write_text("path\tsplit\tspeaker\n0.wav\ttest\ta\n1.wav\ttest\ta\n")
    with pytest.raises(ConfigError, match="two named speakers"):
        conversion.choose_pairs(Evaluation(str(manifest), "test"))


def test_the_benchmark_writes_figures_failures_and_a_page(manifest, guided, monkeypatch, capsys):
    pytest.importorskip("jiwer", reason="jiwer is not installed")
    pytest.importorskip("parselmouth", reason="praat-parselmouth is not installed")
    (manifest.parent / "3.wav").write_bytes(b"RIFF nothing of the kind")
    monkeypatch.setattr(conversion.speechtok, "load", lambda name: guided)
    monkeypatch.setattr(conversion, "load_judge", lambda name: Words())
    monkeypatch.setattr(conversion, "load_encoder", lambda name: Pitch())
    out = manifest.parent / "result"
    assert conversion.main(["--data", str(manifest), "-o", str(out), "--levels", "2", "2:4"]) == 0
    document = json.loads((out / "conversion.json").read_text())
    found = {(row["role"], row["measure"]): row for row in document["summary"]}
    assert {role for role, _ in found} == {"source", "resynthesis", "2", "2:4"}
    broken = sum("3" in (row["source"], row["target"]) for row in document["pairs"] if row["role"] == "2")
    assert broken >= 1
    for (role, measure), row in found.items():
        assert row["n"] + row["failed"] == document["n"] == 5, (role, measure)
        assert row["failed"] >= broken
    assert found["source", "cosine_to_source"]["mean"] == pytest.approx(1)
    assert found["source", "pitch_correlation"]["mean"] == pytest.approx(1)
    assert found["source", "cosine_to_target"]["mean"] < 1
    assert found["2", "wer"]["reasons"]["no reference text"] >= 1
    page = (out / "conversion.md").read_text()
    assert "failed)" in page and "was taught content" in page and page in capsys.readouterr().out


def test_levels_the_model_lacks_stop_the_benchmark_before_any_work(manifest, guided):
    pairs = conversion.choose_pairs(Evaluation(str(manifest), "test"))
    with pytest.raises(ConfigError, match="levels 2:8 do not suit"):
        conversion.evaluate(guided, pairs, [slice(1, 8)], conversion.Tools(Words(), Pitch()))


# pitch


def tone(hertz, seconds=1.0, rate=16000):
    phase = 2 * np.pi * np.cumsum(np.broadcast_to(hertz, round(seconds * rate))) / rate
    return Audio((0.3 * sum(np.sin(k * phase) / k for k in range(1, 8))).astype(np.float32), rate)


def test_melodies_that_move_together_or_apart():
    pytest.importorskip("parselmouth", reason="praat-parselmouth is not installed")
    rise = 150 * 1.5 ** np.linspace(0, 1, 16000)
    assert pitch_correlation(tone(rise), tone(1.4 * rise)).value == pytest.approx(1, abs=0.01)
    assert pitch_correlation(tone(rise), tone(rise[::-1])).value == pytest.approx(-1, abs=0.01)


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (np.zeros(16000, np.float32), "voiced in both"),
        (np.zeros(50, np.float32), "too short"),
    ],
    ids=["silence", "short"],
)
def test_a_melody_that_is_not_there_is_a_failure(other, reason):
    pytest.importorskip("parselmouth", reason="praat-parselmouth is not installed")
    found = pitch_correlation(tone(np.linspace(100, 200, 16000)), Audio(other, 16000))
    assert found.value is None and reason in found.failure


def test_the_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "parselmouth", None)
    with pytest.raises(ConfigError, match=r"speechtok\[pitch\]"):
        pitch_correlation(tone(100.0), tone(100.0))
