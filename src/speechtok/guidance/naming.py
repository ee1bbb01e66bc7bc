"""How files that come from a teacher name it: ``NAME, layer LAYER``."""

from __future__ import annotations

SEPARATOR = ", layer "


def describe(name: str, layer: int | str | None) -> str:
    """The teacher's name and layer in one text."""
    return name if layer is None else f"{name}{SEPARATOR}{layer}"


def named(text: str) -> tuple[str, int | str | None]:
    """Inverse of ``describe``; the layer is None where the text says none."""
    name, separator, layer = text.rpartition(SEPARATOR)
    if not separator:
        return text, None
    return name, layer_of(layer)


def layer_of(text: str) -> int | str:
    """A layer as commands are given it: a number, or a word such as ``average``."""
    return int(text) if text.isdigit() else text
