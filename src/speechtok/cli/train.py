"""``speechtok train``: train a model from a recipe."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "train a model from a recipe"
NOTE = "Example: speechtok train codec recipe.yaml out=runs/mine steps=1000; out= names the folder of the run."


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("kind", choices=("codec",), help="what is trained")
    parser.add_argument("recipe", metavar="RECIPE", type=Path, help="a YAML file")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings that replace the recipe's")
    parser.add_argument("--plot", action="store_true", help="draw the finished run into curves.png in its folder")


def run(args: argparse.Namespace) -> int:
    """Hand the recipe to the trainer."""
    from speechtok.train.codec import main

    main(args.recipe, args.overrides, args.plot)
    return 0
