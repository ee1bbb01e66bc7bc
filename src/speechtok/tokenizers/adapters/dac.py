"""DAC (Kumar et al., 2306.06546): convolutions only, factorised residual quantizer.

Its own answer is ``floor`` of frames that lose the end of the signal; the published preprocessor fills up to whole
frames, and so does the adapter. Strides that are odd make its decoder give a few samples less than ``N * hop``
(8 per signal at 16 kHz); they are zeros here. The hop is the product of the strides: the published 16 and 24 kHz
configurations state 512 where it is 320.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from speechtok.tokenizers.adapters.base import ForeignCodec, Shape, with_parts
from speechtok.tokenizers.adapters.reach import convolutions, decoder_reach, encoder_reach, frames_of


class DacCodec(ForeignCodec):
    """``DacModel``."""

    def shape(self, settings: Mapping[str, Any]) -> Shape:
        config = self.model.config
        return Shape(
            sample_rate=config.sampling_rate,
            hop=math.prod(config.downsampling_ratios),
            codebook_size=config.codebook_size,
            n_q=config.n_codebooks,
            settings=settings,
        )

    def _encode(self, wave: Tensor, levels: int) -> Tensor:
        return self.model.encode(wave, n_quantizers=levels).audio_codes

    def _decode(self, codes: Tensor, first_level: int) -> Tensor:
        quantizer = self.model.quantizer
        rest = with_parts(quantizer, quantizers=quantizer.quantizers[first_level:])
        return with_parts(self.model, quantizer=rest).decode(audio_codes=codes).audio_values

    def encoder_context(self) -> tuple[int, int]:
        """Finite: convolutions that look to both sides alike."""
        return self._both_sides(encoder_reach(convolutions(self.model.encoder)))

    def decoder_context(self) -> tuple[int, int]:
        """Finite, as for the encoder."""
        return self._both_sides(decoder_reach(convolutions(self.model.decoder), self.config.hop))

    def _both_sides(self, reach: int) -> tuple[int, int]:
        side = frames_of(-(-reach // 2), self.config.hop)
        return side, side
