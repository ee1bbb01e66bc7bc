"""``speechtok info``: what an audio file, a token file or a model is."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from speechtok.cli.common import print_fields, print_json

HELP = "say what an audio file, a token file or a model is"
NOTE = "Example: speechtok info a.tokens.safetensors --json"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("target", metavar="FILE|MODEL")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Print the facts."""
    path = Path(args.target)
    if not os.path.isfile(path) or _is_weights(path):
        fields = {"kind": "model", **args.load(args.target).describe()}
    else:
        fields = _tokens(path) if _is_safetensors(path) else _audio(path)
    print_json(fields) if args.json else print_fields(fields)
    return 0


def _audio(path: Path) -> dict[str, Any]:
    from speechtok.audio import probe

    header = probe(path)
    return {
        "kind": "audio",
        "file": str(path),
        "format": header.format,
        "seconds": header.seconds,
        "samples": header.frames,
        "sample_rate": header.rate,
        "channels": header.channels,
    }


def _tokens(path: Path) -> dict[str, Any]:
    from speechtok.anytokens import load_tokens

    tokens = load_tokens(path)
    return {"kind": tokens.FORMAT.removeprefix("speechtok."), "file": str(path), **tokens.describe()}


def _is_weights(path: Path) -> bool:
    """Official weights go by their name, ours by what their header says."""
    from safetensors import SafetensorError, safe_open

    from speechtok.tokenizers.folder import FORMAT
    from speechtok.tokenizers.registry import MODEL_FORMAT, OFFICIAL_WEIGHTS

    if path.suffix == ".pt" or path.name in OFFICIAL_WEIGHTS:
        return True
    if not _is_safetensors(path):
        return False
    try:
        with safe_open(path, framework="numpy") as file:
            return (file.metadata() or {}).get("format") in (MODEL_FORMAT, FORMAT)
    except SafetensorError:  # damaged: reading it as tokens says how
        return False


def _is_safetensors(path: Path) -> bool:
    """By name or by its start: the length of a JSON header, then the header."""
    if path.suffix == ".safetensors":
        return True
    with path.open("rb") as file:
        start = file.read(9)
    return start[8:] == b"{" and int.from_bytes(start[:8], "little") < path.stat().st_size
