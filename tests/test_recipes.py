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

FILES = [path for path in sorted((ROOT / "recipes").glob("*.yaml")) if not path.name.endswith(".card.yaml")]
CODECS = [path for path in FILES if "codec" in yaml.safe_load(path.read_text())]
MINIATURE = [
    *("steps=3", "quantize_from=1", "log_every=1", "validate_every=3", "checkpoint_every=3"),
    *("data.seconds=0.2", "data.batch=2", "data.validation_files=1", "data.validation=[]"),
    *("codec.dimension=8", "codec.semantic_dimension=8", "codec.codebook_size=16", "codec.n_q=2"),
    "codec.quantizer.kmeans_iterations=2",
    *("codec.seanet.n_filters=2", "codec.seanet.lstm_layers=1", "codec.frame.width=16", "codec.frame.expansion=2"),
    *("codec.frame.encoder_blocks=1", "codec.frame.decoder_blocks=1"),
    *("adversary.start=1", "adversary.ramp=1", "adversary.seconds=0.19", "adversary.per_step=0"),
    *("adversary.stft.filters=2", "adversary.period.width=0.01", "adversary.scale.width=0.01"),
    "adversary.band.filters=2",
]


@pytest.mark.parametrize("path", CODECS, ids=lambda path: path.stem)
def test_recipe_runs_in_miniature_with_all_losses(path: Path, corpus, tmp_path):
    places = [f"data.manifests=[{corpus}/corpus.tsv]", f"data.cache={corpus}/cache"]
    recipe = from_yaml(CodecRecipe, path, [*MINIATURE, *places])
    train(recipe, tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    final = [row for row in rows if row["kind"] == "train"][-1]
    wanted = {name for name, weight in weights_of(recipe, 1.0).items() if weight and name not in recipe.weights.guides}
    assert {name: final.get(name) for name in wanted if not math.isfinite(final.get(name, math.nan))} == {}
    assert any(name.startswith("discriminator/") for name in final)


@pytest.mark.parametrize("name", ["speechtokenizer-official", "speechtokenizer-paper"])
def test_papers_recipes_are_full_size(name):
    recipe = from_yaml(CodecRecipe, ROOT / "recipes" / f"{name}.yaml")
    shape = recipe.codec
    assert (recipe.samples, shape.hop, shape.dimension, shape.n_q, shape.codebook_size) == (48000, 320, 1024, 8, 1024)
    assert shape.seanet.n_filters == 64 and recipe.adversary.count == 13
