"""What a probe's training run is made of. The defaults are those of ``recipes/probe-mini.yaml``."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from speechtok.bench.probes.network import ProbeShape
from speechtok.config import require_whole
from speechtok.errors import ConfigError
from speechtok.train.learner import LearnerRecipe
from speechtok.train.optimisation import Optimisation

TRAIN, DEV, TEST = "train", "dev", "test"
PARTS = (TRAIN, DEV, TEST)


@dataclass
class ProbeData:
    """Speech, what is asked about it, and how it is batched."""

    manifests: list[str] = field(default_factory=list)
    """Tab-separated files with the columns path, split and what the task needs."""
    label: str = ""
    """``column``, or ``column:key`` where the column holds JSON; the classes of the goal ``classes``."""
    alignments: list[str] = field(default_factory=list)
    """Files of ``speechtok align``, for the goal ``phones``."""
    within: bool = False
    """Draw the dev and test parts out of the train split, class by class: what speakers need, whom no two splits
    share."""
    least: int = 10
    """Utterances that a class must have to be drawn from; smaller ones are left out."""
    limit: int = 0
    """Most utterances of each split, spread evenly over it; 0 takes all."""
    batch: int = 16
    """Whole utterances per step, over all processes."""
    cache: str = "cache"
    """Folder for the tokens."""

    def __post_init__(self) -> None:
        require_whole(self, 1, "batch", section="data.")
        require_whole(self, 3, "least", section="data.")
        require_whole(self, 0, "limit", section="data.")
        if not self.manifests:
            raise ConfigError("data.manifests is empty; name at least one manifest (path, split, ... per row)")


@dataclass
class NewBob:
    """Lower the rate whenever a validation's loss is not better than the last one's by a share of it."""

    factor: float = 0.8
    threshold: float = 0.0025

    def __post_init__(self) -> None:
        if not 0 < self.factor <= 1:
            raise ConfigError(f"annealing.factor is {self.factor}; give more than 0, at most 1")


@dataclass
class ProbeRecipe(LearnerRecipe):
    """A probe's training run."""

    name: str = "probe-mini"
    goal: Literal["characters", "phones", "classes"] = "characters"
    """What is learned: the transcript by CTC, the phone of every frame, or a label of the utterance. A task sets it."""
    steps: int = 1500
    epochs: int = 0
    """Passes over the training part; above 0 it decides ``steps``, and every pass ends with a validation."""
    validate_every: int = 150
    checkpoint_every: int = 150
    levels: int = 0
    """The first so many levels of the tokens; 0 takes all."""
    keep: Literal["best", "last"] = "best"
    """Which weights are tested: those with the lowest error on the dev part, or the last ones."""
    data: ProbeData = field(default_factory=lambda: ProbeData(manifests=["data/librispeech.tsv"]))
    network: ProbeShape = field(default_factory=ProbeShape)
    optimisation: Optimisation = field(
        default_factory=lambda: Optimisation(
            rate=2e-3, betas=(0.9, 0.999), weight_decay=0.0, warmup=100, final=0.02, clip=5.0, ema=0.0
        )
    )
    annealing: NewBob | None = None
    """Null: the rate follows ``optimisation`` alone."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_whole(self, 0, "epochs", "levels")
        if self.goal == "classes" and not self.data.label:
            raise ConfigError("data.label is empty; name the manifest's column that holds the classes")
        if self.goal == "phones" and not self.data.alignments:
            raise ConfigError("data.alignments is empty; name the phones.tsv that speechtok align makes")
        if self.data.within and self.goal != "classes":
            raise ConfigError("data.within draws parts class by class; it needs goal=classes")

    @classmethod
    def small(cls, goal: str) -> ProbeRecipe:
        """The settings of ``recipes/probe-mini.yaml``, or of ``probe-mini-classes.yaml`` for classes."""
        if goal != "classes":
            return cls()
        return cls(name="probe-mini-classes", steps=600, validate_every=50, checkpoint_every=100)

    def with_steps(self, utterances: int) -> ProbeRecipe:
        """The recipe with the steps that its ``epochs`` over so many utterances make; itself without epochs."""
        if not self.epochs:
            return self
        each = -(-utterances // self.data.batch)
        return replace(self, steps=self.epochs * each, validate_every=each, checkpoint_every=each)
