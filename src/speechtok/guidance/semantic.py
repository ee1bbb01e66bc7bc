"""The semantic teacher: any frozen HuBERT, WavLM or wav2vec 2.0 that ``transformers`` loads."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from speechtok.errors import ConfigError
from speechtok.guidance.frames import FrameLaw
from speechtok.pretrained import load_network, load_part

AVERAGE = "average"


class SemanticTeacher(nn.Module):
    """Waveforms to the hidden states of one layer, or to the mean of all, without gradients.

    Args:
        network: a ``transformers`` model over raw waveforms.
        layer: 0 is the input of the first transformer layer, n the output of the n-th; ``average`` takes the mean of
            all of them, the input included (SpeechTokenizer's ``hubert_rep_extract.py``).
        normalise: bring every waveform to mean 0 and variance 1 first, where the preprocessor of the model says so.
        rate: samples per second that the model was trained with.

    Raises:
        ConfigError: no such layer, or the model does not begin with convolutions over the waveform.
    """

    def __init__(self, network: nn.Module, layer: int | str = AVERAGE, normalise: bool = False, rate: int = 16000):
        super().__init__()
        config = network.config
        if not hasattr(config, "conv_kernel") or not hasattr(config, "conv_stride"):
            raise ConfigError(
                f"a {type(network).__name__} does not listen to waveforms; use HuBERT, WavLM or wav2vec 2.0"
            )
        layers = config.num_hidden_layers
        if layer != AVERAGE and not (isinstance(layer, int) and 0 <= layer <= layers):
            raise ConfigError(f"layer is {layer!r}; give 0 to {layers} or {AVERAGE!r}")
        self.network, self.layer, self.normalise, self.rate = network, layer, normalise, rate
        self.dimension: int = config.hidden_size
        self.law = FrameLaw.of_convolutions(rate, config.conv_kernel, config.conv_stride)
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> SemanticTeacher:
        """A teacher stays in evaluation mode."""
        return super().train(False)

    @classmethod
    def load(cls, name: str | Path, layer: int | str = AVERAGE) -> SemanticTeacher:
        """From a local folder or a Hub id, with the preprocessing that its configuration asks for.

        Raises:
            CheckpointError: ``transformers`` is not installed or cannot load it; see ``pretrained.load_network``.
        """
        extractor = load_part("AutoFeatureExtractor", name, "teacher")
        network = load_network("AutoModel", name, "teacher")
        return cls(network, layer, bool(getattr(extractor, "do_normalize", False)), extractor.sampling_rate)

    def frames(self, samples: int) -> int:
        """Number of feature frames of so many samples."""
        return self.law.frames(samples)

    @torch.no_grad()
    def forward(self, wave: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """``wave[B, T]`` at ``rate`` to features ``[B, frames(T), D]`` in float32 and their ``mask[B, frames(T)]``.

        Utterances of unequal ``lengths[B]`` go through the network one at a time: normalisation layers and attention
        would let padding change the features of the rest. Features outside the mask are zero.
        """
        batch, samples = wave.shape
        counts = [samples] * batch if lengths is None else [int(n) for n in lengths]
        mask = wave.new_zeros(batch, self.frames(samples), dtype=torch.bool)
        features = wave.new_zeros(*mask.shape, self.dimension, dtype=torch.float32)
        together = [range(batch)] if len(set(counts)) == 1 else [range(i, i + 1) for i in range(batch)]
        for rows in together:
            count = counts[rows[0]]
            frames = self.frames(count)
            if frames:
                part = slice(rows[0], rows[-1] + 1)
                features[part, :frames] = self._features(wave[part, :count].float())
                mask[part, :frames] = True
        return features, mask

    def _features(self, wave: Tensor) -> Tensor:
        if self.normalise:
            variance, mean = torch.var_mean(wave, 1, correction=0, keepdim=True)
            wave = (wave - mean) / torch.sqrt(variance + 1e-7)
        states = self.network(wave, output_hidden_states=True).hidden_states
        return torch.stack(states).mean(0) if self.layer == AVERAGE else states[self.layer]
