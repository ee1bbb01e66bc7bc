"""A layout as plain types, for the files that hold its sequences."""

from __future__ import annotations

from typing import Any

from speechtok.errors import ConfigError, TokenFileError
from speechtok.layouts.base import Layout, get
from speechtok.layouts.vocabulary import Vocabulary


def layout_to_dict(layout: Layout) -> dict[str, Any]:
    """Name, options and vocabulary, ready for JSON."""
    return {"layout": layout.name, "options": layout.options, "vocabulary": layout.vocabulary.to_dict()}


def layout_from_dict(values: dict[str, Any], where: str, fingerprint: str | None = None) -> Layout:
    """What ``layout_to_dict`` described; ``where`` is named in errors.

    Raises TokenFileError: a field is missing or wrong, or ``fingerprint`` is given and the sequences are of another
    tokenizer.
    """
    vocabulary = Vocabulary.from_dict(values.get("vocabulary"), where, fingerprint)
    name, options = values.get("layout"), values.get("options")
    if not isinstance(name, str) or not isinstance(options, dict):
        raise TokenFileError(f"{where}: does not say its layout; write it again with `speechtok layout`")
    try:
        return get(name, vocabulary, **options)
    except ConfigError as error:
        raise TokenFileError(f"{where}: {error}; write it again with `speechtok layout`") from error
