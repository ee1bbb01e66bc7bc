"""The digest of everything that decides which tokens come out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from torch import Tensor

RESAMPLER = "soxr-hq"


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
