"""Long files: read, encoded, decoded and written in blocks, with the result of the whole and the same refusals."""

from __future__ import annotations

import gc
import tracemalloc

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from speechtok import recording
from speechtok.audio import Audio, read, write, write_blocks
from speechtok.errors import AudioError, OutputError, TokenError
from speechtok.recording import Recording
from tiny import HOP, KINDS, RATE, samples, signal, tiny_tokenizer

every_kind = pytest.mark.parametrize("kind", KINDS)
_kept: dict[str, object] = {}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Files are read in blocks of 50 ms, so that short ones are long."""
    monkeypatch.setattr(recording, "_BLOCK_SECONDS", 0.05)


def small(kind: str):
    """A tokenizer of windows of a tenth of a second."""
    if kind not in _kept:
        _kept[kind] = tiny_tokenizer(kind, overlap_seconds=0.02).in_windows(0.1)
    return _kept[kind]


@pytest.fixture(scope="module")
def long_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("long") / "a.wav"
    write(path, signal(1.37))
    return path


@every_kind
@pytest.mark.filterwarnings("ignore:.*sees its whole input at once")
def test_a_file_in_blocks_is_the_file(kind, long_file, tmp_path):
    model = small(kind)
    tokens = model.encode_file(long_file, levels=3)
    assert tokens == model.encode(read(long_file), levels=3)
    model.decode_file(tokens, tmp_path / "blocks.wav")
    write(tmp_path / "whole.wav", model.decode(tokens))
    assert (tmp_path / "blocks.wav").read_bytes() == (tmp_path / "whole.wav").read_bytes()


@pytest.mark.parametrize("count", [1, HOP, HOP + 1, 799, 800, 801, 4000])
def test_any_length_and_its_last_frame(count, tmp_path):
    model = small("frame")
    write(tmp_path / "a.wav", samples(count), "FLOAT")
    tokens = model.encode_file(tmp_path / "a.wav")
    assert tokens == model.encode(samples(count))
    model.decode_file(tokens, tmp_path / "b.wav")
    assert len(read(tmp_path / "b.wav")) == count


@pytest.mark.parametrize("rate", [16000, 11025, 5512])
def test_a_file_of_another_rate_is_resampled_in_blocks_with_the_same_codes(rate, tmp_path):
    write(tmp_path / "a.wav", signal(0.9, rate))
    assert small("seanet").encode_file(tmp_path / "a.wav") == small("seanet").encode(read(tmp_path / "a.wav"))


@pytest.mark.parametrize("suffix", ["flac", "ogg", "mp3"])
def test_other_formats(suffix, tmp_path, speech):
    path = tmp_path / f"a.{suffix}"
    write(path, speech(1.1))
    assert small("seanet").encode_file(path) == small("seanet").encode(read(path))


def test_stereo_is_mixed_down_with_one_warning(tmp_path):
    path, both = tmp_path / "a.wav", np.stack([samples(3000).samples, samples(3000, seed=1).samples], axis=1)
    soundfile.write(path, both, RATE)
    with pytest.warns(UserWarning, match="2 channels mixed") as caught:
        tokens = small("seanet").encode_file(path)
    assert len(caught) == 1
    with pytest.warns(UserWarning):
        assert tokens == small("seanet").encode(read(path))


def test_faults_at_the_end_of_a_file_are_refused(tmp_path, long_file):
    whole, broken = read(long_file).samples, np.array(read(long_file).samples)
    broken[-5] = np.nan
    soundfile.write(tmp_path / "nan.wav", broken, RATE, subtype="FLOAT")
    (tmp_path / "cut.wav").write_bytes(long_file.read_bytes()[:-100])
    soundfile.write(tmp_path / "cut.flac", whole, RATE)
    (tmp_path / "cut.flac").write_bytes((tmp_path / "cut.flac").read_bytes()[:-500])
    soundfile.write(tmp_path / "none.wav", whole[:0], RATE)
    (tmp_path / "empty.wav").write_bytes(b"")
    for name in ("nan.wav", "cut.wav", "cut.flac", "none.wav", "empty.wav", "missing.wav"):
        with pytest.raises(AudioError) as expected:
            read(tmp_path / name)
        with pytest.raises(AudioError) as caught:
            small("seanet").encode_file(tmp_path / name)
        assert str(caught.value) == str(expected.value)


@pytest.mark.parametrize("kind", ["frame", "frame-timbre"])
def test_nothing_grows_with_a_file_but_its_codes_in_their_smallest_type(kind, tmp_path):
    model, second = tiny_tokenizer(kind).in_windows(2.0), signal(1.0).samples
    peaks, sizes = [], []
    # files are read in chunks of 16 s at this rate; the first turn is for what is made once, such as plans of FFTs
    for seconds in (40, 40, 200):
        write_blocks(tmp_path / "a.wav", (second for _ in range(seconds)), RATE)
        gc.collect()
        tracemalloc.start()
        try:
            tokens = model.encode_file(tmp_path / "a.wav")
            tokens.save(tmp_path / "tokens")
            model.decode_file(tokens, tmp_path / "b.wav")
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
        sizes.append(tokens.packed.nbytes)
    assert peaks[2] - peaks[1] < 2 * (sizes[2] - sizes[1])  # int64 would be eight times as much


def test_a_file_that_becomes_shorter_meanwhile_is_refused(long_file, monkeypatch):
    monkeypatch.setattr(recording, "_frames", lambda path: 20000)
    with pytest.raises(AudioError, match="changed while it was read"):
        small("seanet").encode_file(long_file)
    monkeypatch.setattr(recording, "_frames", lambda path: 5000)
    with pytest.raises(AudioError, match="changed while it was read"):
        small("seanet").encode_file(long_file)


def test_an_output_that_cannot_be_is_refused_before_any_work(long_file, tmp_path, monkeypatch):
    model = tiny_tokenizer("seanet")
    tokens = model.encode_file(long_file)
    monkeypatch.setattr(model.codec, "decode", lambda *_: pytest.fail("decoded"))
    for name, words in (("a.txt", "unknown audio suffix"), ("none/a.wav", "no folder")):
        with pytest.raises(OutputError, match=words):
            model.decode_file(tokens, tmp_path / name)
    with pytest.raises(TokenError, match="made by"):
        small("frame").decode_file(tokens, tmp_path / "a.wav")
    assert not list(tmp_path.iterdir())


def test_nothing_half_written_is_left(tmp_path):
    def blocks():
        yield np.zeros(10, np.float32)
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        write_blocks(tmp_path / "a.wav", blocks(), RATE)
    assert not list(tmp_path.iterdir())


@given(edges=st.lists(st.tuples(st.integers(0, 11000), st.integers(0, 3000)), max_size=6))
def test_slices_of_a_recording_are_those_of_the_whole(long_file, edges):
    whole, lazy = read(long_file).samples, Recording(long_file, RATE)
    assert len(lazy) == len(whole)
    for start, size in sorted(edges):
        assert np.array_equal(lazy[start : start + size], whole[start : start + size])


def test_a_recording_is_read_forwards_and_forgets(long_file):
    lazy = Recording(long_file, RATE)
    assert len(lazy[5000:6000]) == 1000
    assert sum(map(len, lazy._held)) <= 1000 + 2 * 0.05 * RATE
    with pytest.raises(IndexError, match="read forwards"):
        lazy[0:10]
    with pytest.raises(IndexError):
        lazy[6000:7000:2]


def test_tokenizers_that_need_the_whole_take_files_as_well(long_file, tmp_path):
    model = tiny_tokenizer("seanet-lstm")
    tokens = model.encode_file(long_file)
    assert tokens == model.encode(read(long_file))
    model.decode_file(tokens, tmp_path / "a.wav")
    assert isinstance(read(tmp_path / "a.wav"), Audio)
