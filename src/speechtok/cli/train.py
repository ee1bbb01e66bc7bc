"""``speechtok train``: train a model from a recipe."""

from __future__ import annotations

import argparse
from importlib import import_module
from pathlib import Path

HELP = "train a model from a recipe"
NOTE = "Example: speechtok train codec recipe.yaml out=runs/mine steps=1000; out= names the folder of the run."
KINDS = {
    "asr": "speechtok.train.asr",
    "codec": "speechtok.train.codec",
    "s2a": "speechtok.train.s2a",
    "chain": "speechtok.train.chain",
    "speaker": "speechtok.train.speaker",
    "ssl": "speechtok.train.ssl",
    "phones": "speechtok.train.phones",
    "t2s": "speechtok.train.t2s",
    "units": "speechtok.train.units",
    "vocoder": "speechtok.train.vocoder",
}
"""Modules whose ``main`` trains a kind; imported only for that."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("kind", choices=tuple(KINDS), help="what is trained")
    parser.add_argument("recipe", metavar="RECIPE", type=Path, help="a YAML file")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings that replace the recipe's")
    parser.add_argument("--plot", action="store_true", help="draw the finished run into curves.png in its folder")


def run(args: argparse.Namespace) -> int:
    """Hand the recipe to the trainer."""
    import_module(KINDS[args.kind]).main(args.recipe, args.overrides, args.plot)
    return 0
