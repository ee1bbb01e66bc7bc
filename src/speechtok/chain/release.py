"""From trained models of the chain to a folder that ships: the recogniser, and a speaker of both its models, in fp16.

    python -m speechtok.chain.release --asr RUN/model/asr --t2s RUN/model/t2s --s2a RUN/model -o FOLDER --card CARD.yaml

FOLDER then is what ``speak --model`` takes, and its ``asr`` what ``transcribe --model`` takes.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from speechtok.chain.recogniser import load_recogniser, save_recogniser
from speechtok.chain.s2a import load_s2a, save_s2a
from speechtok.chain.synthesis import S2A, T2S
from speechtok.chain.t2s import load_t2s, save_t2s
from speechtok.config import read_yaml
from speechtok.errors import ConfigError, run_module

ASR = "asr"
HALF = torch.float16


def release(asr: Path, t2s: Path, s2a: Path, folder: Path, card: dict[str, Any]) -> dict[str, int]:
    """Write the three models into folders of ``folder``; returns the parameters of each.

    Args:
        card: what people should know of all three; what each says of itself stays.

    Raises:
        CheckpointError: one of them cannot be read.
        ConfigError: they know codes of different tokenizers, or recogniser and speaker different texts.
        OutputError: the folder cannot be written, or a weight is too large for fp16.
    """
    recogniser, heard, about_asr = load_recogniser(asr)
    speaker, said, about_t2s = load_t2s(t2s)
    acoustic, about_s2a = load_s2a(s2a)
    if heard.digest != said.digest:
        raise ConfigError(f"{asr} and {t2s} have different text vocabularies; train one with vocabulary= of the other")
    headers = {asr: about_asr, t2s: about_t2s, s2a: about_s2a}
    if len({header["tokens"]["fingerprint"] for header in headers.values()}) > 1:
        known = ", ".join(f"{place}: {header['tokens']['fingerprint']}" for place, header in headers.items())
        raise ConfigError(f"the models know codes of different tokenizers ({known}); train them on those of one")

    def about(header: dict[str, Any]) -> tuple[dict[str, str], dict[str, Any], torch.dtype]:
        return header["tokens"], card | header["card"], HALF

    save_recogniser(recogniser, heard, folder / ASR, *about(about_asr))
    save_t2s(speaker, said, folder / T2S, *about(about_t2s))
    save_s2a(acoustic, folder / S2A, *about(about_s2a))
    models = {ASR: recogniser, T2S: speaker, S2A: acoustic}
    return {name: sum(one.numel() for one in model.parameters()) for name, model in models.items()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, what in ((ASR, "recogniser"), (T2S, "text-to-semantic model"), (S2A, "acoustic model")):
        parser.add_argument(f"--{name}", type=Path, required=True, metavar="FOLDER", help=f"of the {what}")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--card", type=Path, required=True, help="YAML file with fields for the cards of all three")
    options = parser.parse_args(arguments)
    places = options.asr, options.t2s, options.s2a, options.output
    for name, size in release(*places, read_yaml(options.card)).items():
        print(f"{options.output / name}: {size / 1e6:.2f} M parameters")
    return 0


if __name__ == "__main__":
    run_module(main)
