"""``speechtok encode``: audio files to token files."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from speechtok.cli import live
from speechtok.cli.common import (
    TOKEN_SUFFIX,
    add_file_options,
    add_model_options,
    native_notes_silenced,
    plan_outputs,
    refuse_audio_names,
    require_output,
    run_all,
)
from speechtok.errors import ConfigError

SHOWN = (
    "seconds", "content", "levels", "frames", "dimension", "ids", "words", "text", "bitrate", "fingerprint",
)  # fmt: skip
"""What is said of the tokens, of whichever kind they are."""
HELP = "turn audio files into token files"
NOTE = "Example: speechtok encode a.wav b.flac -o tokens/"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_file_options(parser, output=False)
    add_model_options(parser)
    parser.add_argument("--levels", type=int, metavar="K", help="only the first K levels (default: all)")
    parser.add_argument(
        "--stream", action="store_true", help="with - for FILE: print tokens as JSON lines while the audio comes"
    )
    parser.add_argument(
        "--rate", type=int, metavar="HZ",
        help="with - for FILE: of the 16-bit mono samples from standard input (default: the model's)",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Encode every file, or what standard input brings."""
    if live.STANDARD in args.files:
        return live.encode(args)
    if args.stream or args.rate is not None:
        raise ConfigError("--stream and --rate are for standard input; give - as the only FILE")
    require_output(args)
    plan = plan_outputs(args.files, args.output, TOKEN_SUFFIX)
    refuse_audio_names(out for _, out in plan.pairs)
    tokenizer = args.load(args.model, device=args.device, precision=args.precision)
    tokenizer.show_progress = True
    tokenizer.checked_levels(args.levels)  # once, rather than the same refusal for every file

    def work(path: Path, out: Path) -> dict[str, Any]:
        with native_notes_silenced():
            tokens = tokenizer.encode_file(path, args.levels)
        tokens.save(out)
        facts = tokens.describe()
        return {key: facts[key] for key in SHOWN if key in facts}

    return run_all(plan, work, args.json)
