"""X-Codec (Ye et al., 2408.17175) and Higgs Audio v2's tokenizer, which shares its design.

Features of HuBERT or WavLM join those of a DAC encoder before the residual quantizer, and after it the sum of all
levels must give them back. So content was taught to every level and none is content alone: all count as semantic.
Whole frames are what the two encoders agree on; the published preprocessor fills up to them, as is done here.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from torch import Tensor

from speechtok.tokenizers.adapters.base import ForeignCodec, Shape, bandwidth_for, levels_of, with_parts


class XcodecCodec(ForeignCodec):
    """``XcodecModel`` or ``HiggsAudioV2TokenizerModel``."""

    scheme = "E"
    note = "content was taught to the sum of all levels: every level is semantic and acoustic at once"

    @classmethod
    def refuse(cls, config: Any) -> str | None:
        """Higgs where torchaudio is missing: its class resamples by it and does not start without."""
        if config.model_type.startswith("higgs") and find_spec("torchaudio") is None:
            return "its class in transformers needs torchaudio, which speechtok does not install"
        return super().refuse(config)

    def shape(self, settings: Mapping[str, Any]) -> Shape:
        config = self.model.config
        return Shape(
            sample_rate=config.sample_rate,
            hop=config.hop_length,
            codebook_size=config.codebook_size,
            n_q=levels_of(self.model),
            settings=settings,
        )

    @property
    def semantic_levels(self) -> tuple[int, ...]:
        """All of them."""
        return tuple(range(self.config.n_q))

    def _encode(self, wave: Tensor, levels: int) -> Tensor:
        return self.model.encode(wave, bandwidth=bandwidth_for(self.model, levels)).audio_codes

    def _decode(self, codes: Tensor, first_level: int) -> Tensor:
        quantizer = self.model.quantizer
        rest = with_parts(quantizer, quantizers=quantizer.quantizers[first_level:])
        return with_parts(self.model, quantizer=rest).decode(codes).audio_values
