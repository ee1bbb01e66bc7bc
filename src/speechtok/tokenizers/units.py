"""Scheme B: speech units, discrete and about content; they have no waveform by themselves.

A unit is the number of the nearest k-means centre of a feature (HuBERT, section II.A; GSLM, section 3.1), or what
the model's own quantizer chose (wav2vec 2.0, section 2: two Gumbel groups of 320 entries).
"""

from __future__ import annotations

import copy
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from speechtok.audio import Audio
from speechtok.errors import CheckpointError, ConfigError, NotSupportedError
from speechtok.guidance.clusters import load_centres, load_units_config
from speechtok.guidance.frames import FrameLaw
from speechtok.guidance.semantic import AVERAGE
from speechtok.guidance.targets import assign_units
from speechtok.guidance.teachers import load_semantic_teacher
from speechtok.pretrained import load_network, load_part
from speechtok.tokenizers.base import Tokenizer
from speechtok.tokenizers.codec import torch_device
from speechtok.tokenizers.features import (
    Features,
    FrameModel,
    TeacherFeatures,
    at_least,
    carried,
    load_features,
    network_facts,
    on_grid,
    save_network,
)
from speechtok.tokenizers.fingerprint import RESAMPLER, fingerprint_of
from speechtok.tokenizers.folder import VOCODER, ModelFolder, write_folder
from speechtok.tokenizers.registry import located
from speechtok.tokenizers.vocoder import NeuralVocoder, load_vocoder, save_vocoder

CODE_VERSION = 1
"""Raised whenever a change of this package changes the units that the same weights give."""


class Vocoder(Protocol):
    """Sound for units: trained apart, on the units of one tokenizer, as ``NeuralVocoder``; or any such function."""

    def __call__(self, codes: np.ndarray) -> np.ndarray:
        """``codes[Q, N] -> samples[N * hop]`` at the tokenizer's rate, float32."""


class UnitSource(FrameModel):
    """Rows of ``Q`` whole numbers, each below its entry of ``codebook_sizes``."""

    codebook_sizes: tuple[int, ...]

    def tensors(self) -> dict[str, Tensor]:
        """What is stored beside ``config.json``."""
        return {}


class Clusters(UnitSource):
    """The nearest of ``centres[K, D]`` to each feature."""

    def __init__(self, features: Features, centres: Tensor):
        """
        Args:
            features: any source, of the width of the centres.
            centres: float32, as ``speechtok train units`` fits them.

        Raises:
            ConfigError: the widths differ.
        """
        if centres.ndim != 2 or centres.shape[1] != features.dimension:
            raise ConfigError(
                f"centres of shape {tuple(centres.shape)} do not fit {features.name}, which has"
                f" {features.dimension} dimensions; take both from one run"
            )
        self.features, self.centres = features, centres.float()
        self.name, self.context = features.name, features.context
        self.sample_rate, self.hop = features.sample_rate, features.hop
        self.codebook_sizes = (len(centres),)

    def rows(self, wave: Tensor) -> Tensor:
        rows = self.features.rows(wave)
        return assign_units(rows[None], self.centres.to(rows.device))[0, :, None]

    def facts(self) -> Any:
        return ["clusters", self.features.facts()]

    def state(self) -> dict[str, Tensor]:
        return {"centres": self.centres, **{f"features.{key}": value for key, value in self.features.state().items()}}

    def section(self, folder: Path) -> dict[str, Any]:
        return {"source": "clusters", "features": self.features.section(folder)}

    def tensors(self) -> dict[str, Tensor]:
        return {"centres": self.centres}

    def to(self, device: str) -> Clusters:
        self.features.to(device)
        return self


class InternalQuantizer(UnitSource):
    """The Gumbel groups of ``transformers.Wav2Vec2ForPreTraining``, whose choice needs no clustering: ``Q`` groups."""

    def __init__(self, network: nn.Module, normalise: bool = False, rate: int = 16000, reference: str | None = None):
        """
        Args:
            network: with its quantizer, which a checkpoint fine-tuned for recognition has lost.
            normalise: bring waveforms to mean 0 and variance 1, where the model's preprocessor says so.
            rate: samples per second that it was trained with.
            reference: folder or Hub id it was loaded from; without it, saving puts the network into the folder.

        Raises:
            ConfigError: it has no such quantizer.
        """
        if not hasattr(network, "quantizer") or not hasattr(network, "wav2vec2"):
            raise ConfigError(f"a {type(network).__name__} has no quantizer; use a Wav2Vec2ForPreTraining")
        config = network.config
        self.network = network.float().eval().requires_grad_(False)
        self.normalise, self.reference = normalise, reference
        self.law = FrameLaw.of_convolutions(rate, config.conv_kernel, config.conv_stride)
        self.sample_rate, self.hop = rate, self.law.hop
        self.name = f"{Path(reference or type(network).__name__).name} quantizer"
        self.codebook_sizes = (config.num_codevectors_per_group,) * config.num_codevector_groups

    @classmethod
    def load(cls, name: str) -> InternalQuantizer:
        """From a folder or a Hub id.

        Raises:
            CheckpointError: ``transformers`` is not installed or cannot load it, or its quantizer is not in there.
        """
        extractor = load_part("AutoFeatureExtractor", name, "quantizer")
        advice = "take a wav2vec 2.0 that was not fine-tuned, for fine-tuning drops the quantizer"
        network = load_network("Wav2Vec2ForPreTraining", name, "quantizer", advice)
        return cls(network, bool(extractor.do_normalize), extractor.sampling_rate, name)

    def rows(self, wave: Tensor) -> Tensor:
        padded = at_least(wave, self.law).to(next(self.network.parameters()).device)[None]
        if self.normalise:
            variance, mean = torch.var_mean(padded, 1, correction=0, keepdim=True)
            padded = (padded - mean) / torch.sqrt(variance + 1e-7)
        encoder, quantizer = self.network.wav2vec2, self.network.quantizer
        _, features = encoder.feature_projection(encoder.feature_extractor(padded).transpose(1, 2))
        scores = quantizer.weight_proj(features)[0]
        units = scores.reshape(len(scores), len(self.codebook_sizes), -1).argmax(2)
        return on_grid(units, self.law, self.hop, len(wave))

    def facts(self) -> Any:
        return ["quantizer", self.sample_rate, self.normalise, network_facts(self.network)]

    def state(self) -> dict[str, Tensor]:
        used = ("wav2vec2.feature_extractor.", "wav2vec2.feature_projection.layer_norm.", "quantizer.weight_proj.")
        return {key: value for key, value in self.network.state_dict().items() if key.startswith(used)}

    def section(self, folder: Path) -> dict[str, Any]:
        def save(place: Path) -> None:
            save_network(self.network, self.normalise, self.sample_rate, place)

        return {"source": "quantizer", "model": carried(self.reference, folder, save)}

    def to(self, device: str) -> InternalQuantizer:
        self.network.to(torch_device(device))
        return self


class UnitTokenizer(Tokenizer):
    """Units of any source as tokens, all levels semantic."""

    scheme = "B"

    def __init__(
        self,
        source: UnitSource,
        name: str,
        *,
        vocoder: Vocoder | None = None,
        licence: str = "not stated",
        note: str = "",
        device: str = "cpu",
        exact_seconds: float = 120.0,
    ):
        """
        Args:
            source: clusters, an internal quantizer or a supervised one.
            name: what messages and token files call it.
            vocoder: what ``decode`` sounds through; without one it refuses. One that takes on voices has a method
                ``with_voice(Audio)``, and one that knows the fingerprint of its tokens has it as ``units``.
            licence: of the weights.
            note: what a user of this very model must know.
            device: anything torch understands. Units from another device may differ in near ties.
            exact_seconds: longest audio taken in one piece.

        Raises:
            ConfigError: the vocoder was trained on other units.
        """
        self.source = source.to(device)
        self.name, self.licence, self.note, self.vocoder = name, licence, note, vocoder
        self.sample_rate, self.hop = source.sample_rate, source.hop
        self.codebook_sizes = source.codebook_sizes
        self.semantic_levels = tuple(range(len(source.codebook_sizes)))
        self.exact_windows = (source.context is not None, not isinstance(vocoder, NeuralVocoder))
        self.exact_seconds = exact_seconds
        self.voices = hasattr(vocoder, "with_voice")
        trained_on = getattr(vocoder, "units", None)
        if trained_on is not None and trained_on != self.fingerprint:  # which reads all weights, so only where needed
            raise ConfigError(
                f"{name}: its vocoder was trained on units {trained_on}, not on {self.fingerprint}; train one on these"
            )

    @cached_property
    def fingerprint(self) -> str:
        """Digest of the teacher, the layer, the centres, the grid, the resampler and the code version."""
        return fingerprint_of(["units", CODE_VERSION, RESAMPLER, self.source.facts()], self.source.state())

    def in_windows(self, seconds: float) -> UnitTokenizer:
        """The same units with windows of about ``seconds``."""
        other = copy.copy(self)
        other.exact_seconds = seconds
        return other

    def with_voice(self, reference: Audio) -> UnitTokenizer:
        """The same units, sounding as ``reference`` does; see ``Tokenizer.with_voice``."""
        if not self.voices:
            return super().with_voice(reference)
        other = copy.copy(self)
        other.vocoder = self.vocoder.with_voice(reference)
        return other

    def _encode(self, samples: np.ndarray, levels: int) -> np.ndarray:
        return self.source.over(samples, self.exact_seconds).T[:levels]

    def _decode(self, codes: np.ndarray, first_level: int) -> np.ndarray:
        if self.vocoder is None:
            raise NotSupportedError(
                f"{self.name}: units have no waveform by themselves; name a vocoder trained on {self.fingerprint}"
            )
        return np.array(self.vocoder(codes))  # a copy: the vocoder may go on using its own


def trained_units(folder: str | Path, name: str, teacher: str | None = None, **options: Any) -> UnitTokenizer:
    """A tokenizer of the centres that ``speechtok train units`` left in ``folder``; ``save_units`` makes it a model.

    Args:
        folder: of the centres.
        name: what messages and token files call it.
        teacher: folder or Hub id, where it is no longer the one that the features were made with.
        options: of ``UnitTokenizer``.

    Raises:
        CheckpointError: the centres or the teacher cannot be loaded.
        ConfigError: they do not fit.
    """
    centres, said = load_centres(folder), load_units_config(folder)
    reference = teacher or said.teacher
    layer = AVERAGE if said.layer is None else said.layer
    features = TeacherFeatures(load_semantic_teacher(reference, layer), reference=reference)
    return UnitTokenizer(Clusters(features, centres), name, **options)


def save_units(
    tokenizer: UnitTokenizer,
    folder: str | Path,
    card: dict[str, Any] | None = None,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write a model folder: centres, the teacher inside it or named, and the vocoder inside it.

    Args:
        tokenizer: a vocoder that is not a ``NeuralVocoder`` is not stored.
        folder: made if missing.
        card: what people should know. Plain JSON values.
        dtype: of the vocoder's weights on disk, see ``save_vocoder``.

    Raises:
        OutputError: the folder cannot be written.
        ConfigError: the source cannot be put into a folder.
    """
    section = tokenizer.source.section(Path(folder))
    if isinstance(tokenizer.vocoder, NeuralVocoder):
        save_vocoder(tokenizer.vocoder, Path(folder) / VOCODER, dtype=dtype)
        section[VOCODER] = VOCODER
    write_folder(folder, "units", tokenizer, section, tokenizer.source.tensors(), card)


def from_folder(folder: ModelFolder, device: str = "cpu") -> UnitTokenizer:
    """The tokenizer of a folder that ``save_units`` wrote.

    Raises:
        CheckpointError: something is missing, damaged, or does not fit.
    """
    section = folder.section
    try:
        if section.get("source") == "quantizer":
            source: UnitSource = InternalQuantizer.load(located(folder.path, section["model"]))
        elif section.get("source") == "supervised":
            from speechtok.tokenizers.supervised import SupervisedQuantizer  # which is itself a source of this kind

            source = SupervisedQuantizer.load(located(folder.path, section["model"]))
        else:
            source = Clusters(load_features(section, folder.path), folder.tensor("centres", 2))
    except (KeyError, TypeError, ConfigError) as error:
        raise CheckpointError(f"{folder.path}: its config.json describes no units ({error}); restore it") from error
    vocoder = load_vocoder(folder.path / VOCODER, device) if VOCODER in section else None
    return UnitTokenizer(source, folder.name, vocoder=vocoder, device=device, **folder.says)
