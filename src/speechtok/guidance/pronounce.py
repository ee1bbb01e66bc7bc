"""Pronunciations: of dictionary words as they stand, of others put together from words and endings in it.

The fallback is deliberately small: an ending is taken off, or the word is a compound. It guesses no letters, so what it
cannot build stays unknown and is reported.
"""

from __future__ import annotations

import re
from collections.abc import Callable

Lookup = Callable[[str], str | None]
"""A dictionary: phones separated by spaces, or None."""

VOICELESS = frozenset(("P", "T", "K", "F", "TH"))
SIBILANT = frozenset(("S", "Z", "SH", "ZH", "CH", "JH"))
ENDINGS = {
    "ness": "N AH S", "less": "L AH S", "ful": "F AH L", "ly": "L IY", "ment": "M AH N T", "ship": "SH IH P",
    "ing": "IH NG", "er": "ER", "est": "AH S T", "y": "IY", "ish": "IH SH", "able": "AH B AH L", "like": "L AY K",
}  # fmt: skip
STARTS = {"un": "AH N", "re": "R IY", "non": "N AA N", "mis": "M IH S", "dis": "D IH S", "super": "S UW P ER"}
MIN_PART = 3
"""Shortest word, in letters, that may be part of another one."""


def words_of(text: str) -> list[str]:
    """Lower-case words of an English transcript: letters, digits, inner apostrophes. Punctuation parts words.

    Numbers are kept, so that they are missed in the dictionary instead of in the alignment.
    """
    return re.findall(r"[^\W_]+(?:'[^\W_]+)*'?", text.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'"))


def pronounce(word: str, lookup: Lookup) -> str | None:
    """Phones of ``word``, separated by spaces; None where neither the dictionary nor its parts give them."""
    return lookup(word) or _inflected(word, lookup) or _derived(word, lookup) or _compound(word, lookup)


def _inflected(word: str, lookup: Lookup) -> str | None:
    """Possessives, plurals and pasts, whose sound depends on the last phone of the stem."""
    if word.endswith("'"):
        return pronounce(word[:-1], lookup)
    for ending in ("'s", "es", "s"):
        phones = _stem(word, ending, lookup)
        if phones:
            last = phones.split()[-1]
            return f"{phones} {'AH Z' if last in SIBILANT else 'S' if last in VOICELESS else 'Z'}"
    phones = _stem(word, "ed", lookup)
    if phones:
        last = phones.split()[-1]
        voiceless = last in VOICELESS or last in ("S", "SH", "CH")
        return f"{phones} {'AH D' if last in ('T', 'D') else 'T' if voiceless else 'D'}"
    return None


def _derived(word: str, lookup: Lookup) -> str | None:
    for ending, sound in ENDINGS.items():
        phones = _stem(word, ending, lookup)
        if phones:
            return f"{phones} {sound}"
    for start, sound in STARTS.items():
        rest = word.removeprefix(start)
        if rest != word and len(rest) >= MIN_PART and (phones := lookup(rest)):
            return f"{sound} {phones}"
    return None


def _stem(word: str, ending: str, lookup: Lookup) -> str | None:
    """Phones of what precedes ``ending``: as written, with the e or y it lost, or with one of two equal letters."""
    if not word.endswith(ending) or len(word) - len(ending) < MIN_PART:
        return None
    stem = word[: -len(ending)]
    forms = [stem, f"{stem}e"] if ending not in ("'s", "s") else [stem]
    if stem[-1] == "i":
        forms.append(f"{stem[:-1]}y")
    if stem[-1] == stem[-2]:
        forms.append(stem[:-1])
    return next((phones for form in forms if (phones := lookup(form))), None)


def _compound(word: str, lookup: Lookup) -> str | None:
    """Two dictionary words, split as near to the middle as possible."""
    places = sorted(range(MIN_PART, len(word) - MIN_PART + 1), key=lambda at: abs(2 * at - len(word)))
    for at in places:
        first, second = lookup(word[:at]), lookup(word[at:])
        if first and second:
            return f"{first} {second}"
    return None
