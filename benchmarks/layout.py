"""How to compute SEANet's convolutions: the library's on [B, C, T], a matrix product, or time-major.

    python benchmarks/layout.py -o layout.json
    python benchmarks/layout.py --filters 32 --batch 8 --seconds 1 --train

Every layer kind of SpeechTokenizer is timed in three ways that take turns, so that a busy machine slows all of
them; medians are compared, and with one thread it is processor time that is taken. ``convolution`` and ``product``
are the two arithmetics of ``speechtok.nn.conv``, ``time-major`` is the library's convolution on channels_last
activations. Ratios are times of the convolution over times of the other: above 1 the other is faster. ``rule`` says
which one ``speechtok.nn.conv`` takes. Padding is not timed.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from unittest.mock import patch

import torch
import torch.nn.functional as F

from speechtok.files import write_text_atomic
from speechtok.nn import conv
from speechtok.nn.seanet import SEANetConfig


@dataclass
class Row:
    """One layer; times in milliseconds."""

    layer: str
    shape: str
    frames: int
    convolution: float
    product: float
    time_major: float
    rule: str

    @property
    def chosen(self) -> float:
        """Time of what the rule takes."""
        return self.product if self.rule == "product" else self.convolution


def layers(config: SEANetConfig, dimension: int) -> list[tuple[str, torch.nn.Module, int]]:
    """One layer of each kind, and how many input samples one input frame of it stands for."""
    rows, hop, channels = [], 1, config.n_filters
    rows.append(("first", conv.Conv1d(1, channels, config.kernel_size), 1))
    for stride in reversed(config.strides):
        inner = channels // config.compress
        rows += [
            (f"residual {hop}", conv.Conv1d(channels, inner, config.residual_kernel_size), hop),
            (f"shortcut {hop}", conv.Conv1d(channels, channels, 1), hop),
            (f"down {stride}", conv.Conv1d(channels, 2 * channels, 2 * stride, stride), hop),
            (f"up {stride}", conv.ConvTranspose1d(2 * channels, channels, stride), hop * stride),
        ]
        hop, channels = hop * stride, 2 * channels
    rows += [
        ("latent", conv.Conv1d(2 * channels, dimension, config.last_kernel_size), hop),
        ("from latent", conv.Conv1d(dimension, channels, config.kernel_size), hop),
        ("last", conv.Conv1d(config.n_filters, 1, config.last_kernel_size), 1),
    ]
    return rows


def time_major(layer: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    """The layer on activations whose channels lie together in memory, as a two-dimensional one of height 1."""
    weight, stride = layer.weight.unsqueeze(2), (1, *layer.stride)
    if isinstance(layer, conv.ConvTranspose1d):
        return F.conv_transpose2d(x.unsqueeze(2), weight, layer.bias, stride)
    return F.conv2d(x.unsqueeze(2), weight, layer.bias, stride)


def ways(layer: torch.nn.Module, x: torch.Tensor) -> dict[str, Callable[[], torch.Tensor]]:
    """The three computations by name."""
    channels_last = x.detach().transpose(1, 2).contiguous().transpose(1, 2).requires_grad_(x.requires_grad)

    def forced(few: bool) -> torch.Tensor:
        with patch.object(conv, "few", lambda *_: few), patch.object(conv, "pad_time", lambda x, *_: x):
            return layer(x)

    return {
        "convolution": lambda: forced(False),
        "product": lambda: forced(True),
        "time_major": lambda: time_major(layer, channels_last),
    }


def measure(layer: torch.nn.Module, x: torch.Tensor, repeats: int) -> dict[str, float]:
    """Median milliseconds of each way, in turns; the first turn warms up."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    times: dict[str, list[float]] = {}
    for turn in range(repeats + 1):
        for name, way in ways(layer, x).items():
            started = clock()
            with torch.set_grad_enabled(x.requires_grad):
                y = way()
                if x.requires_grad:
                    y.backward(torch.ones_like(y))
            if turn:
                times.setdefault(name, []).append(1000 * (clock() - started))
    return {name: statistics.median(values) for name, values in times.items()}


def benchmark(config: SEANetConfig, dimension: int, batch: int, seconds: float, train: bool, repeats: int) -> list[Row]:
    """All layers on random signals of 16 kHz."""
    rows = []
    for name, layer, hop in layers(config, dimension):
        length = max(1, round(16000 * seconds / hop))
        padding = layer.left + layer.right if isinstance(layer, conv.Conv1d) else 0
        x = torch.randn(batch, layer.in_channels, length + padding, requires_grad=train)
        frames = batch * -(-length // layer.stride[0] if isinstance(layer, conv.Conv1d) else -length)
        widest = layer.out_channels if isinstance(layer, conv.Conv1d) else layer.in_channels
        rule = "product" if conv.few(frames, widest) else "convolution"
        shape = f"{layer.in_channels}->{layer.out_channels} k{layer.kernel_size[0]} s{layer.stride[0]}"
        rows.append(Row(name, shape, frames, rule=rule, **measure(layer, x, repeats)))
    return rows


def table(rows: list[Row]) -> str:
    """Times of the convolution, ratios of the others, and the sum."""
    lines = [f"{'layer':14} {'shape':20} {'frames':>7} {'conv ms':>9} {'product':>8} {'time-major':>11}  rule"]
    for row in rows:
        ratios = f"{row.convolution / row.product:8.2f} {row.convolution / row.time_major:11.2f}"
        lines.append(f"{row.layer:14} {row.shape:20} {row.frames:7} {row.convolution:9.2f} {ratios}  {row.rule}")
    total = sum(row.convolution for row in rows)
    others = [sum(getattr(row, name) for row in rows) for name in ("product", "time_major", "chosen")]
    product, major, chosen = (total / other for other in others)
    lines.append(f"{'all':43} {total:9.2f} {product:8.2f} {major:11.2f}  {chosen:.2f} by the rule")
    return "\n".join(lines)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--filters", type=int, default=64)
    parser.add_argument("--dimension", type=int, default=1024)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--seconds", type=float, nargs="+", default=[0.2, 1.0, 4.0])
    parser.add_argument("--train", action="store_true", help="forward and backward")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("-o", "--output", "--json", metavar="JSON")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    config = SEANetConfig(n_filters=args.filters)
    results = {}
    for seconds in args.seconds:
        rows = benchmark(config, args.dimension, args.batch, seconds, args.train, args.repeats)
        print(f"\n{args.batch} x {seconds:g} s, {'forward and backward' if args.train else 'forward'}")
        print(table(rows), flush=True)
        results[f"{seconds:g}"] = [asdict(row) for row in rows]
    if args.output:
        settings = {name: value for name, value in vars(args).items() if name != "output"}
        machine = {"cpu": torch.backends.cpu.get_cpu_capability(), "machine": platform.machine()}
        report = {"torch": torch.__version__, **machine, "settings": settings, "milliseconds": results}
        write_text_atomic(args.output, json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
