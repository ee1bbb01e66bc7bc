"""The frame-rate backbone: length law, batches, causality, context, and phase consistency."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from speechtok.errors import ConfigError
from speechtok.nn.frame import FrameConfig, FrameDecoder, FrameEncoder
from speechtok.nn.spectrum import Spectrum, make_consistent

SMALL = {"width": 16, "expansion": 2, "encoder_blocks": 2, "decoder_blocks": 2}


def make_pair(seed: int = 0, causal: bool = False) -> tuple[FrameEncoder, FrameDecoder]:
    torch.manual_seed(seed)
    config = FrameConfig(**SMALL, causal=causal, consistency_iterations=0 if causal else 2)
    return FrameEncoder(config, 8).eval(), FrameDecoder(config, 8).eval()


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 2000))
def test_length_law(samples):
    encoder, decoder = make_pair()
    latent = encoder(torch.randn(1, samples) * 0.1)
    frames = -(-samples // 320)
    assert latent.shape == (1, frames, 8)
    assert decoder(latent).shape == (1, frames * 320)


@settings(deadline=None, max_examples=15)
@given(st.lists(st.integers(1, 3000), min_size=2, max_size=4), st.booleans())
def test_padded_batches_give_what_single_signals_give(lengths, causal):
    encoder, decoder = make_pair(causal=causal)
    waves = [torch.randn(length) * 0.1 for length in lengths]
    batch = torch.nn.utils.rnn.pad_sequence(waves, batch_first=True)
    latent = encoder(batch, torch.tensor(lengths))
    frames = torch.tensor([-(-length // 320) for length in lengths])
    decoded = decoder(latent, frames)
    for i, wave in enumerate(waves):
        alone = encoder(wave[None])
        torch.testing.assert_close(latent[i : i + 1, : frames[i]], alone, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(decoded[i : i + 1, : frames[i] * 320], decoder(alone), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("causal", [False, True], ids=["non-causal", "causal"])
def test_nothing_outside_the_stated_context_is_seen(causal):
    encoder, decoder = make_pair(causal=causal)
    frames, middle = 60, 30
    for model, shape, stride in ((encoder, (1, frames * 320), 320), (decoder, (1, frames, 8), 1)):
        left, right = model.context()
        assert not causal or right == 0
        x = torch.randn(shape) * 0.1
        y = x.clone()
        y[:, : (middle - left) * stride] += 1
        y[:, (middle + right + 1) * stride :] += 1
        out, changed = model(x), model(y)
        step = out.shape[1] // frames
        here = slice(middle * step, (middle + 1) * step)
        torch.testing.assert_close(out[:, here], changed[:, here], atol=1e-6, rtol=1e-5)
        assert not torch.allclose(out, changed)


@pytest.mark.parametrize("reach", [None, 0, 480], ids=["centred", "forward", "backward"])
def test_synthesis_inverts_analysis(reach):
    spectrum, wave = Spectrum(640, 160, reach), torch.randn(2, 3200)
    again = spectrum.synthesise(spectrum.analyse(wave))
    inner = slice(20, -20)  # the outermost samples of a one-sided grid meet only the window's vanishing end
    torch.testing.assert_close(again[:, inner], wave[:, inner], atol=1e-3, rtol=1e-3)


def test_a_causal_codec_with_projections_is_refused():
    with pytest.raises(ConfigError, match="consistency_iterations"):
        FrameConfig(causal=True, consistency_iterations=1)


def test_analysis_agrees_with_torch_stft():
    spectrum, wave = Spectrum(640, 160), torch.randn(1, 3200)
    ours = spectrum.analyse(wave)[0]
    padded = torch.nn.functional.pad(wave, (240, 240))
    reference = torch.stft(padded, 640, 160, window=spectrum.window, center=False, return_complex=True)[0].T
    torch.testing.assert_close(ours, reference, atol=1e-4, rtol=1e-4)


def test_projections_bring_the_spectrum_nearer_to_its_magnitude():
    torch.manual_seed(0)
    spectrum = Spectrum(640, 160)
    magnitude = spectrum.analyse(torch.randn(1, 8000)).abs()
    phasor = torch.randn(magnitude.shape, dtype=torch.complex64)
    errors = []
    for iterations in (0, 2, 8):
        wave = make_consistent(spectrum, magnitude, phasor, iterations)
        errors.append(float((spectrum.analyse(wave).abs() - magnitude).norm()))
    assert errors[0] > errors[1] > errors[2]


def test_a_consistent_spectrum_is_left_alone():
    spectrum, wave = Spectrum(640, 160), torch.randn(1, 4800)
    exact = spectrum.analyse(wave)
    torch.testing.assert_close(make_consistent(spectrum, exact.abs(), exact, 3), wave, atol=1e-3, rtol=1e-3)


def test_decoder_is_differentiable_through_the_projections():
    encoder, decoder = make_pair()
    wave = torch.randn(2, 3200) * 0.1
    (decoder(encoder(wave)) - wave).square().mean().backward()
    grads = [p.grad for model in (encoder, decoder) for p in model.parameters() if p.requires_grad]
    assert all(g is not None and torch.isfinite(g).all() for g in grads)
