"""Settings of every quantizer, and what may be combined."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from speechtok.errors import ConfigError

STACKS = ("rvq", "product", "grouped_rvq", "cross_scale")
"""Kinds made of several codebooks, each of the kind that ``codebook`` names."""
CODEBOOKS = ("ema", "gradient", "simvq", "factorised", "gumbel", "fsq", "lfq", "bsq", "kmeans")
"""Kinds of one codebook."""
SINGLE = {"vq": ("ema", "gradient")} | {name: (name,) for name in CODEBOOKS[2:]}
"""Kinds that are a single codebook, and what ``codebook`` may say then; the first is taken where it says nothing."""
ENTROPY = {"gumbel": 0.1, "lfq": 0.1, "bsq": 0.1}
"""Weight of the entropy loss in the papers that have one."""
SETTLED = ("kind", "codebook", "groups", "strides", "sizes", "code_dimension", "fsq_levels")
"""Settings that decide what codes mean; all others only how they are learned."""


@dataclass
class QuantizerConfig:
    """Which quantizer, and how its codebooks learn. docs/quantizers.md compares the kinds."""

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
    kind: str = "rvq"
    """``rvq``, ``product``, ``grouped_rvq``, ``cross_scale``, or a single codebook: ``vq``, ``simvq``, ``factorised``,
    ``gumbel`` (which may have several levels, its groups), ``fsq``, ``lfq``, ``bsq``, ``kmeans``."""
    codebook: str | None = None
    """What each level is: ``ema`` (the default), ``gradient``, ``simvq``, ``factorised``, ``gumbel``, ``fsq``,
    ``lfq``, ``bsq`` or ``kmeans``."""
    sizes: list[int] = field(default_factory=list)
    """Codes of each level; empty gives every level ``codebook_size``."""
    groups: int = 2
    """Of ``grouped_rvq``."""
    strides: list[int] = field(default_factory=list)
    """Frames per code of each level of ``cross_scale``, such as ``[4, 2, 1]``."""
    code_dimension: int = 8
    """Width in which ``factorised`` looks codes up."""
    fsq_levels: list[int] = field(default_factory=list)
    """Steps of each dimension of ``fsq``; their product is the codebook size: ``[8, 5, 5, 5]`` gives 1000."""
    codebook_weight: float = 1.0
    """Weight of the loss that pulls codes to vectors, where codes are learned by gradient."""
    entropy_weight: float | None = None
    """Weight of the entropy loss; null takes the paper's: 0.1 for ``gumbel``, ``lfq`` and ``bsq``, else 0."""
    entropy_temperature: float = 1.0
    """Softness of the choice that the entropy loss judges: distances are divided by it."""
    diversity: float = 1.0
    """Inside the entropy loss, weight of even use of the codes against sure choices."""
    gumbel_temperature: tuple[float, float, float] = (2.0, 0.5, 0.999995)
    """First and last temperature of ``gumbel``, and the factor per training step."""

    def __post_init__(self) -> None:
        kinds = (*STACKS, *SINGLE)
        if self.kind not in kinds:
            raise ConfigError(f"quantizer.kind is {self.kind!r}; it must be one of {', '.join(kinds)}")
        allowed = SINGLE.get(self.kind, CODEBOOKS)
        if self.codebook is not None and self.codebook not in allowed:
            raise ConfigError(
                f"quantizer.codebook is {self.codebook!r}; with kind={self.kind} it must be one of {', '.join(allowed)}"
            )
        if self.level == "fsq" and (len(self.fsq_levels) == 0 or min(self.fsq_levels) < 3):
            raise ConfigError("quantizer.fsq_levels must name 3 or more steps for each dimension, such as [8, 5, 5, 5]")
        if self.level == "fsq" and self.entropy_weight:
            raise ConfigError("quantizer.entropy_weight has no meaning for fsq, whose codes are not chosen by scores")
        if self.reproduce_official_gradient and (self.kind, self.level) != ("rvq", "ema"):
            raise ConfigError("quantizer.reproduce_official_gradient is for kind=rvq with codebook=ema only")
        if min(self.entropy_temperature, *self.gumbel_temperature) <= 0:
            raise ConfigError("quantizer.entropy_temperature and gumbel_temperature must be above 0")
        if min(self.code_dimension, self.groups) < 1:
            raise ConfigError("quantizer.code_dimension and groups must be at least 1")

    @property
    def level(self) -> str:
        """Kind of each level's codebook, one of ``CODEBOOKS``."""
        return self.codebook or SINGLE.get(self.kind, CODEBOOKS)[0]

    @property
    def entropy(self) -> float:
        """Weight of the entropy loss."""
        return ENTROPY.get(self.level, 0.0) if self.entropy_weight is None else self.entropy_weight

    @property
    def weights(self) -> dict[str, float]:
        """Weights of the losses that come with this quantizer beside the commitment, by name."""
        learned = self.level in ("gradient", "simvq", "factorised")
        return ({"codebook/mse": self.codebook_weight} if learned else {}) | (
            {"entropy/codes": self.entropy} if self.entropy else {}
        )

    def settled(self) -> dict[str, Any]:
        """The settings that decide what codes mean, where they are not the defaults."""
        values, defaults = asdict(self), asdict(QuantizerConfig())
        return {name: values[name] for name in SETTLED if values[name] != defaults[name]}

    def codebook_sizes(self, codebook_size: int, n_q: int) -> tuple[int, ...]:
        """Codes of each of ``n_q`` levels.

        Raises:
            ConfigError: ``sizes`` names another number of levels.
        """
        if self.sizes and len(self.sizes) != n_q:
            raise ConfigError(f"quantizer.sizes must hold n_q={n_q} numbers, or none")
        return tuple(self.sizes) or (codebook_size,) * n_q

    def require_fit(self, dimension: int, sizes: Sequence[int], own_space: int = 0) -> None:
        """Refuse what cannot be built for latents of this ``dimension``.

        Args:
            sizes: codes of each level, see ``codebook_sizes``.
            own_space: see ``ResidualVQ``.

        Raises:
            ConfigError: says what to change.
        """
        for wrong, what in self._faults(dimension, sizes, own_space):
            if wrong:
                raise ConfigError(f"quantizer: {what}")

    def _faults(self, dimension: int, sizes: Sequence[int], own_space: int) -> list[tuple[bool, str]]:
        n_q = len(sizes)
        groups = {"product": n_q, "gumbel": n_q, "grouped_rvq": self.groups}.get(self.kind, 1)
        steps, several = math.prod(self.fsq_levels), n_q > 1 and self.kind not in (*STACKS, "gumbel")
        return [
            (min(sizes) < 1, "sizes must be at least 1"),
            (several, f"kind={self.kind} is one codebook; set n_q=1, or kind=rvq with codebook={self.level}"),
            (dimension % groups > 0, f"dimension={dimension} cannot be shared by {groups} groups; change one of them"),
            (n_q % groups > 0, f"n_q={n_q} cannot be shared by {groups} groups; change one of them"),
            (
                self.kind == "cross_scale" and (len(self.strides) != n_q or min(self.strides) < 1),
                f"strides must hold n_q={n_q} numbers of at least 1",
            ),
            (
                self.level == "fsq" and any(size != steps for size in sizes),
                f"fsq_levels={self.fsq_levels} make {steps} codes; set codebook_size={steps}",
            ),
            (
                self.level in ("lfq", "bsq") and any(size < 2 or size & (size - 1) for size in sizes),
                f"codebook_size must be a power of 2 for {self.level}",
            ),
            (
                own_space > 0 and (self.kind, self.level) != ("rvq", "ema"),
                f"a level one with a space of its own needs kind=rvq with codebook=ema, not {self.kind}",
            ),
        ]
