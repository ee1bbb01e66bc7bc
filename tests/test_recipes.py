"""Every recipe that ships, in miniature: a few steps with all of its losses."""

import json
import math
from pathlib import Path

import pytest
import yaml

from conftest import ROOT
from speechtok.config import from_yaml
from speechtok.train.codec import train, weights_of
from speechtok.train.recipe import CodecRecipe
from tiny_teachers import tiny_hubert, tiny_speaker

FILES = [path for path in sorted((ROOT / "recipes").glob("*.yaml")) if not path.name.endswith(".card.yaml")]
CODECS = [path for path in FILES if "codec" in yaml.safe_load(path.read_text())]
MINIATURE = [
    *("steps=3", "quantize_from=1", "log_every=1", "validate_every=3", "checkpoint_every=3"),
    *("data.seconds=0.2", "data.batch=2", "data.validation_files=1", "data.validation=[]"),
    *("codec.dimension=8", "codec.semantic_dimension=8", "codec.codebook_size=16", "codec.n_q=2"),
    "codec.quantizer.kmeans_iterations=2",
    "start=null",
    *("codec.seanet.n_filters=2", "codec.seanet.lstm_layers=1", "codec.frame.width=16", "codec.frame.expansion=2"),
    *("codec.frame.encoder_blocks=1", "codec.frame.decoder_blocks=1"),
    *("adversary.start=1", "adversary.ramp=1", "adversary.seconds=0.19", "adversary.per_step=0"),
    *("adversary.stft.filters=2", "adversary.period.width=0.01", "adversary.scale.width=0.01"),
    "adversary.band.filters=2",
]


def tiny_timbre(path: Path) -> list[str]:
    """Settings that make the timbre of a recipe that has one small."""
    named = yaml.safe_load(path.read_text())["codec"].get("timbre")
    return [f"codec.timbre.{size}" for size in ("dimension=4", "width=8", "bands=10", "blocks=1")] if named else []


def tiny_guides(path: Path, folder: Path) -> list[str]:
    """Settings that put tiny teachers in the place of those that the recipe names."""
    named = yaml.safe_load(path.read_text()).get("guides", {})
    changes = []
    if named.get("semantic"):
        changes += [f"guides.semantic.teacher={tiny_hubert(folder / 'hubert')}", "guides.semantic.layer=average"]
        changes += ["guides.semantic.features=null"]
    if named.get("acoustic"):
        changes += [f"guides.acoustic.teacher={tiny_speaker(folder)}"]
        changes += ["guides.acoustic.width=8", "guides.acoustic.heads=2"]
    return changes


@pytest.mark.parametrize("path", CODECS, ids=lambda path: path.stem)
def test_recipe_runs_in_miniature_with_all_losses(path: Path, corpus, tmp_path):
    places = [f"data.manifests=[{corpus}/corpus.tsv]", f"data.cache={corpus}/cache"]
    recipe = from_yaml(CodecRecipe, path, [*MINIATURE, *places, *tiny_timbre(path), *tiny_guides(path, tmp_path)])
    train(recipe, tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    final = [row for row in rows if row["kind"] == "train"][-1]
    wanted = {name for name, weight in weights_of(recipe, 1.0).items() if weight}
    assert {name: final.get(name) for name in wanted if not math.isfinite(final.get(name, math.nan))} == {}
    assert any(name.startswith("discriminator/") for name in final)


@pytest.mark.parametrize("name", ["speechtokenizer-official", "speechtokenizer-paper"])
def test_papers_recipes_are_full_size(name):
    recipe = from_yaml(CodecRecipe, ROOT / "recipes" / f"{name}.yaml")
    shape = recipe.codec
    assert (recipe.samples, shape.hop, shape.dimension, shape.n_q, shape.codebook_size) == (48000, 320, 1024, 8, 1024)
    assert shape.seanet.n_filters == 64 and recipe.adversary.count == 13


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        pytest.param("speechtokenizer-official", {"semantic/d_axis": 120.0}, id="official"),
        pytest.param("speechtokenizer-paper", {"semantic/d_axis": 120.0}, id="paper"),
        pytest.param(
            "two-guides", {"semantic/cosine": 0.5, "acoustic/kl": 0.5, "acoustic/cosine": 0.0}, id="two-guides"
        ),
    ],
)
def test_guides_of_the_papers_recipes(name, weights):
    assert from_yaml(CodecRecipe, ROOT / "recipes" / f"{name}.yaml").guides.weights == weights
