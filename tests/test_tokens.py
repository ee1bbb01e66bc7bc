import copy
import dataclasses
import json
import math
import os
import tracemalloc

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from speechtok import files
from speechtok.errors import OutputError, TokenError, TokenFileError
from speechtok.tokenfile import content_digest
from speechtok.tokens import Tokens


def make(levels=4, samples=1000, hop=320, size=1024, seed=0, **changes) -> Tokens:
    codes = np.random.default_rng(seed).integers(0, size, (levels, -(-samples // hop)))
    fields = {
        "codes": codes,
        "codebook_sizes": (size,) * levels,
        "sample_rate": 16000,
        "hop": hop,
        "num_samples": samples,
        "semantic_levels": (0,),
        "tokenizer": "test",
        "fingerprint": "abc",
    }
    return Tokens(**(fields | changes))


@st.composite
def any_tokens(draw) -> Tokens:
    sizes = draw(st.lists(st.sampled_from([1, 2, 255, 256, 257, 1024, 65536, 65537, 2**33]), min_size=1, max_size=5))
    hop, samples = draw(st.integers(1, 640)), draw(st.integers(1, 4000))
    first = draw(st.integers(0, 3))
    frames = -(-samples // hop)
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    codes = np.stack([random.integers(0, size, frames) for size in sizes])
    codes[:, 0] = np.array(sizes) - 1  # the largest code of each book has to survive too
    present = list(range(first, first + len(sizes)))
    semantic = draw(st.lists(st.sampled_from(present), unique=True))
    timbre = draw(st.none() | st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=8))
    return Tokens(
        codes=codes,
        codebook_sizes=tuple(sizes),
        sample_rate=draw(st.sampled_from([8000, 16000, 24000, 44100])),
        hop=hop,
        num_samples=samples,
        semantic_levels=tuple(sorted(semantic)),
        tokenizer=draw(st.text('aé"\\\n ✓', max_size=9)),
        fingerprint=draw(st.text('aé"\\\n ✓', max_size=9)),
        first_level=first,
        timbre=None if timbre is None else np.array(timbre, np.float32),
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("tokens") / "a.tokens.safetensors"


@given(tokens=any_tokens())
def test_a_saved_file_loads_as_what_was_saved(place, tokens):
    tokens.save(place)
    loaded = Tokens.load(place)
    assert loaded == tokens and hash(loaded) == hash(tokens)
    for field in dataclasses.fields(Tokens):
        before, after = getattr(tokens, field.name), getattr(loaded, field.name)
        if isinstance(before, np.ndarray):
            assert after.dtype == before.dtype and np.array_equal(before, after)
        else:
            assert type(after) is type(before) and after == before


@pytest.mark.parametrize(
    ("size", "dtype"),
    [(256, np.uint8), (257, np.uint16), (65536, np.uint16), (65537, np.uint32), (2**33, np.uint64)],
)
def test_codes_are_stored_in_the_smallest_type(tmp_path, size, dtype):
    make(size=size).save(tmp_path / "t")
    assert safetensors.numpy.load_file(tmp_path / "t")["codes"].dtype == dtype


@pytest.mark.parametrize(
    ("size", "dtype"), [(256, np.uint8), (1024, np.uint16), (65537, np.uint32), (2**33, np.uint64)]
)
@pytest.mark.parametrize("given", [np.int64, np.uint64])
def test_codes_are_held_in_the_smallest_type_and_given_as_int64(size, dtype, given):
    tokens = make(size=size, codes=make(size=size).codes.astype(given))
    assert (tokens.packed.dtype, tokens.codes.dtype) == (dtype, np.int64)
    assert (tokens.codes == tokens.packed).all() and not (tokens.codes.flags.writeable or tokens.packed.flags.writeable)
    part = tokens.between(1, 3)
    assert part.dtype == np.int64 and (part == tokens.codes[:, 1:3]).all()
    assert copy.deepcopy(tokens) == dataclasses.replace(tokens) == tokens


def test_hours_are_saved_without_a_copy_and_read_with_two(place):
    codes = np.random.default_rng(0).integers(0, 1024, (8, 200_000), np.uint16)
    codes.flags.writeable = False
    peaks = []
    tracemalloc.start()
    try:
        tokens = make(levels=8, samples=200_000 * 320, codes=codes)
        for work in (lambda: tokens.save(place), lambda: Tokens.load(place)):
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            work()
            peaks.append((tracemalloc.get_traced_memory()[1] - before) / codes.nbytes)
    finally:
        tracemalloc.stop()
    assert np.shares_memory(tokens.packed, codes)
    assert peaks[0] < 0.1 and peaks[1] < 2.1


def test_same_tokens_make_the_same_file(tmp_path):
    make().save(tmp_path / "a")
    make().save(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def load_bytes(place, data: bytes) -> Tokens:
    place.write_bytes(data)
    return Tokens.load(place)


def test_every_truncation_is_refused(place):
    make(samples=3000).save(place)
    whole = place.read_bytes()
    for length in range(len(whole)):
        with pytest.raises(TokenFileError) as caught:
            load_bytes(place, whole[:length])
        assert str(place) in str(caught.value) and "\n" not in str(caught.value)


def test_a_flipped_bit_in_any_byte_never_changes_what_is_read(place):
    tokens = make(levels=2, samples=640, timbre=np.ones(2, np.float32))
    tokens.save(place)
    whole = place.read_bytes()
    bits = np.random.default_rng(0).integers(0, 8, len(whole))
    refused = 0
    for position, bit in enumerate(bits):
        flipped = bytearray(whole)
        flipped[position] ^= 1 << bit
        try:
            assert load_bytes(place, bytes(flipped)) == tokens
        except TokenFileError as error:
            assert "\n" not in str(error)
            refused += 1
    assert refused > 0.95 * len(whole)  # only padding of the JSON header may differ and mean the same


@given(data=st.binary(max_size=300))
def test_random_bytes_are_refused(place, data):
    with pytest.raises(TokenFileError):
        load_bytes(place, data)


def craft(tokens: Tokens, tensors=None, **metadata) -> bytes:
    """A well-formed safetensors file that differs from the saved one in the named places."""
    stored = {"codes": tokens.codes.astype(np.uint16)} if tensors is None else tensors
    base = {"format": "speechtok.tokens", "version": "1", "header": tokens._header(), "sha256": tokens.digest}
    return safetensors.numpy.save(stored, {k: v for k, v in (base | metadata).items() if v is not None})


def test_a_crafted_file_without_a_change_is_a_token_file(place):
    assert load_bytes(place, craft(make())) == make()


def headed(header: bytes) -> bytes:
    return len(header).to_bytes(8, "little") + header


CODES = make().codes.astype(np.uint16)
FOREIGN = {
    "other-safetensors": (safetensors.numpy.save({"weight": np.zeros(3, np.float32)}), "not a token file"),
    "other-format": (craft(make(), format="other"), "not a token file"),
    "no-version": (craft(make(), version=None), "not a token file"),
    "word-version": (craft(make(), version="one"), "not a token file"),
    "newer-version": (craft(make(), version="2"), "version 2.*upgrade"),
    "no-header": (craft(make(), header=None), "damaged or altered"),
    "no-digest": (craft(make(), sha256=None), "damaged or altered"),
    "other-header": (craft(make(), header=make(samples=999)._header()), "damaged or altered"),
    "other-codes": (craft(make(), tensors={"codes": CODES ^ 1}), "damaged or altered"),
    "other-shape": (craft(make(), tensors={"codes": CODES.T.copy()}), "damaged or altered"),
    "extra-tensor": (craft(make(), tensors={"codes": CODES, "more": CODES}), "damaged or altered"),
    "no-tensors": (craft(make(), tensors={}), "damaged or altered"),
    "empty": (b"", "truncated"),
    "audio": (b"RIFF\x24\0\0\0WAVEfmt " + bytes(64), "truncated, or not a token file"),
    "huge-header": ((1 << 62).to_bytes(8, "little") + b"{}", "truncated, or not a token file"),
    "oversize-header": (headed(bytes(2 << 20)), "header of 2097152 bytes"),
    "nested-json": (headed(b"[" * (1 << 20)), "not a token file"),
    "infinite-version": (headed(b'{"__metadata__":{"format":"speechtok.tokens","version":1e999}}'), "not a token"),
}


@pytest.mark.parametrize(("data", "words"), FOREIGN.values(), ids=FOREIGN.keys())
def test_other_files_are_refused_in_one_line(place, data, words):
    with pytest.raises(TokenFileError, match=words) as caught:
        load_bytes(place, data)
    assert str(place) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"hop": 0}, id="zero-hop"),
        pytest.param({"codebook_sizes": [2, 2, 2, 2]}, id="codes-outside"),
        pytest.param({"semantic_levels": [9]}, id="level-not-there"),
        pytest.param({"num_samples": 1e308}, id="not-whole"),
        pytest.param({"codebook_sizes": None}, id="null"),
        pytest.param({"tokenizer": 3}, id="number-for-name"),
    ],
)
def test_contradictions_under_a_valid_digest_are_refused(place, change):
    header = json.dumps(json.loads(make()._header()) | change)
    data = craft(make(), header=header, sha256=content_digest(header, {"codes": CODES}))
    with pytest.raises(TokenFileError, match="contradicts itself"):
        load_bytes(place, data)


@pytest.mark.parametrize(
    ("name", "words"),
    [("none", "no such file"), (".", "is a folder"), ("pipe", "is a pipe"), ("nul\0", "cannot be read")],
    ids=["missing", "folder", "pipe", "impossible-name"],
)
def test_no_file_is_a_token_file_error(tmp_path, name, words):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(TokenFileError, match=words):
        Tokens.load(tmp_path / name)


def test_failed_save_keeps_the_old_file_and_leaves_no_other(tmp_path, monkeypatch):
    target = tmp_path / "t"
    make(seed=1).save(target)

    def fail(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "replace", fail)
    with pytest.raises(OutputError, match="No space left"):
        make(seed=2).save(target)
    assert os.listdir(tmp_path) == ["t"]
    assert Tokens.load(target) == make(seed=1)


def test_save_into_no_folder_is_an_output_error(tmp_path):
    with pytest.raises(OutputError, match="there is no folder"):
        make().save(tmp_path / "none" / "t")


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"codes": make(seed=1).codes}, id="codes"),
        pytest.param({"codebook_sizes": (1024, 1024, 1024, 2048)}, id="codebook-sizes"),
        pytest.param({"sample_rate": 24000}, id="rate"),
        pytest.param({"num_samples": 999}, id="length"),
        pytest.param({"semantic_levels": (0, 1)}, id="semantic-levels"),
        pytest.param({"tokenizer": "other"}, id="tokenizer"),
        pytest.param({"fingerprint": "abd"}, id="fingerprint"),
        pytest.param({"first_level": 0, "semantic_levels": ()}, id="no-semantic-level"),
        pytest.param({"timbre": np.zeros(3, np.float32)}, id="timbre"),
    ],
)
def test_equality_is_by_content(change):
    tokens = make()
    assert tokens == make() and hash(tokens) == hash(make()) and {tokens: 1}[make()] == 1
    assert tokens != make(**change)
    assert tokens != "tokens"


def test_values_are_immutable_and_apart_from_the_callers_array():
    codes = np.zeros((1, 4), np.int32)
    tokens = make(levels=1, codes=codes)
    codes[0, 0] = 5
    assert tokens.codes[0, 0] == 0
    with pytest.raises(ValueError, match="read-only"):
        tokens.codes[0, 0] = 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        tokens.hop = 1


def test_rates_and_sizes():
    tokens = make(levels=3, samples=16000, codebook_sizes=(1024, 1024, 256), size=256)
    assert (tokens.levels, tokens.frames, tokens.frame_rate, tokens.seconds) == (3, 50, 50.0, 1.0)
    assert math.isclose(tokens.bitrate, 50 * (10 + 10 + 8))


def test_semantic_and_acoustic_views_split_the_levels():
    tokens = make(levels=8)
    assert (tokens.semantic.levels, tokens.semantic.first_level, tokens.semantic.semantic_levels) == (
        1,
        0,
        (0,),
    )
    assert (tokens.acoustic.levels, tokens.acoustic.first_level, tokens.acoustic.semantic_levels) == (
        7,
        1,
        (),
    )
    together = np.concatenate([tokens.semantic.codes, tokens.acoustic.codes])
    assert np.array_equal(together, tokens.codes)
    assert tokens.semantic.semantic == tokens.semantic
    assert tokens.acoustic.acoustic == tokens.acoustic
    assert tokens.acoustic.take(2).first_level == 1


@given(tokens=any_tokens(), k=st.integers(1, 5))
def test_take_keeps_the_coarsest_levels(tokens, k):
    k = min(k, tokens.levels)
    taken = tokens.take(k)
    assert np.array_equal(taken.codes, tokens.codes[:k])
    assert taken.first_level == tokens.first_level and taken.num_samples == tokens.num_samples
    assert taken.semantic_levels == tuple(q for q in tokens.semantic_levels if q < tokens.first_level + k)
    assert taken.take(k) == taken and tokens.take(tokens.levels) == tokens


@pytest.mark.parametrize("k", [0, -1, 5, 1.5, True])
def test_take_refuses_levels_that_are_not_there(k):
    with pytest.raises(TokenError):
        make(levels=4).take(k)


@pytest.mark.parametrize(
    ("semantic_levels", "view", "words"),
    [
        pytest.param((), "semantic", "hold no semantic level", id="no-semantic"),
        pytest.param((0, 1, 2, 3), "acoustic", "hold no acoustic level", id="no-acoustic"),
        pytest.param((0, 2), "semantic", "do not stand together", id="scattered-semantic"),
        pytest.param((1,), "acoustic", "do not stand together", id="scattered-acoustic"),
    ],
)
def test_views_that_are_not_there_are_refused(semantic_levels, view, words):
    with pytest.raises(TokenError, match=words):
        getattr(make(semantic_levels=semantic_levels), view)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"codes": np.zeros((4, 3), np.int64)}, id="one-frame-short"),
        pytest.param({"codes": np.zeros((3, 4), np.int64)}, id="one-level-short"),
        pytest.param({"codes": np.zeros((0, 4), np.int64), "codebook_sizes": ()}, id="no-level"),
        pytest.param({"codes": np.zeros(4, np.int64)}, id="one-dimensional"),
        pytest.param({"codes": np.zeros((4, 4))}, id="float-codes"),
        pytest.param({"codes": np.full((4, 4), 1024)}, id="code-too-large"),
        pytest.param({"codes": np.full((4, 4), -1)}, id="negative-code"),
        pytest.param({"codes": np.full((4, 4), 2**63, np.uint64)}, id="code-beyond-int64"),
        pytest.param({"num_samples": 0, "codes": np.zeros((4, 0), np.int64)}, id="no-samples"),
        pytest.param({"sample_rate": 0}, id="zero-rate"),
        pytest.param({"sample_rate": 16000.5}, id="fractional-rate"),
        pytest.param({"codebook_sizes": 1024}, id="sizes-not-a-sequence"),
        pytest.param({"semantic_levels": (4,)}, id="semantic-beyond"),
        pytest.param({"semantic_levels": (1, 0)}, id="semantic-out-of-order"),
        pytest.param({"first_level": 1}, id="semantic-before-the-first"),
        pytest.param({"fingerprint": None}, id="no-fingerprint"),
        pytest.param({"timbre": np.array([np.nan], np.float32)}, id="timbre-nan"),
        pytest.param({"timbre": np.zeros((1, 2), np.float32)}, id="timbre-2d"),
    ],
)
def test_contradictions_are_refused_in_one_line(change):
    with pytest.raises(TokenError) as caught:
        make(**change)
    assert "\n" not in str(caught.value)
