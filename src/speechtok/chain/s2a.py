"""Semantic to acoustic tokens: the folder of a SoundStorm (``nn.soundstorm``) and the codes that it knows."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from speechtok.chain.saved import load_model, save_model
from speechtok.config import from_mapping
from speechtok.nn.soundstorm import SoundStorm, SoundStormConfig

KIND = "speechtok.s2a"


def save_s2a(
    model: SoundStorm,
    folder: str | Path,
    tokens: dict[str, str],
    card: dict[str, Any] | None = None,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write a folder that ``load_s2a`` reads; see ``t2s.save_t2s``."""
    save_model(model, folder, KIND, {"network": asdict(model.config), "tokens": tokens, "card": card or {}}, dtype)


def load_s2a(folder: str | Path) -> tuple[SoundStorm, dict[str, Any]]:
    """Model in evaluation mode and its header (``tokens``, ``card``).

    Raises:
        CheckpointError: something is missing, damaged, foreign or does not fit.
    """

    def build(header: dict[str, Any]) -> SoundStorm:
        return SoundStorm(from_mapping(SoundStormConfig, header["network"], str(folder)))

    return load_model(folder, KIND, build)
