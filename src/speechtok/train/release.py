"""From training runs to a model that ships: averaged weights in fp16, of a vocoder in 8 bits, and a card.

    python -m speechtok.train.release RUN -o src/speechtok/models/NAME --card recipes/NAME.card.yaml
    python -m speechtok.train.release UNITS --vocoder RUN -o src/speechtok/models/NAME --card recipes/NAME.card.yaml
    python -m speechtok.train.release RUN --teacher -o FOLDER

The first takes the run of a codec, the second the centres of ``train units`` and the run of their vocoder. The third
only halves a teacher: units belong to the weights that ship, so they are clustered from the halved one's features.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from speechtok.config import from_mapping, read_yaml
from speechtok.errors import ConfigError, run_module
from speechtok.nn import hubert
from speechtok.nn.codec import Codec, CodecConfig
from speechtok.tokenizers.checkpoint import save_codec
from speechtok.tokenizers.units import save_units, trained_units
from speechtok.tokenizers.vocoder import load_vocoder
from speechtok.train.snapshot import load_snapshot

HALF = torch.float16


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
    save_codec(codec, folder, card=card | facts, dtype=HALF)
    return size


def release_units(units: Path, vocoder: Path, folder: Path, card: dict[str, Any]) -> int:
    """Write units that speak into ``folder``: the centres in ``units`` with their teacher, and the vocoder of a run.

    Returns the size of the vocoder in parameters.

    Raises:
        CheckpointError: one of them cannot be read.
        ConfigError: the vocoder was trained on other units.
        OutputError: the folder cannot be written.
    """
    voice = load_vocoder(vocoder / "model")
    said = {key: card[key] for key in ("note",) if key in card}
    licence = card.get("licence_weights", "not stated")
    tokenizer = trained_units(units, folder.name, vocoder=voice, licence=licence, **said)
    saved = load_snapshot(vocoder / "checkpoint.safetensors")
    recipe = json.loads(saved["recipe"])
    facts = {"steps": saved["step"], "batch_seconds": _seconds(recipe), "seed": recipe["seed"]}
    facts["parameters"] = voice.model.parameters_count()
    # in fp16 the vocoder would be larger than all the rest
    save_units(tokenizer, folder, card | {f"vocoder_{key}": value for key, value in facts.items()}, torch.int8)
    return voice.model.parameters_count()


def release_teacher(run: Path, folder: Path) -> int:
    """Write the network of a teacher's ``run`` in half precision into ``folder``; returns its size in parameters.

    Raises:
        CheckpointError: no readable model.
        OutputError: the folder cannot be written.
    """
    network, config = hubert.load(run / "model")
    hubert.save(network.to(HALF), folder, {key: config[key] for key in ("classes", "loss") if key in config})
    return sum(parameter.numel() for parameter in network.parameters())


def _seconds(recipe: dict[str, Any]) -> float:
    """Audio per training step."""
    return recipe["data"]["batch"] * recipe["data"]["seconds"]


def main(arguments: list[str] | None = None) -> int:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--vocoder", type=Path, metavar="RUN", help="of the units in the first folder")
    kind.add_argument("--teacher", action="store_true", help="the run is that of a teacher; it has no card")
    parser.add_argument("--card", type=Path, help="YAML file with the card's fields")
    options = parser.parse_args(arguments)
    if options.teacher:
        size = release_teacher(options.run, options.output)
    elif options.vocoder:
        size = release_units(options.run, options.vocoder, options.output, _card(options.card))
    else:
        size = release(options.run, options.output, _card(options.card))
    print(f"{options.output}: {size / 1e6:.2f} M parameters")
    return 0


def _card(path: Path | None) -> dict[str, Any]:
    if path is None:
        raise ConfigError("a model that ships needs a card; name its YAML file by --card")
    return read_yaml(path)


if __name__ == "__main__":
    run_module(main)
