"""SEANet at inference as matrix products on ``x[B, T, C]``: the channels of a moment lie together in memory.

A window of a convolution is then one stretch of memory, and a layer one product with a weight that was put in order
once. Nothing is rearranged between layers, which is what keeps bfloat16 from paying in
the usual layout. A residual block adds its two branches inside one product, so sums of branches are kept in float32
whatever the numbers are stored in.

Every class is made from the layer that it stands for, holds a copy of its weights, and passes no gradient.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from speechtok.nn.conv import Conv1d, ConvTranspose1d, Timed, pad_time
from speechtok.nn.recurrent import Recurrent
from speechtok.nn.seanet import ELU, ResidualBlock, SEANetDecoder, SEANetEncoder, Snake, context_of
from speechtok.nn.sequence import SkipLSTM

Layer = Callable[[Tensor], Tensor]
"""``x[B, T, C] -> [B, T', C']``"""


MANY = 4
"""So many times more frames than channels, and the library's convolution is faster than a product of copied windows."""
PIECE = 2**21
"""About so many numbers of the widest layer are computed at a time: they stay in the processor's caches, and their
memory is used again, where larger pieces are given new memory by every layer (2 s of SpeechTokenizer)."""


class Unsupported(Exception):
    """A layer that has no time-major form here."""


class Windows:
    """A strided or dilated convolution: windows of ``x`` in rows, times the weight."""

    def __init__(self, conv: Conv1d, dtype: torch.dtype):
        self.span, self.stride, self.dilation = conv.span, conv.stride[0], conv.dilation[0]
        self.left, self.right, self.mode = conv.left, conv.right, conv.pad_mode
        weight = conv.weight.detach()
        self.weight = weight.transpose(1, 2).flatten(1).contiguous().to(dtype)
        self.bias = conv.bias.detach().to(dtype)

    def __call__(self, x: Tensor) -> Tensor:
        x = padded(x.to(self.weight.dtype), self.left, self.right + -x.shape[1] % self.stride, self.mode)
        return self.product(x)

    def product(self, x: Tensor) -> Tensor:
        """The windows of ``x[B, T, C]`` times the weight, ``[B, N, C']``."""
        return windowed(x, self.weight, self.bias, self.span, self.stride, self.dilation)


def windowed(x: Tensor, weight: Tensor, bias: Tensor, span: int, stride: int = 1, dilation: int = 1) -> Tensor:
    """Windows of ``span`` frames of ``x[B, T, C]`` times ``weight[C', taps * C]``, ``[B, N, C']``.

    With many frames and few channels the library's convolution in this layout is faster, for it copies no windows, but
    the weight. Both are one product with the same weight.
    """
    if span == stride == 1:
        return F.linear(x, weight, bias)
    channels, frames = x.shape[2], (x.shape[1] - span) // stride + 1
    if channels == 1 or frames < MANY * len(weight):
        rows = x.unfold(1, span, stride)[..., ::dilation].transpose(2, 3).flatten(2)
        return F.linear(rows, weight, bias)
    kernel = weight.unflatten(1, (-1, channels)).transpose(1, 2).unsqueeze(2)
    y = F.conv2d(x.transpose(1, 2).unsqueeze(2), kernel, bias, (1, stride), 0, (1, dilation))
    return y.squeeze(2).transpose(1, 2)


class ToOneChannel:
    """A convolution to a single channel: products first, then a sum along time, which spares the copy of windows."""

    def __init__(self, conv: Conv1d):
        self.left, self.right, self.mode = conv.left, conv.right, conv.pad_mode
        self.weight, self.bias = conv.weight.detach()[0].t().float().contiguous(), conv.bias.detach().float()

    def __call__(self, x: Tensor) -> Tensor:
        frames = x.shape[1]
        taps = F.linear(padded(x, self.left, self.right, self.mode).float(), self.weight)
        return (sum(taps[:, k : k + frames, k] for k in range(taps.shape[2])) + self.bias).unsqueeze(2)


class Upsampling:
    """A transposed convolution whose kernel is twice its stride: two neighbouring frames give ``stride`` samples."""

    def __init__(self, conv: ConvTranspose1d, dtype: torch.dtype):
        self.stride, self.left = conv.stride[0], conv.left
        first, second = conv.weight.detach().unflatten(2, (2, self.stride)).permute(2, 3, 1, 0).flatten(1, 2)
        self.weight = torch.cat([second, first], dim=1).contiguous().to(dtype)  # the earlier frame's chunk comes first
        self.bias = conv.bias.detach().repeat(self.stride).to(dtype)

    def __call__(self, x: Tensor) -> Tensor:
        batch, frames, _ = x.shape
        y = windowed(F.pad(x.to(self.weight.dtype), (0, 0, 1, 1)), self.weight, self.bias, 2)
        return y.view(batch, (frames + 1) * self.stride, -1)[:, self.left : self.left + frames * self.stride]


class Residual:
    """Both branches of a residual block; the sum is taken inside the product, in float32."""

    def __init__(self, block: ResidualBlock, dtype: torch.dtype):
        before, narrow, between, wide = block.block
        self.before, self.narrow, self.between = activation(before), Windows(narrow, dtype), activation(between)
        self.wide, self.shortcut = Windows(wide, dtype), None
        if wide.span != 1:
            raise Unsupported("a residual block that does not end in a 1x1 convolution")
        if isinstance(block.shortcut, Conv1d):
            skip = Windows(block.shortcut, dtype)
            self.shortcut = torch.cat([skip.weight, self.wide.weight], dim=1)
            self.bias = (block.shortcut.bias + block.block[3].bias).detach().to(dtype)

    def __call__(self, x: Tensor) -> Tensor:
        y = self.between(self.narrow(self.before(x)))
        if self.shortcut is None:
            return x + self.wide(y)
        return F.linear(torch.cat([x.to(y.dtype), y], dim=2), self.shortcut, self.bias)


class Stack:
    """Layers without an LSTM one after the other, for a piece of time after the other.

    A piece goes in with as much on both sides as its own outputs depend on, so the pieces together are what the whole
    signal gives, but for the rounding of products of other sizes.
    """

    def __init__(self, layers: Sequence[Timed], dtype: torch.dtype):
        self.layers = [time_major(layer, dtype) for layer in layers]
        self.down, self.up = (math.prod(_strides(layers, kind)) for kind in (Conv1d, ConvTranspose1d))
        context = context_of(layers, self.down, self.up)
        if context is None:
            raise Unsupported("a layer that depends on all of its input")
        self.left, self.right = context
        self.frames = max(1, PIECE // _widest(layers, self.down))

    def __call__(self, x: Tensor) -> Tensor:
        """``x[B, T, C] -> [B, ceil(T / down) * up, C']``."""
        frames = -(-x.shape[1] // self.down)
        pieces = max(1, round(frames / self.frames))
        if pieces == 1:
            return chain(self.layers, x)
        edges = [frames * i // pieces for i in range(pieces + 1)]
        return torch.cat([self.between(x, start, stop) for start, stop in pairwise(edges)], dim=1)

    def between(self, x: Tensor, start: int, stop: int) -> Tensor:
        """Outputs of the frames from ``start`` to before ``stop``, a frame being ``down`` inputs."""
        first = max(0, start - self.left)
        y = chain(self.layers, x[:, first * self.down : (stop + self.right) * self.down])
        return y[:, (start - first) * self.up : (stop - first) * self.up]


class Encoder(nn.Module):
    """What ``SEANetEncoder`` computes, ``wave[B, T] -> latent[B, N, D]`` in float32.

    Each signal of a batch goes through the convolutions alone, where it fills the machine and its padding costs
    nothing; all meet in the LSTM, which reads its weights once for the whole batch.
    """

    def __init__(self, encoder: SEANetEncoder, dtype: torch.dtype):
        super().__init__()
        self.before, self.sequence, self.after = in_three(encoder.model, dtype)
        self.original = [encoder]  # in a list: it is no part of this module

    def forward(self, wave: Tensor, lengths: Tensor | None = None) -> Tensor:
        """See ``SEANetEncoder``."""
        return in_turns(self, wave.unsqueeze(2), lengths)

    def context(self) -> tuple[int, int] | None:
        """See ``SEANetEncoder``."""
        return self.original[0].context()


class Decoder(nn.Module):
    """What ``SEANetDecoder`` computes, ``latent[B, N, D] -> wave[B, N * hop]`` in float32; see ``Encoder``."""

    def __init__(self, decoder: SEANetDecoder, dtype: torch.dtype):
        super().__init__()
        self.before, self.sequence, self.after = in_three(decoder.model, dtype)
        self.original = [decoder]

    def forward(self, latent: Tensor, lengths: Tensor | None = None) -> Tensor:
        """See ``SEANetDecoder``."""
        return in_turns(self, latent, lengths).squeeze(2)

    def context(self) -> tuple[int, int] | None:
        """See ``SEANetDecoder``."""
        return self.original[0].context()


def in_turns(parts: Encoder | Decoder, x: Tensor, lengths: Tensor | None) -> Tensor:
    """The layers before the LSTM signal by signal, the LSTM for all, the others signal by signal; ``x[B, T, C]``."""
    ends = [x.shape[1]] * len(x) if lengths is None else lengths.tolist()
    signals = [parts.before(x[i : i + 1, :end]) for i, end in enumerate(ends)]
    if parts.sequence is not None:
        frames = [signal.shape[1] for signal in signals]
        equal = len(set(frames)) == 1
        together = torch.cat(signals) if equal else nn.utils.rnn.pad_sequence([s[0] for s in signals], True)
        together = parts.sequence(together, None if equal else torch.tensor(frames, device=x.device))
        signals = [together[i : i + 1, :count] for i, count in enumerate(frames)]
    # the whole length of the batch, as the original gives it: silence past each end
    done = [parts.after(signal)[0].float() for signal in signals]
    if len(done) == 1 and lengths is None:
        return done[0].unsqueeze(0)
    longest = chain_length(parts.original[0], x.shape[1])
    return torch.stack([F.pad(one, (0, 0, 0, longest - len(one))) for one in done])


def chain_length(original: SEANetEncoder | SEANetDecoder, length: int) -> int:
    """Output length of a stack for an input of ``length``."""
    lengths = torch.tensor([length])
    for layer in original.model:
        lengths = layer.out_lengths(lengths)
    return int(lengths)


def in_three(layers: Iterable[nn.Module], dtype: torch.dtype) -> tuple[Stack, Recurrent | None, Stack]:
    """Time-major layers before, of and after the LSTM; without one, all come before. Raises Unsupported."""
    layers = list(layers)
    places = [i for i, layer in enumerate(layers) if isinstance(layer, SkipLSTM)]
    if not places:
        return Stack(layers, dtype), None, Stack([], dtype)
    (place,) = places
    return Stack(layers[:place], dtype), Recurrent(layers[place], dtype), Stack(layers[place + 1 :], dtype)


def time_major(layer: nn.Module, dtype: torch.dtype) -> Layer:
    """The form of one layer. Raises Unsupported."""
    if isinstance(layer, Conv1d):
        return ToOneChannel(layer) if _sums_to_one(layer) else Windows(layer, dtype)
    if isinstance(layer, ConvTranspose1d):
        return Upsampling(layer, dtype)
    if isinstance(layer, ResidualBlock):
        return Residual(layer, dtype)
    return activation(layer)


def activation(layer: nn.Module) -> Layer:
    """ELU or Snake on ``x[B, T, C]``. Raises Unsupported."""
    if isinstance(layer, ELU):
        return F.elu
    if isinstance(layer, Snake):
        alpha = layer.alpha.detach().flatten()
        inverse = 1 / (alpha + 1e-9)
        return lambda x: torch.addcmul(x.float(), torch.sin(alpha * x).square(), inverse).to(x.dtype)
    raise Unsupported(type(layer).__name__)


def chain(layers: Iterable[Layer], x: Tensor) -> Tensor:
    """Apply layers in turn."""
    for layer in layers:
        x = layer(x)
    return x


def padded(x: Tensor, left: int, right: int, mode: str) -> Tensor:
    """``pad_time`` of ``x[B, T, C]``."""
    if not left and not right:
        return x
    if mode == "constant":
        return F.pad(x, (0, 0, left, right))
    if x.shape[1] <= max(left, right):
        return pad_time(x.transpose(1, 2), left, right, mode).transpose(1, 2)
    last = x.shape[1] - 1
    return torch.cat([x[:, 1 : left + 1].flip(1), x, x[:, last - right : last].flip(1)], dim=1)


def _strides(layers: Iterable[nn.Module], kind: type) -> list[int]:
    return [layer.stride[0] for layer in layers if isinstance(layer, kind)]


def _widest(layers: Iterable[nn.Module], down: int) -> int:
    """Most numbers per frame that a layer gives out; a frame is ``down`` inputs of the first one."""
    steps, most = down, 1
    for layer in layers:
        if isinstance(layer, Conv1d | ConvTranspose1d):
            stride = layer.stride[0]
            steps = steps // stride if isinstance(layer, Conv1d) else steps * stride
            most = max(most, steps * layer.out_channels)
    return most


def _sums_to_one(conv: Conv1d) -> bool:
    return conv.out_channels == 1 and conv.stride[0] == 1 and conv.dilation[0] == 1
