"""What the pages say runs: Python blocks, the README's commands, and links."""

import re
import shlex
from pathlib import Path

import pytest

import speechtok
from speechtok import cli
from speechtok.tokenizers.checkpoint import save_codec
from tiny import tiny_codec
from tiny_teachers import tiny_supervised

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "benchmarks/README.md"]
MAKES = {
    "teachers.md": {"runs/s3/model": tiny_supervised},
    "streaming.md": {"runs/live/model": lambda folder: save_codec(tiny_codec("seanet-causal"), folder, {})},
}
"""Folders that commands of a page have left, and what makes small ones."""
NEEDS = {"guidance.md": "published teachers, which are not in the repository"}


def blocks(page: Path, language: str) -> list[str]:
    """Fenced blocks of one language."""
    fenced = re.findall(r"```(\w*)\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    return [content for name, content in fenced if name == language]


@pytest.fixture
def desk(tmp_path, monkeypatch, speech):
    """A folder with the recording that the pages speak of, made the working directory."""
    monkeypatch.chdir(tmp_path)
    speechtok.write("speech.wav", speech(1.3))
    return tmp_path


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "python")], ids=lambda p: p.name)
def test_python_blocks_run(page, desk):
    if page.name in NEEDS:
        pytest.skip(f"its blocks need {NEEDS[page.name]}")
    for folder, make in MAKES.get(page.name, {}).items():
        make(desk / folder)
    names: dict[str, object] = {}
    for block in blocks(page, "python"):
        exec(compile(block, str(page), "exec"), names)


def test_commands_of_the_readme_run(desk, capsys):
    lines = [line for block in blocks(ROOT / "README.md", "") for line in block.splitlines()]
    commands = [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("speechtok ")]
    assert len(commands) >= 5
    for command in commands:
        assert cli.main(command) == 0, command


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        assert target.startswith("http") or (page.parent / target).exists(), target
