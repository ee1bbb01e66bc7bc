"""Which tokenizers there are, and how a name becomes one: bundled, a folder, official files, the Hub."""

from __future__ import annotations

import json
import math
import os
import posixpath
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speechtok.errors import CheckpointError, ConfigError
from speechtok.hub import fetch
from speechtok.tokenizers.card import read_card
from speechtok.tokenizers.folder import CARRIED, VOCODER, ModelFolder, load_folder, read_folder
from speechtok.tokenizers.published import HUB, REFUSED, ModelEntry

if TYPE_CHECKING:
    from speechtok.tokenizers.base import Tokenizer

DEFAULT = "speechtok-base"
BUNDLED = Path(__file__).parents[1] / "models"
CONFIG, WEIGHTS = "config.json", "model.safetensors"
OFFICIAL_WEIGHTS = ("SpeechTokenizer.pt", "ckpt.dev")
"""File names under which official SpeechTokenizer weights were published."""
PREPROCESSOR = "preprocessor_config.json"
"""What a model of ``transformers`` asks to be done with audio first; it may be absent."""
PICKLE = "pytorch_model.bin"
"""Weights of ``transformers`` as they were published before safetensors."""
MODEL_FORMAT = "speechtok.codec"
"""What the metadata of ``model.safetensors`` call it."""
FILE_SUFFIXES = (
    ".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".m4a", ".aac", ".aif", ".aiff", ".au", ".sph",
    ".safetensors", ".pt", ".pth", ".ckpt", ".bin", ".json", ".dev",
)  # fmt: skip
"""A name that ends so means a file of this machine, never a repository."""
HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*(/[\w-][\w.-]*)*")

Files = tuple[Path, Path]
"""A configuration and the weights that belong to it."""


def models() -> list[ModelEntry]:
    """The models known by name: bundled ones first, then published ones that are fetched from the Hub."""
    return [_bundled_entry(folder) for folder in _bundled_folders()] + [model.entry for model in HUB.values()]


def load(
    name: str | Path | Sequence[str | Path] | None = None, device: str = "cpu", precision: str = "fp32"
) -> Tokenizer:
    """Tokenizer by name or place, ready to use.

    Args:
        name: None for the bundled default; a name from ``models()``; a folder with ``config.json`` and
            ``model.safetensors``, ours or that of a codec of ``transformers``, or official ``*.pt`` weights; a pair
            of official files (configuration and weights, in any order); a Hub id ``org/name`` or
            ``org/name/subfolder``, fetched once and cached.
        device: where the model runs, such as ``cuda``.
        precision: ``fp32``, ``bf16`` (codecs of ours), or ``auto``: bf16 where the model has it and the device
            multiplies matrices in it.

    Raises:
        CheckpointError: no such model, it is damaged, or it cannot be fetched.
        ConfigError: the device cannot be used, or the model has no such precision.
    """
    label, files = _find(DEFAULT if name is None else name)  # first: a wrong name need not wait for torch

    folder = read_folder(files[0], label)
    if folder is not None:
        require_fp32(precision, label)
        return load_folder(folder, device)
    unstated = HUB[label].entry.licence_weights if label in HUB else "not stated"
    if _is_transformers(files[0]):
        require_fp32(precision, label)
        from speechtok.tokenizers.adapters.load import load_transformers

        return load_transformers(*files, label, licence=unstated, device=device)

    from speechtok.tokenizers.checkpoint import read_checkpoint
    from speechtok.tokenizers.codec import CodecTokenizer
    from speechtok.tokenizers.timbre import TimbreTokenizer

    codec, header = read_checkpoint(*files)
    card = read_card(header, codec.config.n_q, files[0])
    kind = CodecTokenizer if codec.config.timbre is None else TimbreTokenizer
    return kind(
        codec,
        label,
        scheme=card.scheme,
        semantic_levels=card.semantic_levels,
        licence=card.licence_weights or unstated,
        note=card.note,
        device=device,
        precision=precision,
    )


def require_fp32(precision: str, name: str) -> None:
    """Raise ConfigError where ``precision`` asks a model that computes in float32 alone for something else."""
    if precision not in ("fp32", "auto"):
        raise ConfigError(f"{name} has no precision {precision!r}, it computes in fp32; use --precision fp32 or auto")


def _find(name: str | Path | Sequence[str | Path]) -> tuple[str, Files]:
    """What to call the model, and its files."""
    if not isinstance(name, str | os.PathLike):
        return _pair(name)
    text, path = os.fspath(name), Path(os.path.expanduser(name))
    if text in (folder.name for folder in _bundled_folders()):
        return text, _folder_files(BUNDLED / text)
    if os.path.isdir(path):
        return os.path.basename(os.path.realpath(path)), _folder_files(path)
    if os.path.isfile(path):
        return path.stem, (_beside(path, CONFIG), path)
    if text.lower().endswith(FILE_SUFFIXES):
        raise CheckpointError(f"{text}: no such file; check the name")
    if text in REFUSED:
        raise CheckpointError(f"{text}: known, but it cannot be used: {REFUSED[text]}; see docs/models.md")
    if text in HUB or (HUB_ID.fullmatch(text) and not os.path.isdir(text.split("/")[0])):
        return text, _folder_files(_download(text))
    known = ", ".join(entry.name for entry in models())
    raise CheckpointError(
        f"{text}: no such model, folder or file; known names are {known}, or give a folder or a Hub id"
    )


def _pair(files: Sequence[str | Path]) -> tuple[str, Files]:
    paths = sorted((Path(os.path.expanduser(file)) for file in files), key=lambda path: path.suffix != ".json")
    if len(paths) != 2 or paths[0].suffix != ".json":
        raise CheckpointError("a pair of model files must be one .json configuration and one file of weights")
    missing = [path for path in paths if not os.path.isfile(path)]
    if missing:
        raise CheckpointError(f"{missing[0]}: no such file; give the configuration and the weights of one model")
    return Path(os.path.realpath(paths[1])).parent.name, (paths[0], paths[1])


def _folder_files(folder: Path) -> Files:
    config = _beside(folder / WEIGHTS, CONFIG)
    if read_folder(config) is not None:  # says itself which files it needs
        return config, config
    if (folder / WEIGHTS).is_file():
        return config, folder / WEIGHTS
    if (folder / PICKLE).is_file():
        raise CheckpointError(f"{folder}: {PICKLE} is a pickle, which is not read; save the model as {WEIGHTS}")
    found = [folder / name for name in OFFICIAL_WEIGHTS if (folder / name).is_file()] or sorted(folder.glob("*.pt"))
    if len(found) == 1:
        return config, found[0]
    if found:
        names = ", ".join(path.name for path in found)
        raise CheckpointError(f"{folder}: holds several weight files ({names}); give the one to load")
    raise CheckpointError(f"{folder}: no weights; a model folder holds {CONFIG} and {WEIGHTS} or SpeechTokenizer.pt")


def _is_transformers(config: Path) -> bool:
    """True for a configuration of ``transformers``; a damaged one is left to the reader of our own."""
    try:
        header = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(header, dict) and isinstance(header.get("model_type"), str) and "format" not in header


def _beside(path: Path, name: str) -> Path:
    """The file ``name`` in the folder of ``path``."""
    wanted = path.parent / name
    if wanted.is_file():
        return wanted
    below = sorted(str(found.parent) for found in path.parent.glob(f"*/{name}"))
    hint = f"did you mean {below[0]}?" if below else f"a model folder holds {CONFIG} and its weights"
    raise CheckpointError(f"{path.parent}: no {name} here; {hint}")


def located(folder: Path, reference: Any) -> str:
    """What ``load`` and teachers find ``reference`` under, which the configuration in ``folder`` names.

    A folder is looked for from there, never from where the program happens to run.

    Raises:
        CheckpointError: it is no folder there, and neither a bundled name nor a Hub id.
    """
    if not isinstance(reference, str) or not reference:
        raise CheckpointError(f"{folder}: its config.json names {reference!r} where a model belongs; restore it")
    inside = folder / reference
    if inside.is_dir():
        return str(inside)
    if reference in (bundled.name for bundled in _bundled_folders()):
        return reference
    if HUB_ID.fullmatch(reference) and not os.path.exists(reference):  # what lies here would be taken for the Hub's
        return reference
    raise CheckpointError(
        f"{folder}: its config.json names {reference!r}, which is no folder in there, no bundled name and no Hub id"
        f" that can be told from a folder here; fetch the whole model again"
    )


def _download(name: str) -> Path:
    """Fetch a model of the Hub into its cache, and only the files that a tokenizer needs."""
    organisation, repository, *rest = name.split("/")
    repository = f"{organisation}/{repository}"
    folder = "/".join(rest) or (HUB[repository].subfolder if repository in HUB else "")
    wanted = [f"{folder}/{file}".lstrip("/") for file in (CONFIG, WEIGHTS, PREPROCESSOR, *CARRIED, *OFFICIAL_WEIGHTS)]
    root = fetch(repository, wanted, name)
    _fetch_named(repository, name, root, folder, {folder})
    return root / folder


def _fetch_named(repository: str, name: str, root: Path, folder: str, seen: set[str]) -> None:
    """Fetch the folders of ``repository`` that the configuration in its ``folder`` names, and what those name."""
    described = read_folder(root / folder / CONFIG)
    for reference in described.references if described else ():
        inner = posixpath.normpath(posixpath.join(folder, reference))
        if inner in seen or inner.startswith(("..", "/")):
            continue
        seen.add(inner)
        fetch(repository, [f"{inner}/*.json", f"{inner}/*.txt", f"{inner}/{WEIGHTS}"], name)
        _fetch_named(repository, name, root, inner, seen)


def _bundled_folders() -> list[Path]:
    """The default first."""
    return sorted((path.parent for path in BUNDLED.glob(f"*/{CONFIG}")), key=lambda path: (path.name != DEFAULT, path))


def _bundled_entry(folder: Path) -> ModelEntry:
    """Read from the JSON itself, so that listing the models needs no torch."""
    other = read_folder(folder / CONFIG)
    if other is not None:
        return _kind_entry(other)
    header = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    codec = header["codec"]
    card = read_card(header["card"], codec["n_q"], folder / CONFIG)
    section = codec[codec["backbone"]]
    return ModelEntry(
        name=folder.name,
        scheme=card.scheme,
        bundled=True,
        sample_rate=codec["sample_rate"],
        hop=section["hop"] if "hop" in section else math.prod(section["strides"]),
        codebook_sizes=tuple(codec.get("quantizer", {}).get("sizes") or [codec["codebook_size"]] * codec["n_q"]),
        semantic_levels=card.semantic_levels,
        licence_code=card.licence_code,
        licence_weights=card.licence_weights or "not stated",
        verified=card.verified,
        description=card.description,
        causal=bool(section.get("causal")),
        conversion="voice" if codec.get("timbre") else "levels",
    )


def _kind_entry(folder: ModelFolder) -> ModelEntry:
    """A folder of units, soft, text or two-stage tokens; it is offered as bundled where its packages are installed."""
    shape, card = folder.shape, folder.card
    return ModelEntry(
        conversion="voice" if VOCODER in folder.section else "none",
        name=folder.name,
        scheme=card.scheme,
        bundled=folder.usable,
        sample_rate=shape["sample_rate"],
        hop=shape["hop"],
        codebook_sizes=tuple(shape["codebook_sizes"]),
        semantic_levels=card.semantic_levels,
        licence_code=card.licence_code,
        licence_weights=card.licence_weights or "not stated",
        verified=card.verified,
        description=card.description,
    )
