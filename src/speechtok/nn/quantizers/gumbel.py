"""Codes drawn by Gumbel softmax.

Source: wav2vec 2.0 (Baevski et al. 2020, arXiv 2006.11477, section 2 and equation 4 for the diversity loss); first in
vq-wav2vec. Groups each see the whole latent and give one part of it; the linear map that wav2vec 2.0 puts behind the
joined parts is the decoder's business here. The start differs: codes and logits are set by k-means.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from speechtok.nn.quantizers.codebook import Codebook, Step, frames
from speechtok.nn.quantizers.config import QuantizerConfig
from speechtok.nn.quantizers.lloyd import kmeans
from speechtok.nn.quantizers.processes import rows_of_all


class GumbelCodebook(Codebook):
    """Logits from a linear map, codes ``embed[K, part]`` that learn from whatever the quantized vectors are used for.

    Args:
        part: which of the D numbers the codes stand for; all by default.
    """

    attached = True

    def __init__(self, dimension: int, codebook_size: int, config: QuantizerConfig, part: slice = slice(None)):
        super().__init__(dimension, codebook_size, config)
        self.part, width = part, len(range(dimension)[part])
        self.logits = nn.Linear(dimension, codebook_size)
        self.embed = nn.Parameter(torch.randn(codebook_size, width) / width**0.5)
        self.register_buffer("temperature", torch.tensor(config.gumbel_temperature[0]))

    def nearest(self, vectors: Tensor, mask: Tensor | None = None) -> Tensor:
        """The code of the highest logit."""
        return self.logits(vectors).argmax(-1)

    def lookup(self, codes: Tensor) -> Tensor:
        """Code vectors, ``[...] -> [..., part]``."""
        return F.embedding(codes, self.embed)

    def forward(self, vectors: Tensor, mask: Tensor | None = None) -> Step:
        """A draw in train mode, else the highest logit; the gradient is the softmax's. There is no commitment."""
        logits = self.logits(vectors)
        noisy = logits
        if self.training:
            shape = logits.shape[1:]
            noisy = logits - rows_of_all(lambda rows: logits.new_empty(rows, *shape).exponential_(), len(logits)).log()
            self._cool()
        soft = (noisy / self.temperature.clone()).softmax(-1)
        codes = noisy.argmax(-1)
        hard = F.one_hot(codes, self.codebook_size).to(soft)
        quantized = (hard + soft - soft.detach()) @ self.embed
        return Step(quantized, codes, torch.zeros_like(logits[..., :1]).detach(), None, self._entropy(logits, mask))

    @torch.no_grad()
    def _cool(self) -> None:
        _, last, factor = self.config.gumbel_temperature
        self.temperature.mul_(factor).clamp_(min=last)

    @torch.no_grad()
    def start_statistics(self) -> None:
        """See ``Codebook``."""
        super().start_statistics()
        self.temperature.fill_(self.config.gumbel_temperature[0])

    def _start(self, vectors: Tensor) -> None:
        centres = kmeans(vectors[:, self.part], self.codebook_size, self.config.kmeans_iterations)[0]
        self.embed.copy_(centres)
        # logits of a mixture of equal Gaussians around the centres, as wide as the vectors' distances to them
        nearest = torch.cdist(vectors[:, self.part], centres).amin(1)
        precision = 1 / nearest.square().mean().clamp_min(1e-12)
        self.logits.weight.zero_()
        self.logits.weight[:, self.part] = precision * centres
        self.logits.bias.copy_(-0.5 * precision * centres.square().sum(1))

    def _entropy(self, scores: Tensor, mask: Tensor | None) -> Tensor | None:
        """wav2vec 2.0's diversity loss: the share of codes that the mean softmax, without noise, leaves unused."""
        if not self.config.entropy:
            return None
        mean = frames(scores, mask).softmax(-1).mean(0)
        return 1 - torch.special.entr(mean).sum().exp() / self.codebook_size
