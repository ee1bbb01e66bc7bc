"""What the tasks listen with, and what is missing for it on this machine."""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec

from speechtok.audio import Audio, read
from speechtok.bench.facts import MELODY, Evaluation, Tools
from speechtok.bench.predictors import PREDICTED
from speechtok.bench.tasks import Options
from speechtok.clips import bundled_clips
from speechtok.errors import NotSupportedError, SpeechtokError
from speechtok.tokenizers.base import Tokenizer
from speechtok.tokens import Tokens

PACKAGES = {
    "pesq_wb": ("pesq", "pesq"),
    "stoi": ("pystoi", "demo"),
    "estoi": ("pystoi", "demo"),
    MELODY: ("parselmouth", "pitch"),
    "heard": ("jiwer", "bench"),
    "visqol": ("visqol", "visqol"),
    PREDICTED: ("speechmos", "predictors"),
}
"""By kind of fact: the module that it needs, and the extra that brings it."""
TRIAL_SECONDS = 0.5


def tools_of(options: Options) -> Tools:
    """Recogniser and speaker network, one pair for all tokenizers of a run."""
    return _tools(options.judge, options.voice)


@lru_cache(maxsize=1)
def _tools(judge: str | None, voice: str | None) -> Tools:
    return Tools(Evaluation(judge=judge, voice=voice))


def absent(options: Options) -> dict[str, str]:
    """Kinds of facts that cannot be measured here, and why.

    They are looked for before any work, so that a missing package is never kept as a fact about an utterance.
    """
    found = {
        kind: f"the package {package} is not installed; run: pip install 'speechtok[{extra}]'"
        for kind, (package, extra) in PACKAGES.items()
        if find_spec(package) is None
    }
    for kind, tool in (("heard", "judge"), ("voice_cosine", "voice")):
        try:
            if getattr(options, tool) is not None:
                getattr(tools_of(options), tool)
        except SpeechtokError as error:
            found.setdefault(kind, str(error))
    return found


def silent_levels(tokenizer: Tokenizer, counts: tuple[int, ...]) -> dict[int, str]:
    """Those of the numbers of levels that have no sound by their nature, and why; tried on half a second of speech."""
    clip = read(bundled_clips()[0].path).resample(tokenizer.sample_rate)
    tokens = tokenizer.encode(Audio(clip.samples[: round(TRIAL_SECONDS * clip.rate)], clip.rate))
    found = {}
    for count in counts:
        try:
            tokenizer.decode(tokens.take(count) if isinstance(tokens, Tokens) and count else tokens)
        except NotSupportedError as error:
            found[count] = str(error)
    return found
