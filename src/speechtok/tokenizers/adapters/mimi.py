"""Mimi (Moshi, 2410.00037): causal SEANet and transformer; level 0 was distilled from WavLM, the rest run beside it.

Its own answer is ``ceil(T / hop)`` frames, so nothing is filled up. All of it looks back only, and attention no
further than a window, so overlapping windows of long audio are exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from speechtok.errors import TokenError
from speechtok.tokenizers.adapters.base import ForeignCodec, Shape, with_parts
from speechtok.tokenizers.adapters.reach import convolutions, decoder_reach, encoder_reach, frames_of


class MimiCodec(ForeignCodec):
    """``MimiModel``."""

    scheme = "E"
    note = "level 0 is semantic; Moshi uses the first 8 levels, so encode(audio, levels=8) gives its tokens"
    pads = False

    @classmethod
    def refuse(cls, config: Any) -> str | None:
        """Stereo, or a checkpoint of one half."""
        halves = getattr(config, "encoder_config", True), getattr(config, "decoder_config", True)
        if None in halves:
            return "it holds one half of the codec only"
        return super().refuse(config)

    def shape(self, settings: Mapping[str, Any]) -> Shape:
        config = self.model.config
        return Shape(
            sample_rate=config.sampling_rate,
            hop=round(config.sampling_rate / config.frame_rate),
            codebook_size=config.codebook_size,
            n_q=config.num_quantizers,
            causal=config.use_causal_conv,
            settings=settings,
        )

    @property
    def semantic_levels(self) -> tuple[int, ...]:
        """Those of the quantizer that was taught by WavLM."""
        return tuple(range(self.model.config.num_semantic_quantizers))

    def _encode(self, wave: Tensor, levels: int) -> Tensor:
        return self.model.encode(wave, num_quantizers=max(levels, len(self.semantic_levels))).audio_codes

    def _decode(self, codes: Tensor, first_level: int) -> Tensor:
        return with_parts(self.model, quantizer=self._quantizer_from(first_level)).decode(codes).audio_values

    def _quantizer_from(self, first_level: int) -> nn.Module:
        """The two quantizers add up, so the acoustic one alone decodes what comes after the semantic levels."""
        if first_level == 0:
            return self.model.quantizer
        skipped = first_level - len(self.semantic_levels)
        if skipped < 0:
            raise TokenError(f"Mimi's semantic levels decode together; level {first_level} cannot be the first")
        acoustic = self.model.quantizer.acoustic_residual_vector_quantizer
        return with_parts(acoustic, layers=acoustic.layers[skipped:])

    def encoder_context(self) -> tuple[int, int] | None:
        """Left only: convolutions, attention windows of all layers, convolution to the frame rate."""
        parts = getattr(self.model.encoder, "encoder_seanet", None)
        if parts is None or not self.config.causal:  # transformers before the halves became models
            return None
        between = self._seanet_hop()
        reach = encoder_reach(convolutions(parts)) + self._attention_reach()
        reach += encoder_reach(convolutions(self.model.encoder.downsample), between)
        return frames_of(reach, self.config.hop), 0

    def decoder_context(self) -> tuple[int, int] | None:
        """Left only, as for the encoder."""
        parts = getattr(self.model.decoder, "decoder_seanet", None)
        if parts is None or not self.config.causal:
            return None
        reach = decoder_reach(convolutions(self.model.decoder.upsample), self.config.hop)
        reach += self._attention_reach() + decoder_reach(convolutions(parts), self._seanet_hop())
        return frames_of(reach, self.config.hop), 0

    def _attention_reach(self) -> int:
        config = self.model.config
        return config.num_hidden_layers * config.sliding_window * self._seanet_hop()

    def _seanet_hop(self) -> int:
        """Samples per position between the convolutions and the transformer."""
        return self.config.hop // self.model.config.latent_stride
