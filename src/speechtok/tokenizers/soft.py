"""Scheme C: continuous "soft" tokens. Features are kept as they are, projected and pooled, never rounded to codes.

The adapters are the two that need no training of a language model: a linear projection (PCA of the features, or any
matrix) and a mean over neighbouring frames.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from speechtok.errors import CheckpointError, ConfigError, NotSupportedError, TokenError
from speechtok.soft_tokens import DTYPES, SoftTokens
from speechtok.tokenizers.base import Tokenizer
from speechtok.tokenizers.features import Features, load_features
from speechtok.tokenizers.fingerprint import RESAMPLER, fingerprint_of
from speechtok.tokenizers.folder import ModelFolder, write_folder

CODE_VERSION = 1
"""Raised whenever a change of this package changes the features that the same weights give."""


class Projection:
    """``(rows - mean) @ weight``, from D to K dimensions."""

    def __init__(self, mean: Tensor, weight: Tensor):
        """``mean[D]`` and ``weight[D, K]``, float32.

        Raises:
            ConfigError: the shapes do not fit.
        """
        if weight.ndim != 2 or mean.shape != weight.shape[:1]:
            raise ConfigError(
                f"a projection needs mean [D] and weight [D, K], got {[*mean.shape]} and {[*weight.shape]}"
            )
        self.mean, self.weight = mean.float(), weight.float()

    @classmethod
    def pca(cls, batches: Iterable[Tensor | np.ndarray], dimensions: int) -> Projection:
        """The principal components of ``batches[i][M, D]``, those that vary most first; signs are fixed.

        Raises:
            ConfigError: no vectors, or more components than dimensions.
        """
        count, total, products = 0, 0.0, 0.0
        for batch in batches:
            rows = torch.tensor(np.asarray(batch, dtype=np.float64))
            count, total, products = count + len(rows), total + rows.sum(0), products + rows.T @ rows
        if not count or not 1 <= dimensions <= len(total):
            raise ConfigError(
                f"{count} vectors of {len(total) if count else 0} dimensions give no {dimensions} components"
            )
        mean = total / count
        _, vectors = torch.linalg.eigh(products / count - mean[:, None] * mean)
        weight = vectors.flip(1)[:, :dimensions]
        largest = weight.gather(0, weight.abs().argmax(0, keepdim=True))
        return cls(mean.float(), (weight * largest.sign()).float())

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """``rows[N, D] -> [N, K]``."""
        return (rows - self.mean.numpy()) @ self.weight.numpy()

    def inverse(self, rows: np.ndarray) -> np.ndarray:
        """``[N, K] -> [N, D]``, the nearest that K numbers can say."""
        return rows @ torch.linalg.pinv(self.weight).numpy() + self.mean.numpy()


class SoftTokenizer(Tokenizer):
    """Features of any source as ``SoftTokens``; there are no codebooks, so no levels.

    ``encode`` gives ``SoftTokens``. ``decode`` works where the source can synthesise, such as the latents of a codec.
    """

    value = SoftTokens
    scheme = "C"
    codebook_sizes = ()
    semantic_levels = ()

    def __init__(
        self,
        source: Features,
        name: str,
        *,
        projection: Projection | None = None,
        pool: int = 1,
        dtype: str = "float16",
        licence: str = "not stated",
        note: str = "",
        device: str = "cpu",
        exact_seconds: float = 120.0,
    ):
        """
        Args:
            source: gives rows of ``[N, D]``.
            name: what messages and token files call it.
            projection: from the source's dimensions to fewer, or None.
            pool: frames of the source whose mean is one soft token; divides the rate.
            dtype: ``float16`` or ``float32``, of the payload.
            licence: of the weights.
            note: what a user of this very model must know.
            device: anything torch understands.
            exact_seconds: longest audio taken in one piece.

        Raises:
            ConfigError: a projection for another width, a pool below 1, or another dtype.
        """
        if projection is not None and len(projection.mean) != source.dimension:
            raise ConfigError(f"{source.name} has {source.dimension} dimensions, its projection {len(projection.mean)}")
        if type(pool) is not int or pool < 1 or dtype not in DTYPES:
            raise ConfigError(
                f"pool must be at least 1 and dtype one of {', '.join(DTYPES)}; got {pool!r} and {dtype!r}"
            )
        self.source: Features = source.to(device)
        self.name, self.licence, self.note = name, licence, note
        self.projection, self.pool, self.dtype = projection, pool, dtype
        self.sample_rate, self.hop = source.sample_rate, source.hop * pool
        self.dimension = source.dimension if projection is None else projection.weight.shape[1]
        # a projection mixes dimensions, but what describes content alone still does so
        self.semantic_dimensions = self.dimension if source.semantic else 0
        self.exact_windows = (source.context is not None, source.exact_sound)
        self.exact_seconds = exact_seconds

    @cached_property
    def fingerprint(self) -> str:
        """Digest of the source, the projection, the pooling, the dtype, the resampler and the code version."""
        adapters = {} if self.projection is None else {"mean": self.projection.mean, "weight": self.projection.weight}
        facts = ["soft", CODE_VERSION, RESAMPLER, self.source.facts(), self.pool, self.dtype]
        return fingerprint_of(facts, {f"source.{key}": value for key, value in self.source.state().items()} | adapters)

    @property
    def bitrate(self) -> float:
        """Bits per second of the numbers as they are stored."""
        return self.frame_rate * self.dimension * 8 * np.dtype(self.dtype).itemsize

    def checked_levels(self, levels: int | None) -> int:
        """Nothing to choose from.

        Raises:
            ConfigError: any number of levels is given.
        """
        if levels:  # encode_batch hands on the 0 that it got from here
            raise ConfigError(f"{self.name} is continuous and has no levels; leave them out, and take(k) dimensions")
        return 0

    def in_windows(self, seconds: float) -> SoftTokenizer:
        """The same features with windows of about ``seconds``."""
        other = copy.copy(self)
        other.exact_seconds, other.source = seconds, self.source.in_windows(seconds)
        return other

    def describe(self) -> dict[str, Any]:
        """As every tokenizer, with the width of a soft token and the type of its numbers."""
        return super().describe() | {"dimension": self.dimension, "dtype": self.dtype}

    def _encode(self, samples: np.ndarray, levels: int) -> np.ndarray:
        """``samples[T] -> features[ceil(T / hop), K]``."""
        rows = self.source.over(samples, self.exact_seconds)
        rows = rows if self.projection is None else self.projection(rows)
        starts = np.arange(0, len(rows), self.pool)
        sizes = np.diff(np.append(starts, len(rows)))  # the last may be a mean of fewer
        means = np.add.reduceat(rows, starts, axis=0) / sizes[:, None]
        limit = np.finfo(self.dtype).max
        return np.clip(means, -limit, limit).astype(self.dtype)

    def _tokens(self, codes: np.ndarray, num_samples: int) -> SoftTokens:  # type: ignore[override]
        return SoftTokens(
            features=codes,
            sample_rate=self.sample_rate,
            hop=self.hop,
            num_samples=num_samples,
            semantic_dimensions=self.semantic_dimensions,
            tokenizer=self.name,
            fingerprint=self.fingerprint,
        )

    def _check_fit(self, tokens: SoftTokens) -> None:  # type: ignore[override]
        present = (tokens.sample_rate, tokens.hop, tokens.first_dimension + tokens.dimension <= self.dimension)
        if present != (self.sample_rate, self.hop, True):
            raise TokenError(f"these soft tokens contradict {self.name}: {tokens!r}; encode again")

    def _samples(self, tokens: SoftTokens) -> np.ndarray:  # type: ignore[override]
        """Sound, where the source keeps enough for it; dimensions that are not there count as average."""
        rows = np.zeros((tokens.frames, self.dimension), np.float32)
        rows[:, tokens.first_dimension :][:, : tokens.dimension] = tokens.features
        rows = rows if self.projection is None else self.projection.inverse(rows)
        return self.source.sound(np.repeat(rows, self.pool, axis=0))

    def _decode(self, codes: np.ndarray, first_level: int) -> np.ndarray:
        raise NotSupportedError(f"{self.name} is continuous and has no codes to decode; give it SoftTokens")


def save_soft(tokenizer: SoftTokenizer, folder: str | Path, card: dict[str, Any] | None = None) -> None:
    """Write a model folder: the adapters, and the source inside it or named.

    Raises:
        OutputError: the folder cannot be written.
        ConfigError: the source cannot be put into a folder.
    """
    section = {"features": tokenizer.source.section(Path(folder)), "pool": tokenizer.pool, "dtype": tokenizer.dtype}
    adapters = {}
    if tokenizer.projection is not None:
        adapters = {"mean": tokenizer.projection.mean, "weight": tokenizer.projection.weight}
    write_folder(folder, "soft", tokenizer, section | {"projected": bool(adapters)}, adapters, card)


def from_folder(folder: ModelFolder, device: str = "cpu") -> SoftTokenizer:
    """The tokenizer of a folder that ``save_soft`` wrote.

    Raises:
        CheckpointError: something is missing, damaged, or does not fit.
    """
    section = folder.section
    try:
        source = load_features(section, folder.path)
        adapter = Projection(folder.tensor("mean", 1), folder.tensor("weight", 2)) if section["projected"] else None
        adapters = {"projection": adapter, "pool": section["pool"], "dtype": section["dtype"]}
        return SoftTokenizer(source, folder.name, device=device, **adapters, **folder.says)
    except (KeyError, TypeError, ConfigError) as error:
        raise CheckpointError(
            f"{folder.path}: its config.json describes no soft tokens ({error}); restore it"
        ) from error
