"""Causal SEANet piece by piece: every layer keeps what the next piece needs of the past.

A layer's stream is called with ``x[1, C, n]``, n >= 1, the next positions of its input, and answers with those of its
output; ``last`` says that nothing follows. The lengths of all pieces but the last one are multiples of the strides that
they meet. The answers, joined, are what the layer gives for the joined input but for rounding, since sums over other
shapes are added in another order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import singledispatch

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from speechtok.nn.conv import Conv1d, ConvTranspose1d, few
from speechtok.nn.seanet import ELU, ResidualBlock, SEANetDecoder, SEANetEncoder, Snake
from speechtok.nn.sequence import SkipLSTM, Transformer, TransformerBlock, rotate

Stream = Callable[[Tensor, bool], Tensor]


@singledispatch
def streamed(module: nn.Module) -> Stream:
    """A stream of a causal ``module`` that has heard nothing yet.

    Raises:
        TypeError: nothing is known about streams of such a module.
    """
    raise TypeError(f"no stream is known for {type(module).__name__}")


class ConvStream:
    """Keeps the inputs that windows to come reach back to: zeros at first, as the padding of the layer."""

    def __init__(self, layer: Conv1d):
        self.layer, self.weight = layer, layer.weight.detach()  # once: a normalised weight is computed at each access
        self.held = self.weight.new_zeros(1, layer.in_channels, layer.left)

    def __call__(self, x: Tensor, last: bool) -> Tensor:
        layer, stride = self.layer, self.layer.stride[0]
        x = torch.cat([self.held, F.pad(x, (0, -x.shape[2] % stride)) if last else x], 2)
        frames = (x.shape[2] - layer.span) // stride + 1
        self.held = x[:, :, frames * stride :]
        if not few(frames, layer.out_channels):
            return F.conv1d(x, self.weight, layer.bias, stride, 0, layer.dilation)
        windows = x.unfold(2, layer.span, stride)[..., :: layer.dilation[0]].transpose(1, 2).reshape(1, frames, -1)
        return F.linear(windows, self.weight.flatten(1), layer.bias).transpose(1, 2)


class ConvTransposeStream:
    """Keeps the second half of the last frame's output, which overlaps the first half of the next one's."""

    def __init__(self, layer: ConvTranspose1d):
        self.layer, self.weight = layer, layer.weight.detach()
        self.held = self.weight.new_zeros(1, layer.out_channels, layer.stride[0])

    def __call__(self, x: Tensor, last: bool) -> Tensor:
        stride = self.layer.stride[0]
        chunks = (x[0].T @ self.weight.flatten(1)).view(x.shape[2], -1, 2, stride)
        first, second = chunks.permute(2, 1, 0, 3).flatten(2)  # [O, n * stride] each
        y = first + torch.cat([self.held[0], second[:, :-stride]], 1) + self.layer.bias.unsqueeze(1)
        self.held = second[None, :, -stride:]
        return y.unsqueeze(0)


class LSTMStream:
    """Keeps the state."""

    def __init__(self, layer: SkipLSTM):
        self.lstm, self.state = layer.lstm, None

    def __call__(self, x: Tensor, last: bool) -> Tensor:
        y, self.state = self.lstm(x.transpose(1, 2), self.state)
        return x + y.transpose(1, 2)


class BlockStream:
    """Keeps the keys and values that the next frames attend to; maps ``x[1, n, C] -> [1, n, C]``."""

    def __init__(self, block: TransformerBlock):
        self.block = block
        size = block.qkv.in_features // block.heads
        self.keys = self.values = block.qkv.weight.new_zeros(1, block.heads, 0, size)

    def __call__(self, x: Tensor) -> Tensor:
        block, left = self.block, self.block.sides[0]
        new, width = x.shape[1:]
        qkv = block.qkv(block.norm_attention(x)).view(1, new, 3, block.heads, -1)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        old = self.keys.shape[2]
        keys, values = torch.cat([self.keys, key], 2), torch.cat([self.values, value], 2)
        self.keys, self.values = keys[:, :, -left:], values[:, :, -left:]
        place = torch.arange(old + new, device=x.device)
        ago = place[old:, None] - place
        # only differences of positions count, so they may begin anew with the oldest key that is kept
        turned = rotate(F.pad(query, (0, 0, old, 0)))[:, :, old:]
        allowed = (ago >= 0) & (ago <= left)
        seen = F.scaled_dot_product_attention(turned, rotate(keys), values, attn_mask=allowed)
        x = x + block.out(seen.transpose(1, 2).reshape(1, new, width))
        return x + block.perceptron(block.norm_perceptron(x))


class TransformerStream:
    """A stream per block."""

    def __init__(self, layer: Transformer):
        self.blocks = [BlockStream(block) for block in layer.blocks]

    def __call__(self, x: Tensor, last: bool) -> Tensor:
        x = x.transpose(1, 2)
        for block in self.blocks:
            x = block(x)
        return x.transpose(1, 2)


class ResidualStream:
    """A stream per layer of the block, and one of the shortcut."""

    def __init__(self, block: ResidualBlock):
        self.block, self.shortcut = ChainStream(block.block), streamed(block.shortcut)

    def __call__(self, x: Tensor, last: bool) -> Tensor:
        return self.shortcut(x, last) + self.block(x, last)


class ChainStream:
    """Streams in turn."""

    def __init__(self, layers: Iterable[nn.Module]):
        self.layers = [streamed(layer) for layer in layers]

    def __call__(self, x: Tensor, last: bool) -> Tensor:
        for layer in self.layers:
            x = layer(x, last)
        return x


class SEANetEncoderStream:
    """``wave[1, n] -> latent[1, ceil(n / hop), D]``."""

    def __init__(self, encoder: SEANetEncoder):
        self.layers = ChainStream(encoder.model)

    def __call__(self, wave: Tensor, last: bool) -> Tensor:
        return self.layers(wave.unsqueeze(1), last).transpose(1, 2)


class SEANetDecoderStream:
    """``latent[1, n, D] -> wave[1, n * hop]``."""

    def __init__(self, decoder: SEANetDecoder):
        self.layers = ChainStream(decoder.model)

    def __call__(self, latent: Tensor, last: bool) -> Tensor:
        return self.layers(latent.transpose(1, 2), last).squeeze(1)


for _layer, _stream in {
    Conv1d: ConvStream,
    ConvTranspose1d: ConvTransposeStream,
    SkipLSTM: LSTMStream,
    Transformer: TransformerStream,
    ResidualBlock: ResidualStream,
    SEANetEncoder: SEANetEncoderStream,
    SEANetDecoder: SEANetDecoderStream,
}.items():
    streamed.register(_layer, _stream)


@streamed.register(ELU)
@streamed.register(Snake)
@streamed.register(nn.Identity)
def _pointwise(layer: nn.Module) -> Stream:
    return lambda x, last: layer(x)
