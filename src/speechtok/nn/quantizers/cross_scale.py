"""Levels at several frame rates.

Source: the review's cross-scale quantizers (CSVQ, Jiang et al. 2022, arXiv 2207.03067: a quantizer at every scale of a
U-Net) brought to a single latent, as in SNAC (Siuzdak et al. 2024, arXiv 2410.14411): a level averages what is left
over several frames, quantizes it, and its code is repeated on all of them. The features at the encoder's other scales,
which CSVQ also quantizes, are not used.
"""

from __future__ import annotations

import torch
from torch import Tensor

from speechtok.nn.quantizers.build import make_codebook
from speechtok.nn.quantizers.codebook import Codebook, Step
from speechtok.nn.quantizers.residual import ResidualVQ


class CrossScaleVQ(ResidualVQ):
    """A residual stack whose level ``q`` has one code per ``config.strides[q]`` frames.

    Codes stay on the finest grid, ``[B, Q, N]``: rows of coarse levels repeat every code; ``codes[:, q, ::stride]`` are
    those to be stored or modelled, and ``bitrate`` counts them once. A block at the end may be shorter.
    """

    def _layer(self, level: int, size: int) -> Codebook:
        codebook = make_codebook(self.dimension, size, self.config)
        return Strided(codebook, self.config.strides[level])

    @property
    def strides(self) -> tuple[int, ...]:
        """See ``Quantizer``."""
        return tuple(layer.stride for layer in self.layers)


class Strided(Codebook):
    """A codebook that gives all frames of a block one code, that of their mean."""

    def __init__(self, codebook: Codebook, stride: int):
        super().__init__(codebook.dimension, codebook.codebook_size, codebook.config)
        self.codebook, self.stride, self.attached = codebook, stride, codebook.attached

    def nearest(self, vectors: Tensor, mask: Tensor | None = None) -> Tensor:
        """See ``Codebook``; blocks are counted from the first frame of ``vectors[..., N, D]``."""
        blocks, _ = self._blocks(vectors, mask)
        return self._repeated(self.codebook.nearest(blocks), -1, vectors.shape[-2])

    def lookup(self, codes: Tensor) -> Tensor:
        """See ``Codebook``."""
        return self.codebook.lookup(codes)

    def forward(self, vectors: Tensor, mask: Tensor | None = None) -> Step:
        """See ``Codebook``."""
        blocks, real = self._blocks(vectors, mask)
        step, count = self.codebook(blocks, None if mask is None else real), vectors.shape[1]
        return step._replace(
            quantized=self._repeated(step.quantized, 1, count),
            codes=self._repeated(step.codes, 1, count),
            commitment=self._repeated(step.distance(blocks), 1, count),
            codebook=None if step.codebook is None else self._repeated(step.codebook, 1, count),
        )

    @torch.no_grad()
    def start_statistics(self) -> None:
        """See ``Codebook``."""
        super().start_statistics()
        self.codebook.start_statistics()

    def _start(self, vectors: Tensor) -> None:
        self.codebook.initialise(self._blocks(vectors, None)[0])

    def _blocks(self, vectors: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Means over the real frames of every block, ``[..., ceil(N / stride), D]``, and which blocks have any."""
        missing = -vectors.shape[-2] % self.stride
        real = vectors.new_ones(vectors.shape[:-1]) if mask is None else mask.to(vectors.dtype)
        real = torch.nn.functional.pad(real, (0, missing)).unflatten(-1, (-1, self.stride)).unsqueeze(-1)
        padded = torch.nn.functional.pad(vectors, (0, 0, 0, missing)).unflatten(-2, (-1, self.stride))
        counts = real.sum(-2)
        return (padded * real).sum(-2) / counts.clamp_min(1), counts.squeeze(-1) > 0

    def _repeated(self, values: Tensor, axis: int, frames: int) -> Tensor:
        return values.repeat_interleave(self.stride, axis).narrow(axis, 0, frames)
