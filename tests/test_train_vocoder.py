"""The trainer of vocoders in miniature: prosody, tracks, resuming, beginnings, recipes, release."""

import json
import math

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

import speechtok
from conftest import ROOT, synthetic_speech
from speechtok.audio import Audio
from speechtok.config import from_yaml
from speechtok.errors import ConfigError
from speechtok.tokenizers.units import UnitTokenizer, save_units
from speechtok.tokenizers.vocoder import load_vocoder
from speechtok.train.prosody import MIDDLE, prosody
from speechtok.train.tracks import Track
from speechtok.train.vocoder import VocoderLearner, train, weights_of
from speechtok.train.vocoder_recipe import VocoderRecipe
from test_train import assert_same, weights
from tiny_vocoder import FRAME, tiny_units

RECIPE = """
steps: 8
log_every: 4
validate_every: 4
checkpoint_every: 4
prompt: {seconds: 0.2}
data: {seconds: 0.2, batch: 2, validation_files: 2, gain_db: [0, 0]}
vocoder:
  codebook_sizes: [12]
  code_dimension: 20
  prosody: false
  conformer: {width: 8, heads: 2, blocks: 1, feed_forward: 12, kernel: 5}
  hifigan: {channels: 16, kernels: [3], dilations: [1]}
  frame: {width: 8, expansion: 2, encoder_blocks: 1, decoder_blocks: 1}
  latent: 6
mel: {windows: [256, 512], bands: [10, 20]}
adversary: {start: 3, ramp: 2, seconds: 0.08, per_step: 1, stft: {filters: 4, windows: [256, 128]}}
"""


@pytest.fixture(scope="module")
def units():
    return tiny_units()


def make_recipe(corpus, units, *overrides: str) -> VocoderRecipe:
    (corpus / "vocoder.yaml").write_text(RECIPE)
    save_units(units, corpus / "units")
    places = [f"data.manifests=[{corpus}/corpus.tsv]", f"data.cache={corpus}/cache", f"tokenizer={corpus}/units"]
    return from_yaml(VocoderRecipe, corpus / "vocoder.yaml", [*places, *overrides])


# -- prosody and tracks ---------------------------------------------------------------------------------------------


def test_prosody_of_a_tone_that_rises_and_falls_silent():
    pytest.importorskip("parselmouth", reason="pitch is Praat's")
    time = np.arange(16000) / 16000
    voice = sum(np.sin(2 * np.pi * k * np.cumsum(150 + 50 * time) / 16000) / k for k in range(1, 9))
    wave = np.concatenate([0.2 * voice, np.zeros(8000)]).astype(np.float32)
    rows = prosody(wave, 16000, 320)
    assert rows.shape == (75, 3) and rows.dtype == np.float32
    assert rows[5:45, 0].all() and not rows[55:, 0].any()
    middle = (np.arange(5, 45) + 0.5) * 320 / 16000
    assert rows[5:45, 1] == pytest.approx(np.log((150 + 50 * middle) / MIDDLE), abs=0.03)
    assert np.ptp(rows[60:, 1]) == 0 and rows[60, 2] == pytest.approx(math.log(1e-3) + 4, abs=1e-3)


def test_prosody_of_what_is_too_short_for_a_pitch():
    pytest.importorskip("parselmouth", reason="pitch is Praat's")
    assert prosody(np.ones(7, np.float32), 16000, 320).shape == (1, 3)


@given(st.integers(1, 40), st.integers(0, 39))
def test_a_track_gives_crops_their_rows_and_repeats_the_last(frames, start):
    track = Track(np.arange(50)[:, None], np.array([0, 40, 50]), 320)
    found = track.batch([0], [start * 320], frames)[0, :, 0]
    assert found.tolist() == [min(start + i, 39) for i in range(frames)]


def test_a_damaged_track_is_made_anew(corpus):
    from speechtok.train.data import WaveStore, read_manifest

    store = WaveStore.build(read_manifest(corpus / "corpus.tsv", "train"), 16000, corpus / "cache")
    made = []

    def rows_of(wave):
        made.append(len(wave))
        return wave[::320, None]

    first = Track.build(store, "x", 320, rows_of, corpus / "cache")
    Track.build(store, "x", 320, rows_of, corpus / "cache")
    assert len(made) == len(store)
    next((corpus / "cache").glob("track-*")).write_bytes(b"cut short")
    assert np.array_equal(Track.build(store, "x", 320, rows_of, corpus / "cache").rows, first.rows)
    assert len(made) == 2 * len(store)


# -- trainer --------------------------------------------------------------------------------------------------------

FRAMED = ("vocoder.backend=frame", "vocoder.repeat=1", "weights.magnitude=1")


@pytest.mark.parametrize("options", [(), FRAMED], ids=["hifigan", "frame"])
def test_stop_and_resume_equals_never_stopping_bit_for_bit(corpus, units, options):
    recipe = make_recipe(corpus, units, *options, "segment=0.1")
    train(recipe, corpus / "straight")
    train(recipe, corpus / "broken", stop_at=4)
    train(recipe, corpus / "broken")
    assert_same(weights(corpus / "straight"), weights(corpus / "broken"))
    rows = [json.loads(line) for line in (corpus / "straight/log.jsonl").read_text().splitlines()]
    assert {"mel/auxiliary", "mel/l1", "adversarial/lsgan", "discriminator/lsgan"} <= set(rows[-2])
    assert {"mel/auxiliary", "mel/resynthesis"} <= set(rows[-1])


def test_it_learns_the_spectrogram_of_its_codes(corpus, units):
    recipe = make_recipe(corpus, units, *FRAMED, "weights.adversarial=0", "steps=60", "optimisation.rate=0.01")
    recipe.optimisation.warmup = 5
    learner = VocoderLearner(recipe)
    values = [learner.advance() for _ in range(40)]
    assert np.mean([v["mel/auxiliary"] for v in values[-5:]]) < 0.8 * values[0]["mel/auxiliary"]
    assert np.mean([v["magnitude/l1"] for v in values[-5:]]) < 0.9 * values[0]["magnitude/l1"]


def test_the_model_of_a_run_speaks_for_its_units(corpus, units):
    recipe = make_recipe(corpus, units, *FRAMED)
    learner = train(recipe, corpus / "run")
    vocoder = load_vocoder(corpus / "run/model")
    speaking = UnitTokenizer(units.source, "speaking", vocoder=vocoder)
    audio = synthetic_speech(0.5)
    again = speaking.decode(speaking.encode(audio))
    assert len(again.samples) == len(audio.samples)
    assert np.allclose(vocoder.voice, learner.finished().voice)
    samples = list(learner.samples(1))
    assert set(samples[0].waves) == {"original", "resynthesis"}


def test_codes_of_a_crop_are_those_of_its_utterance(corpus, units):
    learner = VocoderLearner(make_recipe(corpus, units))
    speech = learner.speech
    batch = learner.batch(speech, 0)
    picks, starts = speech.crops.places(0)
    for row, pick, start in zip(batch.codes, picks, starts, strict=True):
        whole = units.encode(Audio(speech.crops.store[pick], 16000)).codes[0]
        first = start // 320 + 10  # after 0.2 s of prompt
        assert row[0].tolist() == whole[first : first + 10].tolist()


def test_centres_and_codecs_are_where_a_vocoder_may_begin(corpus, units, tmp_path):
    from speechtok.nn.codec import Codec, CodecConfig
    from speechtok.nn.quantizers import QuantizerConfig
    from speechtok.tokenizers.checkpoint import save_codec

    shape = CodecConfig(
        backbone="frame", dimension=6, semantic_dimension=6, codebook_size=8, n_q=1, frame=FRAME,
        quantizer=QuantizerConfig(kmeans_iterations=2),
    )  # fmt: skip
    codec = Codec(shape)
    save_codec(codec, tmp_path / "codec")
    learner = VocoderLearner(make_recipe(corpus, units, *FRAMED, f"start={tmp_path / 'codec'}", "weights.latent=1"))
    begun = learner.model.backend.decoder.state_dict()
    assert all(torch.equal(value, begun[key]) for key, value in codec.decoder.state_dict().items())
    centres = units.source.centres
    assert torch.allclose(learner.model.codes[0].weight, (centres - centres.mean(0)) / centres.std(0).clamp_min(1e-3))
    assert "latent/l1" in learner.advance()


@pytest.mark.parametrize("options", [(), FRAMED], ids=["hifigan", "frame"])
def test_a_run_may_begin_with_the_weights_of_another(corpus, units, options):
    first = train(make_recipe(corpus, units, *options), corpus / "first")
    recipe = make_recipe(corpus, units, *options, f"begin={corpus / 'first/model'}", "seed=7")
    second = VocoderLearner(recipe)
    codes, prompt = torch.zeros(1, 1, 5, dtype=torch.long), torch.randn(1, 4, first.features.dimension)
    assert torch.allclose(second.model.eval()(codes, prompt), first.average(codes, prompt), atol=1e-5)
    with pytest.raises(ConfigError, match="another shape"):
        VocoderLearner(make_recipe(corpus, units, *options, f"begin={corpus / 'first/model'}", "vocoder.bands=70"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param(["tokenizer="], "tokenizer is empty", id="no tokenizer"),
        pytest.param(["vocoder.codebook_sizes=[7]"], r"codebooks \[12\]; set", id="other codebooks"),
        pytest.param(["tokenizer=logmel-soft"], "a vocoder needs codes", id="no codes"),
        pytest.param(["data.gain_db=[-3, 0]"], "gain_db must be", id="gain"),
        pytest.param(["data.seconds=9"], "no utterance of split 'train' lasts", id="too long"),
        pytest.param(["start=speechtok-base"], "backend=frame", id="codec for hifigan"),
        pytest.param([*FRAMED, "start=speechtok-base"], "no frame codec of", id="codec of another shape"),
        pytest.param(["weights.latent=1"], "name it by start", id="no codec"),
        pytest.param(["segment=0.01"], "longest of mel.windows", id="segment"),
    ],
)
def test_recipes_that_do_not_fit_are_refused(corpus, units, changes, message):
    with pytest.raises(ConfigError, match=message):
        VocoderLearner(make_recipe(corpus, units, *changes))


RECIPES = [p for p in sorted((ROOT / "recipes").glob("*.yaml")) if "vocoder" in yaml.safe_load(p.read_text())]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipe_runs_in_miniature_with_all_losses(path, corpus, units, tmp_path):
    from tiny_teachers import tiny_hubert

    wanted = yaml.safe_load(path.read_text())
    if wanted["vocoder"].get("prosody"):
        pytest.importorskip("parselmouth", reason="this recipe learns Praat's pitch")
    save_units(units, corpus / "units")
    changes = [
        *("steps=3", "log_every=1", "validate_every=3", "checkpoint_every=3", f"tokenizer={corpus}/units", "voice="),
        *(f"data.manifests=[{corpus}/corpus.tsv]", f"data.cache={corpus}/cache", "data.validation=[]", "segment=0"),
        *("data.seconds=0.2", "data.batch=2", "data.validation_files=2", "prompt.seconds=0.2", "precision=fp32"),
        *("vocoder.codebook_sizes=[12]", "vocoder.code_dimension=4", "vocoder.latent=6", "vocoder.conformer.width=8"),
        *("vocoder.conformer.blocks=1", "vocoder.conformer.feed_forward=8", "vocoder.hifigan.channels=16"),
        *("vocoder.frame.width=8", "vocoder.frame.decoder_blocks=1", "start=", "weights.latent=0"),
        *("adversary.start=1", "adversary.ramp=1", "adversary.seconds=0.19", "adversary.per_step=0"),
        *("adversary.stft.filters=2", "adversary.period.width=0.01", "adversary.scale.width=0.01"),
    ]
    if wanted.get("prompt", {}).get("features", "mel") != "mel":
        changes += [f"prompt.features={tiny_hubert(tmp_path / 'hubert')}", "prompt.layer=1"]
    recipe = from_yaml(VocoderRecipe, path, changes)
    train(recipe, tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    final = [row for row in rows if row["kind"] == "train"][-1]
    counted = {name for name, weight in weights_of(recipe, 2).items() if weight}
    if not recipe.vocoder.prosody:
        counted.discard("prosody/l1")
    assert {name: final.get(name) for name in counted if not math.isfinite(final.get(name, math.nan))} == {}


def test_units_and_vocoder_are_released_into_one_folder(corpus, tmp_path):
    from speechtok.guidance.clusters import UnitsConfig, save_centres
    from speechtok.nn import hubert
    from speechtok.tokenizers.units import trained_units
    from speechtok.train import release

    pytest.importorskip("transformers", reason="the teacher's network is that of transformers")
    sizes = {"width": 16, "heads": 2, "feed_forward": 24, "position_kernel": 4, "position_groups": 2}
    shape = hubert.HubertShape(bands=20, layers=1, **sizes)
    hubert.save(hubert.build(shape, 3), tmp_path / "run/model", {"classes": ["a", "b", "c"], "loss": "frames"})
    assert release.main([str(tmp_path / "run"), "--teacher", "-o", str(tmp_path / "half")]) == 0
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("run/model", "half")]
    assert sizes[1] < 0.7 * sizes[0]
    centres = torch.randn(12, 16)
    said = UnitsConfig(str(tmp_path / "half"), "average", 12, 16, 100, inertia=1.0, explained=0.5, used=1.0)
    save_centres(tmp_path / "centres", centres, said)
    tokenizer = trained_units(tmp_path / "centres", "mine")
    train(make_recipe(corpus, tokenizer, "vocoder.code_dimension=16"), tmp_path / "voice")
    (tmp_path / "card.yaml").write_text("licence_weights: CC BY 4.0\nnote: a test\n")
    arguments = [str(tmp_path / "centres"), "--vocoder", str(tmp_path / "voice"), "-o", str(tmp_path / "mine")]
    assert release.main([*arguments, "--card", str(tmp_path / "card.yaml")]) == 0
    released = speechtok.load(tmp_path / "mine")
    audio = synthetic_speech(0.5)
    assert released.encode(audio).codes.tolist() == tokenizer.encode(audio).codes.tolist()
    assert len(released.decode(released.encode(audio)).samples) == 8000
    assert (released.licence, released.note, released.voices) == ("CC BY 4.0", "a test", True)
    with pytest.raises(ConfigError, match="name its YAML file by --card"):
        release.main(arguments)
