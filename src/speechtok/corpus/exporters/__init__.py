"""A corpus of tokens in the formats of other programs: a module for each; what is written is whole or absent."""

from __future__ import annotations

from speechtok.corpus.reader import TokenCorpus
from speechtok.errors import NotSupportedError
from speechtok.tokens import Tokens


def require_codes(corpus: TokenCorpus, what: str) -> None:
    """Raise NotSupportedError where a corpus holds no codes."""
    if corpus.plan.value != Tokens.FORMAT:
        raise NotSupportedError(f"{corpus.folder}: holds {corpus.plan.value}, and {what} takes codes; read its Parquet")
