"""Start-up stays light: heavy libraries are loaded when they are used, and the public names exist."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import speechtok

ROOT = Path(__file__).resolve().parents[1]
HEAVY = {"torch", "transformers", "accelerate", "matplotlib", "scipy", "pesq", "pystoi", "huggingface_hub"}


def run(code: str) -> subprocess.CompletedProcess:
    path = os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH")]))
    environment = os.environ | {"PYTHONPATH": path}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)


def heavy_modules_after(code: str) -> set[str]:
    done = run(f"{code}\nimport sys\nprint('LOADED', *{{name.partition('.')[0] for name in sys.modules}})")
    assert done.returncode == 0, done.stderr
    return set(done.stdout.rpartition("LOADED")[2].split()) & HEAVY


HELP = """
import runpy, sys
sys.argv = ["speechtok", {arguments}]
try:
    runpy.run_module("speechtok", run_name="__main__")
except SystemExit as stop:
    assert not stop.code, stop.code
"""


@pytest.mark.parametrize(
    "code",
    [
        pytest.param("import speechtok", id="import"),
        pytest.param("import speechtok; dir(speechtok); speechtok.Audio; speechtok.Tokens", id="value-types"),
        pytest.param(HELP.format(arguments="'--help'"), id="help"),
        pytest.param(HELP.format(arguments="'encode', '--help'"), id="help-of-a-command"),
    ],
)
def test_nothing_heavy_is_loaded(code):
    assert heavy_modules_after(code) == set()


def test_the_watch_sees_a_heavy_module():
    assert "scipy" in heavy_modules_after("import scipy")


def test_help_names_the_command():
    done = run(HELP.format(arguments="'--help'"))
    assert done.returncode == 0
    assert "usage: speechtok" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize("name", speechtok.__all__)
def test_public_names_exist(name):
    assert getattr(speechtok, name) is not None
    assert name in dir(speechtok)


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="nonsense"):
        speechtok.nonsense  # noqa: B018


@pytest.mark.parametrize("module", ["release", "plot"])
def test_modules_run_as_programs_fail_like_the_command(module, tmp_path):
    (tmp_path / "card.yaml").write_text("{}")
    options = ["-o", str(tmp_path / "out"), "--card", str(tmp_path / "card.yaml")] if module == "release" else []
    arguments = ["x", str(tmp_path / "absent"), *options]
    start = f"runpy.run_module('speechtok.train.{module}', run_name='__main__')"
    done = run(f"import runpy, sys; sys.argv = {arguments!r}; {start}")
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("speechtok: error: ") and "absent" in line
