"""The digest of everything that decides which tokens come out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import MISSING, asdict, fields
from typing import Any

from torch import Tensor

RESAMPLER = "soxr-hq"
FIRST_SETTINGS = {
    "codec": {"backbone", "sample_rate", "dimension", "semantic_dimension", "codebook_size", "n_q"},
    "seanet": {
        "n_filters", "strides", "kernel_size", "last_kernel_size", "residual_kernel_size", "n_residual_layers",
        "dilation_base", "compress", "true_skip", "activation", "sequence", "lstm_layers", "bidirectional",
        "transformer_layers", "transformer_heads", "transformer_window", "causal", "pad_mode",
    },
    "frame": {
        "hop", "n_fft", "stack", "width", "expansion", "kernel_size", "encoder_blocks", "decoder_blocks", "floor",
        "emphasis", "emphasis_slope", "consistency_iterations", "own_space", "causal",
    },
    "timbre": {"dimension", "bands", "width", "expansion", "kernel_size", "blocks"},
}  # fmt: skip
"""Settings of a codec, by section, that fingerprints of version 1 hold whatever their values are. Never changed: a
setting that is added later counts only where it differs from its default, so that all older tokens stay valid."""


def settings_facts(config: Any, section: str, without: Collection[str] = ()) -> dict[str, Any]:
    """What a fingerprint holds of the dataclass ``config``, which is a ``section`` of FIRST_SETTINGS.

    Args:
        without: fields that the caller accounts for.
    """
    plain, facts = asdict(config), {}
    for setting in fields(config):
        usual = setting.default if setting.default_factory is MISSING else setting.default_factory()
        known = setting.name in FIRST_SETTINGS[section] or getattr(config, setting.name) != usual
        if known and setting.name not in without:
            facts[setting.name] = plain[setting.name]
    return facts


def fingerprint_of(facts: Any, state: Mapping[str, Tensor]) -> str:
    """SHA-256 over plain facts and named tensors (name, shape, bytes), cut to 16 digits.

    Args:
        facts: what JSON can hold: code version, resampler, configuration.
        state: weights, such as a ``state_dict()``; their order does not matter.
    """
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for key, tensor in sorted(state.items()):
        digest.update(f"{key}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy())
    return digest.hexdigest()[:16]
