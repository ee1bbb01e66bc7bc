"""``speechtok verify``: hold a model to the tokenizer contract."""

from __future__ import annotations

import argparse
from pathlib import Path

from speechtok.cli.common import MODEL_HELP, add_machine_options, print_json, print_table, read_audio

HELP = "check that a model keeps the promises of the tokenizer contract"
NOTE = "Exit code 1 where a promise is broken."
VERDICT = {True: "ok", False: "BROKEN", None: "measured"}


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("model", nargs="?", metavar="MODEL", help=MODEL_HELP)
    add_machine_options(parser)
    parser.add_argument(
        "--audio",
        nargs="+",
        type=Path,
        metavar="FILE",
        default=(),
        help="recordings to use (default: bundled clips)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON with all numbers")


def run(args: argparse.Namespace) -> int:
    """Run all checks."""
    from speechtok.verify import verify

    audios = [read_audio(path) for path in args.audio]
    tokenizer = args.load(args.model, device=args.device, precision=args.precision)
    checks = verify(tokenizer, audios or None)
    broken = sum(check.passed is False for check in checks)
    if args.json:
        print_json({"model": tokenizer.describe(), "broken": broken, "checks": [check.to_dict() for check in checks]})
    else:
        print(f"{tokenizer.name} ({tokenizer.fingerprint})")
        print_table(
            ("", "check", "measured", "promise"),
            ((VERDICT[check.passed], check.name, check.measured, check.promise) for check in checks),
        )
    return 1 if broken else 0
