"""Codecs on disk: a folder with ``config.json`` and ``model.safetensors``, or official SpeechTokenizer files.

``config.json`` holds ``format``, ``version``, the shape of the ``codec`` and a free ``card`` (licence, data).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import Tensor

from speechtok.errors import CheckpointError, ConfigError, OutputError
from speechtok.files import make_folder, write_bytes_atomic, write_text_atomic
from speechtok.nn.codec import Codec, CodecConfig
from speechtok.nn.conv import fold_weight_norm, folded_state
from speechtok.tokenizers.official import OFFICIAL_CARD, is_official, official_config, official_weights

FORMAT, VERSION = "speechtok.codec", 1
CONFIG, WEIGHTS = "config.json", "model.safetensors"
STATISTICS = ("inited", "cluster_size", "embed_avg", "temperature")
"""Buffers of a codebook that only training needs. A release goes without; `_install` starts them anew."""


def save_codec(
    model: Codec,
    folder: str | Path,
    card: dict[str, Any] | None = None,
    *,
    dtype: torch.dtype = torch.float32,
    for_training: bool = False,
) -> None:
    """Write a model folder; the model itself stays as it is.

    Args:
        model: the codec.
        folder: made if missing; older files of the same names are replaced.
        card: what people should know: licence, data, steps. Plain JSON values.
        dtype: of the weights on disk; ``float16`` halves the file and is read back as float32.
        for_training: keep weight normalisation and codebook statistics, which a release goes without.

    Raises:
        OutputError: the folder cannot be written, or a weight is too large for ``dtype``.
    """
    folder = Path(folder)
    header = {"format": FORMAT, "version": VERSION, "codec": model.config.to_dict(), "card": card or {}}
    state = _state(model, for_training)
    state = {key: value.detach().cpu().to(dtype).contiguous() for key, value in state.items()}
    for key, value in state.items():
        if not value.isfinite().all():
            advice = "save it as float32" if dtype == torch.float16 else "such a model is of no use; train it again"
            raise OutputError(f"{folder}: {key} is not finite in {dtype}; {advice}")
    make_folder(folder)
    write_bytes_atomic(folder / WEIGHTS, to_bytes(state, metadata={"format": FORMAT}))
    write_text_atomic(folder / CONFIG, json.dumps(header, indent=2, ensure_ascii=False) + "\n")


def load_codec(folder: str | Path, *, fold: bool = True) -> Codec:
    """The codec of a folder that ``save_codec`` wrote; see ``read_checkpoint``."""
    return read_checkpoint(Path(folder) / CONFIG, Path(folder) / WEIGHTS, fold=fold)[0]


def read_checkpoint(config: str | Path, weights: str | Path, *, fold: bool = True) -> tuple[Codec, dict[str, Any]]:
    """A codec in evaluation mode and float32, and its card.

    Args:
        config: ``config.json``, ours or an official one.
        weights: the ``.safetensors`` or official ``.pt`` file that belongs to it.
        fold: replace normalised weights by their values, as inference wants; False keeps them for training.

    Raises:
        CheckpointError: a file is missing, damaged, foreign, too new, or does not fit the other one.
    """
    config, weights = Path(config), Path(weights)
    header = _read_header(config)
    if not weights.is_file():
        raise CheckpointError(f"{weights}: no such file; a model folder holds {CONFIG} and its weights")
    official = is_official(header)
    model = _build(header, config, official)
    state = official_weights(weights) if official else _read_safetensors(weights)
    if not any(".parametrizations." in key for key in state):
        fold_weight_norm(model)
    _install(model, state, weights)
    return (fold_weight_norm(model) if fold else model).eval(), header.get("card", OFFICIAL_CARD if official else {})


def _state(model: Codec, for_training: bool) -> dict[str, Tensor]:
    if for_training:
        return model.state_dict()
    return {key: value for key, value in folded_state(model).items() if not is_statistic(key)}


def _read_header(path: Path) -> dict[str, Any]:
    try:
        header = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}; a model needs its {CONFIG}") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: is not JSON ({error}); restore it") from error
    if isinstance(header, dict) and is_official(header):
        return header
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise CheckpointError(f"{path}: is no configuration of a speechtok or SpeechTokenizer model")
    if header.get("version") != VERSION:
        raise CheckpointError(
            f"{path}: has version {header.get('version')}, this release reads {VERSION}; update speechtok"
        )
    if not isinstance(header.get("card", {}), dict):
        raise CheckpointError(f"{path}: its card must be a mapping; restore it")
    return header


def _build(header: dict[str, Any], path: Path, official: bool) -> Codec:
    try:
        config = official_config(header, path) if official else CodecConfig.from_dict(header.get("codec", {}))
        return Codec(config)
    except (ConfigError, TypeError, ValueError, RuntimeError, ArithmeticError) as error:
        # torch refuses impossible shapes with any of these
        raise CheckpointError(f"{path}: describes no model ({str(error).splitlines()[0]})") from error


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: truncated, or not a safetensors file ({error}); restore it") from error
    return {key: value.float() for key, value in state.items()}


def _install(model: Codec, state: dict[str, Tensor], path: Path) -> None:
    """Check ``state`` against the model and load it; absent statistics start as one vector per code."""
    wanted = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    present = {key: tuple(value.shape) for key, value in state.items()}
    faults = {
        "missing": [key for key in wanted if key not in present and not is_statistic(key)],
        "unexpected": [key for key in present if key not in wanted],
        "of another shape": [
            f"{key} {present[key]} instead of {shape}"
            for key, shape in wanted.items()
            if present.get(key, shape) != shape
        ],
        "not finite": [key for key, value in state.items() if not value.isfinite().all()],
    }
    for fault, keys in faults.items():
        if keys:
            first = ", ".join(keys[:3]) + (", ..." if len(keys) > 3 else "")
            raise CheckpointError(
                f"{path}: does not fit its {CONFIG}: {len(keys)} {fault} ({first}); take both from one model"
            )
    model.load_state_dict(state, strict=False)
    for codebook in model.quantizer.codebooks():
        codebook.start_statistics()
    model.load_state_dict({key: state[key] for key in state if is_statistic(key)}, strict=False)


def is_statistic(key: str) -> bool:
    """Whether a weight of that name is one that only training needs, see ``STATISTICS``."""
    return key.startswith("quantizer.") and key.rpartition(".")[2] in STATISTICS
