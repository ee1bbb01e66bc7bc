"""The causal frame codec piece by piece; see ``nn.streaming`` for what a stream is.

The encoder keeps the end of the signal that the next STFT windows overlap, each block the frames that its convolution
reaches back to, the decoder the windows' ends that the next ones are added to.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from speechtok.nn.frame import ConvNeXtBlock, FrameDecoder, FrameEncoder, Trunk
from speechtok.nn.spectrum import Spectrum, with_magnitude
from speechtok.nn.streaming import streamed


class BlockStream:
    """Keeps the frames before the next one that the depth-wise convolution sees, ``x[1, n, C] -> [1, n, C]``."""

    def __init__(self, block: ConvNeXtBlock):
        self.block = block
        self.held = block.gamma.new_zeros(1, block.padding[0], len(block.gamma))

    def __call__(self, x: Tensor) -> Tensor:
        seen = torch.cat([self.held, x], 1)
        self.held = seen[:, x.shape[1] :]
        return self.block.mixed(x, self.block.depthwise(seen.transpose(1, 2)).transpose(1, 2))


class TrunkStream:
    """``hidden`` of a trunk: a stream per block."""

    def __init__(self, trunk: Trunk):
        self.trunk, self.blocks = trunk, [BlockStream(block) for block in trunk.blocks]

    def __call__(self, x: Tensor) -> Tensor:
        x = self.trunk.norm_in(self.trunk.inputs(x))
        for block in self.blocks:
            x = block(x)
        return self.trunk.norm_out(x)


class SynthesisStream:
    """Inverse STFT: keeps the sum of windows that reach past the last hop, and the sum of their squares."""

    def __init__(self, spectrum: Spectrum):
        self.spectrum = spectrum
        self.overlap = spectrum.n_fft - spectrum.hop
        self.squares = spectrum.window.square()[None, None]
        self.held = self.held_squares = spectrum.window.new_zeros(1, self.overlap)

    def __call__(self, spectrum: Tensor) -> Tensor:
        """``complex spectrum[1, m, bins] -> wave[1, m * hop]``."""
        frames = torch.fft.irfft(spectrum, n=self.spectrum.n_fft) * self.spectrum.window
        wave, self.held = self._added(frames, self.held)
        envelope, self.held_squares = self._added(self.squares.expand(1, frames.shape[1], -1), self.held_squares)
        return wave / envelope.clamp_min(1e-6)

    def _added(self, frames: Tensor, held: Tensor) -> tuple[Tensor, Tensor]:
        total = self.spectrum.overlapped(frames)
        total[:, : self.overlap] += held
        done = frames.shape[1] * self.spectrum.hop
        return total[:, :done], total[:, done:]


class FrameEncoderStream:
    """``wave[1, n] -> latent[1, ceil(n / hop), S + D]``."""

    def __init__(self, encoder: FrameEncoder):
        self.encoder, self.trunk = encoder, TrunkStream(encoder.trunk)
        self.held = encoder.features.weight.new_zeros(1, encoder.config.overlap)

    def __call__(self, wave: Tensor, last: bool) -> Tensor:
        encoder = self.encoder
        heard = torch.cat([self.held, F.pad(wave, (0, -wave.shape[1] % encoder.config.hop))], 1)
        self.held = heard[:, heard.shape[1] - encoder.config.overlap :]
        features = encoder.features.of(encoder.features.spectrum.windowed(heard))
        return encoder.latent(features, self.trunk(features))


class FrameDecoderStream:
    """``latent[1, n, D] -> wave[1, n * hop]``."""

    def __init__(self, decoder: FrameDecoder):
        self.decoder, self.trunk = decoder, TrunkStream(decoder.trunk)
        self.synthesis = SynthesisStream(decoder.features.spectrum)

    def __call__(self, latent: Tensor, last: bool) -> Tensor:
        decoder = self.decoder
        features, phasor = decoder.predicted(latent, decoder.trunk.outputs(self.trunk(latent)))
        return self.synthesis(with_magnitude(decoder.features.magnitude(features), phasor))


streamed.register(FrameEncoder, FrameEncoderStream)
streamed.register(FrameDecoder, FrameDecoderStream)
