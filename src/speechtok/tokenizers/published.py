"""Public checkpoints that are known by name: what each is, whose it is, and what was checked about it.

None of them was run: the files were out of reach where this table was made. Rates, strides and numbers of levels come
from the configurations on the Hub, licences from the cards there, read as stored copies; `docs/models.md` names both.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from speechtok.tokens import nominal_bitrate


@dataclass(frozen=True)
class ModelEntry:
    """One line of ``speechtok models``."""

    name: str
    scheme: str
    bundled: bool
    """True where it works without a network."""
    sample_rate: int
    hop: int | None
    codebook_sizes: tuple[int, ...]
    semantic_levels: tuple[int, ...]
    licence_code: str
    licence_weights: str
    verified: str
    """What was checked about this very model."""
    description: str
    causal: bool = False
    """True where no frame needs audio from after it."""
    conversion: str = "levels"
    """How ``speechtok vc`` converts with it: ``levels`` are mixed, where there are any beside content; a whole
    ``voice`` is taken over; or ``none``."""

    @property
    def converts(self) -> bool:
        """Whether it can give one recording the voice of another."""
        beside = 0 < len(self.semantic_levels or (0,)) < self.levels
        return self.conversion == "voice" or (self.conversion == "levels" and beside)

    @property
    def streams(self) -> bool:
        """Whether it can be heard and spoken while somebody speaks: causal, and of this package (the others, from the
        Hub, run in ``transformers``)."""
        return self.causal and "/" not in self.name

    @property
    def levels(self) -> int:
        """Number of code levels."""
        return len(self.codebook_sizes)

    @property
    def frame_rate(self) -> float | None:
        """Frames per second; None for text, which has no frames."""
        return None if self.hop is None else self.sample_rate / self.hop

    @property
    def bitrate(self) -> float | None:
        """Bits per second of all levels, were every code equally likely; None where nothing is discrete on frames."""
        return nominal_bitrate(self.frame_rate, self.codebook_sizes) if self.hop and self.codebook_sizes else None

    def to_dict(self) -> dict[str, Any]:
        """Plain types, for JSON."""
        derived = {"levels": self.levels, "frame_rate": self.frame_rate, "bitrate": self.bitrate}
        return asdict(self) | derived


@dataclass(frozen=True)
class HubModel:
    """A published model; its files lie in a subfolder of its repository where one is named."""

    entry: ModelEntry
    subfolder: str = ""


_speechtokenizer = partial(
    ModelEntry,
    scheme="E",
    bundled=False,
    sample_rate=16000,
    hop=320,
    codebook_sizes=(1024,) * 8,
    semantic_levels=(0,),
    licence_code="Apache-2.0",
    licence_weights="not stated",
    verified="structure only: files of the same layout with random weights; the published ones were not run",
)
_foreign = partial(
    ModelEntry,
    scheme="A",
    bundled=False,
    hop=320,
    semantic_levels=(),
    licence_code="Apache-2.0",
    verified="structure only: a small model of this class with random weights, against direct calls of transformers; "
    "the published one was not run",
)
_dac = partial(_foreign, licence_weights="MIT (first release; this copy's card states none)")
_xcodec = partial(
    _foreign,
    scheme="E",
    sample_rate=16000,
    codebook_sizes=(1024,) * 8,
    semantic_levels=tuple(range(8)),
    licence_weights="unknown",
)

HUB = {
    model.entry.name: model
    for model in (
        HubModel(
            _speechtokenizer(
                name="fnlp/SpeechTokenizer",
                description="SpeechTokenizer, ELU, LibriSpeech, taught by the average of the HuBERT layers",
            ),
            "speechtokenizer_hubert_avg",
        ),
        HubModel(
            _speechtokenizer(
                name="fnlp/AnyGPT-speech-modules",
                description="SpeechTokenizer of AnyGPT, Snake activation, LibriSpeech and Common Voice",
            ),
            "speechtokenizer",
        ),
        HubModel(
            _foreign(
                name="facebook/encodec_24khz",
                sample_rate=24000,
                codebook_sizes=(1024,) * 32,
                licence_weights="not stated",
                causal=True,
                description="EnCodec, causal; 2, 4, 8, 16 or 32 levels are 1.5, 3, 6, 12 or 24 kbit/s",
            )
        ),
        HubModel(
            _foreign(
                name="facebook/encodec_32khz",
                sample_rate=32000,
                hop=640,
                codebook_sizes=(2048,) * 4,
                licence_weights="unknown",
                description="EnCodec of MusicGen, for music, not causal",
            )
        ),
        HubModel(
            _dac(
                name="descript/dac_16khz",
                sample_rate=16000,
                codebook_sizes=(1024,) * 12,
                description="DAC for 16 kHz, 6 kbit/s",
            )
        ),
        HubModel(
            _dac(
                name="descript/dac_24khz",
                sample_rate=24000,
                codebook_sizes=(1024,) * 32,
                description="DAC for 24 kHz, 24 kbit/s",
            )
        ),
        HubModel(
            _dac(
                name="descript/dac_44khz",
                sample_rate=44100,
                hop=512,
                codebook_sizes=(1024,) * 9,
                description="DAC for 44.1 kHz, 7.8 kbit/s",
            )
        ),
        HubModel(
            _foreign(
                name="kyutai/mimi",
                scheme="E",
                sample_rate=24000,
                hop=1920,
                codebook_sizes=(2048,) * 32,
                semantic_levels=(0,),
                licence_weights="CC-BY-4.0",
                causal=True,
                description="Mimi, causal, level 0 taught by WavLM; Moshi uses 8 levels, 1.1 kbit/s",
            )
        ),
        HubModel(
            _xcodec(
                name="hf-audio/xcodec-hubert-librispeech",
                description="X-Codec with HuBERT, LibriSpeech; 1, 2, 3, 4 or 8 levels were trained",
            )
        ),
        HubModel(
            _xcodec(name="hf-audio/xcodec-wavlm-mls", description="X-Codec with WavLM, English part of MLS"),
        ),
        HubModel(
            _xcodec(
                name="hf-audio/xcodec-wavlm-more-data",
                licence_weights="CC-BY-4.0",
                description="X-Codec with WavLM, English part of MLS and internal data",
            )
        ),
        HubModel(
            _xcodec(
                name="hf-audio/xcodec-hubert-general",
                description="X-Codec with a general-audio HuBERT, 200,000 hours of internal data",
            )
        ),
        HubModel(
            _xcodec(
                name="hf-audio/xcodec-hubert-general-balanced",
                description="X-Codec with a general-audio HuBERT, more balanced data",
            )
        ),
    )
}
"""By name. A model is here only where ``load`` would take it; ``docs/models.md`` lists the refused ones."""

REFUSED = {
    "facebook/encodec_48khz": "stereo, and it keeps a loudness per overlapping chunk beside the codes",
    "bosonai/higgs-audio-v2-tokenizer": "its class in transformers needs torchaudio, which speechtok does not install",
    "hf-audio/xcodec2": "it hears mel features that transformers computes by torchaudio, which is not installed",
    "HKUSTAudio/xcodec2": "it needs code of its own repository, which is not run",
    "neuphonic/neucodec": "it decodes at 24 kHz what it hears at 16 kHz, so lengths cannot be kept",
    "ibm-research/DAC.speech.v1.0": "its weights are pickles of the descript package",
}
"""Published tokenizers that break the contract or a rule of the house, and why; said before anything is fetched."""
