"""What a run of the chain is made of: two trained models, the text between them, and how their losses are balanced."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from speechtok.chain.interface import Temperature
from speechtok.config import require_weights, require_whole
from speechtok.errors import ConfigError
from speechtok.train.learner import LearnerRecipe
from speechtok.train.spoken import PrefixConfig, SpokenConfig


@dataclass
class InterfaceConfig:
    """How the recogniser's rows become the speaker's text."""

    estimator: Literal["argmax", "gumbel"] = "gumbel"
    temperature: Temperature = field(default_factory=Temperature)
    """Over the epochs of the run."""
    gradient: bool = True
    """Whether the speaker's loss reaches the recogniser; without it the speaker alone learns from the chain."""


@dataclass
class BalanceConfig:
    """How much the recogniser's loss and the speaker's loss count."""

    kind: Literal["dynamic", "fixed", "uncertainty"] = "dynamic"
    """Dynamic weight averaging over epochs (TokenChain), ``asr`` and ``chain``, or a learned variance of each."""
    temperature: float = 2.0
    """Of dynamic weights."""
    asr: float = 1.0
    """A fixed weight."""
    chain: float = 1.0
    """A fixed weight."""

    def __post_init__(self) -> None:
        require_weights(self, "asr", "chain", section="balance.")


@dataclass
class ReplayConfig:
    """Speech of another domain among that of ``data``, so that it is not forgotten."""

    manifests: list[str] = field(default_factory=list)
    share: float = 0.0
    """Of every epoch's utterances; above 0 it needs manifests. They are other ones in every epoch, and all of them
    where they are too few for such a share."""

    def __post_init__(self) -> None:
        if not 0 <= self.share < 1:
            raise ConfigError(f"replay.share is {self.share}; give 0 or more, below 1")
        if self.share and not self.manifests:
            raise ConfigError("replay.share asks for speech of another domain; name it in replay.manifests")


@dataclass
class UnpairedConfig:
    """Speech without text, and text without speech: options beyond the paper, which pairs all."""

    speech: list[str] = field(default_factory=list)
    """Manifests whose ``train`` rows are heard without their texts: the recogniser writes, greedily, the text that it
    is then told, and the speaker has to say the speech again from its rows."""
    speech_weight: float = 0.5
    text: str = ""
    """A file with one sentence per line: the speaker says it, and the recogniser learns to hear that."""
    text_weight: float = 0.5
    batch: int = 4
    """Utterances, and sentences, per step, over all processes."""

    def __post_init__(self) -> None:
        require_whole(self, 1, "batch", section="unpaired.")
        require_weights(self, "speech_weight", "text_weight", section="unpaired.")


@dataclass
class ChainRecipe(LearnerRecipe):
    """A run of the chain. Its steps follow from its epochs."""

    name: str = "chain"
    tokenizer: str = "speechtok-base"
    """Name or folder of the tokenizer whose first level both models know."""
    asr: str = ""
    """Folder of the trained recogniser."""
    t2s: str = ""
    """Folder of the trained text-to-semantic model, of the same text vocabulary."""
    epochs: int = 10
    """Passes over the training speech, replay included; each ends with a validation."""
    loop: bool = True
    """False trains the recogniser on its own loss alone: the supervised baseline, with the same data and steps."""
    gold: float = 1.0
    """Weight of the speaker's loss on the true texts, beside that on the recogniser's; 0 leaves it out."""
    keep: Literal["best", "last"] = "last"
    """Which weights are exported: the last ones, or those of the epoch with the lowest character error on dev."""
    judged: Literal["ctc", "attention"] = "attention"
    """Whose error decides what is best."""
    interface: InterfaceConfig = field(default_factory=InterfaceConfig)
    balance: BalanceConfig = field(default_factory=BalanceConfig)
    prefix: PrefixConfig = field(default_factory=PrefixConfig)
    """Prefixes of other recordings among them: without any, the speaker forgets how it is asked to speak in a voice."""
    data: SpokenConfig = field(default_factory=SpokenConfig)
    replay: ReplayConfig = field(default_factory=ReplayConfig)
    unpaired: UnpairedConfig = field(default_factory=UnpairedConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_whole(self, 1, "epochs")
        require_weights(self, "gold")
        if not self.data.manifests:
            raise ConfigError("data.manifests is empty; name at least one manifest (path, split, text, speaker)")
        for name in ("asr", "t2s"):
            if not getattr(self, name):
                raise ConfigError(f"{name} is empty; name the folder of a trained model (speechtok train {name} ...)")
        if not self.loop and (self.unpaired.speech or self.unpaired.text):
            raise ConfigError("unpaired speech or text is learned from in the loop alone; set loop=true")
