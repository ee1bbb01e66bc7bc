"""A codec as two graphs for other runtimes, checked against the library on real speech before they are called good.

``encoder`` takes ``wave[B, T]`` to ``codes[B, Q, N]``, ``decoder`` the codes back to ``wave[B, N * hop]``, both with
any batch and length. ``export.json`` beside them says how well they agree with the library, on which lengths, and with
which versions.
"""

from __future__ import annotations

import copy
import importlib.metadata
import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from speechtok.audio import read
from speechtok.clips import bundled_clips
from speechtok.errors import ConfigError, NotSupportedError
from speechtok.files import make_folder, write_text_atomic
from speechtok.nn.exportable import ExportDecoder, ExportEncoder, min_samples
from speechtok.tokenizers.base import Tokenizer
from speechtok.tokenizers.codec import CodecTokenizer

Run = Callable[[np.ndarray], np.ndarray]
"""One graph in its runtime."""
FORMATS = ("onnx", "openvino")
AGREEMENT = 0.99
"""Share of codes that must be equal; other sums flip some near ties, a wrong graph most codes."""
LOUDEST_ERROR = 0.01
"""Largest difference of decoded samples, against the loudest sample."""
SECONDS = (0.5, 1.0, 2.37, 4.0)
"""Lengths of speech that are compared; none is the one that the graphs were traced with."""
TRACED_FRAMES = 37
REPORT = "export.json"


@dataclass(frozen=True)
class Agreement:
    """What one length of speech gave."""

    batch: int
    samples: int
    codes: int
    differ: int
    decode_error: float
    """Largest difference of a sample, against the loudest one; the same codes were decoded."""


def export(
    tokenizer: Tokenizer, folder: str | Path, runtime: str = "onnx", seconds: Sequence[float] = SECONDS
) -> dict[str, Any]:
    """Write the graphs into ``folder`` and compare them with the library.

    Args:
        tokenizer: of a codec of ours.
        folder: made if missing; older files of the same names are replaced.
        runtime: ``onnx`` or ``openvino``.
        seconds: lengths of speech to compare.

    Returns:
        what ``export.json`` holds; ``passed`` says whether the graphs agree.

    Raises:
        NotSupportedError: a tokenizer whose parts have no graph.
        ConfigError: a package is missing.
        OutputError: the folder cannot be written.
    """
    if runtime not in FORMATS:
        raise ConfigError(f"format is {runtime!r}; it must be one of {', '.join(FORMATS)}")
    if not isinstance(tokenizer, CodecTokenizer):
        raise NotSupportedError(f"{tokenizer.name} is no codec; only codecs can be exported")
    packages = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "openvino": ("openvino",)}[runtime]
    versions = {package: _version(package) for package in packages}
    codec = copy.deepcopy(tokenizer.codec).cpu()  # the tokenizer itself stays on its device
    halves = {"encoder": ExportEncoder(codec).eval(), "decoder": ExportDecoder(codec).eval()}
    shortest = min_samples(codec)
    wave = torch.zeros(2, max(TRACED_FRAMES * tokenizer.hop + 13, shortest))
    codes = torch.zeros(2, tokenizer.levels, TRACED_FRAMES, dtype=torch.long)
    folder = make_folder(folder)
    (folder / REPORT).unlink(missing_ok=True)  # it is written last, so it never vouches for graphs of a killed run
    write = {"onnx": _write_onnx, "openvino": _write_openvino}[runtime]
    graphs = {
        "encoder": write(halves["encoder"], wave, ("wave", "codes"), {0: "batch", 1: "samples"}, folder / "encoder"),
        "decoder": write(halves["decoder"], codes, ("codes", "wave"), {0: "batch", 2: "frames"}, folder / "decoder"),
    }
    rows = [compared(codec, graphs, wave) for wave in speech(tokenizer, seconds, shortest)]
    share = 1 - sum(row.differ for row in rows) / sum(row.codes for row in rows)
    worst = max(row.decode_error for row in rows)
    report = {
        "model": tokenizer.name,
        "fingerprint": tokenizer.fingerprint,
        "format": runtime,
        "min_samples": shortest,
        "agreement": share,
        "max_decode_error": worst,
        "thresholds": {"agreement": AGREEMENT, "max_decode_error": LOUDEST_ERROR},
        "passed": share >= AGREEMENT and worst <= LOUDEST_ERROR,
        "lengths": [asdict(row) for row in rows],
        "versions": {"torch": torch.__version__, **versions},
    }
    write_text_atomic(folder / REPORT, json.dumps(report, indent=1) + "\n")
    return report


def speech(tokenizer: Tokenizer, seconds: Sequence[float], shortest: int) -> list[np.ndarray]:
    """Stretches ``[B, T]`` of the bundled recordings, batches of one and of two in turn."""
    samples = np.concatenate([read(clip.path, tokenizer.sample_rate).samples for clip in bundled_clips()[:3]])
    lengths = [max(shortest, round(one * tokenizer.sample_rate)) for one in seconds]
    return [
        np.stack([np.resize(samples[start:], length) for start in range(0, (1 + i % 2) * 999, 999)])
        for i, length in enumerate(lengths)
    ]


@torch.no_grad()
def compared(codec: nn.Module, graphs: dict[str, Run], wave: np.ndarray) -> Agreement:
    """Codes of both on ``wave[B, T]``, and the sounds of the library's codes."""
    codes = codec.encode(torch.tensor(wave))
    sound = codec.decode(codes).numpy()
    found = graphs["encoder"](wave)
    same_shape = found.shape == tuple(codes.shape)
    differ = int((found != codes.numpy()).sum()) if same_shape else codes.numel()
    heard = graphs["decoder"](codes.numpy())
    loudest = max(float(np.abs(sound).max()), 1e-6)
    error = float(np.abs(heard - sound).max()) / loudest if heard.shape == sound.shape else float("inf")
    return Agreement(*wave.shape, codes.numel(), differ, error)


def _write_onnx(module: nn.Module, example: Tensor, names: tuple[str, str], axes: dict[int, str], path: Path) -> Run:
    import onnxruntime

    path = path.with_suffix(".onnx")
    dynamic = (dict.fromkeys(axes, torch.export.Dim.DYNAMIC),)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter about its own parts
        program = torch.onnx.export(
            module, (example,), dynamo=True, dynamic_shapes=dynamic,
            input_names=names[:1], output_names=names[1:], verbose=False,
        )  # fmt: skip
        program.save(str(path))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda value: session.run(None, {names[0]: value})[0]


def _write_openvino(module: nn.Module, example: Tensor, _: tuple[str, str], axes: dict[int, str], path: Path) -> Run:
    import openvino

    shape = [-1 if axis in axes else size for axis, size in enumerate(example.shape)]
    with torch.no_grad():
        model = openvino.convert_model(module, example_input=example, input=[shape])
    openvino.save_model(model, str(path.with_suffix(".xml")), compress_to_fp16=False)
    compiled = openvino.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda value: compiled(value)[0]


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        extra = "pip install openvino" if package == "openvino" else "pip install 'speechtok[export]'"
        raise ConfigError(f"{package} is not installed; run: {extra}") from None
