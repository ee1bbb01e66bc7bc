"""Look-up free quantization (MAGVIT-v2, Yu et al. 2023, arXiv 2310.05737, section 3.1)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from speechtok.nn.quantizers.codebook import entropy_loss, frames
from speechtok.nn.quantizers.config import QuantizerConfig
from speechtok.nn.quantizers.lattice import Lattice


class LFQ(Lattice):
    """Each number is its sign: log2(K) numbers make K codes. Even use comes from the entropy loss."""

    def __init__(self, dimension: int, codebook_size: int, config: QuantizerConfig):
        super().__init__(dimension, (2,) * (codebook_size.bit_length() - 1), config)

    def squash(self, projected: Tensor) -> Tensor:
        """As it is."""
        return projected

    def digits(self, squashed: Tensor) -> Tensor:
        """1 above 0, else 0."""
        return (squashed > 0).long()

    def values(self, digits: Tensor) -> Tensor:
        """1 and -1."""
        return 2.0 * digits - 1

    def commitment(self, squashed: Tensor, values: Tensor) -> Tensor:
        """Squared differences, ``[..., d]``."""
        return (squashed - values).pow(2)

    def entropy(self, squashed: Tensor, mask: Tensor | None) -> Tensor:
        """Over all K codes: given a vector the signs are independent, on average over vectors they are not."""
        # squared distances of x to 1 and to -1 differ by 4 x
        logits = frames(squashed, mask) * 4 / self.config.entropy_temperature
        signs = self.unpacked(torch.arange(self.codebook_size, device=squashed.device)).to(logits)
        log_odds = F.logsigmoid(logits) @ signs.t() + F.logsigmoid(-logits) @ (1 - signs).t()
        return entropy_loss(log_odds, self.config.diversity)
