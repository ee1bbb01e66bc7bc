"""``speechtok convert``: an official pair of files to a model folder without pickle."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

HELP = "turn official SpeechTokenizer files into a safetensors model folder"
NOTE = "Example: speechtok convert SpeechTokenizer.pt config.json -o my-model/"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("weights", metavar="PT", type=Path, help="official weights")
    parser.add_argument("config", metavar="CONFIG", type=Path, help="the config.json that belongs to them")
    parser.add_argument("-o", "--output", required=True, metavar="DIR", type=Path, help="folder of the model")


def run(args: argparse.Namespace) -> int:
    """Read, write, load again, and refuse to call it done unless both give the same fingerprint."""
    from speechtok.errors import CheckpointError
    from speechtok.tokenizers.checkpoint import save_codec
    from speechtok.tokenizers.codec import CodecTokenizer

    _keep_inputs(args)
    original = args.load((args.config, args.weights))
    if type(original) is not CodecTokenizer:
        raise CheckpointError(f"{args.config}: {original.name} is no SpeechTokenizer model; it can be loaded as it is")
    card = {"scheme": original.scheme, "semantic_levels": list(original.semantic_levels), "note": original.note}
    save_codec(original.codec, args.output, card | {"licence_weights": original.licence})
    converted = args.load(args.output)
    if converted.fingerprint != original.fingerprint:
        raise CheckpointError(f"{args.output}: differs from {args.weights} after writing; convert it again")
    shape = f"{converted.levels} levels at {converted.frame_rate:g} frames/s"
    print(f"{args.output}: {shape} ({converted.fingerprint})")
    return 0


def _keep_inputs(args: argparse.Namespace) -> None:
    """Official and converted models both have a ``config.json``: in one folder, one would replace the other."""
    from speechtok.errors import OutputError
    from speechtok.tokenizers.registry import CONFIG, WEIGHTS

    for source in (args.weights, args.config):
        for name in (CONFIG, WEIGHTS):
            if os.path.realpath(args.output / name) == os.path.realpath(source):
                raise OutputError(f"{args.output}: its {name} is also an input; choose another folder")
