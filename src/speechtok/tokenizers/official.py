"""Published SpeechTokenizer files (``config.json``, ``SpeechTokenizer.pt``) as a config and weights of ours.

Only names change, for the modules here stand in the order of the official ones. Source: the official
``model.py`` and ``config/spt_base_cfg.json``.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from torch import Tensor

from speechtok.errors import CheckpointError
from speechtok.nn.codec import CodecConfig
from speechtok.nn.seanet import SEANetConfig
from speechtok.weights import read_torch_file

SEANET_KEYS = (
    "n_filters",
    "strides",
    "bidirectional",
    "dilation_base",
    "residual_kernel_size",
    "n_residual_layers",
    "lstm_layers",
    "activation",
)
OFFICIAL_CARD = {"scheme": "E", "semantic_levels": [0]}
"""What every official model is, and its files do not say: level one was taught content by HuBERT."""
CODEC_KEYS = ("dimension", "semantic_dimension", "codebook_size", "n_q")
RATE_KEYS = ("sample_rate", "sampling_rate")
WRAPPERS = ("generator", "model", "state_dict")
"""Names under which training scripts keep the flat dictionary of tensors, outermost first."""
RENAMINGS = (
    (r"\.(conv\.conv|convtr\.convtr)\.", "."),
    (r"\.weight_g$", ".parametrizations.weight.original0"),
    (r"\.weight_v$", ".parametrizations.weight.original1"),
    (r"^quantizer\.vq\.layers\.(\d+)\._codebook\.", r"quantizer.layers.\1."),
)
"""Official key to ours, applied in turn. Newer files already have the ``parametrizations`` form."""


def is_official(settings: dict[str, Any]) -> bool:
    """True where the content of a ``config.json`` is that of an official model."""
    return "n_filters" in settings and "strides" in settings


def official_config(settings: dict[str, Any], path: Path) -> CodecConfig:
    """The shape that an official ``config.json`` describes; its settings for training are ignored.

    Args:
        settings: its content.
        path: the file, for messages.

    Raises:
        CheckpointError: a setting is missing.
        ConfigError: a setting is out of range.
    """
    rates = [settings[key] for key in RATE_KEYS if key in settings]
    missing = [key for key in (*SEANET_KEYS, *CODEC_KEYS) if key not in settings]
    if not rates:
        missing.append(RATE_KEYS[0])
    if missing:
        raise CheckpointError(f"{path}: lacks {', '.join(missing)}; take the config.json of the same model")
    seanet = {key: settings[key] for key in SEANET_KEYS}
    if seanet["lstm_layers"] == 0:
        seanet |= {"lstm_layers": 1, "sequence": "none"}
    return CodecConfig(
        sample_rate=rates[0],
        seanet=SEANetConfig(**seanet),
        **{key: settings[key] for key in CODEC_KEYS},
    )


def official_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of an official ``.pt`` file under our names, in float32.

    The file is read by torch's restricted loader: a pickle that asks for anything but tensors is refused.

    Raises:
        CheckpointError: not readable as such a file.
    """
    content = read_torch_file(path)
    for wrapper in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict) or not content:
        raise CheckpointError(f"{path}: holds no dictionary of tensors; give SpeechTokenizer weights")
    foreign = [key for key, value in content.items() if not (isinstance(key, str) and isinstance(value, Tensor))]
    if foreign:
        raise CheckpointError(f"{path}: {foreign[0]!r} is no tensor; give SpeechTokenizer weights")
    return {_renamed(key): value.float() for key, value in content.items()}


def _renamed(key: str) -> str:
    for pattern, replacement in RENAMINGS:
        key = re.sub(pattern, replacement, key)
    return key
