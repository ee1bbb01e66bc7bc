"""The codec trainer in miniature: it learns, resumes exactly, and refuses what it should."""

import json
import math
import tracemalloc

import numpy as np
import pytest
import soundfile
import torch

import speechtok
from speechtok.config import from_yaml
from speechtok.errors import AudioError, CheckpointError, ConfigError, OutputError, TrainingError
from speechtok.tokenizers.checkpoint import save_codec
from speechtok.train import data, release
from speechtok.train.adversary import adversarial_ramp, judges_of_step
from speechtok.train.codec import State, speech_of, train, train_step
from speechtok.train.data import Crops, WaveStore, read_manifest
from speechtok.train.losses import MultiScaleMel, discriminator_loss, feature_loss
from speechtok.train.recipe import CodecRecipe
from speechtok.train.snapshot import load_snapshot, save_snapshot
from tiny import tiny_codec

RECIPE = """
steps: 8
quantize_from: 2
log_every: 4
validate_every: 4
checkpoint_every: 4
data: {seconds: 0.16, batch: 2, validation_files: 1}
codec:
  backbone: frame
  dimension: 8
  semantic_dimension: 8
  codebook_size: 16
  n_q: 2
  quantizer: {dropout: 0.5, kmeans_iterations: 2}
  frame: {width: 16, expansion: 2, encoder_blocks: 1, decoder_blocks: 1}
mel: {windows: [256, 512], bands: [10, 20]}
adversary: {start: 3, ramp: 2, seconds: 0.08, per_step: 1, stft: {filters: 4, windows: [256, 128]}}
"""


def make_recipe(corpus, *overrides: str) -> CodecRecipe:
    (corpus / "recipe.yaml").write_text(RECIPE)
    places = [f"data.manifests=[{corpus}/corpus.tsv]", f"data.cache={corpus}/cache"]
    return from_yaml(CodecRecipe, corpus / "recipe.yaml", [*places, *overrides])


def weights(folder):
    return load_snapshot(folder / "checkpoint.safetensors")


def assert_same(one, other, where=""):
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_same(one[key], other[key], f"{where}/{key}")
    elif isinstance(one, list):
        for i, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_same(a, b, f"{where}/{i}")
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    else:
        assert one == other, where


def test_stop_and_resume_equals_never_stopping_bit_for_bit(corpus):
    recipe = make_recipe(corpus)
    train(recipe, corpus / "straight")
    train(recipe, corpus / "broken", stop_at=4)
    train(recipe, corpus / "broken")
    assert_same(weights(corpus / "straight"), weights(corpus / "broken"))


def test_run_leaves_model_log_and_recipe(corpus):
    train(make_recipe(corpus), corpus / "run")
    rows = [json.loads(line) for line in (corpus / "run/log.jsonl").read_text().splitlines()]
    assert [(r["kind"], r["step"]) for r in rows] == [
        (kind, step) for step in (4, 8) for kind in ("train", "validation")
    ]
    assert {"mel/l1", "magnitude/l1", "commitment/mse", "adversarial/lsgan", "discriminator/lsgan"} <= set(rows[-2])
    assert (corpus / "run/model/model.safetensors").exists() and (corpus / "run/recipe.json").exists()


def test_losses_fall_on_a_single_batch(corpus):
    options = ("weights.adversarial=0", "optimisation.warmup=1", "optimisation.rate=0.01")
    recipe = make_recipe(corpus, *options, "quantize_from=0", "steps=99")
    store = WaveStore.build(read_manifest(corpus / "corpus.tsv", "train"), 16000, corpus / "cache")
    state, wave = State(recipe), torch.from_numpy(Crops(store, recipe.samples, 2, 0)(0))
    history = [train_step(state, wave) for _ in range(60)]
    assert history[-1]["magnitude/l1"] < 0.6 * history[0]["magnitude/l1"]
    assert history[-1]["mel/l1"] < 0.6 * history[0]["mel/l1"]


def test_another_recipe_in_the_same_folder_is_refused(corpus):
    train(make_recipe(corpus), corpus / "run", stop_at=4)
    with pytest.raises(ConfigError, match="weights"):
        train(make_recipe(corpus, "weights.mel=3"), corpus / "run")


@pytest.mark.parametrize(
    "override, message",
    [
        ("codec.frame.wide=3", "wide"),
        ("steps=many", "steps"),
        ("weights.mel", "name=value"),
        ("data.manifests=[]", "manifests"),
        ("data.seconds=0.01", "shorter"),
        ("data.batch=0", r"data\.batch"),
        ("steps=0", "steps"),
        ("log_every=0", "log_every"),
        ("quantize_from=-1", "quantize_from"),
        ("threads=-1", "threads"),
        ("weights.guides={semantic/typo: 1.0}", "semantic/typo"),
        ("codec.backbone=resnet", "resnet"),
        ("data.manifests=[missing.tsv]", "missing.tsv"),
    ],
)
def test_mistakes_in_a_recipe_are_named_in_one_line(corpus, override, message):
    with pytest.raises(ConfigError, match=message) as caught:
        train(make_recipe(corpus, override), corpus / "run", stop_at=1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("out, cache", [("file/run", "cache"), ("run", "file")], ids=["out", "cache"])
def test_folders_that_cannot_be_made_are_named_in_one_line(corpus, out, cache):
    (corpus / "file").write_text("in the way")
    with pytest.raises(OutputError, match=r"file.*cannot make this folder") as caught:
        train(make_recipe(corpus, f"data.cache={corpus}/{cache}"), corpus / out, stop_at=1)
    assert "\n" not in str(caught.value)


def test_a_loss_that_is_no_number_stops_the_run_and_leaves_its_files_alone(corpus):
    recipe = make_recipe(corpus, "weights.guides={semantic/toy: 2.0}", "checkpoint_every=1", "log_every=1")
    train(recipe, corpus / "run", stop_at=4, guides=[Toy()])
    before = (corpus / "run/checkpoint.safetensors").read_bytes()
    with pytest.raises(TrainingError, match="step 4: semantic/toy is nan") as caught:
        train(recipe, corpus / "run", guides=[Toy(math.nan)])
    assert "\n" not in str(caught.value)
    assert (corpus / "run/checkpoint.safetensors").read_bytes() == before
    assert "NaN" not in (corpus / "run/log.jsonl").read_text()


def test_a_gradient_that_is_no_number_changes_no_weight(corpus):
    recipe = make_recipe(corpus, "quantize_from=99")
    state = State(recipe)
    before = {name: value.clone() for name, value in state.codec.state_dict().items()}
    trained = next(one for one in state.codec.decoder.parameters() if one.requires_grad)
    trained.register_hook(lambda gradient: gradient * math.inf)
    with pytest.raises(TrainingError, match="step 0: gradient/norm"):
        train_step(state, torch.randn(2, recipe.samples) * 0.1)
    assert_same(before, dict(state.codec.state_dict()))


def test_missing_audio_is_named(corpus):
    (corpus / "1.wav").unlink()
    with pytest.raises(AudioError, match=r"1\.wav"):
        train(make_recipe(corpus), corpus / "run", stop_at=1)


def test_crops_depend_on_seed_and_step_alone_and_split_over_processes(corpus):
    store = WaveStore.build(read_manifest(corpus / "corpus.tsv", "train"), 16000, corpus / "cache")
    crops = Crops(store, 4000, 4, seed=1, gain_db=(-6, 3))
    assert np.array_equal(crops(7), crops(7)) and not np.array_equal(crops(7), crops(8))
    whole = crops(7)
    for process in range(2):
        assert np.array_equal(crops(7, process, 2), whole[2 * process : 2 * process + 2])


def test_store_holds_the_samples_of_the_files(corpus):
    rows = read_manifest(corpus / "corpus.tsv", "train")
    store = WaveStore.build(rows, 16000, corpus / "cache")
    for wave, row in zip([store[i] for i in range(len(store))], rows, strict=True):
        np.testing.assert_allclose(wave, soundfile.read(row.path)[0], atol=1e-4)
    again = WaveStore.build(rows, 16000, corpus / "cache")
    assert isinstance(again.samples, np.memmap) and np.array_equal(again.samples, store.samples)


def test_a_store_is_made_with_one_utterance_in_memory(corpus, monkeypatch):
    size, rows = 250_000, read_manifest(corpus / "corpus.tsv", "train") * 10
    monkeypatch.setattr(data, "_int16", lambda path, rate: np.full(size, 7, np.int16))
    tracemalloc.start()
    store = WaveStore.build(rows, 16000, corpus / "cache")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6 * size < store.samples.nbytes / 9
    assert store.lengths.tolist() == [size] * 30 and (store.samples == 7).all()


def test_a_store_that_could_not_be_finished_is_not_there(corpus):
    (corpus / "2.wav").write_bytes(b"no speech")
    for _ in range(2):
        with pytest.raises(AudioError, match=r"2\.wav"):
            WaveStore.build(read_manifest(corpus / "corpus.tsv", "train"), 16000, corpus / "cache")
    assert list((corpus / "cache").iterdir()) == []


def test_other_speech_in_the_same_run_is_refused_and_the_same_elsewhere_is_not(corpus):
    train(make_recipe(corpus), corpus / "run", stop_at=4)
    for name in ("corpus.tsv", *(f"{i}.wav" for i in range(4))):
        (corpus / "moved").mkdir(exist_ok=True)
        (corpus / "moved" / name).write_bytes((corpus / name).read_bytes())
    moved = f"data.manifests=[{corpus}/moved/corpus.tsv]"
    train(make_recipe(corpus, moved), corpus / "run", stop_at=5)
    soundfile.write(corpus / "moved/1.wav", np.zeros(9000), 16000)
    with pytest.raises(ConfigError, match="other speech") as caught:
        train(make_recipe(corpus, moved), corpus / "run")
    assert "\n" not in str(caught.value)
    saved = weights(corpus / "run")
    saved.pop("corpus")  # as before checkpoints knew
    save_snapshot(corpus / "run/checkpoint.safetensors", saved)
    assert train(make_recipe(corpus, moved), corpus / "run").step == 8


def test_nothing_is_said_of_codebooks_that_are_not_placed(corpus):
    train(make_recipe(corpus, "quantize_from=4"), corpus / "run")
    rows = [json.loads(line) for line in (corpus / "run/log.jsonl").read_text().splitlines()]
    before, after = (row for row in rows if row["kind"] == "validation")
    assert set(before) - {"kind", "step"} == {"mel/continuous"} and math.isfinite(before["mel/continuous"])
    assert "codes/used" in after and "mel/continuous" not in after


def test_adversary_starts_on_time_and_takes_turns(corpus):
    recipe = make_recipe(corpus)
    assert [adversarial_ramp(recipe, step) for step in (0, 2, 3, 4, 9)] == [0, 0, 0.5, 1, 1]
    assert [judges_of_step(recipe, step) for step in range(3)] == [(0,), (1,), (0,)]


def test_perfect_reconstruction_costs_nothing():
    wave = torch.randn(2, 4000)
    assert float(MultiScaleMel(16000, (256, 512), (10, 20))(wave, wave)) == 0
    judged = [(torch.ones(2, 3), [torch.randn(2, 4)])]
    assert float(feature_loss(judged, judged)) == 0
    assert float(discriminator_loss(judged, [(torch.zeros(2, 3), [])])) == 0


def test_snapshot_round_trip_and_refusals(tmp_path):
    state = {"a": {0: torch.arange(3), "b": [1, 2.5, None, "x"]}, "t": torch.eye(2)}
    save_snapshot(tmp_path / "s", state)
    assert_same(load_snapshot(tmp_path / "s"), state)
    data = (tmp_path / "s").read_bytes()
    (tmp_path / "s").write_bytes(data[:-4])
    with pytest.raises(CheckpointError):
        load_snapshot(tmp_path / "s")


def test_a_released_model_loads_and_carries_its_card(corpus):
    train(make_recipe(corpus), corpus / "run")
    (corpus / "card.yaml").write_text("scheme: A\nlicence_weights: CC0\nnote: a toy\n")
    release.main([str(corpus / "run"), "-o", str(corpus / "model"), "--card", str(corpus / "card.yaml")])
    tokenizer = speechtok.load(corpus / "model")
    assert (tokenizer.scheme, tokenizer.licence, tokenizer.note) == ("A", "CC0", "a toy")
    assert json.loads((corpus / "model/config.json").read_text())["card"]["steps"] == 8
    exported = speechtok.load(corpus / "run/model")
    audio = speechtok.read(corpus / "0.wav")
    agree = tokenizer.encode(audio).codes == exported.encode(audio).codes
    assert agree.mean() > 0.95  # fp16 rounding may turn a near tie


@pytest.mark.parametrize(
    "backbone",
    [[], ["codec.backbone=seanet", "weights.magnitude=0", "codec.seanet={n_filters: 2, lstm_layers: 1}"]],
    ids=["frame", "seanet"],
)
def test_bf16_trains_close_to_fp32_and_keeps_fp32_weights(corpus, backbone):
    wave, first = torch.randn(2, 2560, generator=torch.Generator().manual_seed(0)) * 0.1, {}
    for precision in ("fp32", "bf16"):
        recipe = make_recipe(corpus, *backbone, f"precision={precision}", "quantize_from=1", "adversary.start=0")
        state = State(recipe)
        first[precision] = train_step(state, wave)
        assert all(np.isfinite(value) for value in train_step(state, wave).values())
    assert {tensor.dtype for tensor in state.codec.state_dict().values()} == {torch.float32}
    assert first["bf16"]["mel/l1"] != first["fp32"]["mel/l1"]
    # an untrained SEANet says almost nothing, and the mel loss hears how that little is rounded
    assert first["bf16"]["mel/l1"] == pytest.approx(first["fp32"]["mel/l1"], rel=0.25)
    assert first["bf16"]["discriminator/lsgan"] == pytest.approx(first["fp32"]["discriminator/lsgan"], rel=0.1)


class Toy(torch.nn.Module):
    """A guide with one weight of its own."""

    def __init__(self, factor: float = 1.0):
        super().__init__()
        self.scale, self.factor = torch.nn.Parameter(torch.zeros(1)), factor

    def forward(self, codec, wave, quantized, step):
        return {"semantic/toy": (codec.transform(quantized.first) * self.scale - 1).square().mean() * self.factor}


def test_guides_train_count_and_resume_with_the_rest(corpus):
    recipe = make_recipe(corpus, "weights.guides={semantic/toy: 2.0}")
    straight = train(recipe, corpus / "straight", guides=[Toy()])
    train(recipe, corpus / "broken", stop_at=4, guides=[Toy()])
    train(recipe, corpus / "broken", guides=[Toy()])
    assert_same(weights(corpus / "straight"), weights(corpus / "broken"))
    assert straight.guides[0].scale.item() != 0
    row = json.loads((corpus / "straight/log.jsonl").read_text().splitlines()[-2])
    assert 0 < row["semantic/toy"] < 2


def test_a_weight_that_no_guide_answers_to_is_refused(corpus):
    recipe = make_recipe(corpus, "weights.guides={semantic/toy: 2.0, semantic/typo: 1.0}")
    with pytest.raises(ConfigError, match=r"names semantic/typo, which"):
        train(recipe, corpus / "run", guides=[Toy()])
    assert not (corpus / "run/checkpoint.safetensors").exists()


def test_a_loss_without_a_weight_is_logged_and_counts_nothing(corpus):
    state = train(make_recipe(corpus), corpus / "run", guides=[Toy()])
    row = json.loads((corpus / "run/log.jsonl").read_text().splitlines()[-2])
    assert row["semantic/toy"] == 1 and state.guides[0].scale.item() == 0


@pytest.mark.parametrize("dtype, advised", [(torch.float16, True), (torch.float32, False)], ids=str)
def test_float32_is_advised_only_to_who_saved_less(dtype, advised, tmp_path):
    codec = tiny_codec()
    next(codec.decoder.parameters()).data.fill_(1e30 if advised else math.inf)
    with pytest.raises(OutputError, match="not finite") as caught:
        save_codec(codec, tmp_path / "model", dtype=dtype)
    assert ("save it as float32" in str(caught.value)) == advised


def test_places_say_where_crops_were_cut(corpus):
    store = WaveStore.build(read_manifest(corpus / "corpus.tsv", "train"), 16000, corpus / "cache")
    crops = Crops(store, 4000, 4, seed=1)
    for wave, index, first in zip(crops(3, 1, 2), *crops.places(3, 1, 2), strict=True):
        assert np.array_equal(wave, store[index][first : first + 4000])


def test_a_run_may_begin_with_another_codec_and_give_level_one_a_space_of_its_own(corpus):
    before = train(make_recipe(corpus), corpus / "first").average
    options = ["codec.frame.own_space=4", "quantize_from=3", "weights.guides={semantic/toy: 1.0}"]
    recipe = make_recipe(corpus, f"start={corpus}/first/model", *options)
    state = State(recipe, [Toy()], speech_of(recipe))
    state.advance()
    for one, other in zip(before.encoder.parameters(), state.codec.encoder.parameters(), strict=False):
        torch.testing.assert_close(one, other, atol=0.02, rtol=0.1)
    assert state.guides[0].scale.item() != 0  # taught before anything is quantized
    assert not state.codec.quantizer.layers[0].inited
    train(recipe, corpus / "second", guides=[Toy()])
    assert speechtok.load(corpus / "second/model").encode(speechtok.Audio(np.zeros(800), 16000)).codes.shape == (2, 3)


@pytest.mark.parametrize("first, anew", [(0, False), (3, True)], ids=["at-once", "later"])
def test_codebooks_of_another_codec_are_placed_anew_after_training_without_them(corpus, first, anew):
    train(make_recipe(corpus), corpus / "first")
    recipe = make_recipe(corpus, f"start={corpus}/first/model", f"quantize_from={first}")
    state, placed = State(recipe, (), speech_of(recipe)), []
    initialise = state.codec.quantizer.initialise
    state.codec.quantizer.initialise = lambda vectors: (placed.append(state.step), initialise(vectors))
    for _ in range(5):
        state.advance()
    assert placed == ([first] if anew else [])


def test_a_codec_of_another_size_is_no_start(corpus):
    train(make_recipe(corpus), corpus / "first", stop_at=1)
    with pytest.raises(ConfigError, match=r"first/model: has no .* of the recipe's shape"):
        train(make_recipe(corpus, f"start={corpus}/first/model", "codec.frame.width=24"), corpus / "second")
