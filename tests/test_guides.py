"""Guides inside the trainer: their losses count, their teachers stay outside, their targets belong to the crops."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
import yaml

from speechtok.config import from_mapping, from_yaml
from speechtok.errors import ConfigError
from speechtok.guidance.acoustic import AcousticConfig
from speechtok.guidance.frames import CodecGrid, FrameLaw
from speechtok.guidance.guides import AcousticGuide, HeardCrops, SemanticGuide, StoredFeatures
from speechtok.guidance.losses import SemanticConfig
from speechtok.guidance.speaker import SpeakerTeacher
from speechtok.guidance.store import FeatureStore, write_features
from speechtok.guidance.targets import assign_units
from speechtok.nn.codec import Codec, CodecConfig
from speechtok.nn.ecapa import ECAPA, ECAPAConfig
from speechtok.train.codec import State, train, train_step
from speechtok.train.data import Crops, WaveStore, read_manifest
from speechtok.train.recipe import CodecRecipe

GRID = CodecGrid(16000, 320)
LAW = FrameLaw(16000, 320, 400)
SPEAKER = ECAPAConfig(bands=12, channels=8, aggregate=12, embedding=6, scale=4, squeeze=4, attention=4)
RECIPE = """
steps: 4
log_every: 4
validate_every: 4
checkpoint_every: 4
data: {seconds: 0.16, batch: 4, validation_files: 1}
codec:
  backbone: frame
  dimension: 8
  semantic_dimension: 5
  codebook_size: 16
  n_q: 3
  quantizer: {kmeans_iterations: 2}
  frame: {width: 16, expansion: 2, encoder_blocks: 1, decoder_blocks: 1}
mel: {windows: [256, 512], bands: [10, 20]}
weights: {adversarial: 0, feature: 0, guides: {semantic/d_axis: 10.0, acoustic/kl: 0.5, acoustic/cosine: 0.5}}
"""


class Bands(torch.nn.Module):
    """A frozen teacher of five features: loudness in five parts of the window, on a logarithmic scale."""

    law, dimension = LAW, 5

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(5), requires_grad=False)

    def forward(self, wave, lengths=None):
        parts = wave.unfold(1, 400, 320).unflatten(2, (5, 80))
        features = parts.square().mean(3).add(1e-4).log() * self.scale
        return features, torch.ones(features.shape[:2], dtype=torch.bool)


@pytest.fixture
def recipe(corpus) -> CodecRecipe:
    (corpus / "recipe.yaml").write_text(RECIPE)
    places = [f"data.manifests=[{corpus}/corpus.tsv]", f"data.cache={corpus}/cache"]
    return from_yaml(CodecRecipe, corpus / "recipe.yaml", places)


def guides() -> list[torch.nn.Module]:
    torch.manual_seed(0)
    acoustic = AcousticConfig(width=8, heads=2)
    return [
        SemanticGuide(SemanticConfig(), HeardCrops(Bands(), GRID)),
        AcousticGuide(acoustic, SpeakerTeacher(ECAPA(SPEAKER)), 8, GRID),
    ]


def test_guides_hear_no_padding():
    """Crops whose last half is padding, with zeros and with noise in it."""
    torch.manual_seed(0)
    wave, teacher = 0.1 * torch.randn(2, 6400), SpeakerTeacher(ECAPA(SPEAKER))
    lengths, short = np.array([6400, 3200]), torch.zeros(2, 6400, dtype=torch.bool)
    short[1, 3200:] = True
    asked = []

    class Listening(Bands):
        def forward(self, wave, lengths=None):
            features, mask = super().forward(wave)
            asked.append(lengths)
            if lengths is not None:
                mask &= torch.arange(19) < (lengths[:, None] - 400) // 320 + 1
            return features, mask

    source = HeardCrops(Listening(), GRID, lambda step: lengths + 10 * step)
    _, mask = source(wave, 0, 20)
    assert mask[0, :19].all() and mask[1].sum() == 9 and asked[-1].tolist() == [6400, 3200]
    assert HeardCrops(Listening(), GRID, lambda step: lengths + 3200)(wave, 0, 20)[1][1].sum() == 19
    assert asked[-1] is None
    codec = Codec(from_mapping(CodecConfig, yaml.safe_load(RECIPE)["codec"], "codec"))
    settings = (AcousticConfig(width=8, heads=2), teacher, 8, GRID)
    guide = AcousticGuide(*settings, lambda step: lengths).requires_grad_(False)
    latent = torch.randn(2, 20, 8)
    codec.quantizer.initialise(latent.flatten(0, 1))
    codec.eval()
    one, other = (codec.quantizer(x) for x in (latent, latent.masked_fill(short[:, ::320, None], 3.0)))
    clean = wave.masked_fill(short, 0)
    whole = AcousticGuide(*settings).requires_grad_(False)
    whole.load_state_dict(guide.state_dict())
    alike, apart = ([float(g(codec, clean, q, 0)["acoustic/kl"]) for q in (one, other)] for g in (guide, whole))
    assert alike[0] == pytest.approx(alike[1], rel=1e-5) and apart[0] != pytest.approx(apart[1], rel=1e-5)


def test_padding_of_short_utterances_teaches_no_codebook(recipe):
    state = State(recipe)
    state.step = recipe.quantize_from
    wave = torch.cat([0.1 * torch.randn(4, 1280), torch.zeros(4, recipe.samples - 1280)], 1)
    seen = []
    state.codec.quantizer.initialise(torch.randn(64, 8))
    layer = state.codec.quantizer.layers[0]
    update, layer.update = layer.update, lambda vectors, codes: seen.append(len(vectors)) or update(vectors, codes)
    train_step(state, wave, torch.full((4,), 1280))
    train_step(state, wave, torch.full((4,), recipe.samples))
    hop = recipe.codec.hop
    assert seen == [4 * 1280 // hop, 4 * recipe.samples // hop]


def test_a_run_with_both_guides_logs_their_losses_and_saves_no_teacher(recipe, corpus):
    state = train(recipe, corpus / "run", guides=guides())
    row = next(json.loads(line) for line in (corpus / "run/log.jsonl").read_text().splitlines())
    wanted = {"semantic/d_axis", "semantic/cosine_time", "semantic/cosine_frame", "acoustic/kl", "acoustic/cosine"}
    assert wanted <= set(row)
    assert all(math.isfinite(row[name]) for name in wanted)
    assert all(name.startswith("1.layer.") for name in state.guides.state_dict())


def test_guides_teach_the_codec_and_learn_themselves(recipe):
    recipe.steps, recipe.optimisation.warmup, recipe.optimisation.rate = 200, 1, 1e-2
    state = State(recipe, guides())
    loudness = torch.rand(4, 8, generator=torch.Generator().manual_seed(0)).repeat_interleave(320, 1)
    wave = 0.3 * loudness.square() * torch.randn(4, 2560, generator=torch.Generator().manual_seed(1))
    before = state.guides[1].layer.project.weight.detach().clone()
    values = [train_step(state, wave) for _ in range(20)]
    assert values[-1]["semantic/cosine_time"] > values[0]["semantic/cosine_time"] + 0.2
    assert values[-1]["acoustic/cosine"] < values[0]["acoustic/cosine"] - 0.2
    assert not torch.equal(state.guides[1].layer.project.weight, before)


def test_stored_features_belong_to_the_crops(recipe, corpus):
    waves = WaveStore.build(read_manifest(corpus / "corpus.tsv", "train"), 16000, corpus / "cache")
    ramps = [np.arange(LAW.frames(n))[:, None] * 0.02 + 100 * i for i, n in enumerate(waves.lengths)]
    write_features(corpus / "f.safetensors", ramps, waves.lengths, 1, LAW, "ramp")
    store = FeatureStore(corpus / "f.safetensors")
    store.check(waves.lengths, 16000)
    crops = Crops(waves, recipe.samples, 4, seed=1)
    features, mask = StoredFeatures(store, crops.places, GRID)(torch.from_numpy(crops(7)), 7, 8)
    picks, starts = crops.places(7)
    times = torch.from_numpy(starts[:, None] + 320 * np.arange(8)) / 16000 + 100 * torch.from_numpy(picks)[:, None]
    assert ((features[..., 0] - times).abs()[mask] < 0.01 + 0.07).all()  # half a frame, and float16 at 200
    assert mask[:, :6].all()
    with pytest.raises(ConfigError, match="of this process"):
        StoredFeatures(store, crops.places, GRID)(torch.zeros(2, 2560), 7, 8)


def test_units_are_the_nearest_centres_and_are_learned(recipe):
    centres = torch.tensor([[0.0] * 5, [-9.0] * 5, [5.0] * 5, [9.0] * 5, [-5.0] * 5])
    features = centres[[3, 1, 0]][None] + 0.1
    assert assign_units(features, centres).tolist() == [[3, 1, 0]]
    guide = SemanticGuide(SemanticConfig("units"), HeardCrops(Bands(), GRID), centres)
    recipe.weights.guides = {"semantic/units": 1.0}
    values = train_step(State(recipe, [guide]), torch.randn(4, 2560))
    assert values["semantic/units"] > 0
    assert 0 <= values["semantic/unit_accuracy"] <= 1


def test_guides_that_cannot_be_are_refused():
    with pytest.raises(ConfigError, match="centres"):
        SemanticGuide(SemanticConfig("units"), HeardCrops(Bands(), GRID))
    with pytest.raises(ConfigError, match="24000"):
        AcousticGuide(AcousticConfig(), SpeakerTeacher(ECAPA(SPEAKER)), 8, CodecGrid(24000, 480))
