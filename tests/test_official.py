"""Official SpeechTokenizer files against what the official code made of them, and our own model folders."""

import json
import pickle
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from speechtok.errors import CheckpointError, OutputError, SpeechtokError
from speechtok.nn.codec import Codec, CodecConfig
from speechtok.nn.conv import Conv1d, ConvTranspose1d
from speechtok.nn.seanet import SEANetConfig
from speechtok.tokenizers.checkpoint import load_codec, read_checkpoint, save_codec

TINY = Path(__file__).parent / "data" / "speechtokenizer-tiny"
LENGTHS = (50, 320, 321, 4321, 15999, 16000, 16001)
TOLERANCE = 1e-4


def load_official(folder: Path) -> Codec:
    return read_checkpoint(folder / "config.json", folder / "SpeechTokenizer.pt")[0]


def deviation(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Largest difference relative to the largest value."""
    assert ours.shape == theirs.shape
    return float((ours - theirs).abs().max() / theirs.abs().max())


@torch.inference_mode()
def check_parity(codec: Codec, golden: dict[str, torch.Tensor], length: int) -> None:
    """Codes are equal, everything continuous is close; the stored semantic features are not yet projected."""
    stored = {key.partition(".")[2]: value for key, value in golden.items() if key.startswith(f"{length}.")}
    codes = codec.encode(stored["wave"])
    assert torch.equal(codes[0], stored["codes"])
    ours = {
        "latent": codec.encoder(stored["wave"])[0].T,
        "semantic": codec.quantizer.decode(codes[:, :1])[0].T,
        "decoded": codec.decode(codes),
        "decoded_semantic": codec.decode(codes[:, :1]),
        "decoded_acoustic": codec.decode(codes[:, 1:], first_level=1),
    }
    projected = codec.transform(stored["semantic"].T)
    assert deviation(codec.semantic(stored["wave"])[0], projected) <= TOLERANCE
    assert {name: deviation(value, stored[name]) for name, value in ours.items()} == pytest.approx(
        dict.fromkeys(ours, 0.0), abs=TOLERANCE
    )


@pytest.mark.parametrize("length", [50, 320, 321, 4321])
def test_parity_on_the_copy_that_travels_with_the_tests(length):
    check_parity(load_official(TINY), load_file(TINY / "golden.safetensors"), length)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("model", ["elu", "snake", "identity-transform"])
def test_parity(model, length, shared):
    folder = shared / "golden" / f"speechtokenizer-{model}"
    if not folder.is_dir():
        pytest.skip(f"no reference tensors at {folder}")
    check_parity(load_official(folder), load_file(folder / "golden.safetensors"), length)


# -- variants of the official layout


@pytest.fixture
def official(tmp_path) -> Path:
    return shutil.copytree(TINY, tmp_path / "official")


@pytest.fixture(scope="module")
def tiny() -> Codec:
    return load_official(TINY)


def rewrite(folder: Path, change) -> None:
    state = torch.load(folder / "SpeechTokenizer.pt", weights_only=True)
    torch.save(change(dict(state)), folder / "SpeechTokenizer.pt")


def reconfigure(folder: Path, name: str = "config.json", **settings) -> None:
    config = json.loads((folder / name).read_text()) | settings
    (folder / name).write_text(json.dumps({k: v for k, v in config.items() if v is not None}))


def new_weight_norm(state: dict) -> dict:
    names = {"weight_g": "parametrizations.weight.original0", "weight_v": "parametrizations.weight.original1"}
    return {re.sub("weight_[gv]$", lambda m: names[m[0]], key): value for key, value in state.items()}


@pytest.mark.parametrize(
    "change",
    [
        new_weight_norm,
        lambda state: {"model": state, "step": 7},
        lambda state: {"generator": state, "discriminator": {}},
        lambda state: {"model": {"state_dict": state}},
        lambda state: {key: value.double() for key, value in state.items()},
    ],
    ids=["new-weight-norm", "model", "generator", "model-state_dict", "float64"],
)
def test_other_layouts_of_the_same_weights(change, official, tiny):
    rewrite(official, change)
    other = load_official(official).state_dict()
    assert other.keys() == tiny.state_dict().keys()
    assert all(torch.equal(value, other[key]) for key, value in tiny.state_dict().items())


def test_either_name_of_the_rate(official):
    reconfigure(official, sample_rate=None, sampling_rate=8000)
    assert load_official(official).config.sample_rate == 8000


def test_settings_for_training_are_ignored(official):
    reconfigure(official, batch_size=6, learning_rate=1e-4)
    assert load_official(official).config.n_q == 2


class Evil:
    def __reduce__(self):
        return (open, ("speechtok-was-here", "w"))


def test_a_pickle_that_wants_to_act_is_refused(official, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for dump in (torch.save, lambda content, path: path.write_bytes(pickle.dumps(content, protocol=2))):
        dump({"weight": Evil()}, official / "SpeechTokenizer.pt")
        refused(load_official, official, "SpeechTokenizer.pt")
    assert not (tmp_path / "speechtok-was-here").exists()


def refused(load, folder: Path, *words: str, error: type[SpeechtokError] = CheckpointError) -> None:
    with pytest.raises(error) as caught:
        load(folder)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 400
    assert all(word in message for word in words), message


def without(part: str):
    return lambda state: {key: value for key, value in state.items() if part not in key}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (without("encoder.model.0."), ("3 missing", "encoder.model.0.bias")),
        (without("layers.1._codebook.embed"), ("1 missing", "quantizer.layers.1.embed")),
        (lambda state: state | {"extra": torch.zeros(1)}, ("1 unexpected", "extra")),
        (lambda state: state | {"encoder.model.0.conv.conv.bias": torch.zeros(9)}, ("another shape", "(9,)")),
        (lambda state: {key: value * torch.nan for key, value in state.items()}, ("not finite", ", ...")),
        (lambda state: [1, 2, 3], ("no dictionary",)),
        (lambda state: {}, ("no dictionary",)),
        (lambda state: state | {"step": 3}, ("'step'", "no tensor")),
    ],
    ids=["missing", "no-codebook", "unexpected", "shape", "nan", "list", "empty", "number"],
)
def test_weights_that_do_not_fit(change, words, official):
    rewrite(official, change)
    refused(load_official, official, "SpeechTokenizer.pt", *words)


@pytest.mark.parametrize("share", [0, 0.3, 0.99])
def test_truncated_official_weights(share, official):
    path = official / "SpeechTokenizer.pt"
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    refused(load_official, official, "SpeechTokenizer.pt")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"n_q": None}, ("lacks n_q",)),
        ({"sample_rate": None}, ("lacks sample_rate",)),
        ({"activation": "Mish"}, ("activation", "ELU or Snake")),
        ({"strides": [5, 0]}, ("strides",)),
        ({"dimension": "wide"}, ("dimension",)),
        ({"strides": None}, ("no configuration",)),
    ],
    ids=["no-n_q", "no-rate", "activation", "strides", "dimension", "foreign"],
)
def test_official_configurations_that_make_no_sense(settings, words, official):
    reconfigure(official, **settings)
    refused(load_official, official, "config.json", *words)


# -- our own folders


@pytest.fixture
def saved(tmp_path, tiny) -> Path:
    save_codec(tiny, tmp_path / "ours", {"licence": "none", "steps": 3})
    return tmp_path / "ours"


def test_a_converted_copy_is_the_same_model(saved, tiny):
    copy = load_codec(saved)
    assert copy.config == tiny.config
    assert not copy.training
    codebook_statistics = re.compile("inited|cluster_size|embed_avg")
    for key, value in tiny.state_dict().items():
        assert codebook_statistics.search(key) or torch.equal(copy.state_dict()[key], value), key
    wave = load_file(TINY / "golden.safetensors")["4321.wave"]
    assert torch.equal(copy.encode(wave), tiny.encode(wave))


def test_the_card_and_the_header(saved):
    header = json.loads((saved / "config.json").read_text())
    assert (header["format"], header["version"]) == ("speechtok.codec", 1)
    assert CodecConfig.from_dict(header["codec"]).hop == 40
    assert read_checkpoint(saved / "config.json", saved / "model.safetensors")[1] == {
        "licence": "none",
        "steps": 3,
    }


def test_half_precision_halves_the_file_and_is_float32_in_memory(saved, tiny, tmp_path):
    save_codec(tiny, tmp_path / "half", dtype=torch.float16)
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (tmp_path / "half", saved)]
    assert sizes[0] < 0.7 * sizes[1]
    half = load_codec(tmp_path / "half").state_dict()
    assert {value.dtype for value in half.values()} == {torch.float32}
    for key, value in tiny.state_dict().items():
        if key in load_file(saved / "model.safetensors"):
            assert torch.equal(half[key], value.half().float())


def test_a_weight_too_large_for_half_precision_is_refused(tiny, tmp_path):
    codec = Codec(tiny.config)
    codec.quantizer.layers[0].embed[0, 0] = 1e5
    with pytest.raises(OutputError, match="embed is not finite"):
        save_codec(codec, tmp_path / "half", dtype=torch.float16)
    assert not (tmp_path / "half").exists()


def test_a_copy_for_training_keeps_everything(tmp_path, tiny):
    torch.manual_seed(0)
    codec = Codec(tiny.config)
    before = {key: value.clone() for key, value in codec.state_dict().items()}
    save_codec(codec, tmp_path / "training", for_training=True)
    save_codec(codec, tmp_path / "release")
    copy = load_codec(tmp_path / "training", fold=False).state_dict()
    for state in (codec.state_dict(), copy):  # saving leaves the model as it was
        assert state.keys() == before.keys()
        assert all(torch.equal(value, state[key]) for key, value in before.items())
    wave = load_file(TINY / "golden.safetensors")["320.wave"]
    folded = load_codec(tmp_path / "training")
    assert torch.equal(folded.encode(wave), load_codec(tmp_path / "release").encode(wave))


def test_a_release_can_be_trained_on(saved):
    codec = load_codec(saved).train()
    before = codec.quantizer.layers[0].embed.clone()
    quantized = codec.quantizer(codec.encoder(load_file(TINY / "golden.safetensors")["4321.wave"]))
    assert codec.decoder(quantized.latent).isfinite().all()
    moved = (codec.quantizer.layers[0].embed - before).abs().max()
    assert 0 < moved < 10 * before.abs().max()


@pytest.mark.parametrize("share", [0, 0.001, 0.5, 0.99])
def test_truncated_safetensors(share, saved):
    path = saved / "model.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    refused(load_codec, saved, "model.safetensors", "truncated")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_missing_files(name, saved):
    (saved / name).unlink()
    refused(load_codec, saved, name)


def test_weights_of_another_model(saved):
    reconfigure(saved, codec=CodecConfig(seanet=SEANetConfig(n_filters=2, strides=(2, 2))).to_dict())
    refused(load_codec, saved, "model.safetensors", "missing", "...")


def test_foreign_safetensors(saved):
    save_file({"weight": torch.zeros(2)}, saved / "model.safetensors")
    refused(load_codec, saved, "model.safetensors", "missing")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"format": "somebody.else"}, ("no configuration",)),
        ({"version": 2}, ("version 2", "update")),
        ({"codec": {"wings": 2}}, ("wings",)),
        ({"codec": {"n_q": 0}}, ("n_q",)),
        ({"codec": 7}, ("mapping",)),
        ({"codec": {"dimension": 10**15}}, ("describes no model",)),
        ({"card": []}, ("card",)),
    ],
    ids=["foreign", "newer", "unknown-key", "zero-levels", "no-mapping", "too-large", "card"],
)
def test_configurations_that_make_no_sense(settings, words, saved):
    reconfigure(saved, **settings)
    refused(load_codec, saved, "config.json", *words)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "\udcff", "[" * 100_000], ids=["empty", "cut", "list", "bytes", "deep"]
)
def test_configurations_that_are_no_json_object(text, saved):
    (saved / "config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    refused(load_codec, saved, "config.json")


def test_a_place_that_cannot_be_a_folder(tmp_path, tiny):
    (tmp_path / "file").write_text("here first")
    refused(lambda folder: save_codec(tiny, folder), tmp_path / "file", "file", error=OutputError)
    assert (tmp_path / "file").read_text() == "here first"


# -- full size


def preserve_variance(codec: Codec) -> None:
    """Random weights through which a signal keeps its size; with ordinary ones latents are nearly constant."""
    for layer in codec.modules():
        if isinstance(layer, Conv1d | ConvTranspose1d):
            taps = layer.weight.numel() // layer.weight.shape[0]
            layer.parametrizations.weight.original0.data.fill_(1.3)
            if isinstance(layer, ConvTranspose1d):
                layer.parametrizations.weight.original0.data.mul_((taps / layer.in_channels) ** 0.5)


def official_state(codec: Codec) -> dict[str, torch.Tensor]:
    """Our weights under the official names."""
    inner = {Conv1d: "conv.conv", ConvTranspose1d: "convtr.convtr"}
    places = {
        f"{name}.": f"{name}.{inner[kind]}."
        for name, layer in codec.named_modules()
        for kind in inner
        if isinstance(layer, kind)
    }
    state = {}
    for key, value in codec.state_dict().items():
        for ours, theirs in places.items():
            if key.startswith(ours):
                key = theirs + key.removeprefix(ours)
                break
        key = key.replace("parametrizations.weight.original0", "weight_g")
        key = key.replace("parametrizations.weight.original1", "weight_v")
        state[re.sub(r"^quantizer\.layers\.(\d+)\.", r"quantizer.vq.layers.\1._codebook.", key)] = value
    return state


@pytest.fixture
def full_size(tmp_path, speech):
    """An official pair of the published shape; a gigabyte, so it goes as soon as the test is over."""
    torch.manual_seed(0)
    codec = Codec(CodecConfig())
    preserve_variance(codec)
    with torch.no_grad():
        latent = codec.encoder(torch.tensor(speech(0.6, seed=1).samples)[None])[0]
        for layer in codec.quantizer.layers:
            layer.embed.normal_(std=0.2 * float(latent.std(0).mean()))
        codec.quantizer.layers[0].embed += latent.mean(0)
    state = official_state(codec)
    config = {
        "n_filters": 64, "strides": [8, 5, 4, 2], "dimension": 1024, "semantic_dimension": 768,
        "bidirectional": True, "dilation_base": 2, "residual_kernel_size": 3, "n_residual_layers": 1,
        "lstm_layers": 2, "activation": "ELU", "codebook_size": 1024, "n_q": 8,
        "sample_rate": 16000, "sampling_rate": 16000,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    torch.save(state, tmp_path / "SpeechTokenizer.pt")
    assert len(state) == 166
    del codec, state
    yield tmp_path
    shutil.rmtree(tmp_path)


@torch.inference_mode()
def test_the_published_shape_converts(full_size, speech):
    wave = torch.tensor(speech(0.6).samples)[None]
    original = load_official(full_size)
    codes = original.encode(wave)
    assert min(len(row.unique()) for row in codes[0]) >= 5  # of 30 frames
    save_codec(original, full_size / "converted")
    del original
    converted = load_codec(full_size / "converted")
    assert torch.equal(converted.encode(wave), codes)
    assert converted.decode(codes).shape == (1, 9600)
