"""Every command: what it prints, what it writes, its exit code; mistakes cost one line."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest

from speechtok.audio import read, write
from speechtok.cli import COMMANDS
from speechtok.tokens import Tokens
from tiny import RATE, signal, tiny_tokenizer

SUFFIX = ".tokens.safetensors"
OFFICIAL = Path(__file__).parent / "data" / "speechtokenizer-tiny"


def never(*_, **__):
    raise AssertionError("the model must not be loaded")


# the command itself


def test_help_lists_every_command_with_a_line(cli):
    code, out, err = cli("--help")
    assert (code, err) == (0, [])
    words = " ".join(out.split())
    assert all(f"{name} {module.HELP}" in words for name, module in COMMANDS.items())


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(cli, name):
    code, out, _ = cli(name, "--help")
    assert code == 0
    assert f"speechtok {name}" in out


def test_help_never_imports_torch():
    script = "import sys; from speechtok.cli import main; main(['--help']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True).returncode == 0


def test_models_never_imports_torch():
    script = "import sys; from speechtok.cli import main; main(['models']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True).returncode == 0


@pytest.mark.parametrize("argv", [(), ("nonsense",), ("encode",), ("encode", "a.wav")], ids=str)
def test_wrong_usage_is_exit_2(cli, argv):
    code, out, err = cli(*argv)
    assert (code, out) == (2, "")
    assert "error" in err[-1]


def test_version(cli):
    assert cli("--version")[:2] == (0, "speechtok 0.1.0\n")


def test_an_interrupt_is_one_line_and_130(cli, clip, tmp_path):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    code, _, err = cli("encode", clip, "-o", tmp_path / "t", load=interrupted)
    assert (code, err) == (130, ["speechtok: error: interrupted"])


def test_a_closed_pipe_is_quiet():
    command = [sys.executable, "-m", "speechtok", "models", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    errors = process.stderr.read()
    assert (process.wait(), errors) == (141, b"")


def test_closed_streams_do_no_harm(tmp_path):
    script = "import os, sys; os.close(1); os.close(2); sys.stdout = sys.stderr = None; "
    script += f"from speechtok.cli import main; sys.exit(main(['info', {str(tmp_path / 'none.wav')!r}]))"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 2


# encode


def test_encode_one_file(cli, model, clip, tmp_path):
    out = tmp_path / "any.name"
    code, said, err = cli("encode", clip, "-o", out)
    assert (code, err) == (0, [])
    assert str(out) in said
    assert Tokens.load(out) == model.encode(read(clip))


def test_encode_into_a_folder_keeps_earlier_dots(cli, clip, tmp_path):
    (tmp_path / "out").mkdir()
    assert cli("encode", clip, "-o", tmp_path / "out")[0] == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == [f"clip.one{SUFFIX}"]


def test_encode_levels(cli, clip, tmp_path):
    assert cli("encode", clip, "-o", tmp_path / "t", "--levels", 2)[0] == 0
    assert Tokens.load(tmp_path / "t").levels == 2


def test_encode_json(cli, clip, tmp_path):
    code, out, _ = cli("encode", clip, "-o", tmp_path / "t", "--json")
    (row,) = json.loads(out)
    assert code == 0
    assert row["input"] == str(clip)
    assert (row["output"], row["frames"], row["levels"], row["seconds"]) == (str(tmp_path / "t"), 100, 4, 0.5)


def test_encode_goes_on_after_a_bad_file(cli, clip, tmp_path):
    bad, good, out = tmp_path / "bad.wav", tmp_path / "good.wav", tmp_path / "out"
    bad.write_bytes(b"no audio at all")
    write(good, signal(0.2))
    code, said, err = cli("encode", clip, bad, good, "-o", out)
    assert code == 2
    assert sorted(path.name for path in out.iterdir()) == [f"clip.one{SUFFIX}", f"good{SUFFIX}"]
    assert len(said.splitlines()) == 2
    assert len(err) == 2
    assert err[0].startswith("speechtok: error: ")
    assert "bad.wav" in err[0]
    assert err[1] == "speechtok: 1 of 3 files failed"


def test_encode_json_counts_failures(cli, clip, tmp_path):
    code, out, _ = cli("encode", clip, tmp_path / "none.wav", "-o", tmp_path / "out", "--json")
    rows = json.loads(out)
    assert code == 2
    assert ["error" in row for row in rows] == [False, True]


def test_encode_replaces_an_old_output(cli, clip, tmp_path):
    out = tmp_path / "t"
    out.write_bytes(b"old")
    assert cli("encode", clip, "-o", out)[0] == 0
    assert Tokens.load(out).frames == 100


def test_a_mixed_down_recording_is_said_in_one_line(cli, tmp_path):
    import numpy as np
    import soundfile

    path = tmp_path / "stereo.wav"
    soundfile.write(path, np.stack([signal(0.1).samples, signal(0.1, seed=1).samples], axis=1), RATE)
    code, _, err = cli("encode", path, "-o", tmp_path / "t")
    assert (code, len(err)) == (0, 1)
    assert err[0].startswith("speechtok: warning: ")
    assert "stereo.wav" in err[0]


# decode


@pytest.fixture
def tokens(model, tmp_path):
    path = tmp_path / f"clip{SUFFIX}"
    model.encode(signal(0.5)).save(path)
    return path


def test_decode_one_file(cli, tokens, tmp_path):
    code, _, err = cli("decode", tokens, "-o", tmp_path / "a.wav")
    assert (code, err) == (0, [])
    assert len(read(tmp_path / "a.wav")) == RATE // 2


@pytest.mark.parametrize("kind", ["wav", "flac"])
def test_decode_into_a_folder(cli, tokens, tmp_path, kind):
    assert cli("decode", tokens, "-o", f"{tmp_path}/out/", "--format", kind)[0] == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == [f"clip.{kind}"]


@pytest.mark.parametrize(("option", "levels"), [("--semantic", 1), ("--acoustic", 3), ("--levels=2", 2)])
def test_decode_from_some_levels(cli, tokens, tmp_path, option, levels):
    code, out, _ = cli("decode", tokens, "-o", tmp_path / "a.wav", option, "--json")
    assert code == 0
    assert json.loads(out)[0]["levels"] == levels


def test_decode_of_levels_that_are_not_there_names_the_file(cli, tokens, tmp_path):
    code, _, err = cli("decode", tokens, "-o", tmp_path / "a.wav", "--levels", 9)
    assert (code, len(err)) == (2, 1)
    assert tokens.name in err[0]
    assert not (tmp_path / "a.wav").exists()


def test_decode_with_another_model_is_refused(cli, tokens, tmp_path):
    other = tiny_tokenizer("frame", seed=1)
    code, _, err = cli("decode", tokens, "-o", tmp_path / "a.wav", load=lambda *_, **__: other)
    assert (code, len(err)) == (2, 1)
    assert other.fingerprint in err[0]


# info, models, verify


@pytest.mark.parametrize("kind", ["official", "ours"])
def test_info_of_a_model_given_as_a_file(cli, folder, kind):
    path = OFFICIAL / "SpeechTokenizer.pt" if kind == "official" else folder / "model.safetensors"
    code, out, err = cli("info", path, "--json", load=None)
    assert (code, err) == (0, [])
    assert (json.loads(out)["kind"], json.loads(out)["name"]) == ("model", path.stem)


def test_info_of_tokens_beside_a_model_are_tokens(cli, folder, model, tmp_path):
    shutil.copy(folder / "config.json", tmp_path)
    model.encode(signal(0.1)).save(tmp_path / f"a{SUFFIX}")
    code, out, _ = cli("info", tmp_path / f"a{SUFFIX}", "--json", load=never)
    assert (code, json.loads(out)["kind"]) == (0, "tokens")


def test_info_of_audio(cli, clip):
    code, out, _ = cli("info", clip, "--json", load=never)
    facts = json.loads(out)
    assert code == 0
    assert (facts["kind"], facts["seconds"], facts["sample_rate"], facts["channels"]) == (
        "audio",
        0.5,
        RATE,
        1,
    )


@pytest.mark.parametrize("name", [f"a{SUFFIX}", "a.renamed"])
def test_info_of_tokens(cli, model, tmp_path, name):
    model.encode(signal(0.5)).save(tmp_path / name)
    code, out, _ = cli("info", tmp_path / name, "--json", load=never)
    facts = json.loads(out)
    assert code == 0
    assert (facts["kind"], facts["frames"], facts["fingerprint"]) == ("tokens", 100, model.fingerprint)


def test_info_of_a_model_folder(cli, folder, model):
    code, out, _ = cli("info", folder, "--json", load=None)
    facts = json.loads(out)
    assert code == 0
    assert (facts["kind"], facts["name"], facts["levels"]) == ("model", "tiny", 4)
    assert facts["fingerprint"] == model.fingerprint


@pytest.mark.parametrize("kind", ["clip", "tokens", "folder"])
def test_info_is_readable(cli, request, kind):
    code, out, _ = cli("info", request.getfixturevalue(kind))
    assert code == 0
    assert len(out.splitlines()) >= 6


def test_models_json(cli):
    code, out, _ = cli("models", "--json")
    entries = json.loads(out)
    assert code == 0
    assert {"name", "scheme", "bundled", "sample_rate", "frame_rate", "bitrate", "levels"} <= set(entries[0])
    assert {"licence_code", "licence_weights", "verified", "description"} <= set(entries[0])
    assert {"fnlp/SpeechTokenizer", "fnlp/AnyGPT-speech-modules"} <= {entry["name"] for entry in entries}
    assert all(entry["scheme"] in "ABCDE" for entry in entries)


def test_models_table_names_every_model(cli):
    names = [entry["name"] for entry in json.loads(cli("models", "--json")[1])]
    table = cli("models")[1].splitlines()
    assert [line.split()[0] for line in table[1:]] == names


def test_verify_of_a_good_model(cli, folder):
    code, out, _ = cli("verify", folder, "--json", load=None)
    report = json.loads(out)
    assert (code, report["broken"]) == (0, 0)
    assert {"name", "promise", "passed", "measured", "numbers", "seconds"} == set(report["checks"][0])


def test_verify_of_a_bad_model_is_exit_1(cli, clip, monkeypatch):
    bad = tiny_tokenizer("frame")
    monkeypatch.setattr(bad.codec, "decoder_context", lambda: (0, 0))
    code, out, _ = cli("verify", "any", "--audio", clip, load=lambda *_, **__: bad)
    assert code == 1
    assert [line.split()[0] for line in out.splitlines() if "long decode" in line] == ["BROKEN"]


# models by name and place


def test_encode_and_decode_with_a_model_folder(cli, folder, clip, tmp_path):
    assert cli("encode", clip, "-o", tmp_path / "t", "--model", folder, load=None)[0] == 0
    assert cli("decode", tmp_path / "t", "-o", tmp_path / "a.wav", "--model", folder, load=None)[0] == 0
    assert len(read(tmp_path / "a.wav")) == RATE // 2


# commands whose work is done elsewhere


def test_demo_hands_over_its_folder_and_model(cli, monkeypatch, tmp_path):
    calls = []
    fake = types.SimpleNamespace(run_demo=lambda *args: calls.append(args) or tmp_path / "report.html")
    monkeypatch.setitem(sys.modules, "speechtok.demo", fake)
    assert cli("demo", "-o", tmp_path, "--model", "m")[0] == 0
    assert cli("demo")[0] == 0
    assert calls == [(tmp_path, "m"), (Path("demo-report"), None)]


def test_train_hands_over_recipe_and_overrides(cli, monkeypatch, tmp_path):
    calls = []
    monkeypatch.setitem(
        sys.modules, "speechtok.train.codec", types.SimpleNamespace(main=lambda *args: calls.append(args))
    )
    recipe = tmp_path / "r.yaml"
    assert cli("train", "codec", recipe, "steps=3", "a.b=c")[0] == 0
    assert calls == [(recipe, ["steps=3", "a.b=c"], False)]


def test_audio_survives_the_round_trip_through_files(cli, clip, model, tmp_path):
    """The files hold what the library computes, up to the 16 bits of a WAV file."""
    cli("encode", clip, "-o", tmp_path / "t")
    cli("decode", tmp_path / "t", "-o", tmp_path / "a.wav")
    expected = model.decode(model.encode(read(clip))).samples.clip(-1, 1)
    assert abs(read(tmp_path / "a.wav").samples - expected).max() <= 1e-4
