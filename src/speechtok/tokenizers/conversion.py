"""One-shot voice conversion, by mixing levels or by speaking the source's tokens in the reference's voice.

Mixing (SpeechTokenizer, section on one-shot voice conversion): the source gives the first level, which carries content,
the reference the following ones, which carry its voice; what comes after them is left out. A reference that is shorter
is repeated from its beginning, a longer one is cut, so the result lasts as long as the source.

A tokenizer whose tokens leave the voice out (``voices``: units with a vocoder that hears a prompt) decodes in any.
"""

from __future__ import annotations

import re
import warnings
from dataclasses import replace

import numpy as np

from speechtok.audio import Audio
from speechtok.errors import ConfigError, NotSupportedError, TokenError
from speechtok.tokenizers.base import Tokenizer
from speechtok.tokenizers.two_stage import TwoStageTokenizer
from speechtok.tokens import Tokens

BORROWED = 3
"""Levels taken from the reference where nobody says how many: 2:4 is the middle one of the paper's three ranges."""


def convert_voice(
    tokenizer: Tokenizer, source: Tokens | Audio, reference: Tokens | Audio, levels: slice | None = None
) -> Audio:
    """What the source says, in the voice of the reference.

    Args:
        tokenizer: one with ``voices``, or one whose later levels hold the voice. Where none of its levels was taught
            content, a warning says so, and content and voice come apart as badly as they lie in its codes.
        source: any rate; of tokens, the levels before ``levels`` are needed.
        reference: any rate and length; of tokens, ``levels`` are needed.
        levels: those of the reference, counted from 0: ``slice(1, 4)`` is the paper's RVQ-2:4. By default three after
            the content levels, as far as there are. A tokenizer with ``voices`` mixes no levels.

    Returns:
        As many samples as the source has, at the tokenizer's rate.

    Raises:
        NotSupportedError: the tokenizer has no codes, no level apart from content, or decodes without content levels.
        ConfigError: ``levels`` that it has not, or that would take content from the reference.
        TokenError: tokens of another tokenizer, or without the levels needed.
    """
    if tokenizer.voices:
        return _spoken(tokenizer, source, reference, levels)
    levels = checked_levels(tokenizer, levels)
    if not tokenizer.semantic_levels:
        warnings.warn(
            f"{tokenizer.name} has no level that was taught content, so its first level also holds the source's voice"
            f" and the others also hold the reference's words; a tokenizer of scheme E converts better",
            stacklevel=2,
        )
    mixed = mix_levels(
        _encoded(tokenizer, source, levels.start), _encoded(tokenizer, reference, levels.stop), levels
    )  # fmt: skip
    return tokenizer.decode(mixed)


def _spoken(tokenizer: Tokenizer, source: Tokens | Audio, reference: Tokens | Audio, levels: slice | None) -> Audio:
    """The source's tokens in the voice of the reference. Raises as ``convert_voice``."""
    if levels is not None:
        raise ConfigError(f"{tokenizer.name} takes a voice as a whole and mixes no levels; leave the levels out")
    if not isinstance(reference, Audio):
        raise TokenError(f"tokens of {tokenizer.name} hold no voice; give the reference as audio")
    voiced = tokenizer.with_voice(reference)
    return voiced.decode(source if isinstance(source, Tokens) else voiced.encode(source))


def mix_levels(source: Tokens, reference: Tokens, levels: slice) -> Tokens:
    """Tokens of the source's length: its own levels before ``levels``, the reference's in ``levels``, and no more.

    Raises:
        TokenError: two tokenizers, or levels that the tokens do not hold.
    """
    if source.fingerprint != reference.fingerprint:
        raise TokenError(
            f"the source's tokens were made by {source.tokenizer} ({source.fingerprint}), the reference's by"
            f" {reference.tokenizer} ({reference.fingerprint}); encode both with one tokenizer"
        )
    own = _rows("source", source, slice(0, levels.start))
    voice = _rows("reference", reference, levels)
    around = np.arange(source.frames) % reference.frames
    first = reference.first_level
    return replace(
        source,
        codes=np.concatenate([own, voice[:, around]]),
        codebook_sizes=source.codebook_sizes[: levels.start]
        + reference.codebook_sizes[levels.start - first : levels.stop - first],
        semantic_levels=tuple(level for level in source.semantic_levels if level < levels.start),
        timbre=reference.timbre,
    )


def checked_levels(tokenizer: Tokenizer, levels: slice | None = None) -> slice:
    """``levels`` with both ends filled in, known to suit ``tokenizer``; its default for None. Raises as above."""
    if not issubclass(tokenizer.value, Tokens):
        raise NotSupportedError(f"{tokenizer.name} gives {tokenizer.value.__name__}, which have no levels to mix")
    if isinstance(tokenizer, TwoStageTokenizer):
        raise NotSupportedError(
            f"{tokenizer.name} decodes its codec's levels without its units, so nothing of the source would be heard;"
            f" take a codec whose first level was taught content"
        )
    content = max(tokenizer.semantic_levels, default=0) + 1
    if content >= tokenizer.levels:
        raise NotSupportedError(f"{tokenizer.name} has no acoustic levels beside its content, so no voice to exchange")
    if levels is None:
        return slice(content, min(content + BORROWED, tokenizer.levels))
    start = content if levels.start is None else levels.start
    stop = tokenizer.levels if levels.stop is None else levels.stop
    if levels.step not in (None, 1) or not content <= start < stop <= tokenizer.levels:
        raise ConfigError(
            f"levels {levels_text(levels)} do not suit {tokenizer.name}; give a range within"
            f" {levels_text(slice(content, tokenizer.levels))} (counted from 1)"
        )
    return slice(start, stop)


def parse_levels(text: str) -> slice:
    """The paper's notation, counted from 1 with both ends in it: ``2:4`` is ``slice(1, 4)``, ``2`` is ``slice(1, 2)``.

    Raises:
        ConfigError: anything else; ``2:`` means all from the second on.
    """
    found = re.fullmatch(r"([1-9]\d{0,3})(:([1-9]\d{0,3})?)?", text.strip())
    if not found:
        raise ConfigError(f"levels {text!r} are no range; write 2, 2:4 or 2: (counted from 1, both ends included)")
    first, colon, last = found.groups()
    return slice(int(first) - 1, int(last) if last else None if colon else int(first))


def levels_text(levels: slice) -> str:
    """The way back: ``2:4`` for ``slice(1, 4)``."""
    first = (levels.start or 0) + 1
    return str(first) if levels.stop == first else f"{first}:{'' if levels.stop is None else levels.stop}"


def _encoded(tokenizer: Tokenizer, sound: Tokens | Audio, levels: int) -> Tokens:
    return sound if isinstance(sound, Tokens) else tokenizer.encode(sound, levels)


def _rows(whose: str, tokens: Tokens, levels: slice) -> np.ndarray:
    """Codes of ``levels`` of the tokenizer, ``[levels, N]``."""
    first = tokens.first_level
    if not first <= levels.start < levels.stop <= first + tokens.levels:
        held = levels_text(slice(first, first + tokens.levels))
        raise TokenError(f"the {whose}'s tokens hold levels {held}, and {levels_text(levels)} are needed; encode again")
    return tokens.codes[levels.start - first : levels.stop - first]
