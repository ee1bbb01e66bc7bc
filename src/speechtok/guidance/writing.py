"""How texts are written before they are compared or spelled: one plain form of the same words."""

from __future__ import annotations

import re
import unicodedata


def plain(text: str) -> str:
    """Lower case, words of letters, digits and inner apostrophes, one space between; all else separates words.

    Accents stay, curly apostrophes become straight ones. Numbers stay as they are written, so ``19`` and ``nineteen``
    are different words: mind this where a judge writes digits and the reference does not.
    """
    text = unicodedata.normalize("NFKC", text).lower().replace("\u2019", "'")
    return " ".join(re.findall(r"[^\W_]+(?:'[^\W_]+)*", text))
