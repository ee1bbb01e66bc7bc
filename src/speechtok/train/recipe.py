"""What a codec training run is made of. Every field can be overridden on the command line as ``name=value``."""

from __future__ import annotations

from dataclasses import dataclass, field

from speechtok.errors import ConfigError
from speechtok.nn.codec import CodecConfig
from speechtok.nn.discriminators import STFTDiscriminatorConfig


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


@dataclass
class LossWeights:
    """Weight of each loss; a loss with weight 0 is not computed."""

    magnitude: float = 1.0
    """L1 between the frame decoder's weighted log magnitudes and the target's, before phases exist."""
    mel: float = 1.0
    """Mean over scales of the L1 between log-mel spectrograms."""
    time: float = 0.0
    """L1 between samples."""
    commitment: float = 0.25
    adversarial: float = 1.0
    """Least-squares GAN, mean over sub-discriminators."""
    feature: float = 2.0
    """Relative feature matching: L1 over mean absolute real feature, mean over layers."""


@dataclass
class MelScales:
    """Scales of the mel loss; hop is a quarter of the window."""

    windows: tuple[int, ...] = (128, 256, 512, 1024, 2048)
    bands: tuple[int, ...] = (10, 20, 40, 80, 100)


@dataclass
class Optimisation:
    """AdamW for both sides, linear warm-up, cosine decay to ``final`` times the peak rate."""

    rate: float = 1e-3
    discriminator_rate: float = 5e-4
    betas: tuple[float, float] = (0.8, 0.99)
    weight_decay: float = 0.01
    warmup: int = 200
    final: float = 0.02
    clip: float = 5.0
    """Largest gradient norm of the generator."""
    ema: float = 0.999
    """Decay of the averaged weights that are validated and exported."""


@dataclass
class Adversary:
    """When and with what the generator is judged."""

    start: int = 0
    """First step with adversarial losses; before it only reconstruction is trained."""
    ramp: int = 1000
    """Steps over which the adversarial weight rises from 0."""
    seconds: float = 0.5
    """Length of the excerpt of every crop that is judged."""
    per_step: int = 0
    """Sub-discriminators used per step, taken in turn; 0 uses all."""
    stft: STFTDiscriminatorConfig = field(default_factory=STFTDiscriminatorConfig)


@dataclass
class CodecRecipe:
    """A codec training run."""

    name: str = "codec"
    seed: int = 0
    steps: int = 10000
    quantize_from: int = 0
    """First step with codebooks; before it the autoencoder is continuous. A few hundred steps let the latents
    settle, so that k-means places the codes where they stay useful."""
    consistency_iterations: int = 2
    """Phase projections of a frame decoder in training; decoding may use more."""
    log_every: int = 50
    validate_every: int = 1000
    checkpoint_every: int = 500
    threads: int = 0
    """CPU threads; 0 leaves torch's choice."""
    data: DataConfig = field(default_factory=DataConfig)
    codec: CodecConfig = field(default_factory=CodecConfig)
    weights: LossWeights = field(default_factory=LossWeights)
    mel: MelScales = field(default_factory=MelScales)
    optimisation: Optimisation = field(default_factory=Optimisation)
    adversary: Adversary = field(default_factory=Adversary)

    def __post_init__(self) -> None:
        if not self.data.manifests:
            raise ConfigError("data.manifests is empty; name at least one manifest (path, split, ... per row)")
        if len(self.mel.windows) != len(self.mel.bands):
            raise ConfigError("mel.windows and mel.bands must have the same length")
        if self.weights.magnitude and self.codec.backbone != "frame":
            raise ConfigError("weights.magnitude needs the frame backbone; set weights.magnitude=0")
        if self.samples < max(self.mel.windows):
            raise ConfigError(f"data.seconds={self.data.seconds} is shorter than the longest mel window")

    @property
    def samples(self) -> int:
        """Length of a crop in samples, a whole number of frames."""
        return round(self.data.seconds * self.codec.sample_rate / self.codec.hop) * self.codec.hop
