"""EnCodec (Defossez et al., 2210.13438): SEANet with an LSTM, residual quantizer, levels chosen by bandwidth.

Its own codes carry one axis more, ``[chunks, B, Q, N]``; the 24 kHz model takes a signal as one chunk and answers
``ceil(T / hop)`` frames. The 48 kHz model is refused: stereo, overlapping chunks of one second whose frames count
some audio twice, and a loudness per chunk beside the codes, for which tokens have no place.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from speechtok.tokenizers.adapters.base import ForeignCodec, Shape, bandwidth_for, levels_of, with_parts


class EncodecCodec(ForeignCodec):
    """``EncodecModel``."""

    pads = False

    @classmethod
    def refuse(cls, config: Any) -> str | None:
        """Stereo, chunks or a loudness beside the codes."""
        if config.normalize or config.chunk_length_s is not None:
            return (
                "it cuts audio into overlapping chunks or keeps a loudness beside the codes, which tokens do not hold"
            )
        return super().refuse(config)

    def shape(self, settings: Mapping[str, Any]) -> Shape:
        config = self.model.config
        return Shape(
            sample_rate=config.sampling_rate,
            hop=config.hop_length,
            codebook_size=config.codebook_size,
            n_q=levels_of(self.model),
            causal=config.use_causal_conv,
            settings=settings,
        )

    def _encode(self, wave: Tensor, levels: int) -> Tensor:
        return self.model.encode(wave, bandwidth=bandwidth_for(self.model, levels)).audio_codes[0]

    def _decode(self, codes: Tensor, first_level: int) -> Tensor:
        quantizer = self.model.quantizer
        rest = with_parts(quantizer, layers=quantizer.layers[first_level:])
        return with_parts(self.model, quantizer=rest).decode(codes[None], [None]).audio_values
