"""Soft tokens as a value: continuous features of one utterance, with the header and the file of discrete tokens."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import numpy as np

from speechtok.checks import frozen, text, whole
from speechtok.errors import TokenError
from speechtok.tokenfile import Tensors, TokenValue

DTYPES = ("float16", "float32")


@dataclass(frozen=True, eq=False)
class SoftTokens(TokenValue):
    """The features of one utterance and what is needed to understand them.

    `features` is float16 or float32 [N, D], read-only, time-major: N frames, N == ceil(num_samples / hop); D
    consecutive dimensions of the tokenizer, beginning with `first_dimension`. `semantic_dimensions` says how many of
    the tokenizer's first dimensions describe content. Equal content makes equal, equally hashed values. Raises
    TokenError for a contradiction.
    """

    FORMAT: ClassVar[str] = "speechtok.soft"
    FIELDS: ClassVar[tuple[str, ...]] = (
        "sample_rate", "hop", "num_samples", "semantic_dimensions", "tokenizer", "fingerprint", "first_dimension",
    )  # fmt: skip
    features: np.ndarray
    sample_rate: int
    hop: int
    num_samples: int
    semantic_dimensions: int
    tokenizer: str
    fingerprint: str
    first_dimension: int = 0

    def __post_init__(self) -> None:
        put = partial(object.__setattr__, self)  # the class is frozen
        least = {"sample_rate": 1, "hop": 1, "num_samples": 1, "semantic_dimensions": 0, "first_dimension": 0}
        for name, number in least.items():
            put(name, whole(name, getattr(self, name), number))
        for name in ("tokenizer", "fingerprint"):
            text(name, getattr(self, name))
        put("features", self._checked_features())

    def _checked_features(self) -> np.ndarray:
        features = np.asarray(self.features)
        if features.ndim != 2 or features.dtype.name not in DTYPES or not features.shape[1]:
            raise TokenError(f"features must be float16 or float32 [N, D], got {features.dtype} of {features.shape}")
        frames = -(-self.num_samples // self.hop)
        if len(features) != frames:
            raise TokenError(
                f"{len(features)} rows of features do not fit {frames} frames"
                f" (ceil({self.num_samples} samples / hop {self.hop}))"
            )
        if not np.isfinite(features).all():
            raise TokenError("features hold NaN or infinite values")
        return frozen(features, features.dtype.type)

    @property
    def payload(self) -> np.ndarray:
        """`features`."""
        return self.features

    @property
    def frames(self) -> int:
        """N, the number of frames."""
        return self.features.shape[0]

    @property
    def dimension(self) -> int:
        """D, the numbers of a frame."""
        return self.features.shape[1]

    @property
    def frame_rate(self) -> float:
        """Frames per second."""
        return self.sample_rate / self.hop

    @property
    def bitrate(self) -> float:
        """bit/s of the numbers as they are stored: frame rate times D times 16 or 32."""
        return self.frame_rate * self.dimension * 8 * self.features.itemsize

    @property
    def content(self) -> str:
        """Such as "50 x 80 float16"."""
        return f"{self.frames} x {self.dimension} {self.features.dtype}"

    @property
    def semantic(self) -> "SoftTokens":
        """Only the dimensions about content. Raises TokenError where there is none."""
        return self._slice(0, self._border(), "semantic")

    @property
    def acoustic(self) -> "SoftTokens":
        """All other dimensions. Raises TokenError where there is none."""
        return self._slice(self._border(), self.dimension, "acoustic")

    def take(self, k: int) -> "SoftTokens":
        """The first `k` dimensions: of a PCA, those that vary most. Raises TokenError unless 1 <= k <= dimension."""
        k = whole("the number of dimensions", k, 1)
        if k > self.dimension:
            raise TokenError(f"cannot take {k} dimensions of {self.dimension}")
        return self._slice(0, k, "first")

    def _border(self) -> int:
        """Where the semantic dimensions end, counted in those present."""
        return min(max(self.semantic_dimensions - self.first_dimension, 0), self.dimension)

    def _slice(self, start: int, stop: int, kind: str) -> "SoftTokens":
        if start == stop:
            raise TokenError(f"soft tokens of {self.tokenizer} hold no {kind} dimension")
        return replace(self, features=self.features[:, start:stop], first_dimension=self.first_dimension + start)

    def describe(self) -> dict[str, Any]:
        """Fields and what follows from them, as plain types."""
        derived = {"frame_rate": self.frame_rate, "frames": self.frames, "dimension": self.dimension}
        return super().describe() | derived | {"dtype": str(self.features.dtype)}

    def __repr__(self) -> str:
        return f"SoftTokens({self.tokenizer}, {self.content}, {self.seconds:.3f} s, {self.bitrate:.0f} bit/s)"

    def _tensors(self) -> Tensors:
        return {"features": self.features}

    @classmethod
    def _from_file(cls, fields: dict[str, Any], tensors: Tensors) -> "SoftTokens":
        return cls(features=tensors["features"], **{name: fields[name] for name in cls.FIELDS})
