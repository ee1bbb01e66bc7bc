"""What a codec training run is made of. Every field can be overridden on the command line as ``name=value``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from speechtok.config import require_whole
from speechtok.errors import ConfigError
from speechtok.guidance.build import GuidesConfig
from speechtok.nn.codec import CodecConfig
from speechtok.nn.discriminators import JudgesConfig
from speechtok.train.loop import RunRecipe
from speechtok.train.optimisation import Optimisation
from speechtok.train.views import ViewsConfig


@dataclass
class DataConfig:
    """Speech and how it is cut."""

    manifests: list[str] = field(default_factory=list)
    """Tab-separated files with the columns path and split; paths are relative to the manifest."""
    validation: list[str] = field(default_factory=list)
    """Manifests whose ``dev`` rows are held out; empty means the dev rows of ``manifests``."""
    cache: str = "cache"
    """Folder for the decoded audio."""
    seconds: float = 1.0
    """Length of a training crop."""
    batch: int = 16
    """Crops per step, over all processes."""
    gain_db: tuple[float, float] = (-6.0, 3.0)
    """Random gain of every crop, uniform in this range."""
    validation_files: int = 24
    """How many dev utterances each validation decodes, spread evenly over the split."""

    def __post_init__(self) -> None:
        require_whole(self, 1, "batch", "validation_files", section="data.")

    def require_manifests(self) -> None:
        """Raises ConfigError where no speech is named, as by the defaults."""
        if not self.manifests:
            raise ConfigError("data.manifests is empty; name at least one manifest (path, split, ... per row)")


@dataclass
class LossWeights:
    """Weight of each loss in the generator's sum.

    With weight 0, ``magnitude``, ``mel`` and ``time`` are not computed, and ``adversarial`` takes the discriminators
    and feature matching with it. ``commitment`` and ``feature`` are still computed and logged; they only count nothing.
    """

    magnitude: float = 1.0
    """L1 between the frame decoder's weighted log magnitudes and the target's, before phases exist."""
    mel: float = 1.0
    """Distance between log-mel spectrograms, see ``mel``."""
    time: float = 0.0
    """L1 between samples."""
    commitment: float = 0.25
    adversarial: float = 1.0
    """See ``adversary.loss``; 0 leaves out the discriminators altogether."""
    feature: float = 2.0
    """Feature matching, see ``adversary.features``."""
    guides: dict[str, float] = field(default_factory=dict)
    """Weights of the losses of guides that are handed over in Python, by the names these give them. A name that no
    guide returns is an error; a loss that is returned and not named here is logged and counts nothing. The recipe's
    own ``guides`` have their weights in their sections."""


@dataclass
class MelScales:
    """Scales of the mel loss."""

    windows: tuple[int, ...] = (128, 256, 512, 1024, 2048)
    bands: tuple[int, ...] = (10, 20, 40, 80, 100)
    hops: tuple[int, ...] = ()
    """Empty: a quarter of each window."""
    weights: tuple[float, ...] = ()
    """The scales' distances are summed with these weights; empty: their mean."""
    distance: Literal["l1", "l1+l2"] = "l1"
    """Mean absolute difference, or that plus the mean squared one."""


@dataclass
class GanOptimisation(Optimisation):
    """The same schedule for both sides."""

    discriminator_rate: float = 5e-4


@dataclass
class Adversary(JudgesConfig):
    """When, how and by which discriminators the generator is judged."""

    start: int = 0
    """First step with adversarial losses; before it only reconstruction is trained."""
    ramp: int = 1000
    """Steps over which the adversarial weight rises from 0."""
    seconds: float = 0.5
    """Length of the excerpt of every crop that is judged."""
    per_step: int = 0
    """Sub-discriminators used per step, taken in turn over all families; 0 uses all."""
    loss: Literal["lsgan", "hinge"] = "lsgan"
    features: Literal["relative", "absolute"] = "relative"
    """Feature matching relative to the size of the real features, or as it is."""
    reduction: Literal["mean", "sum"] = "mean"
    """Over sub-discriminators, and over all their layers in feature matching."""


@dataclass
class Alarm:
    """When a level counts as collapsed."""

    perplexity: float = 0.1
    """Share of the codebook that the perplexity of its codes must reach in validation."""
    validations: int = 3
    """How many validations in a row it may stay below; the last of them raises the alarm."""


@dataclass
class CodecRecipe(RunRecipe):
    """A codec training run."""

    name: str = "codec"
    start: str | None = None
    """Folder of a codec of the same sizes whose weights this run begins with."""
    quantize_from: int = 0
    """First step with codebooks; before it the autoencoder is continuous. A few hundred steps let the latents
    settle, so that k-means places the codes where they stay useful."""
    consistency_iterations: int = 2
    """Phase projections of a frame decoder in training; decoding may use more."""
    data: DataConfig = field(default_factory=DataConfig)
    views: ViewsConfig = field(default_factory=ViewsConfig)
    codec: CodecConfig = field(default_factory=CodecConfig)
    weights: LossWeights = field(default_factory=LossWeights)
    mel: MelScales = field(default_factory=MelScales)
    optimisation: GanOptimisation = field(default_factory=GanOptimisation)
    adversary: Adversary = field(default_factory=Adversary)
    alarm: Alarm = field(default_factory=Alarm)
    guides: GuidesConfig = field(default_factory=GuidesConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_whole(self, 0, "quantize_from", "consistency_iterations")
        self.data.require_manifests()
        scales = {"bands": self.mel.bands, "hops": self.mel.hops, "weights": self.mel.weights}
        for name, values in scales.items():
            if len(values) != len(self.mel.windows) and (values or name == "bands"):
                raise ConfigError(f"mel.windows and mel.{name} must have the same length")
        if self.weights.adversarial and not self.adversary.count:
            raise ConfigError("adversary names no discriminator; name one or set weights.adversarial=0")
        if self.weights.magnitude and self.codec.backbone != "frame":
            raise ConfigError("weights.magnitude needs the frame backbone; set weights.magnitude=0")
        twice = sorted(set(self.weights.guides) & set(self.guides.weights))
        if twice:
            raise ConfigError(
                f"weights.guides names {twice[0]}, whose weight stands in its section of guides; keep one"
            )
        if self.samples < max(self.mel.windows):
            raise ConfigError(f"data.seconds={self.data.seconds} is shorter than the longest mel window")

    @property
    def sample_rate(self) -> int:
        """Of the codec, in Hz."""
        return self.codec.sample_rate

    @property
    def samples(self) -> int:
        """Length of a crop in samples, a whole number of frames."""
        return round(self.data.seconds * self.codec.sample_rate / self.codec.hop) * self.codec.hop
