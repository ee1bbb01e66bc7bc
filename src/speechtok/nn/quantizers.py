"""Vector quantizers: one EMA codebook and the residual stack of them.

Source: SpeechTokenizer sections 3.1-3.2 and its ``quantization`` package; van den Oord et al. 2017, appendix A.1
for the EMA update. Two faults of the EnCodec family are mended here: dead codes stay revived (the EMA sums are
reset together with the code, otherwise the next update rebuilds the code from stale sums), and the residual is
detached (otherwise levels two and up send no gradient to the encoder).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass
class QuantizerConfig:
    """How codebooks learn."""

    decay: float = 0.99
    """EMA decay of the codebook statistics."""
    epsilon: float = 1e-5
    """Laplace smoothing of the cluster sizes."""
    kmeans_iterations: int = 50
    """Lloyd iterations on the first training vectors; 0 starts from random vectors of them."""
    revive_below: float = 0.05
    """A code is dead when its EMA usage is below this share of the uniform one. A share, not a count: an absolute
    threshold depends on batch size times codebook size and silently expires half of a healthy codebook."""
    dropout: float = 0.0
    """Probability that a training utterance is reconstructed from a random number of levels only."""
    reproduce_official_gradient: bool = False
    """Straight-through inside every level with an attached residual, as the official code does; levels two and up
    then give the encoder no gradient. Only for comparisons."""


@dataclass
class Quantized:
    """What the residual quantizer returns in training."""

    latent: Tensor
    """Sum of the kept levels with straight-through gradient, ``[B, N, D]``."""
    first: Tensor | None
    """Level one alone with straight-through gradient, ``[B, N, D]``, or ``[B, N, S]`` where it has a space of its own
    (what semantic guidance teaches). None before there are codebooks where it has none."""
    codes: Tensor | None = None
    """``[B, Q, N]``; None where nothing has been quantized."""
    commitment: Tensor | None = None
    """Mean over levels and frames of the squared distance to the (detached) code vectors."""
    revived: list[int] = field(default_factory=list)
    """Codes brought back to life in this step, per level."""


class VectorQuantizer(nn.Module):
    """One Euclidean codebook ``embed[K, D]`` learned by exponential moving averages.

    Args:
        key: how many of the D numbers decide which code is nearest; all by default. The others are carried along: a
            code holds their mean over the vectors that it was chosen for.
    """

    def __init__(self, dimension: int, codebook_size: int, config: QuantizerConfig, key: int | None = None):
        super().__init__()
        self.config, self.key = config, dimension if key is None else key
        embed = torch.randn(codebook_size, dimension) / dimension**0.5
        self.register_buffer("inited", torch.zeros(1))
        self.register_buffer("cluster_size", torch.ones(codebook_size))
        self.register_buffer("embed", embed)
        self.register_buffer("embed_avg", embed.clone())

    @property
    def codebook_size(self) -> int:
        """Number of codes K."""
        return self.embed.shape[0]

    def nearest(self, vectors: Tensor) -> Tensor:
        """Index of the nearest code in the Euclidean sense, ``[..., D] -> [...]``."""
        flat = vectors.reshape(-1, vectors.shape[-1])[:, : self.key]
        return _nearest(flat, self.embed[:, : self.key]).reshape(vectors.shape[:-1])

    def lookup(self, codes: Tensor) -> Tensor:
        """Code vectors, ``[...] -> [..., D]``."""
        return F.embedding(codes, self.embed)

    @torch.no_grad()
    def initialise(self, vectors: Tensor) -> None:
        """Place the codes by k-means over ``vectors[M, D]``; every process keeps the result of the first one."""
        centres, sizes = kmeans(vectors, self.codebook_size, self.config.kmeans_iterations, self.key)
        self._set_codes(slice(None), centres, sizes.clamp_min(1.0))
        self.inited.fill_(1)
        for buffer in (self.embed, self.embed_avg, self.cluster_size):
            _broadcast(buffer)

    @torch.no_grad()
    def update(self, vectors: Tensor, codes: Tensor) -> int:
        """One EMA step on ``vectors[M, D]`` assigned to ``codes[M]``; returns the number of codes revived."""
        decay = self.config.decay
        counts = torch.bincount(codes, minlength=self.codebook_size).to(vectors.dtype)
        sums = torch.zeros_like(self.embed).index_add_(0, codes, vectors)
        _all_reduce(counts)
        _all_reduce(sums)
        self.cluster_size.mul_(decay).add_(counts, alpha=1 - decay)
        self.embed_avg.mul_(decay).add_(sums, alpha=1 - decay)
        total = self.cluster_size.sum()
        epsilon = self.config.epsilon
        smoothed = (self.cluster_size + epsilon) / (total + self.codebook_size * epsilon) * total
        self.embed.copy_(self.embed_avg / smoothed.unsqueeze(1))
        return self._revive(vectors)

    def _revive(self, vectors: Tensor) -> int:
        share = self.cluster_size * self.codebook_size / self.cluster_size.sum()
        dead = (share < self.config.revive_below).nonzero().flatten()
        if len(dead) == 0:
            return 0
        picks = _pick(vectors, len(dead))
        # half of the uniform share: enough to live until the next updates have counted its own vectors
        self._set_codes(dead, picks, 0.5 * self.cluster_size.mean().expand(len(dead)))
        return len(dead)

    def _set_codes(self, where: Tensor | slice, vectors: Tensor, sizes: Tensor) -> None:
        """Write codes *and* their EMA sums, so that the next EMA step keeps them."""
        self.embed[where] = vectors
        self.cluster_size[where] = sizes
        self.embed_avg[where] = vectors * sizes.unsqueeze(1)


class ResidualVQ(nn.Module):
    """A stack of codebooks, each quantizing what the levels above it left over.

    Args:
        dimension: D, of the latent that the levels add up to.
        own_space: S; where it is above 0, the quantized vectors are ``[S | D]``, and level one is chosen by the first S
            numbers alone. Its code then stands for the mean latent of the frames it is chosen for, and the other levels
            quantize what is left. So level one can be taught without bending the latent.
    """

    def __init__(
        self, dimension: int, codebook_size: int, n_q: int, config: QuantizerConfig | None = None, own_space: int = 0
    ):
        super().__init__()
        self.config, self.own_space = config or QuantizerConfig(), own_space
        first = VectorQuantizer(own_space + dimension, codebook_size, self.config, own_space or None)
        others = (VectorQuantizer(dimension, codebook_size, self.config) for _ in range(n_q - 1))
        self.layers = nn.ModuleList([first, *others])

    def encode(self, latent: Tensor, levels: int | None = None) -> Tensor:
        """``latent[B, N, S + D] -> codes[B, Q, N]`` of the first ``levels`` levels (all when None)."""
        residual, codes = latent, []
        for level, layer in enumerate(self.layers[:levels]):
            codes.append(layer.nearest(residual))
            residual = self._latent(residual - layer.lookup(codes[-1]), level)
        return torch.stack(codes, dim=1)

    def vectors(self, codes: Tensor, first_level: int = 0) -> Tensor:
        """What each level adds to the latent, ``codes[B, Q, N] -> [Q, B, N, D]``; row 0 belongs to ``first_level``."""
        rows = zip(self.layers[first_level : first_level + codes.shape[1]], codes.unbind(1), strict=True)
        return torch.stack(
            [self._latent(layer.lookup(row), level) for level, (layer, row) in enumerate(rows, first_level)]
        )

    def decode(self, codes: Tensor, first_level: int = 0) -> Tensor:
        """Sum of the code vectors, ``codes[B, Q, N] -> latent[B, N, D]``; row 0 belongs to ``first_level``."""
        return self.vectors(codes, first_level).sum(0)

    def first(self, codes: Tensor) -> Tensor:
        """Vectors of level one in the space it was chosen in, ``codes[B, N] -> [B, N, S or D]``."""
        return self.layers[0].lookup(codes)[..., : self.layers[0].key]

    def forward(self, latent: Tensor, mask: Tensor | None = None) -> Quantized:
        """Quantize in training: EMA updates (train mode only), straight-through gradient, level dropout.

        Args:
            latent: ``[B, N, S + D]``.
            mask: ``[B, N]``, True on real frames; padding teaches no codebook.
        """
        if self.training and not self.layers[0].inited:
            self.initialise(_frames(latent.detach(), mask))
        kept = self._draw_levels(latent.shape[0], latent.device)
        step = self._official_step if self.config.reproduce_official_gradient else self._step
        residual, total, first = latent, 0, None
        codes, losses, revived = [], [], []
        for level, layer in enumerate(self.layers):
            quantized, following, indices, loss = step(layer, residual)
            if self.training:
                revived.append(layer.update(_frames(residual.detach(), mask), _frames(indices, mask)))
            keep = (level < kept).to(latent.dtype).view(-1, 1, 1)
            total = total + keep * self._latent(quantized, level)
            # what a code only carries along is no fault of the latent's
            loss = loss[..., : layer.key]
            losses.append((keep * loss).mean() if mask is None else _masked_mean(keep * loss, mask))
            codes.append(indices)
            first = quantized[..., : layer.key] if first is None else first
            residual = self._latent(following, level)
        if not self.config.reproduce_official_gradient:
            total = _straight_through(self._latent(latent, 0), total)
            first = _straight_through(latent[..., : self.layers[0].key], first)
        return Quantized(total, first, torch.stack(codes, 1), torch.stack(losses).mean(), revived)

    def passed(self, latent: Tensor) -> Quantized:
        """What training works with before there are codebooks, ``latent[B, N, S + D]`` as it is.

        Level one can be taught already where it has a space of its own.
        """
        return Quantized(self._latent(latent, 0), latent[..., : self.own_space] if self.own_space else None)

    def _latent(self, vectors: Tensor, level: int) -> Tensor:
        """The part of vectors of this level that lies in the latent."""
        return vectors[..., self.own_space :] if level == 0 else vectors

    @torch.no_grad()
    def initialise(self, vectors: Tensor) -> None:
        """K-means every level in turn on ``vectors[M, D]``, each on what the levels above leave over."""
        residual = vectors
        for level, layer in enumerate(self.layers):
            layer.initialise(residual)
            residual = self._latent(residual - layer.lookup(layer.nearest(residual)), level)

    @staticmethod
    def _step(layer: VectorQuantizer, residual: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        codes = layer.nearest(residual.detach())
        quantized = layer.lookup(codes)
        return quantized, residual - quantized, codes, (residual - quantized).pow(2)

    @staticmethod
    def _official_step(layer: VectorQuantizer, residual: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        codes = layer.nearest(residual.detach())
        looked_up = layer.lookup(codes)
        quantized = _straight_through(residual, looked_up)
        return quantized, residual - quantized, codes, (residual - looked_up).pow(2)

    def _draw_levels(self, batch: int, device: torch.device) -> Tensor:
        """Number of levels each utterance is reconstructed from, ``[B]``."""
        full = torch.full((batch,), len(self.layers), device=device)
        if not self.training or self.config.dropout == 0:
            return full
        # all processes draw for the whole batch and use their share: together they do what a single one would
        everyone = batch * _processes()
        drawn = torch.randint(1, len(self.layers) + 1, (everyone,), device=device)
        dropped = torch.rand(everyone, device=device) < self.config.dropout
        mine = slice(batch * _process(), batch * (_process() + 1))
        return torch.where(dropped[mine], drawn[mine], full)


@torch.no_grad()
def kmeans(vectors: Tensor, clusters: int, iterations: int, key: int | None = None) -> tuple[Tensor, Tensor]:
    """Lloyd's algorithm from random vectors; returns ``centres[K, D]`` and their ``sizes[K]``.

    Only the first ``key`` numbers of a vector (all by default) decide to which centre it belongs.

    With fewer vectors than clusters some start as jittered copies, so that they can part later. Empty clusters
    move to a random vector in every iteration.
    """
    count = len(vectors)
    if count >= clusters:
        centres = vectors[torch.randperm(count, device=vectors.device)[:clusters]].clone()
    else:
        picks = vectors[torch.randint(count, (clusters,), device=vectors.device)]
        centres = picks + 0.01 * vectors.std() * torch.randn_like(picks)
    sizes = torch.ones(clusters, dtype=vectors.dtype, device=vectors.device)
    for _ in range(iterations):
        nearest = _nearest(vectors[:, :key], centres[:, :key])
        sizes = torch.bincount(nearest, minlength=clusters).to(vectors.dtype)
        sums = torch.zeros_like(centres).index_add_(0, nearest, vectors)
        empty = sizes == 0
        centres = sums / sizes.clamp_min(1).unsqueeze(1)
        centres[empty] = vectors[torch.randint(count, (int(empty.sum()),), device=vectors.device)]
    return centres, sizes


def _nearest(vectors: Tensor, centres: Tensor) -> Tensor:
    """``[M, D]`` and ``[K, D]`` to the index of the nearest centre ``[M]``."""
    # argmin |x - e|^2 = argmax x.e - |e|^2 / 2: one matrix product with the norms as its bias
    return torch.addmm(-0.5 * centres.pow(2).sum(1), vectors, centres.t()).argmax(1)


def _straight_through(continuous: Tensor, quantized: Tensor) -> Tensor:
    return continuous + (quantized - continuous).detach()


def _frames(values: Tensor, mask: Tensor | None) -> Tensor:
    """Real frames of a batch in one row, ``[B, N, ...] -> [M, ...]``."""
    return values.flatten(0, 1) if mask is None else values[mask]


def _masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    return (values.mean(-1) * mask).sum() / mask.sum()


def _pick(vectors: Tensor, count: int) -> Tensor:
    """``count`` random vectors of the whole batch, ``[count, D]``, the same in every process.

    The batch is the processes' ``vectors[M, D]`` one after the other; each brings those of its own.
    """
    sizes = torch.zeros(_processes(), dtype=torch.long, device=vectors.device)
    sizes[_process()] = len(vectors)
    _all_reduce(sizes)
    index = torch.randint(int(sizes.sum()), (count,), device=vectors.device)
    _broadcast(index)
    index = index - sizes[: _process()].sum()
    mine = (index >= 0) & (index < len(vectors))
    picks = vectors.new_zeros(count, vectors.shape[1])
    picks[mine] = vectors[index[mine]]
    _all_reduce(picks)
    return picks


def _processes() -> int:
    return torch.distributed.get_world_size() if _distributed() else 1


def _process() -> int:
    return torch.distributed.get_rank() if _distributed() else 0


def _distributed() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def _all_reduce(tensor: Tensor) -> None:
    """Sum the statistics of every process, so that all codebooks stay the same."""
    if _distributed():
        torch.distributed.all_reduce(tensor)


def _broadcast(tensor: Tensor) -> None:
    if _distributed():
        torch.distributed.broadcast(tensor, 0)
