"""Convolutions over time that keep the length law: output length = ceil(length / stride), for any kernel.

Padding follows SEANet as SpeechTokenizer uses it (its ``modules/conv.py``): asymmetric around each window,
extra on the right so that the last window is full, reflection by default, all of it on the left where causal.

One rule picks the arithmetic, by measurement (``benchmarks/layout.py``): with few frames a convolution is a
copy of its windows and one matrix product, with many it is the library's convolution. The library rearranges
the weights on every call and the product copies the input instead, so each is fast where the other copies the
larger thing. Keeping activations time-major was measured too; in fp32 without AMX it gains nothing.
"""

from __future__ import annotations

from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

Module = TypeVar("Module", bound=nn.Module)


class Timed:
    """What a layer over ``x[B, C, T]`` says about time; the defaults are those of a pointwise layer."""

    def out_lengths(self, lengths: Tensor) -> Tensor:
        """Output lengths of inputs with these lengths, ``[B] -> [B]``."""
        return lengths

    def reach(self, low: int, high: int) -> tuple[int, int] | None:
        """First and last input position that outputs ``low..high`` depend on; None where unbounded."""
        return low, high


class Conv1d(Timed, nn.Conv1d):
    """Strided or dilated convolution, ``x[B, C, T] -> [B, O, ceil(T / stride)]``."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel_size: int,
        stride: int = 1,
        dilation: int = 1,
        causal: bool = False,
        pad_mode: str = "reflect",
    ):
        super().__init__(inputs, outputs, kernel_size, stride=stride, dilation=dilation)
        self.pad_mode = pad_mode
        self.span = (kernel_size - 1) * dilation + 1
        self.right = 0 if causal else (self.span - stride) // 2
        self.left = self.span - stride - self.right

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """``lengths[B]``: where each signal of a padded batch ends; outputs past an end mean nothing."""
        stride = self.stride[0]
        right = self.right + -x.shape[2] % stride
        if lengths is None:
            x = pad_time(x, self.left, right, self.pad_mode)
        else:
            x = pad_each(x, self.left, right, self.pad_mode, lengths, self.right + -lengths % stride)
        frames = (x.shape[2] - self.span) // stride + 1
        if not few(x.shape[0] * frames, self.out_channels):
            return F.conv1d(x, self.weight, self.bias, self.stride, 0, self.dilation)
        windows = x.unfold(2, self.span, stride)[..., :: self.dilation[0]]
        windows = windows.transpose(1, 2).reshape(x.shape[0], frames, -1)
        return F.linear(windows, self.weight.flatten(1), self.bias).transpose(1, 2)

    def out_lengths(self, lengths: Tensor) -> Tensor:
        """``ceil(length / stride)``."""
        return -(-lengths // self.stride[0])

    def reach(self, low: int, high: int) -> tuple[int, int]:
        """Inputs under the windows; a reflected edge brings a window's longer side to the other one."""
        before, after = self.left, self.span - 1 - self.left
        if self.pad_mode == "reflect":
            before = after = max(before, after)
        return low * self.stride[0] - before, high * self.stride[0] + after


class ConvTranspose1d(Timed, nn.ConvTranspose1d):
    """Upsampling by `stride` with a kernel of twice that, ``x[B, C, T] -> [B, O, T * stride]``.

    The stride surplus samples are trimmed on both sides, or all on the right where causal.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, causal: bool = False):
        super().__init__(inputs, outputs, 2 * stride, stride=stride)
        self.left = 0 if causal else stride - stride // 2

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """``lengths[B]``: where each signal of a padded batch ends; outputs past an end mean nothing."""
        x = blank_past_end(x, lengths)
        batch, _, frames = x.shape
        stride = self.stride[0]
        if few(batch * frames, self.in_channels):
            # every frame gives two chunks of `stride` samples; the second one overlaps the next frame's first
            chunks = (x.transpose(1, 2) @ self.weight.flatten(1)).view(batch, frames, -1, 2, stride)
            first, second = chunks.permute(3, 0, 2, 1, 4)
            y = (F.pad(first, (0, 0, 0, 1)) + F.pad(second, (0, 0, 1, 0))).flatten(2) + self.bias.unsqueeze(1)
        else:
            y = F.conv_transpose1d(x, self.weight, self.bias, stride)
        return y[:, :, self.left : self.left + frames * stride]

    def out_lengths(self, lengths: Tensor) -> Tensor:
        """``length * stride``."""
        return lengths * self.stride[0]

    def reach(self, low: int, high: int) -> tuple[int, int]:
        """A sample comes from the chunk of its own frame and from that of the frame before."""
        stride = self.stride[0]
        return (low + self.left) // stride - 1, (high + self.left) // stride


def few(frames: int, channels: int) -> bool:
    """True where a matrix product beats the library's convolution."""
    return 4 * frames <= channels


def pad_time(x: Tensor, left: int, right: int, mode: str) -> Tensor:
    """Pad the last axis. Reflection of a signal no longer than its padding: zeros first, as in SEANet."""
    if mode == "constant" or left == right == 0:
        return F.pad(x, (left, right)) if left or right else x
    length = x.shape[2]
    if length <= max(left, right):
        short = torch.full((x.shape[0],), length, device=x.device)
        return pad_each(x, left, right, mode, short, torch.full_like(short, right))
    # several times faster than F.pad(mode="reflect") on a CPU
    mirrored_start = x[:, :, 1 : left + 1].flip(2)
    mirrored_end = x[:, :, length - 1 - right : length - 1].flip(2)
    return torch.cat([mirrored_start, x, mirrored_end], dim=2)


def pad_each(x: Tensor, left: int, right: int, mode: str, lengths: Tensor, rights: Tensor) -> Tensor:
    """Pad a batch as `pad_time` does, each signal at its own end: ``rights[B]`` after ``lengths[B]``."""
    if mode == "constant":
        return F.pad(blank_past_end(x, lengths), (left, right))
    lengths, rights = lengths.unsqueeze(1), rights.unsqueeze(1)
    position = torch.arange(-left, x.shape[2] + right, device=x.device).abs()
    # a signal too short to be mirrored is first made long enough with zeros
    last = torch.maximum(lengths, rights.clamp(min=left) + 1) - 1
    source = torch.where(position > last, 2 * last - position, position)
    present = (source >= 0) & (source < lengths)
    source = source.clamp(0, x.shape[2] - 1).unsqueeze(1).expand(-1, x.shape[1], -1)
    return x.gather(2, source) * present.unsqueeze(1)


def blank_past_end(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Zero whatever lies past each signal's end in ``x[B, C, T]``."""
    if lengths is None:
        return x
    inside = torch.arange(x.shape[2], device=x.device) < lengths.unsqueeze(1)
    return x * inside.unsqueeze(1)


def weight_norm(conv: Module) -> Module:
    """Normalise the weight per entry of its first axis (input channels, where transposed), as official."""
    return nn.utils.parametrizations.weight_norm(conv)


def folded_state(module: nn.Module) -> dict[str, Tensor]:
    """The state of `module` with the value of every normalised weight, as `fold_weight_norm` would leave it.

    Folding a copy would not do: a copy shares the class into which torch puts the weight, and folding takes it away.
    """
    state = {key: value for key, value in module.state_dict().items() if ".parametrizations." not in key}
    for name, part in module.named_modules():
        if parametrize.is_parametrized(part, "weight"):
            state[f"{name}.weight"] = part.weight.detach()
    return state


@torch.no_grad()
def install_folded(module: nn.Module, state: dict[str, Tensor]) -> None:
    """Load what `folded_state` gave into a `module`, normalised or not. Raises RuntimeError or KeyError at misfits."""
    normalised = {
        f"{name}.weight": part for name, part in module.named_modules() if parametrize.is_parametrized(part, "weight")
    }
    own = {key: value for key, value in module.state_dict().items() if ".parametrizations." in key}
    module.load_state_dict({key: value for key, value in state.items() if key not in normalised} | own)
    for key, part in normalised.items():
        part.weight = state[key]


def fold_weight_norm(module: Module) -> Module:
    """Replace every normalised weight below `module` by its value, in place; for inference."""
    for part in module.modules():
        if parametrize.is_parametrized(part, "weight"):
            parametrize.remove_parametrizations(part, "weight", leave_parametrized=True)
    return module
