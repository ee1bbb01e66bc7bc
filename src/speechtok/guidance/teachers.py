"""Teachers by the name of their folder or Hub id: those trained here, and those of transformers and SpeechBrain."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from speechtok.errors import ConfigError
from speechtok.guidance.semantic import AVERAGE, SemanticTeacher
from speechtok.guidance.speaker import FILES, SpeakerTeacher
from speechtok.hub import fetch, require_place
from speechtok.nn import hubert

LOGITS = "logits"


class HeadTeacher(SemanticTeacher):
    """A network with a head, whose features are the logarithms of its classes' probabilities, ``[B, N, classes]``."""

    def __init__(self, network: Any, classes: list[str]):
        super().__init__(network.hubert)
        self.head, self.classes = network.lm_head, classes
        self.layer, self.dimension = LOGITS, network.lm_head.out_features
        self.requires_grad_(False).eval()

    def _features(self, wave: Tensor) -> Tensor:
        return torch.log_softmax(self.head(self.network(wave).last_hidden_state), -1)


def load_semantic_teacher(name: str | Path, layer: int | str = AVERAGE) -> SemanticTeacher:
    """The teacher in a local folder, or of a Hub id.

    Args:
        layer: see ``SemanticTeacher``; ``logits`` asks a folder of ``speechtok train phones`` for what it recognises.

    Raises:
        CheckpointError: it cannot be loaded.
        ConfigError: it has no such layer.
    """
    require_place(name, "teacher")
    folder = Path(name)
    if not (folder / "config.json").is_file() or "front_end" not in hubert.read_config(folder):
        return SemanticTeacher.load(name, layer)
    network, config = hubert.load(folder)
    if layer != LOGITS:
        return SemanticTeacher(hubert.body(network), layer, rate=hubert.RATE)
    if not hasattr(network, "lm_head"):
        raise ConfigError(f"{name}: has no head; layer {LOGITS!r} needs a folder of speechtok train phones")
    return HeadTeacher(network, config["classes"])


def load_speaker_teacher(name: str | Path) -> SpeakerTeacher:
    """The ECAPA-TDNN in a local file or folder, or of a Hub id.

    Raises:
        CheckpointError: it cannot be loaded.
    """
    require_place(name, "teacher")
    path = Path(name)
    return SpeakerTeacher.load(path if path.exists() else fetch(str(name), FILES))
