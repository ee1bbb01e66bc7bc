"""``speechtok demo``: hear and see a tokenizer on bundled recordings."""

from __future__ import annotations

import argparse
from pathlib import Path

from speechtok.cli.common import MODEL_HELP

HELP = "encode and decode bundled recordings and write a page to listen to"
NOTE = "Example: speechtok demo -o my-report/"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "-o", "--output", metavar="DIR", type=Path, default=Path("demo-report"),
        help="folder of the report (default: demo-report)",
    )  # fmt: skip
    parser.add_argument("--model", metavar="MODEL", help=MODEL_HELP)


def run(args: argparse.Namespace) -> int:
    """Write the report, whose place is printed last."""
    from speechtok.demo import run_demo

    run_demo(args.output, args.model)
    return 0
