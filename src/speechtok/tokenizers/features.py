"""Continuous features on a frame grid: what is clustered into units (scheme B) or kept as soft tokens (scheme C).

Every source obeys the length law of codecs, ``N == ceil(T / hop)`` from one sample up. A teacher gives fewer frames
(its convolutions have no padding), so its frames are moved onto the grid and the last one is repeated.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from speechtok.errors import CheckpointError, ConfigError, NotSupportedError
from speechtok.files import make_folder, write_bytes_atomic
from speechtok.guidance.frames import CodecGrid, FrameLaw, matching_frames
from speechtok.guidance.semantic import SemanticTeacher
from speechtok.guidance.targets import Teacher
from speechtok.guidance.teachers import load_semantic_teacher
from speechtok.nn import hubert
from speechtok.nn.codec import Codec
from speechtok.nn.mel import LogMel
from speechtok.tokenizers.chunking import in_pieces, overlapping, windows
from speechtok.tokenizers.codec import CodecTokenizer, torch_device
from speechtok.tokenizers.folder import WEIGHTS, part_of
from speechtok.tokenizers.registry import load, located

TEACHER = "teacher"
"""Folder inside that of a tokenizer, for the network that it hears with."""
NETWORK_FILES = ("config.json", WEIGHTS, "preprocessor_config.json")
TEACHER_FACTS = (
    "model_type", "num_attention_heads", "hidden_act", "feat_extract_activation", "feat_extract_norm",
    "do_stable_layer_norm", "layer_norm_eps",
)  # fmt: skip
"""Settings of a ``transformers`` teacher that change its features and cannot be seen in its weights."""
FURTHER_FACTS = ("max_bucket_distance", "bottleneck")
"""The same, of some kinds only: WavLM's relative positions, and the quantizer in a network of ``train phones``."""


class FrameModel(ABC):
    """Something that gives each frame of a waveform a row: features, or units."""

    name: str
    sample_rate: int
    hop: int
    context: tuple[int, int] | None = None
    """Frames that a row depends on to its left and right; None where it depends on everything."""

    @abstractmethod
    def rows(self, wave: Tensor) -> Tensor:
        """``wave[T] -> rows[ceil(T / hop), ...]``, on the model's device."""

    @abstractmethod
    def facts(self) -> Any:
        """What decides the rows beside the weights, as JSON values, for the fingerprint."""

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """The weights, for the fingerprint."""

    @abstractmethod
    def section(self, folder: Path) -> dict[str, Any]:
        """The part of ``config.json`` from which it is made again; files it needs are put into ``folder``."""

    def to(self, device: str) -> FrameModel:
        """Move the weights; returns itself."""
        torch_device(device)
        return self

    @torch.inference_mode()
    def over(self, samples: np.ndarray, longest_seconds: float = 120.0, overlap_seconds: float = 10.0) -> np.ndarray:
        """Rows of ``samples[T]``, of any length in bounded memory: ``[ceil(T / hop), ...]``.

        Where the context is finite, windows of ``longest_seconds`` give what one piece gives. Where it is not, longer
        audio is taken in windows that overlap, which is an approximation and is announced as one.
        """
        frame_rate = self.sample_rate / self.hop
        frames, longest = -(-len(samples) // self.hop), max(1, round(longest_seconds * frame_rate))
        if self.context is None:
            plan = overlapping(frames, longest, round(overlap_seconds * frame_rate), self.name, frame_rate)
        else:
            plan = windows(frames, longest, *self.context)
        # a copy: audio is a read-only array, which torch must not share
        return in_pieces(samples, self.hop, plan, lambda part: self.rows(torch.tensor(part)).cpu().numpy())


class Features(FrameModel):
    """Rows of ``dimension`` floating-point numbers."""

    dimension: int
    semantic: bool
    """Whether they describe content rather than sound."""
    exact_sound: bool = True
    """Whether ``sound`` in windows gives, but for rounding, what one piece gives."""

    def sound(self, rows: np.ndarray) -> np.ndarray:
        """``rows[N, D] -> samples[N * hop]``, where the features keep enough to do so.

        Raises:
            NotSupportedError: they do not.
        """
        raise NotSupportedError(f"{self.name} features have no waveform by themselves; codec latents have one")

    def in_windows(self, seconds: float) -> Features:
        """The same features, whose ``sound`` of longer audio is made in windows of about ``seconds``."""
        return self


class MelFeatures(Features):
    """Natural logarithm of mel magnitudes; needs no weights and no network."""

    semantic = False

    def __init__(self, sample_rate: int = 16000, n_fft: int = 1024, hop: int = 320, n_mels: int = 80):
        """Frames are centred on the grid's; lengths in samples.

        Raises:
            ConfigError: numbers that make no spectrogram.
        """
        if min(sample_rate, hop, n_mels) < 1 or n_fft < hop or (n_fft - hop) % 2:
            raise ConfigError(f"mel features need n_fft >= hop and an even difference, got {n_fft} and {hop}")
        self.name = "log-mel"
        self.sample_rate, self.hop, self.dimension, self.n_fft = sample_rate, hop, n_mels, n_fft
        self.context = (-(-n_fft // hop),) * 2
        self.layer = LogMel(sample_rate, n_fft, hop, n_mels)

    def rows(self, wave: Tensor) -> Tensor:
        frames = -(-len(wave) // self.hop)
        # whole frames, and enough of them for the reflection at the ends, which must be shorter than the signal
        length = max(frames, -(-self.n_fft // self.hop)) * self.hop
        padded = F.pad(wave, (0, length - len(wave))).to(self.layer.window.device)
        return self.layer(padded[None])[0, :frames]

    def facts(self) -> Any:
        return ["mel", self.sample_rate, self.n_fft, self.hop, self.dimension]

    def state(self) -> dict[str, Tensor]:
        return {}

    def section(self, folder: Path) -> dict[str, Any]:
        settings = {"sample_rate": self.sample_rate, "n_fft": self.n_fft, "hop": self.hop, "n_mels": self.dimension}
        return {"kind": "mel", **settings}

    def to(self, device: str) -> MelFeatures:
        self.layer.to(torch_device(device))
        return self


class CodecFeatures(Features):
    """The latents of a codec before they are quantised, which its decoder turns back into sound."""

    semantic = False

    def __init__(self, tokenizer: CodecTokenizer, reference: str | None = None):
        """
        Args:
            tokenizer: whose encoder is used.
            reference: name or place that ``speechtok.load`` finds it under; needed to save.
        """
        if not isinstance(getattr(tokenizer, "codec", None), Codec):
            raise ConfigError(
                f"{tokenizer.name} is no codec of speechtok; latents come from a codec such as speechtok-base"
            )
        self.tokenizer, self.reference = tokenizer, reference
        self.name = f"{tokenizer.name} latents"
        self.sample_rate, self.hop = tokenizer.sample_rate, tokenizer.hop
        self.dimension = tokenizer.codec.config.dimension
        self.context = tokenizer.codec.encoder_context()
        self.exact_sound = tokenizer.exact_windows[1]

    def rows(self, wave: Tensor) -> Tensor:
        codec = self.tokenizer.codec
        return codec.latent(wave.to(next(codec.buffers()).device)[None])[0]

    def sound(self, rows: np.ndarray) -> np.ndarray:
        return self.tokenizer.decode_latents(rows)

    def in_windows(self, seconds: float) -> CodecFeatures:
        other = copy.copy(self)
        other.tokenizer = self.tokenizer.in_windows(seconds)
        return other

    def facts(self) -> Any:
        return ["codec", self.tokenizer.fingerprint]

    def state(self) -> dict[str, Tensor]:
        return {}

    def section(self, folder: Path) -> dict[str, Any]:
        if self.reference is None:
            raise ConfigError(
                f"{self.name}: say under which name or place the codec is found (reference=...) to save it"
            )
        return {"kind": "codec", "model": self.reference}

    def to(self, device: str) -> CodecFeatures:
        self.tokenizer.codec.to(torch_device(device))
        return self


class TeacherFeatures(Features):
    """One layer of a self-supervised model: a ``SemanticTeacher``, or anything that keeps the ``Teacher`` protocol."""

    semantic = True

    def __init__(
        self, teacher: Teacher, hop: int | None = None, reference: str | None = None, digest: str | None = None
    ):
        """
        Args:
            teacher: gives features without gradients.
            hop: of the grid in samples at the teacher's rate; the teacher's own where None.
            reference: folder or Hub id that it was loaded from; without it, saving puts the weights into the folder.
            digest: of a teacher without ``state_dict()``, anything that changes whenever its features do.

        Raises:
            ConfigError: the teacher has neither, so tokens could not tell it from another one.
        """
        if digest is None and not hasattr(teacher, "state_dict"):
            raise ConfigError(
                f"a {type(teacher).__name__} has no state_dict(); give a digest=... of all that decides its features"
            )
        self.teacher, self.reference, self.digest = teacher, reference, digest
        self.sample_rate, self.hop = teacher.law.rate, hop or teacher.law.hop
        self.dimension = teacher.dimension
        self.name = f"{Path(reference or type(teacher).__name__).name} layer {getattr(teacher, 'layer', '')}".rstrip()

    def rows(self, wave: Tensor) -> Tensor:
        features, _ = self.teacher(at_least(wave, self.teacher.law).to(_device_of(self.teacher))[None])
        return on_grid(features[0], self.teacher.law, self.hop, len(wave))

    def facts(self) -> Any:
        law = self.teacher.law
        settings = [getattr(self.teacher, key, None) for key in ("layer", "normalise")]
        facts = ["teacher", law.rate, law.hop, law.window, self.hop, settings, network_facts(self.teacher)]
        return facts if self.digest is None else [*facts, self.digest]

    def state(self) -> dict[str, Tensor]:
        return self.teacher.state_dict() if hasattr(self.teacher, "state_dict") else {}

    def section(self, folder: Path) -> dict[str, Any]:
        if not isinstance(self.teacher, SemanticTeacher):
            raise ConfigError(f"{self.name}: a {type(self.teacher).__name__} cannot be loaded again from a folder")

        def save(place: Path) -> None:
            if type(self.teacher) is not SemanticTeacher:
                raise ConfigError(f"{self.name}: save it apart, and give its folder as reference=")
            save_network(self.teacher.network, self.teacher.normalise, self.teacher.rate, place)

        return {
            "kind": "teacher",
            "model": carried(self.reference, folder, save),
            "layer": self.teacher.layer,
            "hop": self.hop,
        }

    def to(self, device: str) -> TeacherFeatures:
        if isinstance(self.teacher, torch.nn.Module):
            self.teacher.to(torch_device(device))
        return self


def at_least(wave: Tensor, law: FrameLaw) -> Tensor:
    """``wave[T]`` with zeros behind it until it fills one window, so that there is a frame."""
    return F.pad(wave, (0, max(0, law.window - len(wave))))


def on_grid(rows: Tensor, law: FrameLaw, hop: int, samples: int) -> Tensor:
    """``rows[T', ...]`` of a teacher on the ``ceil(samples / hop)`` frames of a grid of the same rate.

    As ``guidance.frames.align`` for a whole utterance, except that the last row is repeated past the end, where a
    training target is masked: a tokenizer owes every frame a token.
    """
    wanted = torch.from_numpy(matching_frames(CodecGrid(law.rate, hop), law, -(-samples // hop)))
    return rows[wanted.clamp_max(len(rows) - 1).to(rows.device)]


def network_facts(teacher: Any) -> list[Any]:
    """Settings of a ``transformers`` network that its weights do not show."""
    config = getattr(getattr(teacher, "network", teacher), "config", None)
    # in front of those that only some networks have stands a list of one length, so that older tokens stay valid
    further = [getattr(config, key) for key in FURTHER_FACTS if hasattr(config, key)]
    return [getattr(config, key, None) for key in TEACHER_FACTS] + further


def carried(reference: str | None, folder: Path, save: Callable[[Path], None]) -> str:
    """By which name a saved folder finds a network: a Hub id stays one, anything else is put into the folder.

    Args:
        reference: Hub id or folder that the network was loaded from, or None.
        folder: of the tokenizer.
        save: writes the network where there is no reference.

    Raises:
        ConfigError: the folder of the reference does not hold the weights in one safetensors file.
    """
    if reference is not None and not Path(reference).is_dir():
        return reference
    if reference is not None and not (Path(reference) / WEIGHTS).is_file():
        raise ConfigError(f"{reference}: holds no {WEIGHTS}, so it cannot be copied; save the network as one such file")
    place = make_folder(folder / TEACHER)
    if reference is None:
        save(place)
        return TEACHER
    for file in NETWORK_FILES:
        if (Path(reference) / file).is_file() and Path(reference).resolve() != place.resolve():
            write_bytes_atomic(place / file, (Path(reference) / file).read_bytes())
    return TEACHER


def save_network(network: Any, normalise: bool, rate: int, place: Path) -> None:
    """A network of ``transformers``, or one trained here, and what its preprocessor has to know."""
    if hasattr(network.config, "front_end"):
        hubert.save(network, place)
        return
    from transformers import Wav2Vec2FeatureExtractor

    network.save_pretrained(place)
    Wav2Vec2FeatureExtractor(sampling_rate=rate, do_normalize=normalise).save_pretrained(place)


def load_features(owner: Mapping[str, Any], folder: Path) -> Features:
    """Features from the entry ``features`` of a section, which ``Features.section`` wrote.

    Raises:
        CheckpointError: there is none, or what it names cannot be loaded.
    """
    settings = dict(part_of(owner, "features", folder))
    kind = settings.pop("kind", None)
    try:
        if kind == "mel":
            return MelFeatures(**settings)
        if kind == "codec":
            return CodecFeatures(load(located(folder, settings["model"])), settings["model"])
        if kind == "teacher":
            reference = located(folder, settings["model"])
            return TeacherFeatures(load_semantic_teacher(reference, settings["layer"]), settings.get("hop"), reference)
    except (KeyError, TypeError, ConfigError) as error:
        raise CheckpointError(f"{folder}: its config.json describes no features ({error}); restore it") from error
    raise CheckpointError(f"{folder}: features of kind {kind!r}; this release knows mel, codec and teacher")


def _device_of(teacher: Any) -> torch.device:
    weights = next(iter(teacher.parameters()), None) if isinstance(teacher, torch.nn.Module) else None
    return torch.device("cpu") if weights is None else weights.device
