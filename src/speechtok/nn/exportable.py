"""The halves of a codec as plain tensor functions that an exporter can trace with dynamic lengths and batches.

The same sums as ``nn.seanet`` and ``nn.frame``, without what depends on how long a signal happens to be: one arithmetic
for convolutions, padding by the library, and Fourier transforms as products with the matrix of the transform, in real
numbers. Signals shorter than ``min_samples`` and padded batches stay the library's own business.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from speechtok.errors import NotSupportedError
from speechtok.nn.codec import Codec
from speechtok.nn.conv import Conv1d, ConvTranspose1d
from speechtok.nn.frame import FrameDecoder, FrameEncoder
from speechtok.nn.seanet import ResidualBlock
from speechtok.nn.sequence import SkipLSTM
from speechtok.nn.spectrum import MOMENTUM, Spectrum


class ExportEncoder(nn.Module):
    """``wave[B, T] -> codes[B, Q, N]``, ``N = ceil(T / hop)``, for every ``T >= min_samples``."""

    def __init__(self, codec: Codec):
        super().__init__()
        refuse_unexportable(codec)
        self.hop, self.quantizer = codec.config.hop, codec.quantizer
        frame = codec.config.backbone == "frame"
        self.network = FrameIn(codec.encoder) if frame else Stack(codec.encoder.model, self.hop)

    def forward(self, wave: Tensor) -> Tensor:
        return self.quantizer.encode(self.network(wave))


class ExportDecoder(nn.Module):
    """``codes[B, Q, N] -> wave[B, N * hop]``, all levels."""

    def __init__(self, codec: Codec):
        super().__init__()
        refuse_unexportable(codec)
        self.quantizer = codec.quantizer
        self.network = FrameOut(codec.decoder) if codec.config.backbone == "frame" else Stack(codec.decoder.model, 0)

    def forward(self, codes: Tensor) -> Tensor:
        return self.network(self.quantizer.decode(codes))


def refuse_unexportable(codec: nn.Module) -> None:
    """Raise NotSupportedError where the codec has parts that have no exportable form."""
    if not isinstance(codec, Codec):
        raise NotSupportedError("only codecs of speechtok can be exported; export this one with its own library")
    if codec.film is not None:
        raise NotSupportedError("a codec with a timbre decodes in a voice, which the exported decoder has no input for")
    if codec.config.backbone == "seanet" and codec.config.seanet.sequence == "transformer":
        raise NotSupportedError("a SEANet with a transformer cannot be exported; take one with an LSTM or without")
    if any(stride != 1 for stride in codec.quantizer.strides):
        raise NotSupportedError("codes of coarser frames cannot be exported; take a quantizer with one rate")


def min_samples(codec: Codec) -> int:
    """Shortest signal that the exported encoder takes: its reflections must lie inside."""
    config = codec.config
    if config.backbone == "frame" or config.seanet.pad_mode == "constant":
        return 1
    widest = max(max(layer.left, layer.right) for layer in codec.encoder.modules() if isinstance(layer, Conv1d))
    return config.hop * (widest + 2)


class Stack(nn.Module):
    """A SEANet encoder (``hop`` above 0: takes waves) or decoder (0: gives waves)."""

    def __init__(self, layers: nn.ModuleList, hop: int):
        super().__init__()
        self.layers, self.encodes = layers, hop > 0

    def forward(self, x: Tensor) -> Tensor:
        """``wave[B, T] -> latent[B, N, D]``, or back."""
        x = x.unsqueeze(1) if self.encodes else x.transpose(1, 2)
        for layer in self.layers:
            x = plain(layer, x)
        return x.transpose(1, 2) if self.encodes else x.squeeze(1)


def plain(layer: nn.Module, x: Tensor) -> Tensor:
    """One layer of SEANet on ``x[B, C, T]``."""
    if isinstance(layer, Conv1d):
        stride = layer.stride[0]
        right = layer.right + (-x.shape[2] % stride if stride > 1 else 0)
        if layer.left or layer.right or stride > 1:
            x = F.pad(x, (layer.left, right), mode=layer.pad_mode)
        return F.conv1d(x, layer.weight, layer.bias, stride, 0, layer.dilation)
    if isinstance(layer, ConvTranspose1d):
        y = F.conv_transpose1d(x, layer.weight, layer.bias, layer.stride)
        return y[:, :, layer.left : layer.left + x.shape[2] * layer.stride[0]]
    if isinstance(layer, ResidualBlock):
        y = x
        for part in layer.block:
            y = plain(part, y)
        return y + (x if isinstance(layer.shortcut, nn.Identity) else plain(layer.shortcut, x))
    if isinstance(layer, SkipLSTM):
        x = x.transpose(1, 2)
        return (layer.lstm(x)[0] + x.repeat(1, 1, layer.outputs // x.shape[2])).transpose(1, 2)
    return layer(x)


class Transform(nn.Module):
    """``Spectrum`` in real numbers: the transforms are convolutions with windowed waves."""

    def __init__(self, spectrum: Spectrum):
        super().__init__()
        size, self.hop, self.padding, self.bins = spectrum.n_fft, spectrum.hop, spectrum.padding, spectrum.bins
        angle = 2 * math.pi * torch.outer(torch.arange(self.bins), torch.arange(size)).remainder(size).double() / size
        waves, window = torch.cat([angle.cos(), -angle.sin()]), spectrum.window.double().cpu()
        twice = torch.full((self.bins,), 2.0, dtype=torch.double)
        twice[0] = 1.0
        if size % 2 == 0:
            twice[-1] = 1.0
        self.register_buffer("forth", (waves * window).float().unsqueeze(1))
        self.register_buffer("back", (waves * window * twice.repeat(2).unsqueeze(1) / size).float().unsqueeze(1))
        self.register_buffer("squares", window.square().float()[None, None])

    def analyse(self, wave: Tensor) -> tuple[Tensor, Tensor]:
        """Real and imaginary parts ``[B, bins, M]`` of ``wave[B, M * hop]``."""
        both = F.conv1d(F.pad(wave, self.padding).unsqueeze(1), self.forth, stride=self.hop)
        return both[:, : self.bins], both[:, self.bins :]

    def synthesise(self, real: Tensor, imaginary: Tensor, envelope: Tensor) -> Tensor:
        """``wave[B, M * hop]`` of a spectrum, ``[B, bins, M]`` each."""
        return self._cut(torch.cat([real, imaginary], 1), self.back) / envelope

    def envelope(self, frames: Tensor) -> Tensor:
        """The sum of the squared windows, for as many frames as ``frames[B, bins, M]`` has."""
        return self._cut(torch.ones_like(frames[:1, :1]), self.squares).clamp_min(1e-6)

    def _cut(self, frames: Tensor, kernel: Tensor) -> Tensor:
        length = frames.shape[2] * self.hop
        return F.conv_transpose1d(frames, kernel, stride=self.hop)[:, 0, self.padding[0] : self.padding[0] + length]


class FrameIn(nn.Module):
    """``FrameEncoder`` for export, ``wave[B, T] -> latent[B, N, S + D]``."""

    def __init__(self, encoder: FrameEncoder):
        super().__init__()
        self.encoder, self.transform = encoder, Transform(encoder.features.spectrum)

    def forward(self, wave: Tensor) -> Tensor:
        encoder, features = self.encoder, self.encoder.features
        real, imaginary = self.transform.analyse(F.pad(wave, (0, -wave.shape[1] % encoder.config.hop)))
        magnitude = (real.square() + imaginary.square()).sqrt().transpose(1, 2)
        logs = (torch.log(magnitude + features.floor) * features.weight).unflatten(1, (-1, features.stack)).flatten(2)
        hidden = encoder.trunk.hidden(logs)
        latent = encoder.linear(logs) + encoder.trunk.outputs(hidden)
        return latent if encoder.own is None else torch.cat([encoder.own(hidden), latent], 2)


class FrameOut(nn.Module):
    """``FrameDecoder`` for export, ``latent[B, N, D] -> wave[B, N * hop]``."""

    def __init__(self, decoder: FrameDecoder):
        super().__init__()
        self.decoder, self.transform = decoder, Transform(decoder.features.spectrum)

    def forward(self, latent: Tensor) -> Tensor:
        decoder, transform = self.decoder, self.transform
        residual, real, imaginary = decoder.trunk(latent).split(decoder.features.size, dim=2)
        logs = self._frames(decoder.linear(latent) + residual) / decoder.features.weight
        top = math.log(decoder.features.spectrum.n_fft)
        magnitude = (torch.exp(logs.clamp(max=top)) - decoder.features.floor).clamp_min(1e-4).transpose(1, 2)
        envelope = transform.envelope(magnitude)
        ahead = self._frames(real).transpose(1, 2), self._frames(imaginary).transpose(1, 2)
        wave, before = transform.synthesise(*scaled(magnitude, *ahead), envelope), None
        for _ in range(decoder.config.consistency_iterations):
            reached = transform.analyse(wave)
            ahead = reached
            if before is not None:
                ahead = tuple(old + (1 + MOMENTUM) * (new - old) for old, new in zip(before, reached, strict=True))
            wave = transform.synthesise(*scaled(magnitude, *ahead), envelope)
            before = reached
        return wave

    def _frames(self, x: Tensor) -> Tensor:
        """``[B, N, stack * bins] -> [B, M, bins]``."""
        return x.unflatten(2, (self.decoder.config.stack, -1)).flatten(1, 2)


def scaled(magnitude: Tensor, real: Tensor, imaginary: Tensor) -> tuple[Tensor, Tensor]:
    """``with_magnitude`` in real numbers."""
    scale = magnitude * torch.rsqrt(real.square() + imaginary.square() + 1e-12)
    return real * scale, imaginary * scale
