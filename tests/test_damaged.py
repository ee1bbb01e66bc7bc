"""More than two hundred damaged files through the command: refused in one line or decoded, never half written."""

from __future__ import annotations

import zlib

import numpy as np
import pytest

from speechtok.audio import read, write
from speechtok.cli import main
from speechtok.tokens import Tokens
from tiny import signal, tiny_tokenizer

AUDIO = ("wav", "flac", "ogg", "opus", "mp3")
AUDIO_CASES, TOKEN_CASES = 27, 75
TOKENS = "clip.tokens.safetensors"


def cut(data: bytes, draw: np.random.Generator) -> bytes:
    return data[: draw.integers(0, len(data))]


def cut_a_little(data: bytes, draw: np.random.Generator) -> bytes:
    return data[: len(data) - draw.integers(1, 9)]


def flip_a_bit(data: bytes, draw: np.random.Generator) -> bytes:
    return _flip(data, int(draw.integers(0, len(data))), draw)


def flip_a_header_bit(data: bytes, draw: np.random.Generator) -> bytes:
    return _flip(data, int(draw.integers(0, min(64, len(data)))), draw)


def overwrite_the_start(data: bytes, draw: np.random.Generator) -> bytes:
    count = int(draw.integers(1, 33))
    return draw.bytes(count) + data[count:]


def blank_a_stretch(data: bytes, draw: np.random.Generator) -> bytes:
    start, count = int(draw.integers(0, len(data))), int(draw.integers(1, 65))
    return data[:start] + bytes(len(data[start : start + count])) + data[start + count :]


def put_rubbish_before(data: bytes, draw: np.random.Generator) -> bytes:
    return draw.bytes(int(draw.integers(1, 33))) + data


def lose_the_middle(data: bytes, draw: np.random.Generator) -> bytes:
    start = int(draw.integers(0, len(data) - 1))
    return data[:start] + data[start + int(draw.integers(1, len(data) - start)) :]


def all_rubbish(data: bytes, draw: np.random.Generator) -> bytes:
    return draw.bytes(int(draw.integers(0, 200)))


def _flip(data: bytes, place: int, draw: np.random.Generator) -> bytes:
    return data[:place] + bytes([data[place] ^ (1 << int(draw.integers(0, 8)))]) + data[place + 1 :]


DAMAGES = (
    cut, cut_a_little, flip_a_bit, flip_a_header_bit, overwrite_the_start,
    blank_a_stretch, put_rubbish_before, lose_the_middle, all_rubbish,
)  # fmt: skip


def damaged(data: bytes, kind: str, case: int) -> bytes:
    """The same damage in every run and on every machine."""
    return DAMAGES[case % len(DAMAGES)](data, np.random.default_rng([zlib.crc32(kind.encode()), case]))


def cases(kinds: tuple[str, ...], count: int) -> list:
    return [
        pytest.param(kind, case, id=f"{kind}-{DAMAGES[case % len(DAMAGES)].__name__}-{case}")
        for kind in kinds
        for case in range(count)
    ]


DAMAGED_AUDIO, DAMAGED_TOKENS = cases(AUDIO, AUDIO_CASES), cases(("tokens.safetensors",), TOKEN_CASES)
DAMAGED = DAMAGED_AUDIO + DAMAGED_TOKENS


@pytest.fixture(scope="module")
def model():
    return tiny_tokenizer("frame")


@pytest.fixture(scope="module")
def whole(tmp_path_factory, model):
    """The undamaged files' bytes by kind."""
    folder = tmp_path_factory.mktemp("whole")
    audio = signal(0.25)
    for kind in AUDIO:
        write(folder / f"clip.{kind}", audio)
    model.encode(audio).save(folder / TOKENS)
    return {path.name.partition(".")[2]: path.read_bytes() for path in folder.iterdir()}


def run(command, path, out, model, capfd):
    """Exit code and the lines on standard error that are no warnings."""
    code = main([command, str(path), "-o", str(out)], load=lambda *_, **__: model)
    lines = capfd.readouterr().err.splitlines()
    return code, [line for line in lines if not line.startswith("speechtok: warning: ")]


def check(code, errors, path, out, folder):
    assert {entry.name for entry in folder.iterdir()} == {path.name} | ({out.name} if code == 0 else set())
    if code == 0:
        assert errors == []
    else:
        assert code == 2
        assert len(errors) == 1
        assert errors[0].startswith("speechtok: error: ")
        assert path.name in errors[0]


def test_there_are_two_hundred_different_ones(whole):
    generated = {damaged(whole[kind], kind, case) for kind, case in (one.values for one in DAMAGED)}
    assert len(generated - set(whole.values())) >= 200


@pytest.mark.parametrize("kind", AUDIO)
def test_whole_audio_is_accepted(kind, whole, model, tmp_path, capfd):
    path, out = tmp_path / f"clip.{kind}", tmp_path / TOKENS
    path.write_bytes(whole[kind])
    assert run("encode", path, out, model, capfd) == (0, [])


@pytest.mark.parametrize(("kind", "case"), DAMAGED_AUDIO)
def test_damaged_audio(kind, case, whole, model, tmp_path, capfd):
    path, out = tmp_path / f"clip.{kind}", tmp_path / TOKENS
    path.write_bytes(damaged(whole[kind], kind, case))
    code, errors = run("encode", path, out, model, capfd)
    check(code, errors, path, out, tmp_path)
    if code == 0:
        assert Tokens.load(out).frames >= 1


@pytest.mark.parametrize(("kind", "case"), DAMAGED_TOKENS)
def test_damaged_tokens_are_always_refused(kind, case, whole, model, tmp_path, capfd):
    data = damaged(whole[kind], kind, case)
    assert data != whole[kind]
    path, out = tmp_path / TOKENS, tmp_path / "clip.wav"
    path.write_bytes(data)
    code, errors = run("decode", path, out, model, capfd)
    check(code, errors, path, out, tmp_path)
    assert code == 2


def test_whole_tokens_are_accepted(whole, model, tmp_path, capfd):
    path, out = tmp_path / TOKENS, tmp_path / "clip.wav"
    path.write_bytes(whole["tokens.safetensors"])
    assert run("decode", path, out, model, capfd) == (0, [])
    assert len(read(out)) == 2000


def test_a_failed_run_leaves_the_old_output_alone(whole, model, tmp_path, capfd):
    path, out = tmp_path / "clip.wav", tmp_path / TOKENS
    out.write_bytes(whole["tokens.safetensors"])
    path.write_bytes(whole["wav"][:1000])
    assert run("encode", path, out, model, capfd)[0] == 2
    assert out.read_bytes() == whole["tokens.safetensors"]
