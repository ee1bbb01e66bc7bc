"""From a training run to a model that ships: averaged weights in fp16 and a card.

    python -m speechtok.train.release RUN -o src/speechtok/models/NAME --card recipes/NAME.card.yaml
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
import yaml

from speechtok.config import from_mapping
from speechtok.errors import ConfigError, run_module
from speechtok.nn.codec import Codec, CodecConfig
from speechtok.tokenizers.checkpoint import save_codec
from speechtok.train.snapshot import load_snapshot


def release(run: Path, folder: Path, card: dict[str, Any]) -> int:
    """Write the averaged model of ``run``'s checkpoint into ``folder``; returns its size in parameters.

    Args:
        run: folder of a training run.
        folder: the model folder to write.
        card: what people should know; steps and seed are added from the run.

    Raises:
        CheckpointError: no readable checkpoint.
        OutputError: the folder cannot be written.
    """
    saved = load_snapshot(run / "checkpoint.safetensors")
    recipe = json.loads(saved["recipe"])
    codec = Codec(from_mapping(CodecConfig, recipe["codec"], "codec"))
    codec.load_state_dict(saved["average"])
    size = codec.parameters_count()
    facts = {"parameters": size, "steps": saved["step"], "batch_seconds": _seconds(recipe), "seed": recipe["seed"]}
    save_codec(codec, folder, card=card | facts, dtype=torch.float16)
    return size


def _seconds(recipe: dict[str, Any]) -> float:
    """Audio per training step."""
    return recipe["data"]["batch"] * recipe["data"]["seconds"]


def main(arguments: list[str] | None = None) -> int:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--card", type=Path, required=True, help="YAML file with the card's fields")
    options = parser.parse_args(arguments)
    try:
        card = yaml.safe_load(options.card.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"{options.card}: cannot be read as YAML ({error})") from error
    size = release(options.run, options.output, card)
    print(f"{options.output}: {size / 1e6:.2f} M parameters")
    return 0


if __name__ == "__main__":
    run_module(main)
