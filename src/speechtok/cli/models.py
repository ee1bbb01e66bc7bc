"""``speechtok models``: the tokenizers that can be loaded by name."""

from __future__ import annotations

import argparse

from speechtok.cli.common import print_json, print_table

HELP = "list the tokenizers that can be loaded by name"
NOTE = """Any folder with config.json and weights, and any Hub id, can be loaded as well. Published models are fetched
once; --json says what was verified about each, docs/models.md which known ones are refused and why."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--json", action="store_true", help="print JSON, with licences and what was verified")


def run(args: argparse.Namespace) -> int:
    """Print the list."""
    from speechtok.tokenizers.registry import models

    entries = models()
    if args.json:
        print_json([entry.to_dict() for entry in entries])
        return 0
    print_table(
        ("name", "scheme", "works offline", "Hz", "frames/s", "levels", "codes", "bit/s", "verified", "weights"),
        (
            (
                entry.name,
                entry.scheme,
                "yes" if entry.bundled else "no",
                entry.sample_rate,
                "-" if entry.frame_rate is None else f"{entry.frame_rate:g}",
                entry.levels,
                "/".join(str(size) for size in sorted(set(entry.codebook_sizes))) or "-",
                "-" if entry.bitrate is None else f"{entry.bitrate:.0f}",
                entry.verified.partition(":")[0],
                entry.licence_weights,
            )
            for entry in entries
        ),
    )
    return 0
