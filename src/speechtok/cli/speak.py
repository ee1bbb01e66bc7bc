"""``speechtok speak``: text as speech, in the voice of a recording."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from speechtok.cli.common import print_fields, print_json, read_audio, require_audio_output

HELP = "speak a text in the voice of a recording"
PASSES = 16
NOTE = 'Example: speechtok speak "Good morning." --voice reference.wav -o spoken.wav'


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("text", metavar="TEXT", help="what is said, in English letters")
    parser.add_argument(
        "--voice", metavar="REF", type=Path, required=True, help="who shall say it; 1 s of speech or more, 3 s are best"
    )
    parser.add_argument("-o", "--output", metavar="OUT", type=Path, required=True, help="audio file")
    parser.add_argument(
        "--model", metavar="DIR", type=Path, help="folder with trained models in t2s/ and s2a/ (default: the bundled)"
    )
    parser.add_argument(
        "--tokenizer", metavar="MODEL", help="tokenizer that the models know (default: the one that they name)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn; another one speaks another way")
    parser.add_argument(
        "--passes", type=int, default=PASSES, metavar="N",
        help=f"of the acoustic model over the first acoustic level; 1 takes its likeliest codes ({PASSES})",
    )  # fmt: skip
    parser.add_argument("--device", default="cpu", help="where the tokenizer runs, such as cuda (default: cpu)")
    parser.add_argument("--json", action="store_true", help="print what was done as JSON")


def run(args: argparse.Namespace) -> int:
    """Speak one text."""
    require_audio_output(args.output, (args.voice,))

    from speechtok.audio import write
    from speechtok.chain.synthesis import BUNDLED, load_speaker, require_voice, tokenizer_of
    from speechtok.nn.unmasking import UnmaskingConfig

    voice, folder, load = read_audio(args.voice), args.model or BUNDLED, partial(args.load, device=args.device)
    require_voice(voice, str(args.voice))
    unmasking = UnmaskingConfig((args.passes,))
    tokenizer = load(args.tokenizer) if args.tokenizer else tokenizer_of(folder, load)
    speaker = load_speaker(folder, tokenizer)
    spoken = speaker.say(args.text, voice, args.seed, unmasking=unmasking)
    write(args.output, spoken)
    fields = {
        "text": args.text,
        "voice": str(args.voice),
        "output": str(args.output),
        "tokenizer": tokenizer.name,
        "seconds": spoken.seconds,
        "sample_rate": spoken.rate,
        "seed": args.seed,
        "passes": args.passes,
    }
    print_json(fields) if args.json else print_fields(fields)
    return 0
