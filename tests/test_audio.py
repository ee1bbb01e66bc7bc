import os
import struct
import warnings

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from speechtok.audio import Audio, blocks, probe, read, resampled_length, write
from speechtok.errors import AudioError, OutputError

LOSSY = {".ogg", ".opus", ".mp3"}
CONTAINERS = {
    "wav": ("WAV", "PCM_16"),
    "wav-float": ("WAVEX", "FLOAT"),
    "rf64": ("RF64", "PCM_16"),
    "aiff": ("AIFF", "PCM_16"),
    "au": ("AU", "PCM_16"),
    "flac": ("FLAC", "PCM_16"),
    "vorbis": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
}


def ramp(length, rate=16000):
    return Audio(np.linspace(-0.9, 0.9, length, dtype=np.float32), rate)


def one_line(caught, path):
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


# The value


def test_audio_is_a_read_only_copy():
    mine = np.zeros(4, np.float32)
    audio = Audio(mine, 16000)
    mine[0] = 1
    assert audio.samples[0] == 0 and audio.samples.dtype == np.float32
    with pytest.raises(ValueError, match="read-only"):
        audio.samples[0] = 1


def test_a_read_only_array_is_not_copied():
    mine = np.zeros(4, np.float32)
    mine.flags.writeable = False
    assert Audio(mine, 16000).samples is mine


@pytest.mark.parametrize("samples", [[0.5, -0.5], (0.5,), np.array([0.5]), np.array([0.5], np.float16)])
def test_anything_floating_is_taken(samples):
    audio = Audio(samples, np.int64(8000))
    assert audio.samples[0] == 0.5 and type(audio.rate) is int
    assert (len(audio), audio.seconds) == (len(samples), len(samples) / 8000)


@pytest.mark.parametrize(
    ("samples", "rate", "words"),
    [
        pytest.param(np.zeros((2, 8)), 16000, "1-D", id="two-dimensional"),
        pytest.param(np.float32(1), 16000, "1-D", id="scalar"),
        pytest.param([], 16000, "no samples", id="empty"),
        pytest.param([0.0, np.nan], 16000, "sample 1 is NaN", id="nan"),
        pytest.param([0.0, 0.0, -np.inf], 16000, "sample 2 is NaN", id="infinite"),
        pytest.param([1e300], 16000, "infinite", id="beyond-float32"),
        pytest.param(np.array([1, 2], np.int16), 16000, "divide", id="integers"),
        pytest.param(np.array([1j]), 16000, "floating", id="complex"),
        pytest.param(["a"], 16000, "floating", id="text"),
        pytest.param([[0.0], [0.0, 1.0]], 16000, "array", id="ragged"),
        pytest.param([0.0], 0, "rate", id="zero-rate"),
        pytest.param([0.0], 16000.5, "rate", id="fractional-rate"),
        pytest.param([0.0], True, "rate", id="boolean-rate"),
    ],
)
def test_what_is_no_signal_is_refused_in_one_line(samples, rate, words):
    with pytest.raises(AudioError, match=words) as caught:
        Audio(samples, rate)
    assert "\n" not in str(caught.value)


# The resampler

RATES = st.sampled_from([8000, 11025, 16000, 22050, 24000, 44100, 48000])


@given(length=st.integers(1, 3000), source=RATES, target=RATES)
def test_resampling_obeys_the_length_rule(length, source, target):
    audio = Audio(np.ones(length), source, 2).resample(target)
    assert len(audio) == -(-length * target // source) == resampled_length(length, source, target)
    assert (audio.rate, audio.source_channels) == (target, 2)


@pytest.mark.parametrize("target", [8000, 22050, 48000])
def test_resampling_keeps_a_tone_in_place(target):
    tone = lambda rate: np.sin(2 * np.pi * 440 * np.arange(rate) / rate)  # noqa: E731
    resampled = Audio(tone(16000), 16000).resample(target)
    middle = slice(target // 10, -target // 10)
    assert np.abs(resampled.samples - tone(target))[middle].max() < 1e-3


def test_resampling_to_the_same_rate_is_the_same_value():
    audio = ramp(10)
    assert audio.resample(16000) is audio
    with pytest.raises(AudioError, match="rate"):
        audio.resample(0)


# Files


@pytest.mark.parametrize("length", [1, 2, 17, 1000, 70001])
@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".opus", ".mp3"])
def test_what_is_written_is_read_with_its_length(tmp_path, suffix, length, speech):
    audio = Audio(speech(5).samples[:length], 16000)
    write(tmp_path / f"a{suffix}", audio)
    back = read(tmp_path / f"a{suffix}")
    assert (len(back), back.rate, back.source_channels) == (length, 16000, 1)
    if suffix not in LOSSY:
        assert np.abs(back.samples - audio.samples).max() <= 1 / 32768
    elif length > 1000:
        assert np.corrcoef(back.samples, audio.samples)[0, 1] > 0.9


def test_float_wav_keeps_every_bit_and_loud_samples(tmp_path):
    audio = Audio([1.5, -2.0, 1e-30], 44100)
    write(tmp_path / "a.wav", audio, "float")
    assert np.array_equal(read(tmp_path / "a.wav").samples, audio.samples)


def test_integer_files_clip_and_do_not_wrap(tmp_path):
    write(tmp_path / "a.wav", Audio([1.5, -2.0], 44100))
    assert np.allclose(read(tmp_path / "a.wav").samples, [1, -1], atol=1e-4)


def test_read_resamples_on_request(tmp_path):
    write(tmp_path / "a.wav", ramp(1001), "FLOAT")
    audio = read(tmp_path / "a.wav", 24000)
    assert (audio.rate, len(audio)) == (24000, 1502)
    assert np.array_equal(audio.samples, ramp(1001).resample(24000).samples)


def test_channels_are_mixed_by_their_mean_and_said_so_once(tmp_path):
    left, right = np.full(200000, 0.5), np.full(200000, -0.25)
    soundfile.write(tmp_path / "a.wav", np.stack([left, right], axis=1), 16000, subtype="FLOAT")
    with pytest.warns(UserWarning, match=r"a\.wav: 2 channels") as caught:
        audio = read(tmp_path / "a.wav")
    assert len(caught) == 1 and caught[0].filename == __file__
    assert audio.source_channels == 2 and np.all(audio.samples == 0.125)


def test_mono_is_read_without_a_word(tmp_path):
    write(tmp_path / "a.wav", ramp(100))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read(tmp_path / "a.wav")


@pytest.mark.parametrize(
    "name", ["käse 音.wav", "wrong.mp3", "no-suffix", b"caf\xe9.wav".decode("utf-8", "surrogateescape")]
)
def test_content_counts_and_not_the_name(tmp_path, name):
    soundfile.write(tmp_path / "a", ramp(100).samples, 16000, format="WAV")
    try:
        path = (tmp_path / "a").rename(tmp_path / name)
    except (OSError, UnicodeError):
        pytest.skip("this file system does not hold such a name")
    assert len(read(path)) == 100


def test_probe_tells_the_header(tmp_path):
    soundfile.write(tmp_path / "a.flac", np.zeros((320, 2)), 22050)
    info = probe(tmp_path / "a.flac")
    assert info == (22050, 2, 320, "FLAC PCM_16")
    assert info.seconds == 320 / 22050


@pytest.mark.parametrize("rate", [None, 24000, 11025], ids=["own-rate", "up", "down"])
@pytest.mark.parametrize("seconds", [0.00001, 0.0371, 1.0, 99.0])
def test_blocks_join_to_the_whole(tmp_path, seconds, rate):
    write(tmp_path / "a.wav", ramp(3001 if seconds < 0.01 else 150001))
    whole = read(tmp_path / "a.wav", rate)
    pieces = list(blocks(tmp_path / "a.wav", seconds, rate))
    size = max(1, round(seconds * whole.rate))
    assert [len(piece) for piece in pieces[:-1]] == [size] * (len(pieces) - 1)
    assert 0 < len(pieces[-1]) <= size and {piece.rate for piece in pieces} == {whole.rate}
    assert np.array_equal(np.concatenate([piece.samples for piece in pieces]), whole.samples)


def test_blocks_report_a_bad_file_or_size_at_once(tmp_path):
    write(tmp_path / "a.wav", ramp(10))
    with pytest.raises(AudioError, match="no such file"):
        blocks(tmp_path / "none.wav", 1)
    for seconds in (0, -1, float("nan"), float("inf")):
        with pytest.raises(AudioError, match="more than 0 seconds"):
            blocks(tmp_path / "a.wav", seconds)


# Files that are not what they should be


@pytest.mark.parametrize("reader", [read, probe])
@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        pytest.param("none.wav", None, "no such file", id="missing"),
        pytest.param("nul\0.wav", None, "cannot be read", id="impossible-name"),
        pytest.param("x" * 5000, None, "cannot be read", id="name-too-long"),
        pytest.param("folder", None, "is a folder", id="folder"),
        pytest.param("pipe", None, "is a pipe or device", id="pipe"),
        pytest.param("a.wav", b"", "empty", id="empty"),
        pytest.param("a.wav", b"RIFF", "not audio", id="four-bytes"),
        pytest.param("a.wav", b"hello, I am text\n" * 20, "not audio", id="text"),
        pytest.param("a.mp3", b"\xff\xfb\x90\x00" + bytes(400), "not audio", id="mp3-without-sound"),
        pytest.param("a.raw", bytes(400), "does not say its rate", id="headerless"),
        pytest.param("a.ogg", b"OggS" + bytes(400), "truncated|not audio", id="ogg-of-nothing"),
        pytest.param("two\nlines.wav", b"text", "not audio", id="newline-in-name"),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_line(tmp_path, name, content, words, reader):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(AudioError, match=words) as caught:
        reader(path)
    one_line(caught, str(path).replace("\n", " "))


@pytest.mark.parametrize("kept", [0.3, 0.7, 0.97])
@pytest.mark.parametrize("kind", CONTAINERS)
def test_a_cut_file_is_refused(tmp_path, kind, kept, speech):
    container, subtype = CONTAINERS[kind]
    soundfile.write(tmp_path / "whole", speech(2).samples, 16000, format=container, subtype=subtype)
    data = (tmp_path / "whole").read_bytes()
    assert len(read(tmp_path / "whole")) == 32000
    cut = tmp_path / "cut"
    cut.write_bytes(data[: int(kept * len(data))])
    with pytest.raises(AudioError, match=r"truncated|damaged") as caught:
        read(cut)
    one_line(caught, cut)
    with pytest.raises(AudioError):
        list(blocks(cut, 0.1))


@pytest.mark.parametrize("kind", [kind for kind in CONTAINERS if kind != "mp3"])
def test_one_byte_less_is_seen(tmp_path, kind):
    container, subtype = CONTAINERS[kind]
    soundfile.write(tmp_path / "a", ramp(3000).samples, 16000, format=container, subtype=subtype)
    (tmp_path / "a").write_bytes((tmp_path / "a").read_bytes()[:-1])
    with pytest.raises(AudioError, match=r"truncated|damaged"):
        read(tmp_path / "a")


def wav(data_size: int, samples: np.ndarray, extra: bytes = b"") -> bytes:
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, 16000, 32000, 2, 16)
    sound = struct.pack("<4sI", b"data", data_size) + samples.astype("<i2").tobytes()
    body = b"WAVE" + form + extra + sound
    return b"RIFF" + struct.pack("<I", min(len(body), 2**32 - 1)) + body


@pytest.mark.parametrize("data_size", [0xFFFFFFFF, 0x7FFFF000, 0x7FFFFFFF], ids=hex)
def test_a_wav_written_to_a_pipe_is_read(tmp_path, data_size):
    (tmp_path / "a.wav").write_bytes(wav(data_size, np.arange(100)))
    assert len(read(tmp_path / "a.wav")) == 100


def test_chunks_before_and_after_the_sound_are_passed_over(tmp_path):
    odd = struct.pack("<4sI", b"LIST", 3) + b"abc\0"
    (tmp_path / "a.wav").write_bytes(wav(200, np.arange(100), extra=odd) + odd)
    assert len(read(tmp_path / "a.wav")) == 100


def test_a_header_that_lies_about_its_length_costs_no_memory(tmp_path):
    write(tmp_path / "a.mp3", ramp(16000))
    data = bytearray((tmp_path / "a.mp3").read_bytes())
    tag = max(data.find(b"Xing"), data.find(b"Info"))
    data[tag + 8 : tag + 12] = (2**31 - 1).to_bytes(4, "big")  # frames: two years of sound
    (tmp_path / "a.mp3").write_bytes(data)
    with pytest.raises(AudioError, match="truncated"):
        read(tmp_path / "a.mp3")


def test_a_flac_of_unknown_length_is_refused_with_the_fix(tmp_path):
    write(tmp_path / "a.flac", ramp(1000))
    data = bytearray((tmp_path / "a.flac").read_bytes())
    data[21] &= 0xF0  # the 36 bits of STREAMINFO that count the samples
    data[22:26] = bytes(4)
    (tmp_path / "a.flac").write_bytes(data)
    with pytest.raises(AudioError, match="does not say how long it is; convert"):
        read(tmp_path / "a.flac")


def test_a_file_without_samples_is_refused(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(0), 16000)
    with pytest.raises(AudioError, match="holds no samples") as caught:
        read(tmp_path / "a.wav")
    one_line(caught, tmp_path / "a.wav")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_samples_that_are_not_finite_are_refused_with_their_place(tmp_path, bad):
    samples = np.zeros(200000, np.float32)
    samples[150000] = bad
    soundfile.write(tmp_path / "a.wav", samples, 16000, subtype="FLOAT")
    with pytest.raises(AudioError, match="sample 150000 is NaN or infinite") as caught:
        read(tmp_path / "a.wav")
    one_line(caught, tmp_path / "a.wav")


# Writing where or what cannot be written


@pytest.mark.parametrize(
    ("name", "rate", "subtype", "words"),
    [
        pytest.param("a.xyz", 16000, None, "unknown audio suffix", id="unknown-suffix"),
        pytest.param("a", 16000, None, "unknown audio suffix", id="no-suffix"),
        pytest.param("a.flac", 16000, "FLOAT", "does not hold FLOAT; use one of", id="subtype"),
        pytest.param("a.opus", 44100, None, "8000, 12000, 16000", id="opus-rate"),
        pytest.param("none/a.wav", 16000, None, "there is no folder", id="no-folder"),
    ],
)
def test_refused_writing_leaves_nothing(tmp_path, name, rate, subtype, words):
    with pytest.raises(OutputError, match=words) as caught:
        write(tmp_path / name, ramp(100, rate), subtype)
    one_line(caught, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


# Recordings


def test_bundled_clips_are_whole(demo_clips):
    for path in demo_clips:
        assert len(read(path)) == probe(path).frames > 0


def test_corpora_of_other_encoders_are_not_called_cut(shared):
    paths = [p for folder in sorted((shared / "data").glob("*/*/")) for p in sorted(folder.rglob("*.*"))[:3]]
    assert paths
    for path in paths:
        assert len(read(path)) == probe(path).frames > 0
