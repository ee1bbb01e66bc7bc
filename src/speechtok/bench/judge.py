"""What a recogniser understands: word and character error rates of speech against its text.

Recognisers ("judges") share one method, ``transcribe``. Texts are compared after a normaliser, counts come from
``jiwer``. An utterance in which nothing was understood has every word deleted: that is a value. One without reference
text has no rate and counts as failed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from speechtok.audio import Audio
from speechtok.bench.metrics import Score
from speechtok.errors import ConfigError
from speechtok.guidance.writing import plain
from speechtok.hub import require_place
from speechtok.tokenizers.recognisers import PocketSphinx, Recogniser, TransformersRecogniser, pieces

Normaliser = Callable[[str], str]
POCKETSPHINX = "pocketsphinx"
SEARCH = {"fwdflat": False, "maxhmmpf": 3000, "maxwpf": 5, "pl_window": 10}
"""PocketSphinx makes one pass with bounded work per frame: distorted speech would slow it down most."""
LONGEST = 30.0
"""Seconds that a judge hears at once; Whisper's window."""


class Judge(Protocol):
    """A speech recogniser."""

    name: str

    def transcribe(self, audio: Audio) -> str:
        """What was said, or an empty text. It does not depend on what was heard before."""


class RecogniserJudge:
    """A recogniser of the text tokenizers, behind audio of any rate and length.

    What is longer than ``LONGEST`` seconds is heard in pieces, cut where it is quiet.
    """

    def __init__(self, recogniser: Recogniser, name: str):
        self.recogniser, self.name = recogniser, name

    def transcribe(self, audio: Audio) -> str:
        """See ``Judge``."""
        rate = self.recogniser.sample_rate
        samples = audio.resample(rate).samples
        heard = (self.recogniser.transcribe(samples[piece]).text for piece in pieces(samples, rate, LONGEST))
        return " ".join(filter(None, heard))


class PocketSphinxJudge(RecogniserJudge):
    """PocketSphinx with its bundled English model and trigrams: offline, deterministic, CPU only.

    A weak recogniser, so its error rates are high; they rank tokenizers and do not compare with those of Whisper. It
    may hear a word in digital silence.

    Raises:
        ConfigError: PocketSphinx is not installed.
    """

    def __init__(self) -> None:
        super().__init__(PocketSphinx(**SEARCH), POCKETSPHINX)


class TransformersJudge(RecogniserJudge):
    """Any speech recogniser of ``transformers``, such as an English Whisper, or a HuBERT with CTC.

    Args:
        name: a Hub id or folder.
        device: where it runs, such as ``cuda``.

    Raises:
        CheckpointError: ``transformers`` is not installed, or cannot load this model.
    """

    def __init__(self, name: str, device: str = "cpu"):
        super().__init__(TransformersRecogniser.load(name, device=device), name)


def load_judge(name: str) -> Judge:
    """``pocketsphinx``, or whatever recogniser ``transformers`` loads by that name.

    ``pocketsphinx:MANIFEST.tsv:SPLIT`` expects the words and word pairs of that split's texts, see ``bench.closed``.

    Raises:
        ConfigError, CheckpointError: as the judges do.
    """
    if name.startswith(f"{POCKETSPHINX}:"):
        from speechtok.bench.closed import closed_judge  # which is itself a judge of this kind

        return closed_judge(*name.removeprefix(f"{POCKETSPHINX}:").rpartition(":")[::2])
    if name == POCKETSPHINX:
        return PocketSphinxJudge()
    require_place(name, "judge")
    return TransformersJudge(name)


def whisper_english(text: str) -> str:
    """Whisper's English normaliser from ``transformers``: numbers to digits, contractions apart, fillers dropped.

    Without its table of British spellings, which lies with the model on the Hub.

    Raises:
        ConfigError: ``transformers`` is not installed.
    """
    try:
        from transformers.models.whisper.english_normalizer import EnglishTextNormalizer
    except ImportError as error:
        raise ConfigError("Whisper's normaliser needs transformers; pip install 'speechtok[transformers]'") from error
    return EnglishTextNormalizer({})(text)


NORMALISERS: dict[str, Normaliser] = {"plain": plain, "whisper_english": whisper_english}


def error_scores(reference: str, heard: str, normalise: Normaliser = plain) -> tuple[Score, Score]:
    """Word and character error rate, ``(substitutions + deletions + insertions) / length of the reference``.

    Their weights are the words and characters (spaces included) of the reference, so that
    ``statistics.summarize`` gives the rate of the corpus. A rate can exceed 1.

    Raises:
        ConfigError: ``jiwer`` is not installed.
    """
    try:
        import jiwer
    except ImportError as error:
        raise ConfigError("error rates need jiwer; pip install 'speechtok[bench]'") from error
    reference, heard = normalise(reference), normalise(heard)
    if not reference:
        return Score("wer", None, "no reference text"), Score("cer", None, "no reference text")
    words, characters = jiwer.process_words(reference, heard), jiwer.process_characters(reference, heard)
    return (
        Score("wer", words.wer, weight=len(reference.split())),
        Score("cer", characters.cer, weight=len(reference)),
    )
