"""Guides that a recipe names: settings, what must fit, exact resuming, several processes."""

from __future__ import annotations

import json
import re
import socket
from dataclasses import asdict

import pytest
import torch
from safetensors.torch import load_file, save_file

from conftest import ROOT
from speechtok.config import from_yaml
from speechtok.errors import CheckpointError, ConfigError
from speechtok.guidance.build import GuidesConfig
from speechtok.guidance.clusters import UnitsConfig, save_centres
from speechtok.guidance.naming import describe
from speechtok.guidance.store import FeatureStore
from speechtok.guidance.teachers import load_semantic_teacher
from speechtok.train.codec import train, weights_of
from speechtok.train.data import WaveStore, read_manifest
from speechtok.train.recipe import CodecRecipe
from speechtok.train.snapshot import load_snapshot, save_snapshot
from speechtok.train.units import UnitsRecipe
from test_train import assert_same, make_recipe, weights
from test_train_processes import finish, logged, start
from tiny_features import extract_store
from tiny_teachers import WIDTH, tiny_hubert, tiny_speaker

SEMANTIC = "guides={semantic: {loss: t_axis, weight: 4}}"


@pytest.fixture(scope="module")
def teachers(tmp_path_factory):
    """Folder of a tiny HuBERT, file of a tiny ECAPA-TDNN."""
    folder = tmp_path_factory.mktemp("teachers")
    return tiny_hubert(folder / "hubert"), tiny_speaker(folder)


def features_of(corpus, hubert, layer="average"):
    """Feature store of the training rows."""
    waves = WaveStore.build(read_manifest(corpus / "corpus.tsv", "train"), 16000, corpus / "cache")
    path = corpus / "features.safetensors"
    extract_store(path, load_semantic_teacher(hubert, layer), describe(str(hubert), layer), waves, waves.lengths)
    return path


def centres_of(folder, hubert, layer="average", clusters=5, dimension=WIDTH, weights=""):
    """Random centres."""
    figures = {"vectors": 9, "inertia": 1.0, "explained": 0.5, "used": 1.0}
    config = UnitsConfig(str(hubert), layer, clusters, dimension, **figures, weights=weights)
    save_centres(folder, torch.randn(clusters, dimension), config)
    return folder


def both(corpus, teachers) -> list[str]:
    """Settings with stored features and a speaker teacher."""
    hubert, speaker = teachers
    features = features_of(corpus, hubert)
    return [
        f"guides.semantic={{teacher: {hubert}, features: {features}, weight: 10}}",
        f"guides.acoustic={{teacher: {speaker}, width: 8, heads: 2, kl: 0.5, cosine: 0.5}}",
        "data.gain_db=[0, 0]",
    ]


# -- settings -------------------------------------------------------------------------------------------------------


def test_no_guides_by_default(corpus):
    recipe = make_recipe(corpus)
    assert recipe.guides == GuidesConfig(None, None)
    assert recipe.guides.weights == {}


@pytest.mark.parametrize(
    ("overrides", "semantic"),
    [
        pytest.param(["guides.semantic.layer=9"], {"loss": "t_axis", "layer": 9, "weight": 4.0}, id="one field"),
        pytest.param(["guides.semantic={loss: cosine}"], {"loss": "cosine", "weight": 4.0}, id="a mapping joins"),
        pytest.param(
            ["guides.semantic.loss=units", "guides.semantic.centres=c"], {"loss": "units", "centres": "c"}, id="pair"
        ),
        pytest.param(
            ["guides.semantic.centres=c", "guides.semantic.loss=units"], {"loss": "units"}, id="pair, other order"
        ),
        pytest.param(["guides.semantic=null"], None, id="off"),
        pytest.param(["guides.semantic=null", "guides.semantic.loss=cosine"], {"loss": "cosine"}, id="off and on"),
    ],
)
def test_overrides_reach_guides(corpus, overrides, semantic):
    found = make_recipe(corpus, SEMANTIC, *overrides).guides.semantic
    if semantic is None:
        assert found is None
    else:
        assert semantic.items() <= asdict(found).items()


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        pytest.param(["guides.semantic.wight=3"], "'wight'", id="unknown field"),
        pytest.param(["guides.semantic.weight=much"], "weight.*much", id="wrong type"),
        pytest.param(["guides.semantic.loss=best"], "loss is 'best'", id="unknown loss"),
        pytest.param(["guides.semantic.layer=top"], "layer", id="unknown layer"),
        pytest.param(["guides.semantic=other.yaml"], "guides.semantic must be a mapping", id="another file"),
        pytest.param(["guides.semantic.class_path=os.path"], "class_path is no name", id="a class to import"),
        pytest.param(["guides.semantic.loss=units"], "guides.semantic.centres", id="units without centres"),
        pytest.param(["guides.semantic.centres=c"], "guides.semantic.centres", id="centres without units"),
        pytest.param(["guides.semantic.teacher=null"], "neither", id="no teacher, no features"),
        pytest.param(["guides.acoustic.align=best"], "align is 'best'", id="unknown alignment"),
        pytest.param(["weights.guides={semantic/t_axis: 3}"], "semantic/t_axis.*section of guides", id="two weights"),
    ],
)
def test_bad_settings_are_refused_in_one_line(corpus, overrides, named):
    with pytest.raises(ConfigError, match=named) as caught:
        make_recipe(corpus, SEMANTIC, *overrides)
    assert "Subtypes" not in str(caught.value)
    assert "NoneType" not in str(caught.value)


def test_weights_of_the_sections_are_those_of_the_losses(corpus):
    recipe = make_recipe(corpus, SEMANTIC, "guides.acoustic.kl=0.25", "weights.guides={mine/loss: 2}")
    wanted = {"semantic/t_axis": 4.0, "acoustic/kl": 0.25, "acoustic/cosine": 0.0, "mine/loss": 2.0}
    assert wanted.items() <= weights_of(recipe, 1.0).items()


def test_the_page_on_guidance_shows_recipes_that_are_read(corpus):
    page = (ROOT / "docs/guidance.md").read_text(encoding="utf-8")
    guides, units = re.findall(r"```yaml\n(.*?)```", page, flags=re.DOTALL)
    make_recipe(corpus)
    with (corpus / "recipe.yaml").open("a") as file:
        file.write(guides)
    recipe = from_yaml(CodecRecipe, corpus / "recipe.yaml", ["data.manifests=[a.tsv]"])
    assert recipe.guides.weights == {"semantic/d_axis": 120.0, "acoustic/kl": 0.5, "acoustic/cosine": 0.0}
    (corpus / "units.yaml").write_text(units)
    assert from_yaml(UnitsRecipe, corpus / "units.yaml").clusters == 500


# -- what must fit --------------------------------------------------------------------------------------------------


def test_the_width_of_the_teacher_is_named(corpus, teachers):
    recipe = make_recipe(corpus, f"guides.semantic.teacher={teachers[0]}", "codec.semantic_dimension=5")
    with pytest.raises(ConfigError, match=rf"set codec\.semantic_dimension={WIDTH}$"):
        train(recipe, corpus / "run")
    assert not (corpus / "run" / "checkpoint.safetensors").exists()


def test_the_number_of_units_is_named_and_right(corpus, teachers):
    centres = centres_of(corpus / "centres", teachers[0])
    units = [f"guides.semantic={{teacher: {teachers[0]}, loss: units, centres: {centres}}}"]
    with pytest.raises(ConfigError, match=r"set codec\.semantic_dimension=5$"):
        train(make_recipe(corpus, *units), corpus / "run")
    train(make_recipe(corpus, *units, "codec.semantic_dimension=5", "steps=3"), corpus / "run")
    row = json.loads((corpus / "run/log.jsonl").read_text().splitlines()[0])
    assert row["semantic/units"] > 0
    assert 0 <= row["semantic/unit_accuracy"] <= 1


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"layer": 1}, id="of another layer"),
        pytest.param({"hubert": "elsewhere"}, id="of another teacher"),
        pytest.param({"dimension": 3}, id="of another width"),
    ],
)
def test_centres_of_other_features_are_refused(corpus, teachers, changed):
    centres = centres_of(corpus / "centres", **({"hubert": teachers[0]} | changed))
    section = f"guides.semantic={{teacher: {teachers[0]}, loss: units, centres: {centres}}}"
    with pytest.raises(ConfigError, match="centres: are centres of"):
        train(make_recipe(corpus, section, "codec.semantic_dimension=5"), corpus / "run")


def test_features_of_another_teacher_or_layer_are_refused(corpus, teachers):
    features = features_of(corpus, teachers[0], layer=1)
    section = f"guides.semantic={{teacher: {teachers[0]}, features: {features}}}"
    with pytest.raises(ConfigError, match=r"features\.safetensors: holds features of .*layer 1"):
        train(make_recipe(corpus, section), corpus / "run")
    train(make_recipe(corpus, section, "guides.semantic.layer=1", "steps=3"), corpus / "named")
    train(make_recipe(corpus, section, "guides.semantic.teacher=null", "steps=3"), corpus / "unnamed")
    assert_same(weights(corpus / "named")["codec"], weights(corpus / "unnamed")["codec"])


def test_what_a_teacher_made_before_it_was_trained_again_is_refused(corpus):
    hubert = tiny_hubert(corpus / "hubert")
    features = features_of(corpus, hubert)
    store = f"guides.semantic={{teacher: {hubert}, features: {features}}}"
    centres = centres_of(corpus / "centres", hubert, weights=FeatureStore(features).weights)
    heard = f"guides.semantic={{teacher: {hubert}, loss: units, centres: {centres}}}"
    train(make_recipe(corpus, store, "steps=1"), corpus / "first")
    train(make_recipe(corpus, heard, "codec.semantic_dimension=5", "steps=1"), corpus / "second")
    tensors = load_file(hubert / "model.safetensors")
    save_file(tensors | {"masked_spec_embed": tensors["masked_spec_embed"] + 1}, hubert / "model.safetensors")
    with pytest.raises(ConfigError, match=r"features\.safetensors: .* trained again"):
        train(make_recipe(corpus, store), corpus / "third")
    with pytest.raises(ConfigError, match=r"centres: .* trained again"):
        train(make_recipe(corpus, heard, "codec.semantic_dimension=5"), corpus / "fourth")


def test_features_of_other_speech_are_refused(corpus, teachers):
    features = features_of(corpus, teachers[0])
    lines = (corpus / "corpus.tsv").read_text().splitlines(keepends=True)
    (corpus / "corpus.tsv").write_text("".join([lines[0], *lines[2:]]))
    section = f"guides.semantic={{teacher: {teachers[0]}, features: {features}}}"
    with pytest.raises(ConfigError, match=r"features\.safetensors: holds 3 utterances .* the 2 at"):
        train(make_recipe(corpus, section), corpus / "run")


@pytest.mark.parametrize(
    ("section", "error"),
    [
        pytest.param("semantic: {features: none.safetensors}", "none.safetensors: missing", id="no features"),
        pytest.param("acoustic: {teacher: ./none.ckpt}", "none.ckpt", id="no speaker model"),
    ],
)
def test_missing_files_are_named(corpus, section, error):
    with pytest.raises(CheckpointError, match=error):
        train(make_recipe(corpus, f"guides={{{section}}}"), corpus / "run")


def test_a_teacher_of_another_rate_must_hear_beforehand(corpus, teachers):
    recipe = make_recipe(corpus, f"guides.semantic.teacher={teachers[0]}", "codec.sample_rate=8000")
    with pytest.raises(ConfigError, match=r"16000 Hz and the codec 8000 Hz.*speechtok features"):
        train(recipe, corpus / "run")


def test_stored_features_serve_a_codec_of_another_rate(corpus, teachers):
    overrides = [setting for setting in both(corpus, teachers) if "acoustic" not in setting]
    train(make_recipe(corpus, *overrides, "codec.sample_rate=8000", "steps=3"), corpus / "run")
    assert json.loads((corpus / "run/log.jsonl").read_text().splitlines()[0])["semantic/d_axis"] > 0


# -- runs -----------------------------------------------------------------------------------------------------------


def test_stop_and_resume_with_both_guides_equals_never_stopping(corpus, teachers):
    recipe = make_recipe(corpus, *both(corpus, teachers))
    train(recipe, corpus / "straight")
    torch.manual_seed(99)  # what a new process brings along must not matter
    train(recipe, corpus / "broken", stop_at=4)
    torch.rand(7)
    train(recipe, corpus / "broken")
    straight = weights(corpus / "straight")
    assert any(name.startswith("1.layer.") for name in straight["guides"])
    assert_same(straight, weights(corpus / "broken"))


def test_a_run_with_other_guides_is_not_continued(corpus, teachers):
    settings = both(corpus, teachers)
    train(make_recipe(corpus, *settings), corpus / "run", stop_at=3)
    with pytest.raises(ConfigError, match="another guides"):
        train(make_recipe(corpus, *settings, "guides.acoustic.kl=0.1"), corpus / "run")


def test_a_run_from_before_there_were_guides_goes_on(corpus):
    recipe = make_recipe(corpus)
    train(recipe, corpus / "run", stop_at=4)
    saved = weights(corpus / "run")
    then = json.loads(saved["recipe"])
    del then["guides"]
    save_snapshot(corpus / "run/checkpoint.safetensors", saved | {"recipe": json.dumps(then)})
    assert train(recipe, corpus / "run").step == recipe.steps


def test_two_processes_with_guides_do_what_one_does(corpus, teachers):
    recipe = make_recipe(corpus, *both(corpus, teachers), "data.batch=4", "log_every=1", "codec.quantizer.dropout=0")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for folder in ("one", "two"):
        (corpus / folder).mkdir()
    finish(*(start(recipe, corpus / "two", rank, 2, port) for rank in range(2)), start(recipe, corpus / "one"))
    first, second = (load_snapshot(corpus / "two" / f"rank-{rank}") for rank in range(2))
    assert_same(first, second)
    pairs = [row for row in zip(logged(corpus / "two"), logged(corpus / "one"), strict=True) if "acoustic/kl" in row[0]]
    assert len(pairs) >= 4
    for ours, theirs in pairs:  # each process was taught with its own crops, or these means would differ
        for name in ("semantic/d_axis", "semantic/cosine_time", "acoustic/kl", "acoustic/cosine"):
            assert ours[name] == pytest.approx(theirs[name], rel=1e-3, abs=1e-5), name


def test_the_command_trains_with_guides(corpus, teachers, cli):
    make_recipe(corpus)
    places = [f"data.manifests=[{corpus}/corpus.tsv]", f"data.cache={corpus}/cache", f"out={corpus}/run", "steps=3"]
    code, _, errors = cli(
        "train", "codec", corpus / "recipe.yaml", *places, f"guides.semantic.teacher={teachers[0]}", "log_every=1"
    )
    assert (code, [line for line in errors if "error" in line]) == (0, [])
    rows = [json.loads(line) for line in (corpus / "run/log.jsonl").read_text().splitlines()]
    assert rows[-2]["semantic/d_axis"] > 0
