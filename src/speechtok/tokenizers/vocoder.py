"""Sound for units: a CTX-vec2wav (``nn.ctx_vec2wav``) with the voice that it speaks in, and its folder.

A folder has ``config.json`` (format, the vocoder's shape, the features of its prompts, the fingerprint of the tokenizer
whose codes it was trained on) and ``model.safetensors`` (weights, and the prompt of its own voice).
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes

from speechtok.audio import Audio
from speechtok.errors import AudioError, CheckpointError, ConfigError, OutputError
from speechtok.files import make_folder, write_bytes_atomic, write_text_atomic
from speechtok.nn.conv import fold_weight_norm, folded_state
from speechtok.nn.ctx_vec2wav import CtxVec2Wav, VocoderConfig
from speechtok.tokenizers.chunking import overlapping
from speechtok.tokenizers.codec import torch_device
from speechtok.tokenizers.eightbit import grow, shrink
from speechtok.tokenizers.features import Features, load_features
from speechtok.tokenizers.folder import CONFIG, WEIGHTS

FORMAT, VERSION = "speechtok.vocoder", 1
VOICE = "voice"
"""Name of the prompt among the weights."""
LONGEST_PROMPT = 6.0
"""Seconds of a reference that are heard: training hears two or three."""
SHORTEST_PROMPT = 0.2
"""Seconds of a reference from which anything can be told of a voice."""


class NeuralVocoder:
    """``codes[Q, N] -> samples[N * hop]`` in one voice; ``with_voice`` gives another one.

    Args:
        model: the network.
        features: what a reference is heard as.
        voice: prompt ``[P, D]`` of those features.
        units: fingerprint of the tokenizer whose codes it was trained on.
        name: what messages call it.
        piece_seconds, overlap_seconds: longer speech is made in pieces that overlap, which is an approximation.
    """

    def __init__(
        self,
        model: CtxVec2Wav,
        features: Features,
        voice: np.ndarray,
        units: str,
        name: str = "vocoder",
        piece_seconds: float = 30.0,
        overlap_seconds: float = 1.0,
    ):
        if voice.ndim != 2 or voice.shape[1] != model.config.prompt_dimension or features.dimension != voice.shape[1]:
            raise ConfigError(
                f"{name}: a prompt of {features.name} has shape {voice.shape}, and [frames,"
                f" {model.config.prompt_dimension}] are needed; take features and vocoder from one run"
            )
        self.model = model.eval().requires_grad_(False)
        self.features, self.voice, self.units, self.name = features, voice, units, name
        self.piece_seconds, self.overlap_seconds = piece_seconds, overlap_seconds

    @property
    def config(self) -> VocoderConfig:
        """Its shape."""
        return self.model.config

    def to(self, device: str) -> NeuralVocoder:
        """Move the weights; returns itself."""
        self.model.to(torch_device(device))
        self.features.to(device)
        return self

    def with_voice(self, reference: Audio) -> NeuralVocoder:
        """The same vocoder, speaking as ``reference`` does; of long recordings the beginning counts.

        Raises:
            AudioError: the reference is too short to tell a voice.
        """
        if reference.seconds < SHORTEST_PROMPT:
            raise AudioError(
                f"a reference of {reference.seconds:.2f} s tells no voice; give at least {SHORTEST_PROMPT} s, better 3"
            )
        other = copy.copy(self)
        other.voice = prompt_of(self.features, reference)
        return other

    @torch.inference_mode()
    def __call__(self, codes: np.ndarray) -> np.ndarray:
        """Sound of ``codes[Q, N]``, float32 ``[N * hop]``."""
        device = next(self.model.parameters()).device
        prompt = torch.tensor(self.voice, device=device)[None]
        frames, hop = codes.shape[1], self.config.hop
        rate = self.config.sample_rate / hop
        longest, overlap = round(self.piece_seconds * rate), round(self.overlap_seconds * rate)
        samples = np.empty(frames * hop, dtype=np.float32)
        for window in overlapping(frames, longest, overlap, self.name, rate):
            piece = torch.tensor(codes[:, window.start : window.stop], device=device)[None]
            wave = self.model(piece, prompt)[0].cpu().numpy()
            kept = wave[window.kept.start * hop : window.kept.stop * hop]
            samples[window.keep_start * hop : window.keep_stop * hop] = kept
        return samples


def prompt_of(features: Features, reference: Audio) -> np.ndarray:
    """Frames ``[P, D]`` of a reference, of at most ``LONGEST_PROMPT`` seconds."""
    samples = reference.resample(features.sample_rate).samples
    return features.over(samples[: round(LONGEST_PROMPT * features.sample_rate)])


def save_vocoder(
    vocoder: NeuralVocoder, folder: str | Path, card: dict[str, Any] | None = None, dtype: torch.dtype = torch.float32
) -> None:
    """Write a folder that ``load_vocoder`` reads; older files of the same names are replaced.

    Args:
        dtype: of the weights on disk; ``int8`` stores large ones in 8 bits with a scale per row, see ``eightbit``.

    Raises:
        OutputError: it cannot be written, or a weight is too large for ``dtype``.
        ConfigError: its features cannot be put into a folder.
    """
    place = make_folder(folder)
    section = vocoder.features.section(place)
    state = folded_state(vocoder.model) | {VOICE: torch.tensor(vocoder.voice)}
    state = {key: value.detach().cpu() for key, value in state.items()}
    state = shrink(state) if dtype == torch.int8 else {key: value.to(dtype) for key, value in state.items()}
    for key, value in state.items():
        if not value.isfinite().all():
            raise OutputError(f"{folder}: {key} is not finite in {dtype}; save it as float32, or train it again")
    header = {"format": FORMAT, "version": VERSION, "units": vocoder.units, "vocoder": vocoder.config.to_dict()}
    header |= {"features": section, "card": card or {}}
    state = {key: value.contiguous() for key, value in state.items()}
    write_bytes_atomic(place / WEIGHTS, to_bytes(state, metadata={"format": FORMAT}))
    write_text_atomic(place / CONFIG, json.dumps(header, indent=2, ensure_ascii=False) + "\n")


def load_vocoder(folder: str | Path, device: str = "cpu") -> NeuralVocoder:
    """The vocoder of a folder that ``save_vocoder`` wrote.

    Raises:
        CheckpointError: something is missing, damaged, foreign or does not fit.
    """
    folder = Path(folder)
    header = _header(folder / CONFIG)
    try:
        model = fold_weight_norm(CtxVec2Wav(VocoderConfig.from_dict(header["vocoder"])))
        state = grow(load_file(folder / WEIGHTS))
        voice = state.pop(VOICE)
        if not all(value.isfinite().all() for value in (voice, *state.values())):
            raise ValueError("a weight is not finite")
        model.load_state_dict(state)
        features = load_features(header, folder)
        return NeuralVocoder(model, features, voice.numpy(), str(header["units"]), folder.name).to(device)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError, ConfigError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{folder}: is no whole vocoder ({reason}); restore it or train it again") from error


def _header(path: Path) -> dict[str, Any]:
    try:
        header = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: cannot be read as JSON ({error}); name the folder of a vocoder") from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise CheckpointError(f"{path}: is no configuration of a vocoder; name the folder of one")
    if header.get("version") != VERSION:
        raise CheckpointError(
            f"{path}: version {header.get('version')}, this release reads {VERSION}; upgrade speechtok"
        )
    return header
