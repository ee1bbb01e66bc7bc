"""``speechtok vc``: what one recording says, in the voice of another."""

from __future__ import annotations

import argparse
from pathlib import Path

from speechtok.cli.common import add_model_options, print_fields, print_json, read_audio, require_audio_output

HELP = "say what one recording says in the voice of another"
NOTE = "Example: speechtok vc source.wav --voice reference.wav -o converted.wav --levels 2:4"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("source", metavar="SOURCE", type=Path, help="what is said")
    parser.add_argument("--voice", metavar="REF", type=Path, required=True, help="who shall say it; any length")
    parser.add_argument("-o", "--output", metavar="OUT", type=Path, required=True, help="audio file")
    parser.add_argument(
        "--levels", metavar="RANGE",
        help="levels taken from REF, counted from 1: 2, 2:4 or 2: (default: three after the content levels); models"
        " that are given a whole voice have none",
    )  # fmt: skip
    add_model_options(parser)
    parser.add_argument("--json", action="store_true", help="print what was done as JSON")


def run(args: argparse.Namespace) -> int:
    """Convert one file."""
    require_audio_output(args.output, (args.source, args.voice))

    from speechtok.audio import write
    from speechtok.tokenizers.conversion import checked_levels, convert_voice, levels_text, parse_levels

    wanted = parse_levels(args.levels) if args.levels is not None else None
    source, reference = read_audio(args.source), read_audio(args.voice)
    tokenizer = args.load(args.model, device=args.device, precision=args.precision)
    levels = wanted if tokenizer.voices else checked_levels(tokenizer, wanted)
    converted = convert_voice(tokenizer, source, reference, levels)
    write(args.output, converted)
    fields = {
        "source": str(args.source),
        "voice": str(args.voice),
        "output": str(args.output),
        "model": tokenizer.name,
        "source_levels": levels_text(slice(0, levels.start if levels else tokenizer.levels)),
        "voice_levels": levels_text(levels) if levels else None,
        "seconds": converted.seconds,
        "sample_rate": converted.rate,
        "voice_seconds": reference.seconds,
        "guided": bool(tokenizer.semantic_levels),
    }
    print_json(fields) if args.json else print_fields(fields)
    return 0
