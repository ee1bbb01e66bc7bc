"""The LSTM of SEANet at inference, for a batch of signals of different lengths.

The backward direction reads each signal mirrored at its own end, as a forward one. So what lies past an end never meets
the signal, and both directions are plain LSTMs, which are many times faster than the library's packed one.

A large LSTM is bound by reading the matrix of its steps, over and over. Where the processor multiplies integers, the
steps use that matrix in integers (``nn.fixedpoint``), and everything else in them stays in float32.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from speechtok.nn.fixedpoint import FixedPoint, multiplies_integers
from speechtok.nn.sequence import SkipLSTM

LSTM_WEIGHTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
LARGE = 512
"""Width from which the matrix of the steps leaves the nearer caches and integers pay."""
TOLERANCE = {torch.float32: 2.0**-14, torch.bfloat16: 2.0**-6}
"""Relative rounding error of the steps' matrix beside other products in float32 and bfloat16: normally distributed
weights have half of it in two integer matrices and in one. The inputs' product and the skip do not have that error."""


class Recurrent:
    """An LSTM plus its input, ``x[B, N, C] -> [B, N, C']`` in float32."""

    def __init__(self, layer: SkipLSTM, dtype: torch.dtype):
        lstm = layer.lstm
        self.outputs = layer.outputs
        suffixes = ("", "_reverse") if lstm.bidirectional else ("",)
        self.layers = [
            [direction(lstm, f"_l{level}{suffix}", dtype) for suffix in suffixes] for level in range(lstm.num_layers)
        ]

    def __call__(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """``x[B, N, C]`` with the frames ``lengths[B]`` of each signal."""
        mirror = mirrored(x.shape[1], lengths, x.device) if len(self.layers[0]) == 2 else None
        y = x
        for directions in self.layers:
            parts = [directions[0](y)]
            if mirror is not None:
                parts.append(swapped(directions[1](swapped(y, mirror)), mirror))
            y = torch.cat(parts, dim=2)
        return x.float().repeat(1, 1, self.outputs // x.shape[2]) + y


class Steps:
    """One direction of one layer, read forward, the steps' products in integers: first one product of all inputs."""

    def __init__(self, weights: dict[str, Tensor], dtype: torch.dtype):
        self.weight = weights["weight_ih"].to(dtype)
        self.product = FixedPoint(weights["weight_hh"].float(), TOLERANCE[dtype])
        self.bias = weights["bias_ih"].float() + weights["bias_hh"].float() + self.product.offset

    def __call__(self, x: Tensor) -> Tensor:
        """``x[B, N, C] -> [B, N, H]`` in float32."""
        batch, width = len(x), self.product.inputs
        # in rows that lie in order: other forms of the same product are a hundred times slower in bfloat16
        rows = F.linear(x.transpose(0, 1).reshape(-1, x.shape[2]).to(self.weight.dtype), self.weight)
        starts = (rows.float() + self.bias).unflatten(0, (-1, batch))
        gates = torch.empty(batch, 4 * width)
        (take, keep, new, show), both = gates.chunk(4, dim=1), gates[:, : 2 * width]
        cell, bent, hidden = torch.zeros(batch, width), torch.empty(batch, width), torch.zeros(batch, width)
        y = torch.empty(len(starts), batch, width)
        room = self.product.room(batch)
        for start, result in zip(starts.unbind(0), y.unbind(0), strict=True):
            self.product.add_to(start, hidden, room, gates)
            both.sigmoid_()
            show.sigmoid_()
            cell.mul_(keep).addcmul_(take, new.tanh_())
            hidden = torch.mul(show, torch.tanh(cell, out=bent), out=result)
        return y.transpose(0, 1)


class Plain:
    """The same as the library computes it."""

    def __init__(self, weights: dict[str, Tensor], dtype: torch.dtype):
        self.lstm, self.dtype = plain(weights, dtype), dtype

    def __call__(self, x: Tensor) -> Tensor:
        """``x[B, N, C] -> [B, N, H]``."""
        return self.lstm(x.to(self.dtype))[0]


def direction(lstm: nn.LSTM, suffix: str, dtype: torch.dtype) -> Steps | Plain:
    """The parameters of ``lstm`` that end in ``suffix``, in the form that is fastest here."""
    weights = {name: getattr(lstm, name + suffix).detach() for name in LSTM_WEIGHTS}
    large = lstm.hidden_size >= LARGE and weights["weight_hh"].device.type == "cpu"
    return (Steps if large and multiplies_integers() else Plain)(weights, dtype)


def plain(weights: dict[str, Tensor], dtype: torch.dtype) -> nn.LSTM:
    """The library's LSTM with these weights."""
    width, inputs = weights["weight_hh"].shape[1], weights["weight_ih"].shape[1]
    part = nn.LSTM(inputs, width, batch_first=True, device="meta", dtype=dtype)
    state = {f"{name}_l0": weight.to(dtype) for name, weight in weights.items()}
    part.load_state_dict(state, assign=True)
    return part.requires_grad_(False)


def mirrored(frames: int, lengths: Tensor | None, device: torch.device) -> Tensor:
    """Positions that turn each signal of a padded batch round at its own end, ``[1 or B, N]``; padding stays."""
    position = torch.arange(frames, device=device).unsqueeze(0)
    if lengths is None:
        return position.flip(1)
    ends = lengths.unsqueeze(1)
    return torch.where(position < ends, ends - 1 - position, position)


def swapped(x: Tensor, positions: Tensor) -> Tensor:
    """``x[B, N, C]`` with its frames at ``positions[1 or B, N]``."""
    if len(positions) == 1:
        return x[:, positions[0]]
    return x.gather(1, positions.unsqueeze(2).expand(-1, -1, x.shape[2]))
