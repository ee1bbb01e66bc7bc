"""The recordings that come with the package."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent / "assets" / "demo"


@dataclass(frozen=True)
class Clip:
    """A recording to show."""

    name: str
    path: Path
    text: str
    language: str = "en"
    details: tuple[str, ...] = ()
    """Speaker, corpus, licence, as the page shows them."""
    source: str = ""


def bundled_clips() -> list[Clip]:
    """The eight recordings of eight speakers that come with the package, in the order of their manifest."""
    manifest = json.loads((FOLDER / "manifest.json").read_text("utf-8"))
    return [
        Clip(
            one["id"],
            FOLDER / one["file"],
            one["text"],
            one["language"],
            (f"speaker {one['speaker']}", one["corpus"], one["licence"]),
            one["source"],
        )
        for one in manifest["utterances"]
    ]
