"""Any other audio tokenizer of ``transformers`` whose ``encode`` answers ``audio_codes[B, Q, N]``.

Nothing is known of its design but what its configuration states, so no level counts as semantic, long audio is cut
into windows as an approximation, and tokens without their first levels cannot be decoded.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from speechtok.errors import CheckpointError, TokenError
from speechtok.tokenizers.adapters.base import ForeignCodec, Shape

RATE = ("sampling_rate", "sample_rate")
HOP = ("hop_length", "frame_size")
SIZE = ("codebook_size",)


class GenericCodec(ForeignCodec):
    """A model with ``encode(wave) -> .audio_codes`` and ``decode(audio_codes=...) -> .audio_values``."""

    note = "adapted by its interface alone: levels and receptive field are not known to speechtok"

    @classmethod
    def refuse(cls, config: Any) -> str | None:
        """A configuration that does not state its rate, hop and codebook, or states two rates."""
        if getattr(config, "output_sampling_rate", None) != getattr(config, "input_sampling_rate", None):
            return "it decodes at another rate than it hears, so lengths cannot be kept"
        missing = [names[0] for names in (RATE, HOP) if _first(config, names) is None]
        if missing or not (_first(config, SIZE) or getattr(config, "quantization_levels", None)):
            return f"its configuration does not state {' and '.join(missing or ['codebook_size'])}"
        return super().refuse(config)

    def shape(self, settings: Mapping[str, Any]) -> Shape:
        config = self.model.config
        hop = int(_first(config, HOP))
        return Shape(
            sample_rate=_first(config, RATE),
            hop=hop,
            codebook_size=_first(config, SIZE) or math.prod(config.quantization_levels),
            n_q=self._levels(hop),
            settings=settings,
        )

    @torch.inference_mode()
    def _levels(self, hop: int) -> int:
        """Counted on a little silence, for configurations name the number in many ways."""
        try:
            return self._encode(torch.zeros(1, 1, 8 * hop), 1).shape[1]
        except Exception as error:  # a model of somebody else's may raise anything
            name, reason = type(self.model).__name__, str(error).strip().splitlines() or [type(error).__name__]
            raise CheckpointError(f"{name} does not encode plain audio ({reason[0]}); it cannot be used") from error

    def _encode(self, wave: Tensor, levels: int) -> Tensor:
        return self.model.encode(wave).audio_codes

    def _decode(self, codes: Tensor, first_level: int) -> Tensor:
        if first_level:
            raise TokenError(f"{type(self.model).__name__} cannot decode tokens without their first levels")
        return self.model.decode(audio_codes=codes).audio_values


def _first(config: Any, names: tuple[str, ...]) -> Any:
    return next((getattr(config, name) for name in names if getattr(config, name, None)), None)
