"""Content without voice: perturbed input, references, reversed gradients; alone, and in training runs."""

import json
import socket

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import speechtok
from conftest import ROOT, synthetic_speech
from speechtok.config import from_yaml
from speechtok.errors import ConfigError
from speechtok.guidance.frames import CodecGrid
from speechtok.guidance.guides import ReversalGuide
from speechtok.guidance.reversal import Critic, ReversalConfig, WhoSpeaks
from speechtok.nn.quantizers import Quantized
from speechtok.nn.reversal import reverse
from speechtok.train.codec import State, reconstruct, speech_of, train
from speechtok.train.data import Crops, WaveStore, elsewhere, read_manifest
from speechtok.train.perturbation import perturb
from speechtok.train.recipe import CodecRecipe
from speechtok.train.snapshot import load_snapshot
from speechtok.train.views import Hearing, Views, ViewsConfig
from test_recipes import MINIATURE, tiny_timbre
from test_train import assert_same, make_recipe, weights
from test_train_processes import finish, logged, start
from tiny_teachers import tiny_speaker

RATE = 16000
TIMBRE = "codec.timbre={dimension: 4, bands: 10, width: 8, blocks: 1}"
BOTH = ["views={perturbation: 1.4, reference_seconds: 0.2}", TIMBRE, "guides.reversal={ramp: 2, width: 8}"]


@pytest.fixture
def voices(corpus):
    """The corpus with two named speakers and one utterance of nobody."""
    rows = ["path\tsplit\tspeaker\ttext", "0.wav\ttrain\ta\t-", "1.wav\ttrain\tb\t-", "2.wav\ttrain\tUnknown\t-"]
    (corpus / "corpus.tsv").write_text("\n".join([*rows, "3.wav\tdev\ta\t-"]) + "\n")
    return corpus


# -- perturbation ---------------------------------------------------------------------------------------------------


def tone(pitch: float, seconds: float = 2.0) -> np.ndarray:
    """Eight harmonics."""
    time = np.arange(round(seconds * RATE)) / RATE
    return (0.1 * sum(np.sin(2 * np.pi * pitch * k * time) / k for k in range(1, 9))).astype(np.float32)


def pitch_of(wave: np.ndarray) -> float:
    """Hz of the lowest harmonic, which is the strongest."""
    spectrum = np.abs(np.fft.rfft(wave * np.hanning(len(wave)), 1 << 18))
    return float(np.argmax(spectrum)) * RATE / (1 << 18)


@pytest.mark.parametrize("factor", [0.7, 0.9, 1.0, 1.15, 1.4])
def test_pitch_moves_by_the_factor_and_clicks_stay_where_they_are(factor):
    wave, clicks = tone(150), np.zeros(2 * RATE, np.float32)
    clicks[[8000, 16000, 24000]] = 1
    moved, sparse = perturb(np.stack([wave, clicks]), np.array([factor, factor]), RATE)
    assert pitch_of(moved[4000:28000]) == pytest.approx(150 * factor, rel=0.005)
    assert moved.std() == pytest.approx(wave.std(), rel=0.05)
    for place in (8000, 16000, 24000):
        around = np.abs(sparse[place - 2000 : place + 2000])
        assert around.sum() > 0.5  # its energy is there ...
        centre = (around * np.arange(-2000, 2000)).sum() / around.sum()
        assert abs(centre) <= 0.012 * RATE  # ... at its time, to within half a frame or so


def test_formants_move_with_the_pitch():
    """A noise around 2 kHz is found around 2 kHz times the factor."""
    noise = np.fft.rfft(np.random.default_rng(0).standard_normal(2 * RATE))
    heights = np.fft.rfftfreq(2 * RATE, 1 / RATE)
    wave = np.fft.irfft(noise * np.exp(-(((heights - 2000) / 200) ** 2))).astype(np.float32)
    (moved,) = perturb(wave[None], np.array([1.25]), RATE)
    power = np.abs(np.fft.rfft(moved)) ** 2
    assert (power * heights).sum() / power.sum() == pytest.approx(2500, rel=0.03)


def test_the_factor_one_changes_nothing():
    wave = synthetic_speech(1.0).samples[None]
    np.testing.assert_allclose(perturb(wave, np.ones(1), RATE), wave, atol=1e-5)


@pytest.mark.parametrize("length", [1, 100, 3200, 16001])
def test_the_length_is_exact_and_silence_stays_silent(length):
    speech = np.resize(synthetic_speech(1.1).samples, length)
    moved = perturb(np.stack([speech, np.zeros_like(speech)]), np.array([0.7, 1.4]), RATE)
    assert moved.shape == (2, length) and moved.dtype == np.float32
    assert np.isfinite(moved).all() and not moved[1].any()


def test_loudness_over_time_stays():
    wave = synthetic_speech(3.0).samples
    (moved,) = perturb(wave[None], np.array([1.2]), RATE)
    loud, heard = (np.sqrt((one[:47680].reshape(-1, 320) ** 2).mean(1)) for one in (wave, moved))
    assert np.corrcoef(loud, heard)[0, 1] > 0.9


# -- views ----------------------------------------------------------------------------------------------------------


def test_references_share_nothing_with_the_crop_where_there_is_room():
    random = np.random.default_rng(0)
    lengths = random.integers(100, 5000, 2000)
    starts = (random.random(2000) * (np.maximum(0, lengths - 1000) + 1)).astype(int)
    places = elsewhere(lengths, starts, 1000, 700, random.random(2000))
    assert (places >= 0).all() and (places + 700 <= np.maximum(lengths, 700)).all()
    apart = (places + 700 <= starts) | (places >= starts + 1000)
    room = np.maximum(starts, lengths - starts - 1000) >= 700
    assert (apart == room).all()
    before = (places < starts)[room & (starts >= 700) & (lengths - starts - 1000 >= 700)]
    assert 0.3 < before.mean() < 0.7  # both sides are used


def test_views_depend_on_seed_and_step_alone_and_split_over_processes(corpus):
    store = WaveStore.build(read_manifest(corpus / "corpus.tsv", "train"), RATE, corpus / "cache")
    crops = Crops(store, 3200, 4, seed=1, gain_db=(-6, 3))
    hearing = Hearing(ViewsConfig(1.3, 0.15), crops, RATE, timbre=True)
    whole, other = hearing(crops(7), 7), hearing(crops(8), 8)
    assert_same(list(whole), list(hearing(crops(7), 7)))
    assert not torch.equal(whole.heard, other.heard) and not torch.equal(whole.heard, torch.from_numpy(crops(7)))
    for process in range(2):
        mine = hearing(crops(7, process, 2), 7, process, 2)
        for part, all_of_it in zip(mine, whole, strict=True):
            torch.testing.assert_close(part, all_of_it[2 * process : 2 * process + 2], atol=1e-6, rtol=1e-5)


def test_switched_off_they_are_the_crops_themselves(corpus):
    store = WaveStore.build(read_manifest(corpus / "corpus.tsv", "train"), RATE, corpus / "cache")
    crops = Crops(store, 3200, 4, seed=1)
    wave = crops(3)
    views = Hearing(ViewsConfig(), crops, RATE, timbre=False)(wave, 3)
    assert views.heard.data_ptr() == torch.from_numpy(wave).data_ptr() and views.lengths is None


def test_the_encoder_hears_the_perturbed_crop_and_the_target_stays(voices):
    recipe = make_recipe(voices, TIMBRE, "weights.adversarial=0")
    state = State(recipe, (), speech_of(recipe))
    wave = torch.randn(2, recipe.samples) * 0.1
    heard, reference = (torch.randn(2, size, requires_grad=True) for size in (recipe.samples, 3000))
    torch.nn.init.normal_(state.codec.film.outputs.weight)
    output, losses, _ = reconstruct(state, wave, None, Views(heard, reference, torch.tensor([3000, 2000])))
    assert output.shape == wave.shape
    (losses["mel/l1"] + losses["magnitude/l1"]).backward()
    assert heard.grad.abs().sum() > 0 and reference.grad[0].abs().sum() > 0
    assert not reference.grad[1, 2000 + 640 :].any()  # padding, beyond the last window


# -- reversal -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strength", [0.0, 0.5, 2.0])
def test_the_gradient_is_reversed_and_the_value_is_not(strength):
    """Against finite differences of the same function without reversal."""
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    function = lambda value: (value.sin() * value).sum()  # noqa: E731
    assert torch.equal(reverse(x, strength), x)
    function(reverse(x, strength)).backward()
    step = 1e-6
    for index in np.ndindex(3, 4):
        moved = torch.zeros_like(x)
        moved[index] = step
        slope = (function(x.detach() + moved) - function(x.detach() - moved)) / (2 * step)
        assert float(x.grad[index]) == pytest.approx(-strength * float(slope), abs=1e-6)


def test_the_critic_learns_what_the_content_unlearns():
    """One step down the loss of both: the critic alone gets better, the content alone makes it worse."""
    torch.manual_seed(0)
    critic, content = Critic(4, 8, 2), torch.randn(6, 5, 4, requires_grad=True)
    labels = torch.arange(6) % 2
    loss = lambda vectors: F.cross_entropy(critic(vectors, 1.0), labels)  # noqa: E731
    before = loss(content)
    before.backward()
    with torch.no_grad():
        assert loss(content - 0.1 * content.grad) > before
        for parameter in critic.parameters():
            parameter -= 0.1 * parameter.grad
        assert loss(content) < before


def test_strength_rises_from_its_start():
    config = ReversalConfig(strength=2.0, start=10, ramp=4)
    assert [config.strength_at(step) for step in (0, 9, 10, 11, 13, 99)] == [0, 0, 0.5, 1, 2, 2]


def test_utterances_of_nobody_do_not_count():
    question = WhoSpeaks(["a", "", "b", "unknown", "Unknown"], lambda step: np.arange(5))
    answers = torch.randn(5, 2)
    found = question(answers, answers, None, 0)
    named, speakers = answers[[0, 2]], torch.tensor([0, 1])
    assert float(found["reversal/cross_entropy"]) == pytest.approx(float(F.cross_entropy(named, speakers)), rel=1e-5)
    assert float(found["reversal/accuracy"]) == pytest.approx(float((named.argmax(1) == speakers).float().mean()))
    nobody = WhoSpeaks(["a", "", "b"], lambda step: np.array([1, 1]))(answers[:2], answers, None, 0)
    assert float(nobody["reversal/cross_entropy"]) == 0 and float(nobody["reversal/accuracy"]) == 0


def speaker_probe(strength: float, seed: int = 0, steps: int = 600) -> float:
    """How often a fresh linear probe names the speaker of a frame of held-out content, with two speakers.

    Frames are one of four symbols plus the speaker's offset; an encoder squeezes them through a noisy bottleneck, and
    a decoder that is told the speaker restores them.
    """
    torch.manual_seed(seed)
    speakers, symbols, offsets = torch.arange(16) % 2, torch.randn(4, 8), 0.7 * torch.randn(2, 8)

    def speech() -> torch.Tensor:
        return symbols[torch.randint(4, (16, 20))] + offsets[speakers][:, None] + 0.3 * torch.randn(16, 20, 8)

    def squeezed(x: torch.Tensor) -> torch.Tensor:
        latent = encoder(x)
        return latent + 0.3 * torch.randn_like(latent)

    encoder, decoder = torch.nn.Linear(8, 4), torch.nn.Linear(6, 8)
    question = WhoSpeaks(["a", "b"] * 8, lambda step: np.arange(16))
    config = ReversalConfig(strength=strength, ramp=200, width=32)
    guide = ReversalGuide(config, question, 4, CodecGrid(RATE, 320))
    trained = [*encoder.parameters(), *decoder.parameters(), *guide.parameters()]
    optimiser, told = torch.optim.Adam(trained, 1e-3, betas=(0.8, 0.99)), F.one_hot(speakers).float()[:, None]
    for step in range(steps):
        x = speech()
        latent = squeezed(x)
        restored = decoder(torch.cat([latent, told.expand(-1, 20, -1)], 2))
        losses = guide(None, x[..., 0], Quantized(latent, latent), step)
        optimiser.zero_grad()
        ((restored - x).square().mean() + losses["reversal/cross_entropy"]).backward()
        optimiser.step()
    with torch.no_grad():
        heard, held_out = (F.pad(torch.cat([squeezed(speech()).flatten(0, 1) for _ in range(20)]), (0, 1), value=1.0)
                           for _ in range(2))  # fmt: skip
    sides = (speakers.repeat_interleave(20).repeat(20) * 2.0 - 1)[:, None]
    probe = torch.linalg.lstsq(heard, sides).solution
    return float(((held_out @ probe).sign() == sides).float().mean())


def test_reversal_takes_the_speaker_out_of_the_content():
    """On average: with some seeds the critic never catches the encoder, as in any game of two."""
    without, with_it = (np.mean([speaker_probe(strength, seed) for seed in range(4)]) for strength in (0.0, 1.0))
    assert with_it < without - 0.08


# -- runs -----------------------------------------------------------------------------------------------------------


def test_stop_and_resume_with_everything_equals_never_stopping(voices):
    recipe = make_recipe(voices, *BOTH)
    train(recipe, voices / "straight")
    torch.manual_seed(99)
    train(recipe, voices / "broken", stop_at=4)
    torch.rand(7)
    train(recipe, voices / "broken")
    straight = weights(voices / "straight")
    assert (
        any(name.startswith("0.critic.") for name in straight["guides"]) and "film.outputs.weight" in straight["codec"]
    )
    assert straight["codec"]["film.outputs.weight"].abs().sum() > 0
    assert_same(straight, weights(voices / "broken"))
    rows = [json.loads(line) for line in (voices / "straight/log.jsonl").read_text().splitlines()]
    final = [row for row in rows if row["kind"] == "train"][-1]
    assert final["reversal/cross_entropy"] > 0 and 0 <= final["reversal/accuracy"] <= 1


@pytest.mark.parametrize("strength", [0.0, 1.0])
def test_only_a_reversed_gradient_reaches_the_codec(voices, strength):
    """With strength 0 the codec learns as if there were no guide."""
    options = ["optimisation.clip=0", "steps=3", "quantize_from=0"]
    guided = make_recipe(voices, *options, f"guides.reversal={{ramp: 0, width: 8, strength: {strength}}}")
    with_it, without = train(guided, voices / "guided"), train(make_recipe(voices, *options), voices / "plain")
    same = all(torch.equal(*pair) for pair in zip(with_it.codec.parameters(), without.codec.parameters(), strict=True))
    assert same == (strength == 0)


def test_a_speaker_model_is_asked_where_nobody_is_named(corpus):
    teacher = tiny_speaker(corpus)
    recipe = make_recipe(corpus, f"guides.reversal={{teacher: {teacher}, width: 8}}", "steps=4")
    state = train(recipe, corpus / "run")
    assert state.guides[0].critic.answer[-1].out_features == 6
    row = json.loads((corpus / "run/log.jsonl").read_text().splitlines()[0])
    assert 0 <= row["reversal/cosine"] <= 2 and "reversal/accuracy" not in row


def test_two_processes_do_what_one_does(voices):
    recipe = make_recipe(voices, *BOTH, "data.batch=4", "log_every=1", "codec.quantizer.dropout=0")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for folder in ("one", "two"):
        (voices / folder).mkdir()
    finish(*(start(recipe, voices / "two", rank, 2, port) for rank in range(2)), start(recipe, voices / "one"))
    first, second = (load_snapshot(voices / "two" / f"rank-{rank}") for rank in range(2))
    assert_same(first, second)
    for ours, theirs in zip(logged(voices / "two"), logged(voices / "one"), strict=True):
        for name in {"mel/l1", "reversal/cross_entropy", "reversal/accuracy"} & set(theirs):
            assert ours[name] == pytest.approx(theirs[name], rel=1e-3, abs=1e-4), name


def test_a_codec_without_timbre_is_a_start_for_one_with_it(voices):
    train(make_recipe(voices), voices / "first")
    state = train(make_recipe(voices, f"start={voices}/first/model", TIMBRE, "steps=2"), voices / "second")
    assert state.codec.film is not None


@pytest.mark.parametrize(
    "override, message",
    [
        ("views.perturbation=0.5", r"views\.perturbation is 0\.5"),
        ("views.perturbation=9", r"views\.perturbation"),
        ("views.reference_seconds=0", r"views\.reference_seconds"),
        ("codec.timbre={width: 0}", r"codec\.timbre\.width"),
        ("guides.reversal={strength: -1}", r"guides\.reversal\.strength"),
        ("guides.reversal={ramp: -1}", r"guides\.reversal\.ramp"),
        ("guides.reversal={content: last}", "content"),
        ("guides.reversal={}", r"name 1 speaker.*guides\.reversal\.teacher"),
        ("weights.guides={reversal/cross_entropy: 1.0}", "reversal/cross_entropy"),
    ],
)
def test_mistakes_are_named_in_one_line(corpus, override, message):
    with pytest.raises(ConfigError, match=message) as caught:
        train(make_recipe(corpus, override), corpus / "run", stop_at=1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "variant",
    [
        pytest.param([], id="perturbation"),
        pytest.param(["views.perturbation=1", "guides.reversal={ramp: 2, width: 8}"], id="reversal"),
        pytest.param(["guides.reversal={ramp: 2, width: 8}"], id="both"),
    ],
)
def test_the_recipe_runs_in_its_variants(voices, variant):
    path = ROOT / "recipes/lscodec-style.yaml"
    places = [f"data.manifests=[{voices}/corpus.tsv]", f"data.cache={voices}/cache", "codec.n_q=1"]
    recipe = from_yaml(CodecRecipe, path, [*MINIATURE, *places, *tiny_timbre(path), *variant])
    train(recipe, voices / "run")
    row = json.loads((voices / "run/log.jsonl").read_text().splitlines()[-2])
    assert ("reversal/accuracy" in row) == any("reversal" in setting for setting in variant)
    tokens = speechtok.load(voices / "run/model").encode(speechtok.read(voices / "3.wav"))
    assert tokens.levels == 1 and tokens.timbre is not None
