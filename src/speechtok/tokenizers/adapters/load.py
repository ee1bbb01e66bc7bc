"""A folder with a ``transformers`` codec as a tokenizer.

Only ``model.safetensors`` is read, never a pickle, and no code of a repository is run. Weights that the file lacks
would be drawn at random by ``transformers``; here that is an error.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from speechtok.errors import CheckpointError
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
IRRELEVANT = {
    "_name_or_path", "transformers_version", "architectures", "torch_dtype", "dtype", "_attn_implementation_autoset",
}  # fmt: skip
"""Entries of a configuration that decide no code, so they stay out of the fingerprint."""
UNUSED = ("masked_spec_embed", "inited", "initialized", "cluster_size", "embed_avg", "num_batches_tracked")
"""Ends of the names of weights that only training uses; a file may lack them."""


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
    codec = kind(_load_model(kind, folder), _relevant({"config": settings, "preprocessor": preprocessor}))
    _check_preprocessor(preprocessor, codec, folder / PREPROCESSOR)
    normalise = bool(preprocessor.get("do_normalize", False))
    return TransformersTokenizer(codec, name, licence=licence, normalise=normalise, device=device)


def _load_model(kind: type[ForeignCodec], folder: Path) -> Any:
    try:
        from transformers import AutoConfig, AutoModel
    except ImportError as error:
        raise CheckpointError(
            f"{folder}: this model needs transformers; pip install 'speechtok[transformers]'"
        ) from error
    with _one_line(folder), _quiet():
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        reason = kind.refuse(config)
    if reason:
        raise CheckpointError(f"{folder}: a {config.model_type} model that cannot be used: {reason}")
    with _one_line(folder), _quiet():
        model, report = AutoModel.from_pretrained(
            folder,
            config=config,
            trust_remote_code=False,
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
        )
    missing = sorted(key for key in report["missing_keys"] if not key.endswith(UNUSED))
    if missing:
        first = ", ".join(missing[:3])
        raise CheckpointError(
            f"{folder / WEIGHTS}: lacks {len(missing)} weights of its model ({first}); fetch it again"
        )
    for key, value in model.state_dict().items():
        if not value.isfinite().all():
            raise CheckpointError(f"{folder / WEIGHTS}: {key} is not finite; fetch it again")
    return model.float().eval()


def _check_preprocessor(settings: dict[str, Any], codec: ForeignCodec, path: Path) -> None:
    """Refuse what a configuration of the preprocessor asks for and the model contradicts."""
    rate = settings.get("sampling_rate", codec.config.sample_rate)
    if rate != codec.config.sample_rate:
        raise CheckpointError(f"{path}: asks for {rate} Hz, but the model hears {codec.config.sample_rate}; restore it")
    if settings.get("feature_size", 1) == 2:
        raise CheckpointError(f"{path}: asks for stereo, speechtok's audio is mono; use a mono model")


def _relevant(value: Any) -> Any:
    """Without the entries that decide no code, at any depth."""
    if isinstance(value, dict):
        return {key: _relevant(inner) for key, inner in value.items() if key not in IRRELEVANT}
    return value


def _read(path: Path) -> dict[str, Any]:
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: cannot be read as JSON ({str(error).splitlines()[0]}); restore it") from error
    if not isinstance(settings, dict):
        raise CheckpointError(f"{path}: must be a mapping; restore it")
    return settings


@contextmanager
def _one_line(folder: Path) -> Iterator[None]:
    """Whatever ``transformers`` raises on a foreign, damaged or unknown model, as one line that names the folder."""
    try:
        yield
    except Exception as error:  # its own errors, those of safetensors, torch and the configuration share no base class
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise CheckpointError(f"{folder}: transformers cannot load this model ({reason.strip()})") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the bars and remarks of ``transformers``: what matters is checked and raised."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
