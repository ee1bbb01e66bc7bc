"""A feature store of one process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from speechtok.guidance.extraction import Parts


def extract_store(*speech: Any, done: Callable[[int], object] = lambda utterance: None, **options: Any) -> int:
    """Write the store that ``Parts`` of these arguments make; returns how many utterances were there."""
    parts = Parts(*speech, **options)
    kept = parts.keep()
    parts.finish(done)
    return kept
