"""What the pages say runs: Python blocks, the README's commands, links, and every recipe in miniature."""

import re
import shlex
from pathlib import Path

import pytest

import speechtok
from speechtok import cli
from speechtok.config import from_yaml
from speechtok.train.codec import train
from speechtok.train.recipe import CodecRecipe

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "benchmarks/README.md"]
RECIPES = [path for path in sorted((ROOT / "recipes").glob("*.yaml")) if not path.name.endswith(".card.yaml")]
MINIATURE = {
    "speechtok-base": """
        steps=3 adversary.start=1 data.batch=2 data.seconds=0.16 data.validation_files=1 codec.dimension=8
        codec.codebook_size=16 codec.quantizer.kmeans_iterations=2 codec.frame.width=16 codec.frame.encoder_blocks=1
        codec.frame.decoder_blocks=1 adversary.stft.filters=4 adversary.seconds=0.1
    """
}


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


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda p: p.stem)
def test_recipes_run_in_miniature_with_all_losses(recipe, tmp_path, speech):
    rows = ["path\tsplit"]
    for i in range(3):
        speechtok.write(tmp_path / f"{i}.wav", speech(0.5, seed=i))
        rows.append(f"{i}.wav\t{'dev' if i == 2 else 'train'}")
    (tmp_path / "data.tsv").write_text("\n".join(rows) + "\n")
    places = [f"data.manifests=[{tmp_path}/data.tsv]", "data.validation=[]", f"data.cache={tmp_path}/cache"]
    state = train(from_yaml(CodecRecipe, recipe, places + MINIATURE[recipe.stem].split()), tmp_path / "run")
    log = (tmp_path / "run/log.jsonl").read_text()
    assert state.step == 3
    assert all(loss in log for loss in ("mel/l1", "commitment/mse", "adversarial/lsgan", "feature/relative"))
