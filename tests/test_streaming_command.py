"""``speechtok encode -`` and ``decode - --stream``: raw samples and lines of tokens through pipes."""

from __future__ import annotations

import io
import json
import os
import signal as signals
import subprocess
import sys

import numpy as np
import pytest

from speechtok.audio import Audio, read, write
from speechtok.cli import live as live_command
from speechtok.tokenizers.checkpoint import save_codec
from speechtok.tokenizers.registry import load
from speechtok.tokens import Tokens
from tiny import HOP, RATE, signal, tiny_codec, tiny_tokenizer


@pytest.fixture(scope="module")
def causal():
    return tiny_tokenizer("seanet-causal")


@pytest.fixture(scope="module")
def causal_folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "causal"
    save_codec(tiny_codec("seanet-causal"), path, {"scheme": "A"})
    return path


@pytest.fixture
def stdin(monkeypatch):
    """Gives standard input some bytes."""

    def give(data: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))

    return give


@pytest.fixture
def live(cli, causal):
    """The command on the causal model in memory."""
    return lambda *argv: cli(*argv, load=lambda *_, **__: causal)


def pcm(audio: Audio) -> bytes:
    return (audio.samples * 32767).astype("<i2").tobytes()


def sound_of(data: bytes) -> Audio:
    return Audio(np.frombuffer(data, "<i2").astype(np.float32) / 32768, RATE)


def lines_of(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize("count", [1, HOP, 10 * HOP, 1003])
def test_lines_are_the_codes_of_the_file(live, stdin, causal, tmp_path, count):
    data = pcm(Audio(signal(0.2).samples[:count], RATE))
    stdin(data)
    code, out, err = live("encode", "-", "--stream", "-o", tmp_path / "t")
    tokens = causal.encode(sound_of(data))
    about, *lines = lines_of(out)
    assert (code, err) == (0, [])
    assert (about["fingerprint"], about["sample_rate"], about["levels"]) == (causal.fingerprint, RATE, 4)
    frames = [line for line in lines if "frame" in line]
    assert [line["frame"] for line in frames] == list(range(tokens.frames))
    assert np.array_equal(np.array([line["codes"] for line in frames]).T, tokens.codes)
    assert lines[-1]["samples"] == count
    assert Tokens.load(tmp_path / "t") == tokens


def test_lines_come_back_as_sound(live, stdin, causal, tmp_path, monkeypatch):
    data = pcm(signal(0.33))
    stdin(data)
    _, lines, _ = live("encode", "-", "--stream")
    whole = causal.decode(causal.encode(sound_of(data)))
    stdin(lines.encode())
    assert live("decode", "-", "--stream", "-o", tmp_path / "a.wav")[0] == 0
    write(tmp_path / "whole.wav", whole)
    found = read(tmp_path / "a.wav").samples
    assert len(found) == len(whole)
    assert np.abs(found - read(tmp_path / "whole.wav").samples).max() <= 2 / 32768
    stdin(lines.encode())
    raw = io.TextIOWrapper(io.BytesIO())
    monkeypatch.setattr(sys, "stdout", raw)
    assert live("decode", "-", "--stream")[0] == 0
    raw.flush()
    assert np.abs(sound_of(raw.buffer.getvalue()).samples - np.clip(whole.samples, -1, 1)).max() <= 1 / 32768


@pytest.mark.parametrize("rate", [None, 16000])
def test_without_lines_any_model_takes_standard_input(cli, stdin, model, tmp_path, rate):
    data = pcm(signal(0.3))
    stdin(data)
    options = [] if rate is None else ["--rate", rate]
    code, said, err = cli("encode", "-", "-o", tmp_path / "t", *options)
    assert (code, err) == (0, [])
    assert "standard input -> " in said
    assert Tokens.load(tmp_path / "t") == model.encode(Audio(sound_of(data).samples, rate or RATE))


def test_another_rate_is_resampled_as_it_comes(live, stdin, causal, tmp_path):
    data = pcm(signal(0.3, 16000))
    stdin(data)
    assert live("encode", "-", "--stream", "--rate", 16000, "-o", tmp_path / "t")[0] == 0
    assert Tokens.load(tmp_path / "t") == causal.encode(Audio(sound_of(data).samples, 16000))


def test_half_a_sample_at_the_end_is_left_out_and_said(live, stdin, causal, tmp_path):
    data = pcm(signal(0.1))
    stdin(data + b"x")
    code, _, err = live("encode", "-", "--stream", "-o", tmp_path / "t")
    assert (code, len(err)) == (0, 1)
    assert "half is left out" in err[0]
    assert Tokens.load(tmp_path / "t") == causal.encode(sound_of(data))


def refused(run, words, *argv):
    code, out, err = run(*argv)
    assert (code, len(err)) == (2, 1)
    assert words in err[0]
    return out


def test_what_cannot_be_is_refused_in_one_line(live, cli, stdin, tmp_path, clip):
    stdin(b"")
    refused(live, "holds no samples", "encode", "-", "-o", tmp_path / "t")
    refused(live, "holds no samples", "encode", "-", "--stream", "-o", tmp_path / "t")
    refused(cli, "not causal", "encode", "-", "--stream")
    refused(live, "name a file with -o", "encode", "-")
    refused(live, "stands alone", "encode", "-", clip, "-o", tmp_path / "t")
    refused(live, "is a folder", "encode", "-", "-o", tmp_path)
    refused(live, "name for audio", "encode", "-", "-o", tmp_path / "a.wav")
    refused(live, "sample rate", "encode", "-", "--stream", "--rate", 0)
    refused(live, "give - as the only FILE", "encode", clip, "-o", tmp_path / "t", "--stream")
    refused(live, "with -o", "encode", clip)
    refused(live, "with -o", "decode", tmp_path / "t")
    refused(live, "add --stream", "decode", "-")
    refused(live, "give - as the only FILE", "decode", tmp_path / "t", "--stream", "-o", tmp_path / "a.wav")
    refused(live, "leave them out", "decode", "-", "--stream", "--levels", 1)
    assert not (tmp_path / "t").exists()


ABOUT = '{"tokenizer": "it", "fingerprint": "%s"}\n'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "does not say which tokenizer"),
        ('{"frame": 0, "codes": [1, 2, 3, 4]}\n', "does not say which tokenizer"),
        (ABOUT % "0123", "tokens of it (0123), not of tiny-seanet-causal"),
        (ABOUT, "holds no frames"),
        (ABOUT + "hello\n", "'hello' is no line of tokens"),
        (ABOUT + "[]\n", "is no line of tokens"),
        (ABOUT + '{"frame": 0}\n', "is no line of tokens"),
        (ABOUT + '{"frame": 0, "codes": [1, [2], 3, 4]}\n', "is no line of tokens"),
        (ABOUT + '{"frame": 0, "codes": [1, 2, 3, 4], "samples": 0.5}\n', "is no line of tokens"),
        (ABOUT + '{"frame": 1, "codes": [1, 2, 3, 4]}\n', "frame 1 comes where 0 is due"),
        (ABOUT + '{"frame": 0, "codes": [1, 2, 3, 32]}\n', "leave the codebooks"),
        (ABOUT + '{"frame": 0, "codes": [1, 2, 3, 4, 5]}\n', "1 to 4 levels"),
        (ABOUT + '{"frame": 0, "codes": []}\n', "1 to 4 levels"),
    ],
)
def test_lines_that_are_none_are_refused(live, stdin, causal, tmp_path, text, words):
    stdin((text % causal.fingerprint if "%s" in text else text).encode())
    refused(live, words, "decode", "-", "--stream", "-o", tmp_path / "a.wav")
    assert not list(tmp_path.iterdir())


# processes: what comes when, and how it ends


@pytest.fixture
def recorder(causal_folder, tmp_path):
    """``speechtok encode - --stream`` in a process that is still waiting for samples."""
    command = [sys.executable, "-m", "speechtok", "encode", "-", "--stream", "--model", str(causal_folder)]
    command += ["-o", str(tmp_path / "t")]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    process = subprocess.Popen(command, **pipes, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert json.loads(process.stdout.readline())["sample_rate"] == RATE
    yield process
    process.kill()
    for pipe in (process.stdin, process.stdout, process.stderr):
        pipe.close()
    process.wait()


def test_codes_come_while_the_input_is_open_and_ctrl_c_keeps_what_was_heard(recorder, causal_folder, tmp_path):
    data = pcm(signal(0.1))[: 2 * (5 * HOP + 7)]
    recorder.stdin.write(data)
    recorder.stdin.flush()
    assert [json.loads(recorder.stdout.readline())["frame"] for _ in range(5)] == [0, 1, 2, 3, 4]
    recorder.send_signal(signals.SIGINT)
    last = json.loads(recorder.stdout.readline())
    assert recorder.wait(60) == 0
    assert (last["frame"], last["samples"]) == (5, 5 * HOP + 7)
    assert recorder.stderr.read() == b""
    assert Tokens.load(tmp_path / "t") == load(causal_folder).encode(sound_of(data))


def test_when_nobody_reads_on_what_was_heard_is_kept(live, causal, stdin, tmp_path, monkeypatch):
    data, printed = pcm(signal(0.1)), []

    def broken(line):
        if len(printed) == 3:
            raise BrokenPipeError
        printed.append(line)

    monkeypatch.setattr(live_command, "print", broken, raising=False)
    monkeypatch.setattr(live_command, "_AT_ONCE", 2 * (HOP + 7))
    monkeypatch.setattr("speechtok.cli._silence_stdout", lambda: None)  # which needs a descriptor
    stdin(data)
    code, _, err = live("encode", "-", "--stream", "-o", tmp_path / "t")
    assert (code, err) == (141, [])
    tokens = Tokens.load(tmp_path / "t")
    assert (len(printed), tokens.num_samples) == (3, 3 * (HOP + 7))
    assert tokens == causal.encode(Audio(sound_of(data).samples[: tokens.num_samples], RATE))
