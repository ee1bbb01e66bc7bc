"""Supervised tokens: a bottleneck in the recogniser learns, resumes and is saved; its codes keep the contract."""

import json
import socket

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import speechtok
from conftest import ROOT
from speechtok.audio import Audio
from speechtok.config import from_yaml
from speechtok.errors import CheckpointError, ConfigError
from speechtok.guidance.teachers import load_semantic_teacher
from speechtok.nn import hubert
from speechtok.nn.bottleneck import BottleneckShape, bottleneck_of, listening
from speechtok.nn.quantizers import QuantizerConfig
from speechtok.tokenizers.supervised import SupervisedQuantizer, trained_supervised
from speechtok.tokenizers.units import UnitTokenizer, save_units
from speechtok.train.phones import PhonesLearner, PhonesRecipe, train
from speechtok.train.snapshot import load_snapshot
from speechtok.verify import verify
from test_phone_teacher import NETWORK, logged, make_recipe, train_apart
from test_train import assert_same, weights
from test_train_processes import SERVER, finish
from tiny import signal
from tiny_teachers import tiny_supervised

transformers = pytest.importorskip("transformers", reason="the network is that of transformers")

FSQ = "bottleneck={codebook_size: 16, quantizer: {kind: fsq, fsq_levels: [4, 4]}}"
VQ = "bottleneck={codebook_size: 12, quantizer: {kind: vq, kmeans_iterations: 5}}"
KINDS = pytest.mark.parametrize("bottleneck", [FSQ, VQ], ids=["fsq", "vq"])
TWO_LAYERS = "network.layers=2"


def recipe_of(folder, *overrides: str) -> PhonesRecipe:
    return make_recipe(folder, TWO_LAYERS, *overrides)


def wave(samples: int, seed: int = 0) -> Audio:
    return Audio(signal(samples / 16000 + 0.01, 16000, seed).samples[:samples], 16000)


# -- training -------------------------------------------------------------------------------------------------------


@KINDS
def test_gradient_reaches_the_layers_below(speech_folder, bottleneck):
    learner = PhonesLearner(recipe_of(speech_folder, bottleneck))
    learner.advance()  # places the codes
    learner.model.zero_grad()
    learner.losses()["phones/frames"].backward()
    body = learner.model.hubert
    for below in (body.feature_projection.projection, body.encoder.layers[0].attention.q_proj):
        assert below.weight.grad.abs().max() > 0
    assert bottleneck_of(learner.model).quantizer.ready


@KINDS
@pytest.mark.parametrize("head", ["head.loss=frames", "head.loss=ctc"], ids=["frames", "ctc"])
def test_losses_and_the_health_of_codes_are_logged(speech_folder, bottleneck, head):
    learner = train(recipe_of(speech_folder, bottleneck, head, "log_every=1"), speech_folder / "run")
    rows = logged(speech_folder / "run")
    steps = [row for row in rows if row["kind"] == "train"]
    assert all(np.isfinite(row["commitment/mse"]) and row["codes/revived"] >= 0 for row in steps)
    last = [row for row in rows if row["kind"] == "validation"][-1]
    assert len(last["codes/used"]) == len(last["codes/perplexity"]) == len(last["codes/revived"]) == 1
    assert learner.weights["commitment/mse"] == 0.25


def test_states_pass_as_they_are_until_codes_are_due(speech_folder):
    recipe = recipe_of(speech_folder, VQ, "bottleneck.quantize_from=3", "steps=4", "log_every=1", "validate_every=2")
    learner = train(recipe, speech_folder / "run", stop_at=2)
    with pytest.raises(ConfigError, match=r"no codes yet.*quantize_from") as caught:
        SupervisedQuantizer.load(speech_folder / "run/model")
    assert "\n" not in str(caught.value) and not bottleneck_of(learner.model).quantizer.ready
    train(recipe, speech_folder / "run")
    rows = logged(speech_folder / "run")
    assert ["commitment/mse" in row for row in rows if row["kind"] == "train"] == [False, False, False, True]
    assert ["codes/used" in row for row in rows if row["kind"] == "validation"] == [False, True]
    assert SupervisedQuantizer.load(speech_folder / "run/model").codebook_sizes == (12,)


def test_padding_teaches_nothing(speech_folder):
    learner = PhonesLearner(recipe_of(speech_folder, VQ, "data.seconds=1.0"))  # utterances last 0.8 s
    states = list(learner.placing_states())
    assert {len(rows) for rows in states} == {2 * 40} and not learner.model.training
    learner.codebooks.place(states)
    (codebook,) = bottleneck_of(learner.model).quantizer.layers
    before = codebook.cluster_size.sum()
    learner.model.train()
    learner.losses()
    expected = 0.99 * before + 0.01 * 2 * 40
    assert codebook.cluster_size.sum() == pytest.approx(float(expected), rel=1e-5)


@KINDS
def test_stop_and_resume_equals_never_stopping_bit_for_bit(speech_folder, bottleneck):
    noise = ("augment={frames: 0.05, frame_span: 3, speeds: [0.9, 1.1]}", "network.dropout=0.1")
    recipe = recipe_of(speech_folder, bottleneck, *noise, "bottleneck.quantize_from=3")
    for name, stops in {"straight": (), "between": (5,), "when-due": (3,)}.items():
        for stop in stops:
            train(recipe, speech_folder / name, stop_at=stop)
        train(recipe, speech_folder / name)
        assert_same(weights(speech_folder / "straight"), weights(speech_folder / name))


def test_two_processes_do_what_one_does_with_the_whole_batch(speech_folder):
    recipe = recipe_of(speech_folder, VQ, "bottleneck.quantizer.revive_below=0", "steps=4")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (speech_folder / "two").mkdir()
    arguments = [(recipe, speech_folder / "two", rank, port) for rank in range(2)]
    processes = [SERVER.Process(target=train_apart, args=one, daemon=True) for one in arguments]
    for process in processes:
        process.start()
    finish(*processes)
    first, second = (load_snapshot(speech_folder / "two" / f"rank-{rank}") for rank in range(2))
    assert_same(first, second)
    for name, tensor in train(recipe, speech_folder / "one").model.state_dict().items():
        # Adam turns the rounding of a gradient near zero into a step of some size
        assert (first[name] - tensor).abs().max() <= 2e-4 * max(1, tensor.abs().max()), name


@KINDS
def test_sequences_of_phones_teach_codes_that_tell_them_apart(speech_folder, bottleneck):
    """The way that the recipe advises: a recogniser frame by frame, then CTC through the bottleneck with its head."""
    whole = "data={seconds: 0.8, batch: 4}"
    train(recipe_of(speech_folder, "steps=120", whole), speech_folder / "frames")
    on = (f"encoder={speech_folder}/frames/model", "head={loss: ctc, keep: true}", "log_every=1", "steps=60", whole)
    train(recipe_of(speech_folder, bottleneck, *on), speech_folder / "run")
    rows = logged(speech_folder / "run")
    losses = [row["phones/ctc"] for row in rows if row["kind"] == "train"]
    assert losses[-1] < 0.3 * losses[0] and rows[-1]["error/phones"] == 0
    units = trained_supervised(speech_folder / "run/model", "tones")
    first, second = (units.encode(speechtok.read(speech_folder / f"{i}.wav")).codes[0] for i in (0, 1))
    low, high = {*first[12:18], *second[12:18]}, {*first[22:28], *second[2:8]}  # phones of 0.2 s without their edges
    assert low.isdisjoint(high)


def test_a_head_of_other_symbols_is_not_kept(speech_folder):
    train(recipe_of(speech_folder, "steps=1"), speech_folder / "phones")
    keep = (f"encoder={speech_folder}/phones/model", "data.seconds=0.8")
    letters = "head={loss: ctc, symbols: characters, keep: true}"
    with pytest.raises(ConfigError, match="no head of the same symbols"):
        PhonesLearner(recipe_of(speech_folder, *keep, letters))
    kept = PhonesLearner(recipe_of(speech_folder, *keep, "head={loss: ctc, keep: true}")).model.lm_head
    assert_same(kept.state_dict(), hubert.load(speech_folder / "phones/model")[0].lm_head.state_dict())
    with pytest.raises(ConfigError, match="name its folder in encoder"):
        recipe_of(speech_folder, "head.keep=true")


@KINDS
def test_it_goes_on_from_a_recogniser_and_from_its_own_kind(speech_folder, bottleneck):
    train(recipe_of(speech_folder, "steps=2"), speech_folder / "plain")
    recipe = recipe_of(speech_folder, bottleneck, f"encoder={speech_folder}/plain/model")
    learner = train(recipe, speech_folder / "first", stop_at=1)
    plain = hubert.load(speech_folder / "plain/model")[0].hubert
    given = PhonesLearner(recipe).model.hubert.state_dict()
    assert_same(plain.state_dict(), {name: given[name] for name in plain.state_dict()})
    again = recipe_of(speech_folder, bottleneck, f"encoder={speech_folder}/first/model")
    assert_same(PhonesLearner(again).model.hubert.state_dict(), learner.average.hubert.state_dict())
    for other in ("bottleneck=null", f"{bottleneck[:-1]}, after: 2}}"):
        with pytest.raises(ConfigError, match="the encoder has a bottleneck"):
            PhonesLearner(recipe_of(speech_folder, other, f"encoder={speech_folder}/first/model"))


@pytest.mark.parametrize(
    "override, message",
    [
        pytest.param("bottleneck.after=3", "bottleneck.after=3.*2 layers", id="no such layer"),
        pytest.param("bottleneck.after=0", "bottleneck.after", id="no layer"),
        pytest.param("bottleneck.codebook_size=17", r"set codebook_size=16", id="sizes"),
        pytest.param("network.layer_drop=0.1", "network.layer_drop=0", id="dropped layers"),
    ],
)
def test_bottlenecks_that_cannot_work_are_refused(speech_folder, override, message):
    with pytest.raises(ConfigError, match=message) as caught:
        PhonesLearner(recipe_of(speech_folder, FSQ, override))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["s3-mini", "s3-paper-size"])
def test_recipes_that_ship_run_in_miniature(speech_folder, name):
    small = [f"network.{key}={value}" for key, value in (NETWORK | {"layers": 2}).items()]
    small += ["steps=2", "data.seconds=0.8", "data.batch=2", "data.validation_files=1", "bottleneck.after=1"]
    small += ["precision=fp32", "augment.speeds=[1.0]"]
    places = [f"data.manifests=[{speech_folder}/corpus.tsv]", f"data.cache={speech_folder}/cache"]
    places += [f"head.alignments=[{speech_folder}/phones.tsv]"]
    recipe = from_yaml(PhonesRecipe, ROOT / f"recipes/{name}.yaml", [*small, *places])
    train(recipe, speech_folder / "run")
    assert np.isfinite(logged(speech_folder / "run")[0]["phones/ctc"])
    vector = from_yaml(
        PhonesRecipe, ROOT / f"recipes/{name}.yaml", ["bottleneck.codebook_size=4096", "bottleneck.quantizer.kind=vq"]
    )
    assert vector.bottleneck.codebook_sizes == (4096,)


def test_mixed_precision_quantizes_in_full(speech_folder):
    learner = train(recipe_of(speech_folder, FSQ, "precision=bf16", "steps=2"), speech_folder / "run")
    with learner.devices.autocast(), listening() as heard:
        hubert.encode(learner.model, torch.randn(1, 6, 40))
    assert heard[0].latent.dtype == torch.float32


# -- folders --------------------------------------------------------------------------------------------------------


def test_a_folder_without_a_bottleneck_says_nothing_of_one(speech_folder):
    train(recipe_of(speech_folder, "steps=2"), speech_folder / "run")
    assert "bottleneck" not in json.loads((speech_folder / "run/model/config.json").read_text())
    with pytest.raises(ConfigError, match=r"has no bottleneck.*speechtok train phones") as caught:
        trained_supervised(speech_folder / "run/model", "none")
    assert "\n" not in str(caught.value)


def test_layers_behind_the_bottleneck_hear_codes(tmp_path):
    network = tiny_supervised(tmp_path)
    loaded, config = hubert.load(tmp_path)
    assert_same(network.state_dict(), loaded.state_dict())
    assert config["bottleneck"] == {"after": 1, "codebook_size": 24, "n_q": 1, "quantizer": {}}
    sound = torch.from_numpy(wave(16000).samples.copy())[None]
    quantizer = bottleneck_of(network).quantizer
    states = load_semantic_teacher(tmp_path, 1)(sound)[0]
    codes = SupervisedQuantizer(network).rows(sound[0])[:50].T[None]
    assert torch.equal(states, quantizer.decode(codes))
    with torch.no_grad():
        behind = network.hubert.encoder.layers[1](states)
    behind = behind[0] if isinstance(behind, tuple) else behind
    assert torch.allclose(load_semantic_teacher(tmp_path, 2)(sound)[0], behind, atol=1e-5)
    assert load_semantic_teacher(tmp_path, "logits")(sound)[0].shape == (1, 50, 40)


def test_transformers_does_not_read_it_without_its_bottleneck(tmp_path):
    shape = hubert.HubertShape(
        **(NETWORK | {"front_end": "waveform", "channels": 8, "kernels": (10, 8, 4), "strides": (8, 8, 5)})
    )
    hubert.save(hubert.build(shape, 0, BottleneckShape(codebook_size=8)), tmp_path)
    with pytest.raises(ValueError, match="hubert-quantized"):
        transformers.AutoModel.from_pretrained(tmp_path)
    assert bottleneck_of(hubert.load(tmp_path)[0]) is not None


def test_a_damaged_bottleneck_is_one_line(tmp_path):
    tiny_supervised(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for broken in ({"after": 7}, {"codebook_size": 5}, {"nonsense": 1}):
        (tmp_path / "config.json").write_text(json.dumps(config | {"bottleneck": config["bottleneck"] | broken}))
        with pytest.raises(CheckpointError, match="damaged"):
            hubert.load(tmp_path)


# -- the tokenizer --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def units() -> UnitTokenizer:
    return UnitTokenizer(SupervisedQuantizer(tiny_supervised()), "tiny-s3", licence="none")


@settings(max_examples=10)
@given(samples=st.integers(1, 2000))
def test_frames_follow_the_length_law(units, samples):
    tokens = units.encode(wave(samples))
    assert tokens.codes.shape == (1, -(-samples // 320))
    assert (tokens.semantic_levels, tokens.codebook_sizes) == ((0,), (24,))


def test_codes_are_those_of_the_whole_network(units):
    network = tiny_supervised()
    with torch.no_grad(), listening() as heard:
        hubert.encode(network, hubert.features(network, torch.from_numpy(wave(16000).samples.copy())[None]))
    codes = units.encode(wave(16000)).codes
    assert np.array_equal(codes, heard[0].codes[0].numpy()) and len(np.unique(codes)) > 3
    assert len(units.source.network.encoder.layers) == 1  # the layer behind is left out


def test_verify_finds_nothing_broken(units):
    checks = {check.name: check for check in verify(units, [wave(16000), wave(12000, 1)])}
    assert {name for name, check in checks.items() if check.passed is False} == set()
    for name in ("length law", "same codes twice", "batch == single", "token file"):
        assert checks[name].passed is True


@pytest.mark.parametrize("inside", [True, False], ids=["network-inside", "network-from-a-folder"])
@pytest.mark.parametrize("kind", ["vq", "fsq", "rvq"])
def test_a_folder_gives_the_same_units(tmp_path, kind, inside):
    shape = {
        "vq": {"quantizer": QuantizerConfig(kind="vq")},
        "fsq": {"codebook_size": 15, "quantizer": QuantizerConfig(kind="fsq", fsq_levels=[5, 3])},
        "rvq": {"n_q": 2, "after": 2},
    }[kind]
    network = tiny_supervised(tmp_path / "run", **shape)
    made = UnitTokenizer(SupervisedQuantizer(network), "made") if inside else trained_supervised(tmp_path / "run", "m")
    save_units(made, tmp_path / "u", {"description": "test"})
    assert json.loads((tmp_path / "u/config.json").read_text())["units"]["source"] == "supervised"
    loaded = speechtok.load(tmp_path / "u")
    assert (loaded.fingerprint, loaded.name, loaded.scheme) == (made.fingerprint, "u", "B")
    assert np.array_equal(loaded.encode(wave(9000)).codes, made.encode(wave(9000)).codes)
    assert loaded.codebook_sizes == {"vq": (24,), "fsq": (15,), "rvq": (24, 24)}[kind]


def test_fingerprints_tell_weights_and_meanings_apart(units):
    assert UnitTokenizer(SupervisedQuantizer(tiny_supervised()), "same").fingerprint == units.fingerprint
    network = tiny_supervised()
    network.lm_head.weight.data += 1  # what lies behind the bottleneck decides nothing
    bottleneck_of(network).quantizer.layers[0].cluster_size += 1  # nor do statistics of the training
    assert UnitTokenizer(SupervisedQuantizer(network), "same").fingerprint == units.fingerprint
    bottleneck_of(network).quantizer.layers[0].embed[0] += 0.1
    assert UnitTokenizer(SupervisedQuantizer(network), "other").fingerprint != units.fingerprint
    steps = [{"codebook_size": 15, "quantizer": QuantizerConfig(kind="fsq", fsq_levels=s)} for s in ([5, 3], [3, 5])]
    sources = [SupervisedQuantizer(tiny_supervised(**one)) for one in steps]
    assert sources[0].facts() != sources[1].facts()


def test_a_folder_whose_network_lost_its_bottleneck_is_one_line(units, tmp_path):
    save_units(units, tmp_path)
    hubert.save(hubert.build(hubert.HubertShape(**NETWORK)), tmp_path / "teacher")
    with pytest.raises(CheckpointError, match=r"describes no units.*no bottleneck") as caught:
        speechtok.load(tmp_path)
    assert "\n" not in str(caught.value)
