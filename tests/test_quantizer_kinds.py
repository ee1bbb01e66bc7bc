"""Every kind of quantizer keeps one interface: round trips, gradients, live codes, and a codec around it."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import speechtok
from speechtok.audio import Audio
from speechtok.errors import ConfigError
from speechtok.nn.codec import Codec, CodecConfig
from speechtok.nn.frame import FrameConfig
from speechtok.nn.quantizers import QuantizerConfig, build_quantizer
from speechtok.nn.quantizers.codebook import entropy_loss
from speechtok.tokenizers.codec import CodecTokenizer
from speechtok.train.codec import train
from speechtok.train.snapshot import load_snapshot, save_snapshot
from test_train import make_recipe

WIDTH = 8
FSQ = {"fsq_levels": [4, 4]}
SHAPES = {
    "rvq": (16, 16, 16),
    "rvq-gradient": (16, 16, 16),
    "rvq-simvq": (16, 16),
    "rvq-factorised": (16, 16, 16),
    "rvq-fsq": (16, 16),
    "rvq-lfq": (16, 16),
    "rvq-gumbel": (16, 16),
    "rvq-kmeans": (16, 16),
    "vq": (16,),
    "vq-gradient": (16,),
    "simvq": (16,),
    "factorised": (16,),
    "gumbel": (16, 16),
    "product": (16, 16),
    "product-factorised": (16, 16),
    "grouped_rvq": (16, 16, 16, 16),
    "grouped_rvq-lfq": (16, 16, 16, 16),
    "cross_scale": (16, 16, 16),
    "cross_scale-factorised": (16, 16, 16),
    "fsq": (16,),
    "lfq": (16,),
    "bsq": (16,),
    "kmeans": (16,),
}
LEARNS = {
    "gradient": "embed",
    "simvq": "map",
    "factorised": "embed",
    "gumbel": "embed",
    "fsq": "up",
    "lfq": "up",
    "bsq": "up",
}
"""What the losses and the reconstruction must teach, by kind of codebook; EMA and k-means codebooks get no gradient."""
every_kind = pytest.mark.parametrize("name", SHAPES)


def settings_of(name: str, **options):
    kind, _, codebook = name.partition("-")
    options = {"kind": kind, "kmeans_iterations": 3, "code_dimension": 3} | options
    if codebook:
        options["codebook"] = codebook
    if kind == "cross_scale":
        options["strides"] = [4, 2, 1]
    return (FSQ if "fsq" in name else {}) | options


def make(name: str, sizes=None, start: bool = True, **options):
    torch.manual_seed(0)
    quantizer = build_quantizer(WIDTH, sizes or SHAPES[name], QuantizerConfig(**settings_of(name, **options)))
    if start:
        quantizer.initialise(torch.randn(400, WIDTH))
    return quantizer


@every_kind
def test_codes_and_latents_agree_between_training_encoding_and_levels(name):
    quantizer, latent = make(name).eval(), torch.randn(2, 9, WIDTH)
    out, codes = quantizer(latent), quantizer.encode(latent)
    assert codes.shape == (2, len(SHAPES[name]), 9) and torch.equal(out.codes, codes)
    torch.testing.assert_close(out.latent, quantizer.decode(codes), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(out.first, quantizer.first(codes[:, 0]), atol=1e-5, rtol=1e-5)
    assert torch.equal(quantizer.encode(latent, 1), codes[:, :1])
    head, tail = quantizer.decode(codes[:, :1]), quantizer.vectors(codes[:, 1:], 1) if codes.shape[1] > 1 else []
    torch.testing.assert_close(quantizer.decode(codes), head + sum(tail), atol=1e-5, rtol=1e-5)


@every_kind
def test_what_comes_back_is_nearer_than_nothing(name):
    quantizer, latent = make(name).eval(), torch.randn(1, 400, WIDTH)
    with torch.no_grad():
        error = float((quantizer.decode(quantizer.encode(latent)) - latent).square().mean())
    assert error < 0.93 * float((latent - latent.mean(1)).square().mean())


@every_kind
@settings(max_examples=8)
@given(scale=st.sampled_from([0.0, 1e-30, 1.0, 1e6, 1e30, math.inf, math.nan]), frames=st.integers(1, 7))
def test_codes_are_in_range_for_any_input(name, scale, frames):
    quantizer = make(name, start=scale != 1.0).eval()
    codes = quantizer.encode(scale * torch.randn(2, frames, WIDTH))
    for row, size in zip(codes.unbind(1), SHAPES[name], strict=True):
        assert codes.dtype == torch.long and int(row.min()) >= 0 and int(row.max()) < size
    assert quantizer.decode(codes).isfinite().all()


@every_kind
def test_gradients_reach_the_encoder_and_what_should_learn(name):
    quantizer, latent = make(name).train(), torch.randn(2, 16, WIDTH, requires_grad=True)
    out = quantizer(latent)
    weight = torch.randn_like(latent)
    (gradient,) = torch.autograd.grad((out.latent * weight).sum(), latent, retain_graph=True)
    assert gradient.isfinite().all() and gradient.abs().sum() > 0
    if not quantizer.layers[0].attached:
        torch.testing.assert_close(gradient, weight)  # straight through: unchanged
    (out.latent.square().sum() + out.commitment + sum(out.losses.values())).backward()
    level = quantizer.config.level
    named = dict(quantizer.named_parameters())
    assert (level in LEARNS) == bool(named)
    for index in range(len(SHAPES[name])):
        taught = [p for key, p in named.items() if f"layers.{index}." in key and LEARNS[level] in key]
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in taught), index
    assert set(quantizer.config.weights) <= set(out.losses)


@pytest.mark.parametrize("name", ["rvq-gradient", "rvq-simvq", "kmeans"])
def test_reconstruction_moves_no_code_that_the_codebook_loss_teaches(name):
    quantizer = make(name).train()
    latent = torch.randn(2, 16, WIDTH, requires_grad=True)
    quantizer(latent).latent.square().sum().backward()
    assert all(p.grad is None for p in quantizer.parameters())


@pytest.mark.parametrize("name", SHAPES)
def test_padding_teaches_nothing(name):
    mask = torch.ones(2, 12, dtype=torch.bool)
    mask[1, 7:] = False
    states, gradients = [], []
    for padding in (0.5, 50.0):
        quantizer = make(name, entropy_weight=None if "fsq" in name else 0.1).train()
        torch.manual_seed(1)
        latent = torch.where(mask[..., None], torch.randn(2, 12, WIDTH), torch.full((), padding))
        out = quantizer(latent, mask)
        loss = (out.latent.square() * mask[..., None]).sum() + out.commitment + sum(out.losses.values())
        if loss.requires_grad:
            loss.backward()
        states.append(quantizer.state_dict())
        gradients.append({key: p.grad for key, p in quantizer.named_parameters() if p.grad is not None})
    for first, second in (states, gradients):
        assert first.keys() == second.keys()
        for key in first:
            torch.testing.assert_close(first[key], second[key])


# -- health ---------------------------------------------------------------------------------------------------------


@torch.no_grad()
def spoil(quantizer) -> None:
    """A start in which most of the 64 codes are far from the data, or are not chosen."""
    codebook = quantizer.layers[0]
    if hasattr(codebook, "map"):  # SimVQ's table is frozen: what can be wrong is the map
        codebook.map.weight.mul_(0.1)
        codebook.map.bias.add_(3.0)
    elif hasattr(codebook, "logits"):
        codebook.logits.bias[4:] -= 3.0
    elif hasattr(codebook, "projection") and hasattr(codebook, "embed"):  # looked up by direction
        codebook.embed[4:] = -codebook.embed[:1]
    elif hasattr(codebook, "embed"):
        codebook.embed[4:] += 100.0
        codebook.start_statistics()
    else:
        codebook.projection.down.bias.add_(2.0)


def live_after_stress(name: str, steps: int = 400, **options) -> int:
    """Codes in use of 64 after training from the stress start: codes, projections and latents all adapt."""
    options |= {"fsq_levels": [8, 8]} if name == "fsq" else {}
    quantizer = make(name, sizes=(64,), **options).train()
    spoil(quantizer)
    before = len(quantizer.eval().encode(torch.randn(1, 8000, WIDTH)).unique())
    assert before <= 40
    quantizer.train()
    shift = torch.nn.Linear(WIDTH, WIDTH)
    torch.nn.init.eye_(shift.weight)
    optimiser = torch.optim.Adam([*shift.parameters(), *quantizer.parameters()], 0.01)
    weights = {"entropy/codes": 0.0} | quantizer.config.weights
    for _ in range(steps):
        data = torch.randn(1, 512, WIDTH)
        out = quantizer(shift(data))
        losses = sum(weights[key] * loss for key, loss in out.losses.items())
        optimiser.zero_grad()
        ((out.latent - data).square().mean() + 0.25 * out.commitment + losses).backward()
        optimiser.step()
    live = len(quantizer.eval().encode(shift(torch.randn(1, 8000, WIDTH))).unique())
    return live


@pytest.mark.parametrize("name", ["vq", "vq-gradient", "factorised"])
def test_dead_codes_are_restarted(name):
    assert live_after_stress(name) >= 60


@pytest.mark.parametrize("name", ["vq", "vq-gradient"])
def test_without_restarts_the_stress_start_stays_bad(name):
    assert live_after_stress(name, revive_below=0.0) <= 10


@pytest.mark.parametrize("name", ["simvq", "gumbel", "fsq", "lfq", "bsq"])
def test_kinds_without_restarts_recover_by_gradient(name):
    assert live_after_stress(name) >= 24


def test_the_entropy_penalty_evens_the_use_of_codes():
    torch.manual_seed(0)
    flat, peaked = torch.zeros(100, 16), torch.zeros(100, 16)
    peaked[torch.arange(100), torch.arange(100) % 16] = 50.0
    same = torch.zeros(100, 16)
    same[:, 3] = 50.0
    sure_and_even, sure_and_same, unsure = (float(entropy_loss(x.log_softmax(-1), 1.0)) for x in (peaked, same, flat))
    assert sure_and_even < sure_and_same - 2 and sure_and_even < unsure - 2


def test_lfq_entropy_is_that_of_the_whole_table():
    quantizer = make("lfq").eval()
    codebook, squashed = quantizer.layers[0], torch.randn(1, 50, 4)
    table = codebook.values(codebook.unpacked(torch.arange(16)))
    odds = (-torch.cdist(squashed[0], table).square()).softmax(-1)
    single, whole = torch.special.entr(odds).sum(-1).mean(), torch.special.entr(odds.mean(0)).sum()
    torch.testing.assert_close(codebook.entropy(squashed, None), single - whole, atol=1e-4, rtol=1e-4)


# -- facts of single kinds ------------------------------------------------------------------------------------------


def test_fsq_rounds_to_even_steps_and_reaches_all_of_them():
    codebook = make("fsq", sizes=(8 * 5,), fsq_levels=[8, 5], start=False).layers[0]
    wide = torch.stack([torch.linspace(-9, 9, 4001)] * 2, -1)
    values = codebook.values(codebook.digits(codebook.squash(wide)))
    assert [len(values[:, i].unique()) for i in range(2)] == [8, 5]
    assert values.abs().max() <= 1 and float(codebook.squash(torch.zeros(2)).abs().max()) < 1e-6
    every = torch.arange(40)
    digits = codebook.unpacked(every)
    assert torch.equal((digits * codebook.bases).sum(-1), every) and len(codebook.values(digits).unique(dim=0)) == 40


def test_bsq_values_lie_on_the_unit_sphere():
    codebook = make("bsq").layers[0]
    torch.testing.assert_close(codebook.values(codebook.unpacked(torch.arange(16))).norm(dim=-1), torch.ones(16))


def test_simvq_moves_every_code_and_keeps_its_table():
    quantizer = make("simvq").train()
    table, before = quantizer.layers[0].embed.clone(), quantizer.layers[0].lookup(torch.arange(16)).detach()
    loss = quantizer(torch.randn(1, 1, WIDTH)).losses["codebook/mse"]  # a single code is chosen
    loss.backward()
    torch.optim.SGD(quantizer.parameters(), 0.1).step()
    moved = (quantizer.layers[0].lookup(torch.arange(16)) - before).abs().sum(-1)
    assert torch.equal(quantizer.layers[0].embed, table) and int((moved > 1e-6).sum()) == 16


def test_factorised_choice_ignores_length():
    codebook = make("factorised").layers[0]
    narrow = torch.randn(20, 3)
    assert torch.equal(codebook.scores(narrow).argmax(-1), codebook.scores(7 * narrow).argmax(-1))


def test_frozen_centres_stay():
    quantizer = make("kmeans").train()
    before = quantizer.layers[0].embed.clone()
    quantizer(torch.randn(2, 50, WIDTH) + 5)
    assert torch.equal(quantizer.layers[0].embed, before)


def test_gumbel_cools_in_training_only_and_draws():
    quantizer = make("gumbel", gumbel_temperature=(2.0, 1.5, 0.9)).train()
    latent = torch.randn(1, 200, WIDTH)
    assert not torch.equal(quantizer(latent).codes, quantizer(latent).codes)
    assert float(quantizer.layers[0].temperature) == pytest.approx(2 * 0.9**2)
    quantizer(latent)
    assert float(quantizer.layers[0].temperature) == pytest.approx(1.5)
    quantizer.eval()
    assert torch.equal(quantizer(latent).codes, quantizer(latent).codes)


def test_groups_speak_of_their_own_dimensions_in_coarse_to_fine_order():
    quantizer = make("grouped_rvq")
    vectors = quantizer.vectors(quantizer.encode(torch.randn(1, 5, WIDTH)))
    for level in range(4):
        other = slice(0, 4) if level % 2 else slice(4, 8)
        assert vectors[level][..., other].abs().sum() == 0 and vectors[level].abs().sum() > 0


@pytest.mark.parametrize("name", ["grouped_rvq", "grouped_rvq-lfq"])
def test_level_one_of_groups_sends_no_gradient_to_the_others(name):
    latent = torch.randn(2, 5, WIDTH, requires_grad=True)
    make(name)(latent).first.sum().backward()
    assert latent.grad[..., 4:].abs().max() == 0 and latent.grad[..., :4].abs().min() > 0


def test_a_group_of_gumbel_hears_the_whole_latent():
    quantizer = make("gumbel").eval()
    latent = torch.randn(1, 8, WIDTH, requires_grad=True)
    quantizer.layers[0](latent).quantized.sum().backward()
    assert (quantizer.layers[0].logits.weight.shape[1], quantizer.layers[0].embed.shape[1]) == (WIDTH, WIDTH // 2)


@pytest.mark.parametrize("frames", [1, 4, 7, 13])
def test_cross_scale_repeats_coarse_codes_on_the_finest_grid(frames):
    quantizer = make("cross_scale").eval()
    latent = torch.randn(2, frames, WIDTH)
    codes = quantizer.encode(latent)
    for row, stride in zip(codes.unbind(1), quantizer.strides, strict=True):
        assert torch.equal(row, row[:, ::stride].repeat_interleave(stride, 1)[:, :frames])
    # the last block is the mean of the frames there are; padding changes nothing
    padded = torch.nn.functional.pad(latent, (0, 0, 0, 5), value=9.0)
    mask = (torch.arange(frames + 5) < frames).expand(2, -1)
    assert torch.equal(quantizer.encode(padded, mask=mask)[..., :frames], codes)


def test_bitrate_counts_bits_and_strides():
    assert make("vq").bitrate(50) == 200 and make("rvq").bitrate(50) == 600 and make("rvq").bitrate(50, 1) == 200
    assert make("cross_scale").bitrate(50) == pytest.approx(50 * 4 * (1 / 4 + 1 / 2 + 1))
    assert make("rvq", sizes=(16, 4)).codebook_sizes == (16, 4) and make("rvq", sizes=(16, 4)).bitrate(10) == 60


# -- settings -------------------------------------------------------------------------------------------------------


@every_kind
def test_config_survives_a_round_trip(name):
    shape = {"dimension": WIDTH, "codebook_size": 16, "n_q": len(SHAPES[name]), "quantizer": settings_of(name)}
    config = CodecConfig.from_dict(shape)
    assert CodecConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert config.codebook_sizes == SHAPES[name]


def test_settings_of_older_versions_mean_the_same_quantizer():
    old = {"decay": 0.99, "dropout": 0.25, "revive_below": 0.05, "kmeans_iterations": 20}
    config = CodecConfig.from_dict({"quantizer": old}).quantizer
    assert (config.kind, config.level, config.weights, config.settled()) == ("rvq", "ema", {}, {})


@pytest.mark.parametrize(
    "options, message",
    [
        ({"kind": "magic"}, "must be one of"),
        ({"kind": "simvq", "codebook": "fsq"}, "with kind=simvq"),
        ({"kind": "simvq"}, "set n_q=1, or kind=rvq with codebook=simvq"),
        ({"kind": "fsq"}, "fsq_levels"),
        ({"codebook": "fsq", "fsq_levels": [4, 4]}, "set codebook_size=16"),
        ({"kind": "product"}, "n_q|groups"),
        ({"kind": "cross_scale"}, "strides"),
        ({"codebook": "lfq"}, "power of 2"),
        ({"sizes": [4]}, "n_q=3"),
        ({"codebook": "gumbel", "gumbel_temperature": [0.0, 1.0, 1.0]}, "above 0"),
    ],
)
def test_settings_that_do_not_fit_are_refused_in_one_line(options, message):
    with pytest.raises(ConfigError, match=message) as caught:
        CodecConfig.from_dict({"dimension": 8, "n_q": 3, "codebook_size": 20, "quantizer": options})
    assert "\n" not in str(caught.value)


# -- codecs ---------------------------------------------------------------------------------------------------------


@every_kind
def test_a_codec_with_it_trains_and_its_folder_gives_the_same_codes(name, corpus):
    sizes, options = SHAPES[name], settings_of(name)
    shape = [f"codec.n_q={len(sizes)}", f"codec.quantizer={json.dumps(options)}", "weights.adversarial=0", "steps=3"]
    state = train(make_recipe(corpus, *shape, "quantize_from=1", "log_every=1"), corpus / "run")
    rows = [json.loads(line) for line in (corpus / "run/log.jsonl").read_text().splitlines()]
    last = [row for row in rows if row["kind"] == "train"][-1]
    assert all(math.isfinite(last[loss]) for loss in ("commitment/mse", *state.recipe.codec.quantizer.weights))
    tokenizer = speechtok.load(corpus / "run/model")
    wave = np.random.default_rng(0).normal(0, 0.1, 5000).astype(np.float32)
    tokens = tokenizer.encode(Audio(wave, 16000))
    ours = state.average.eval().encode(torch.from_numpy(wave)[None])[0].numpy()
    assert tokens.codebook_sizes == sizes and np.array_equal(tokens.codes, ours)
    assert len(tokenizer.decode(tokens).samples) == 5000
    assert tokenizer.bitrate == pytest.approx(state.codec.quantizer.bitrate(50))


def test_windows_begin_where_coarse_codes_do(corpus):
    options = json.dumps(settings_of("cross_scale"))
    recipe = make_recipe(corpus, "codec.n_q=3", f"codec.quantizer={options}", "weights.adversarial=0", "steps=1")
    train(recipe, corpus / "run")
    tokenizer = speechtok.load(corpus / "run/model")
    audio = Audio(np.random.default_rng(0).normal(0, 0.1, 40001).astype(np.float32), 16000)
    whole, pieces = tokenizer.encode(audio), tokenizer.in_windows(0.3).encode(audio)
    assert np.mean(whole.codes != pieces.codes) < 0.02  # near ties apart
    both = tokenizer.encode_batch([audio, Audio(audio.samples[:3001], 16000)], exact=False)
    assert np.mean(both[1].codes != tokenizer.encode(Audio(audio.samples[:3001], 16000)).codes) < 0.05


def test_two_kinds_with_the_same_weights_have_two_fingerprints():
    codecs = []
    for kind in ("lfq", "bsq"):
        codec = CodecConfig(
            dimension=8, semantic_dimension=8, codebook_size=16, n_q=1, quantizer=QuantizerConfig(kind=kind),
            backbone="frame", frame=FrameConfig(width=16, expansion=2, encoder_blocks=1, decoder_blocks=1),
        )  # fmt: skip
        codecs.append(Codec(codec))
    codecs[1].load_state_dict(codecs[0].state_dict())
    one, other = (CodecTokenizer(codec, "tiny").fingerprint for codec in codecs)
    assert one != other


def test_a_run_from_before_the_kinds_resumes(corpus):
    recipe = make_recipe(corpus, "steps=4", "weights.adversarial=0")
    train(recipe, corpus / "run", stop_at=2)
    place = corpus / "run/checkpoint.safetensors"
    saved = load_snapshot(place)
    old = json.loads(saved["recipe"])
    kept = ("decay", "epsilon", "kmeans_iterations", "revive_below", "dropout", "reproduce_official_gradient")
    old["codec"]["quantizer"] = {key: old["codec"]["quantizer"][key] for key in kept}
    save_snapshot(place, saved | {"recipe": json.dumps(old)})
    assert train(recipe, corpus / "run").step == 4
    other = make_recipe(corpus, "steps=4", "weights.adversarial=0", "codec.quantizer.codebook=gradient")
    with pytest.raises(ConfigError, match="another codec"):
        train(other, corpus / "run")
