"""``speechtok decode``: token files to audio files."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from speechtok.cli.common import AUDIO_KINDS, add_file_options, add_model_options, plan_outputs, run_all

HELP = "turn token files back into audio files"
NOTE = "Example: speechtok decode tokens/a.tokens.safetensors -o a.wav"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_file_options(parser)
    add_model_options(parser)
    parser.add_argument(
        "--format", default="wav", choices=AUDIO_KINDS,
        help="kind of audio written into a folder (default: wav); a file's name says it itself",
    )  # fmt: skip
    part = parser.add_mutually_exclusive_group()
    part.add_argument("--levels", type=int, metavar="K", help="from the first K levels (default: all)")
    part.add_argument("--semantic", action="store_true", help="from the semantic levels alone")
    part.add_argument("--acoustic", action="store_true", help="from the acoustic levels alone")


def run(args: argparse.Namespace) -> int:
    """Decode every file."""
    plan = plan_outputs(args.files, args.output, f".{args.format}")
    tokenizer = args.load(args.model, device=args.device)
    tokenizer.show_progress = True

    from speechtok.audio import write
    from speechtok.tokens import Tokens

    def chosen(tokens: Tokens) -> Tokens:
        if args.semantic:
            return tokens.semantic
        if args.acoustic:
            return tokens.acoustic
        return tokens if args.levels is None else tokens.take(args.levels)

    def work(path: Path, out: Path) -> dict[str, Any]:
        tokens = chosen(Tokens.load(path))
        audio = tokenizer.decode(tokens)
        write(out, audio)
        return {
            "seconds": audio.seconds,
            "levels": tokens.levels,
            "frames": tokens.frames,
            "bitrate": tokens.bitrate,
            "sample_rate": audio.rate,
        }

    return run_all(plan, work, args.json)
