"""What the command refuses: one line, exit code 2, and nothing written or replaced."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from speechtok.audio import write
from tiny import signal

SUFFIX = ".tokens.safetensors"
OFFICIAL = Path(__file__).parent / "data" / "speechtokenizer-tiny"


def never(*_, **__):
    raise AssertionError("the model must not be loaded")


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".opus", ".MP3"])
def test_encode_never_writes_tokens_over_a_recording(cli, clip, tmp_path, suffix):
    out = tmp_path / f"other{suffix}"
    out.write_bytes(b"a recording")
    code, _, err = cli("encode", clip, "-o", out, load=never)
    assert (code, len(err)) == (2, 1)
    assert SUFFIX in err[0]
    assert out.read_bytes() == b"a recording"


@pytest.mark.parametrize("levels", [0, 5, 99])
def test_levels_that_the_model_lacks_are_refused_once(cli, clip, tmp_path, levels):
    other, out = tmp_path / "b.wav", tmp_path / "out"
    write(other, signal(0.1))
    code, said, err = cli("encode", clip, other, "-o", out, "--levels", levels)
    assert (code, said, len(err)) == (2, "", 1)
    assert "1 to 4" in err[0]
    assert not out.exists()


def test_several_inputs_need_a_folder(cli, clip, tmp_path):
    other, out = tmp_path / "b.wav", tmp_path / "file"
    write(other, signal(0.1))
    out.write_bytes(b"mine")
    code, _, err = cli("encode", clip, other, "-o", out, load=never)
    assert (code, len(err)) == (2, 1)
    assert out.read_bytes() == b"mine"


def test_two_inputs_of_one_output_are_refused_before_any_work(cli, clip, tmp_path):
    other = tmp_path / "clip.one.flac"
    write(other, signal(0.1))
    code, _, err = cli("encode", clip, other, "-o", tmp_path / "out", load=never)
    assert (code, len(err)) == (2, 1)
    assert "clip.one.wav" in err[0]
    assert "clip.one.flac" in err[0]
    assert not (tmp_path / "out").exists()


def test_an_input_is_never_overwritten(cli, clip):
    before = clip.read_bytes()
    code, _, err = cli("encode", clip, "-o", clip, load=never)
    assert (code, len(err)) == (2, 1)
    assert clip.read_bytes() == before


@pytest.mark.parametrize("command", ["encode", "decode", "info"])
@pytest.mark.parametrize("kind", ["too-long", "loop"])
def test_an_impossible_input_is_one_line(cli, tmp_path, command, kind):
    path = tmp_path / ("n" * 300 + ".wav" if kind == "too-long" else "loop.wav")
    if kind == "loop":
        path.symlink_to(path)
    output = () if command == "info" else ("-o", tmp_path / "out")
    code, _, err = cli(command, path, *output, load=None)
    assert (code, len(err)) == (2, 1)
    assert path.name in err[0]


@pytest.mark.parametrize("output", ["n" * 300, "loop/", "n" * 300 + "/"], ids=["too-long", "loop", "too-long-folder"])
def test_an_impossible_output_is_one_line(cli, clip, tmp_path, output):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    code, _, err = cli("encode", clip, "-o", f"{tmp_path}/{output}")
    assert (code, len(err)) == (2, 1)
    assert output.rstrip("/") in err[0]


def test_an_unreadable_model_is_one_line(cli, clip, tmp_path):
    def unreadable(*_, **__):
        raise PermissionError(13, "Permission denied", "model/config.json")

    code, _, err = cli("encode", clip, "-o", tmp_path / "t", load=unreadable)
    assert (code, len(err)) == (2, 1)
    assert "model/config.json: Permission denied" in err[0]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full on this system")
def test_a_full_disk_behind_the_output_is_one_line():
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "speechtok", "models"], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "No space left" in done.stderr


def test_a_device_that_computes_nothing_is_refused(cli, folder, clip, tmp_path):
    argv = ("encode", clip, "-o", tmp_path / "t", "--model", folder, "--device", "meta")
    code, _, err = cli(*argv, load=None)
    assert (code, len(err)) == (2, 1)
    assert "meta" in err[0]


def test_convert_never_writes_over_its_inputs(cli, tmp_path):
    shutil.copytree(OFFICIAL, tmp_path / "model")
    before = (tmp_path / "model" / "config.json").read_bytes()
    (tmp_path / "link").symlink_to(tmp_path / "model")
    argv = ("convert", tmp_path / "model" / "SpeechTokenizer.pt", tmp_path / "model" / "config.json")
    code, _, err = cli(*argv, "-o", tmp_path / "link", load=never)
    assert (code, len(err)) == (2, 1)
    assert "config.json" in err[0]
    assert (tmp_path / "model" / "config.json").read_bytes() == before


def test_info_of_a_file_that_is_not_there(cli, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for name in ("missing.wav", "some/missing.wav", "folder/model.safetensors"):
        code, _, err = cli("info", name, load=None)
        assert (code, err) == (2, [f"speechtok: error: {name}: no such file; check the name"])


@pytest.mark.parametrize(
    ("name", "part"),
    [("no-such-model", "known names are"), ("./no/thing", "known names are"), ("{tmp}", "no config.json")],
    ids=["name", "path", "empty-folder"],
)
def test_a_wrong_model_is_one_line(cli, clip, tmp_path, name, part):
    empty = tmp_path / "empty"
    empty.mkdir()
    code, _, err = cli("encode", clip, "-o", tmp_path / "t", "--model", name.format(tmp=empty), load=None)
    assert (code, len(err)) == (2, 1)
    assert part in err[0]
    assert not (tmp_path / "t").exists()
