"""``speechtok encode``: audio files to token files."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from speechtok.cli.common import (
    AUDIO_KINDS,
    TOKEN_SUFFIX,
    add_file_options,
    add_model_options,
    plan_outputs,
    read_audio,
    run_all,
)
from speechtok.errors import OutputError

SHOWN = (
    "seconds", "content", "levels", "frames", "dimension", "ids", "words", "text", "bitrate", "fingerprint",
)  # fmt: skip
"""What is said of the tokens, of whichever kind they are."""
HELP = "turn audio files into token files"
NOTE = "Example: speechtok encode a.wav b.flac -o tokens/"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_file_options(parser)
    add_model_options(parser)
    parser.add_argument("--levels", type=int, metavar="K", help="only the first K levels (default: all)")


def run(args: argparse.Namespace) -> int:
    """Encode every file."""
    plan = plan_outputs(args.files, args.output, TOKEN_SUFFIX)
    for _, out in plan.pairs:
        if out.suffix.lower().removeprefix(".") in AUDIO_KINDS:
            raise OutputError(f"{out}: is a name for audio, and tokens are none; end it in {TOKEN_SUFFIX}")
    tokenizer = args.load(args.model, device=args.device)
    tokenizer.show_progress = True
    tokenizer.checked_levels(args.levels)  # once, rather than the same refusal for every file

    def work(path: Path, out: Path) -> dict[str, Any]:
        tokens = tokenizer.encode(read_audio(path), args.levels)
        tokens.save(out)
        facts = tokens.describe()
        return {key: facts[key] for key in SHOWN if key in facts}

    return run_all(plan, work, args.json)
