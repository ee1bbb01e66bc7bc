"""Which tokenizers there are, and how a name becomes one: bundled, a folder, official files, the Hub."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speechtok.errors import CheckpointError
from speechtok.tokens import nominal_bitrate

if TYPE_CHECKING:
    from speechtok.tokenizers.base import Tokenizer

DEFAULT = "speechtok-base"
BUNDLED = Path(__file__).parents[1] / "models"
CONFIG, WEIGHTS = "config.json", "model.safetensors"
OFFICIAL_WEIGHTS = ("SpeechTokenizer.pt", "ckpt.dev")
"""File names under which official SpeechTokenizer weights were published."""
MODEL_FORMAT = "speechtok.codec"
"""What the metadata of ``model.safetensors`` call it."""
SCHEMES = tuple("ABCDE")
FILE_SUFFIXES = (
    ".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".m4a", ".aac", ".aif", ".aiff", ".au", ".sph",
    ".safetensors", ".pt", ".pth", ".ckpt", ".bin", ".json", ".dev",
)  # fmt: skip
"""A name that ends so means a file of this machine, never a repository."""
HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*(/[\w-][\w.-]*)*")

Files = tuple[Path, Path]
"""A configuration and the weights that belong to it."""


@dataclass(frozen=True)
class ModelEntry:
    """One line of ``speechtok models``."""

    name: str
    scheme: str
    bundled: bool
    """True where it works without a network."""
    sample_rate: int
    hop: int
    codebook_sizes: tuple[int, ...]
    semantic_levels: tuple[int, ...]
    licence_code: str
    licence_weights: str
    verified: str
    """What was checked about this very model."""
    description: str

    @property
    def levels(self) -> int:
        """Number of code levels."""
        return len(self.codebook_sizes)

    @property
    def frame_rate(self) -> float:
        """Frames per second."""
        return self.sample_rate / self.hop

    @property
    def bitrate(self) -> float:
        """Bits per second of all levels, were every code equally likely."""
        return nominal_bitrate(self.frame_rate, self.codebook_sizes)

    def to_dict(self) -> dict[str, Any]:
        """Plain types, for JSON."""
        derived = {"levels": self.levels, "frame_rate": self.frame_rate, "bitrate": self.bitrate}
        return asdict(self) | derived


@dataclass(frozen=True)
class Card:
    """What the ``card`` of a configuration says, or what holds where it says nothing."""

    scheme: str = "E"
    semantic_levels: tuple[int, ...] = (0,)
    licence_code: str = "Apache-2.0"
    licence_weights: str = ""
    verified: str = "not stated"
    description: str = ""
    note: str = ""


@dataclass(frozen=True)
class HubModel:
    """A published model whose files lie in a subfolder of its repository."""

    entry: ModelEntry
    subfolder: str


_speechtokenizer = partial(
    ModelEntry,
    scheme="E",
    bundled=False,
    sample_rate=16000,
    hop=320,
    codebook_sizes=(1024,) * 8,
    semantic_levels=(0,),
    licence_code="Apache-2.0",
    licence_weights="not stated",
    verified="structure only: files of the same layout with random weights; the published ones were not run",
)
HUB = {
    model.entry.name: model
    for model in (
        HubModel(
            _speechtokenizer(
                name="fnlp/SpeechTokenizer",
                description="SpeechTokenizer, ELU, LibriSpeech, taught by the average of the HuBERT layers",
            ),
            "speechtokenizer_hubert_avg",
        ),
        HubModel(
            _speechtokenizer(
                name="fnlp/AnyGPT-speech-modules",
                description="SpeechTokenizer of AnyGPT, Snake activation, LibriSpeech and Common Voice",
            ),
            "speechtokenizer",
        ),
    )
}


def models() -> list[ModelEntry]:
    """The models known by name: bundled ones first, then published ones that are fetched from the Hub."""
    return [_bundled_entry(folder) for folder in _bundled_folders()] + [model.entry for model in HUB.values()]


def load(name: str | Path | Sequence[str | Path] | None = None, device: str = "cpu") -> Tokenizer:
    """Tokenizer by name or place, ready to use.

    Args:
        name: None for the bundled default; a name from ``models()``; a folder with ``config.json`` and
            ``model.safetensors`` or official ``*.pt`` weights; a pair of official files (configuration and
            weights, in any order); a Hub id ``org/name`` or ``org/name/subfolder``, fetched once and cached.
        device: where the model runs, such as ``cuda``.

    Raises:
        CheckpointError: no such model, it is damaged, or it cannot be fetched.
        ConfigError: the device cannot be used.
    """
    label, files = _find(DEFAULT if name is None else name)  # first: a wrong name need not wait for torch

    from speechtok.tokenizers.checkpoint import read_checkpoint
    from speechtok.tokenizers.codec import CodecTokenizer

    codec, header = read_checkpoint(*files)
    card = _card(header, codec.config.n_q, files[0])
    unstated = HUB[label].entry.licence_weights if label in HUB else "not stated"
    return CodecTokenizer(
        codec,
        label,
        scheme=card.scheme,
        semantic_levels=card.semantic_levels,
        licence=card.licence_weights or unstated,
        note=card.note,
        device=device,
    )


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
    if (folder / WEIGHTS).is_file():
        return config, folder / WEIGHTS
    found = [folder / name for name in OFFICIAL_WEIGHTS if (folder / name).is_file()] or sorted(folder.glob("*.pt"))
    if len(found) == 1:
        return config, found[0]
    if found:
        names = ", ".join(path.name for path in found)
        raise CheckpointError(f"{folder}: holds several weight files ({names}); give the one to load")
    raise CheckpointError(f"{folder}: no weights; a model folder holds {CONFIG} and {WEIGHTS} or SpeechTokenizer.pt")


def _beside(path: Path, name: str) -> Path:
    """The file ``name`` in the folder of ``path``."""
    wanted = path.parent / name
    if wanted.is_file():
        return wanted
    below = sorted(str(found.parent) for found in path.parent.glob(f"*/{name}"))
    hint = f"did you mean {below[0]}?" if below else f"a model folder holds {CONFIG} and its weights"
    raise CheckpointError(f"{path.parent}: no {name} here; {hint}")


def _download(name: str) -> Path:
    """Fetch a model of the Hub into its cache, and only the files that a tokenizer needs."""
    from huggingface_hub import snapshot_download

    organisation, repository, *rest = name.split("/")
    repository = f"{organisation}/{repository}"
    folder = "/".join(rest) or (HUB[repository].subfolder if repository in HUB else "")
    wanted = [f"{folder}/{file}".lstrip("/") for file in (CONFIG, WEIGHTS, *OFFICIAL_WEIGHTS)]
    try:
        return Path(snapshot_download(repository, allow_patterns=wanted)) / folder
    except Exception as error:  # the client's own, its HTTP library's and the system's errors share no base class
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(
            f"{name}: no such folder here, and it cannot be fetched from the Hugging Face Hub ({reason}); "
            f"connect to the network or give the folder of a downloaded copy"
        ) from None


def _card(card: Any, levels: int, config: Path) -> Card:
    """The card of ``config``, whose model has ``levels`` levels.

    Raises:
        CheckpointError: it says something that cannot be.
    """
    if not isinstance(card, dict):
        raise CheckpointError(f"{config}: its card must be a mapping; restore it")
    card = {field.name: card[field.name] for field in fields(Card) if field.name in card}
    semantic = card.pop("semantic_levels", [0])
    if not isinstance(semantic, list) or any(type(x) is not int or not 0 <= x < levels for x in semantic):
        raise CheckpointError(
            f"{config}: semantic_levels of its card must be a list of levels from 0 to {levels - 1}, not {semantic!r}"
        )
    wrong = [name for name, value in card.items() if not isinstance(value, str)]
    if wrong:
        raise CheckpointError(f"{config}: {wrong[0]} of its card must be text, not {card[wrong[0]]!r}")
    checked = Card(**card, semantic_levels=tuple(semantic))
    if checked.scheme not in SCHEMES:
        raise CheckpointError(f"{config}: scheme of its card must be one of A to E, not {checked.scheme!r}")
    return checked


def _bundled_folders() -> list[Path]:
    return sorted(path.parent for path in BUNDLED.glob(f"*/{CONFIG}"))


def _bundled_entry(folder: Path) -> ModelEntry:
    """Read from the JSON itself, so that listing the models needs no torch."""
    header = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    codec = header["codec"]
    card = _card(header["card"], codec["n_q"], folder / CONFIG)
    section = codec[codec["backbone"]]
    return ModelEntry(
        name=folder.name,
        scheme=card.scheme,
        bundled=True,
        sample_rate=codec["sample_rate"],
        hop=section["hop"] if "hop" in section else math.prod(section["strides"]),
        codebook_sizes=(codec["codebook_size"],) * codec["n_q"],
        semantic_levels=card.semantic_levels,
        licence_code=card.licence_code,
        licence_weights=card.licence_weights or "not stated",
        verified=card.verified,
        description=card.description,
    )
