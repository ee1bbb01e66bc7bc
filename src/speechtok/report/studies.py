"""The pictures of ``python -m speechtok.bench.studies`` in the report of the same folder."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from speechtok.report.page import Html, image, tag
from speechtok.report.pictures import data_uri

FILE = "studies.json"
OLD = (
    "These studies were made before the tables above, from other tokenizers; run them again:"
    " python -m speechtok.bench.studies."
)


def study_parts(document: Mapping[str, Any], folder: Path) -> Iterator[Html]:
    """Title, pictures, method and what was missing of every study in a folder; nothing where there are none.

    Args:
        document: what ``summary.json`` holds.
        folder: where the studies are.
    """
    if not (folder / FILE).is_file():
        return
    found = json.loads((folder / FILE).read_text(encoding="utf-8"))
    if found["tokenizers"] != {one["name"]: one["fingerprint"] for one in document["tokenizers"]}:
        yield tag("p", OLD, class_="note")
    for study in found["studies"]:
        yield tag("h3", study["title"])
        if not study["made"]:
            yield tag("p", "Not made. Missing: ", "; ".join(study["missing"]), ".", class_="note")
            continue
        for name in study["pictures"]:
            source = data_uri((folder / name).read_bytes(), "image/png")
            yield tag("figure", image(source, study["title"]), class_="study")
        yield tag("p", study["method"], class_="note")
