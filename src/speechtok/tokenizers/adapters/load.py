"""A folder with a ``transformers`` codec as a tokenizer.

Only ``model.safetensors`` is read, never a pickle; see ``speechtok.pretrained``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from speechtok.errors import CheckpointError
from speechtok.pretrained import load_network, load_part, relevant
from speechtok.tokenizers.adapters.base import ForeignCodec, TransformersTokenizer
from speechtok.tokenizers.adapters.dac import DacCodec
from speechtok.tokenizers.adapters.encodec import EncodecCodec
from speechtok.tokenizers.adapters.generic import GenericCodec
from speechtok.tokenizers.adapters.mimi import MimiCodec
from speechtok.tokenizers.adapters.xcodec import XcodecCodec

KINDS: dict[str, type[ForeignCodec]] = {
    "encodec": EncodecCodec,
    "dac": DacCodec,
    "mimi": MimiCodec,
    "xcodec": XcodecCodec,
    "higgs_audio_v2_tokenizer": XcodecCodec,
}
"""Adapters by ``model_type``; any other type of ``transformers`` is tried with the generic one."""
WEIGHTS, PREPROCESSOR = "model.safetensors", "preprocessor_config.json"


def load_transformers(
    config: Path, weights: Path, name: str, *, licence: str = "not stated", device: str = "cpu"
) -> TransformersTokenizer:
    """The tokenizer of a folder that ``save_pretrained`` wrote.

    Args:
        config: its ``config.json``.
        weights: its ``model.safetensors``, beside it.
        name: what messages and token files call it.
        licence: of the weights.
        device: anything torch understands.

    Raises:
        CheckpointError: ``transformers`` is missing or too old, a file is damaged or incomplete, or the model cannot
            keep the tokenizer contract; the message says why.
        ConfigError: the device cannot be used.
    """
    folder = config.parent
    if weights != folder / WEIGHTS or config.name != "config.json":
        raise CheckpointError(f"{weights}: a model of transformers loads as a folder with config.json and {WEIGHTS}")
    settings = _read(config)
    preprocessor = _read(folder / PREPROCESSOR) if (folder / PREPROCESSOR).is_file() else {}
    kind = KINDS.get(settings.get("model_type", ""), GenericCodec)
    codec = kind(_load_model(kind, folder), relevant({"config": settings, "preprocessor": preprocessor}))
    _check_preprocessor(preprocessor, codec, folder / PREPROCESSOR)
    normalise = bool(preprocessor.get("do_normalize", False))
    return TransformersTokenizer(codec, name, licence=licence, normalise=normalise, device=device)


def _load_model(kind: type[ForeignCodec], folder: Path) -> Any:
    config = load_part("AutoConfig", folder, local_files_only=True)
    reason = kind.refuse(config)
    if reason:
        raise CheckpointError(f"{folder}: a {config.model_type} model that cannot be used: {reason}")
    return load_network("AutoModel", folder, only_safetensors=True, config=config, local_files_only=True)


def _check_preprocessor(settings: dict[str, Any], codec: ForeignCodec, path: Path) -> None:
    """Refuse what a configuration of the preprocessor asks for and the model contradicts."""
    rate = settings.get("sampling_rate", codec.config.sample_rate)
    if rate != codec.config.sample_rate:
        raise CheckpointError(f"{path}: asks for {rate} Hz, but the model hears {codec.config.sample_rate}; restore it")
    if settings.get("feature_size", 1) == 2:
        raise CheckpointError(f"{path}: asks for stereo, speechtok's audio is mono; use a mono model")


def _read(path: Path) -> dict[str, Any]:
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: cannot be read as JSON ({str(error).splitlines()[0]}); restore it") from error
    if not isinstance(settings, dict):
        raise CheckpointError(f"{path}: must be a mapping; restore it")
    return settings
