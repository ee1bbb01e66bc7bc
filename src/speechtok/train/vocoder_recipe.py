"""What a vocoder training run is made of. Every field can be overridden on the command line as ``name=value``."""

from __future__ import annotations

from dataclasses import dataclass, field

from speechtok.config import require_whole
from speechtok.errors import ConfigError
from speechtok.nn.ctx_vec2wav import VocoderConfig
from speechtok.train.learner import LearnerRecipe
from speechtok.train.recipe import Adversary, DataConfig, GanOptimisation, MelScales


@dataclass
class PromptConfig:
    """The reference that training hears: the beginning of a crop, whose rest is the target."""

    features: str = "mel"
    """``mel`` (CTX-vec2wav), or a folder or Hub id of a semantic teacher, such as WavLM (its alpha version)."""
    layer: str = "6"
    """Of the teacher: a number, ``average`` or ``logits``."""
    seconds: float = 2.0


@dataclass
class VocoderWeights:
    """Weight of each loss in the generator's sum.

    With weight 0, ``latent``, ``magnitude`` and ``mel`` are not computed, and ``adversarial`` takes the discriminators
    and feature matching with it.
    """

    auxiliary: float = 60.0
    """L1 of the log-mel spectrogram that the second encoder foretells; see ``auxiliary_until``."""
    prosody: float = 1.0
    """L1 of the predicted prosody, where the vocoder has that branch."""
    latent: float = 0.0
    """L1 between what a frame backend decodes and the latent of the codec named by ``start``."""
    magnitude: float = 0.0
    """L1 between a frame backend's weighted log magnitudes and the target's."""
    mel: float = 45.0
    """Distance between log-mel spectrograms, see ``mel``."""
    adversarial: float = 1.0
    feature: float = 2.0


@dataclass
class VocoderRecipe(LearnerRecipe):
    """A run that trains a vocoder for the codes of one tokenizer."""

    name: str = "vocoder"
    tokenizer: str = ""
    """Name or folder of the tokenizer whose codes become sound."""
    levels: int = 0
    """How many of its levels are heard; 0: all."""
    begin: str = ""
    """Folder of a vocoder of the same shape whose weights this run begins with."""
    start: str = ""
    """Folder or name of a frame codec whose decoder the frame backend begins as."""
    voice: str = ""
    """Recording whose voice the vocoder has where nobody names one; the first long enough held-out one where empty."""
    auxiliary_until: int = 0
    """Step from which the auxiliary loss counts nothing; 0: it always counts."""
    segment: float = 0.0
    """Seconds of every crop that the back end makes sound of, at a random place; 0: the whole crop."""
    consistency_iterations: int = 2
    """Phase projections of a frame backend in training."""
    prompt: PromptConfig = field(default_factory=PromptConfig)
    data: DataConfig = field(default_factory=lambda: DataConfig(seconds=2.0, batch=12, gain_db=(0.0, 0.0)))
    vocoder: VocoderConfig = field(default_factory=VocoderConfig)
    weights: VocoderWeights = field(default_factory=VocoderWeights)
    mel: MelScales = field(default_factory=MelScales)
    adversary: Adversary = field(default_factory=Adversary)
    optimisation: GanOptimisation = field(default_factory=GanOptimisation)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_whole(self, 0, "levels", "auxiliary_until", "consistency_iterations")
        self.data.require_manifests()
        if not self.tokenizer:
            raise ConfigError("tokenizer is empty; name the tokenizer whose codes become sound")
        if any(self.data.gain_db):
            raise ConfigError("data.gain_db must be [0, 0]: codes and prosody are those of the recording as it is")
        framed = self.vocoder.backend == "frame"
        if (self.start or self.weights.magnitude) and not framed:
            raise ConfigError("start and weights.magnitude are for vocoder.backend=frame; leave them out")
        if self.weights.latent and not self.start:
            raise ConfigError("weights.latent needs the codec whose latents are meant; name it by start")
        if self.weights.adversarial and not self.adversary.count:
            raise ConfigError("adversary names no discriminator; name one or set weights.adversarial=0")
        if self.segment_frames * self.vocoder.step < max(self.mel.windows):
            raise ConfigError("segment and data.seconds must be as long as the longest of mel.windows")

    @property
    def sample_rate(self) -> int:
        """Of the vocoder, in Hz."""
        return self.vocoder.sample_rate

    @property
    def frames(self) -> int:
        """Token frames of a target."""
        return max(1, round(self.data.seconds * self.sample_rate / self.vocoder.hop))

    @property
    def prompt_samples(self) -> int:
        """Samples of a reference, a whole number of token frames."""
        return max(1, round(self.prompt.seconds * self.sample_rate / self.vocoder.hop)) * self.vocoder.hop

    @property
    def samples(self) -> int:
        """Samples of a crop: the reference and the target after it."""
        return self.prompt_samples + self.frames * self.vocoder.hop

    @property
    def segment_frames(self) -> int:
        """Frames inside that the back end hears of every crop."""
        whole = self.frames * self.vocoder.repeat
        wanted = round(self.segment * self.sample_rate / self.vocoder.step)
        return min(whole, wanted or whole)
