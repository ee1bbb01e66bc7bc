"""Folders of the tokenizers that are no codecs: ``config.json``, and ``model.safetensors`` where there are weights.

``config.json`` holds ``format``, ``version``, the ``kind`` (units, soft, text, two_stage), what a list of models
shows (``shape``), a section named like the kind, and a free ``card``. Nothing in such a folder is executed.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speechtok.errors import CheckpointError
from speechtok.files import make_folder, write_bytes_atomic, write_text_atomic
from speechtok.tokenizers.card import Card, read_card

if TYPE_CHECKING:
    from torch import Tensor

    from speechtok.tokenizers.base import Tokenizer

FORMAT, VERSION = "speechtok.tokenizer", 1
CONFIG, WEIGHTS = "config.json", "model.safetensors"
KINDS = {
    "units": "speechtok.tokenizers.units",
    "soft": "speechtok.tokenizers.soft",
    "text": "speechtok.tokenizers.text",
    "two_stage": "speechtok.tokenizers.two_stage",
}
"""The module of each kind; its ``from_folder(ModelFolder) -> Tokenizer`` reads it."""
CARRIED = (
    "bpe.json",
    *("teacher/config.json", "teacher/preprocessor_config.json", "teacher/model.safetensors"),
    *("vocoder/config.json", "vocoder/model.safetensors"),
)
"""Further files that such a folder may hold."""
VOCODER = "vocoder"
"""Folder inside that of units, and the entry of their section that names it."""
REFERENCES = ("model", "units", "codec")
"""Entries of a section that name other models."""
SHAPE = ("scheme", "sample_rate", "hop", "codebook_sizes", "semantic_levels")
"""What can be said of a tokenizer without loading it."""

_BEGUN: ContextVar[tuple[Path, ...]] = ContextVar("begun", default=())
"""Folders that are being loaded, outermost first."""


@dataclass(frozen=True)
class ModelFolder:
    """A folder whose ``config.json`` was read and is of this format."""

    path: Path
    name: str
    kind: str
    section: dict[str, Any]
    shape: dict[str, Any]
    card: Card
    requires: tuple[str, ...]
    """Packages that it needs and that an extra brings."""

    def tensors(self) -> dict[str, Tensor]:
        """The weights, in float32 where they are floating-point.

        Raises:
            CheckpointError: missing or damaged.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        place = self.path / WEIGHTS
        if not place.is_file():
            raise CheckpointError(f"{place}: no such file, and a folder of kind {self.kind!r} needs it; restore it")
        try:
            return {key: value.float() for key, value in load_file(place).items()}
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{place}: truncated, or not a safetensors file ({error}); restore it") from error

    def tensor(self, key: str, axes: int) -> Tensor:
        """One finite tensor of so many axes.

        Raises:
            CheckpointError: there is none of that name, or it is something else.
        """
        found = self.tensors().get(key)
        if found is None or found.ndim != axes or not found.numel() or not found.isfinite().all():
            raise CheckpointError(f"{self.path / WEIGHTS}: needs {key!r}, finite and with {axes} axes; restore it")
        return found

    @property
    def says(self) -> dict[str, str]:
        """``licence`` and ``note`` of the card, as every tokenizer takes them."""
        return {"licence": self.card.licence_weights or "not stated", "note": self.card.note}

    @property
    def references(self) -> list[str]:
        """Models that the section names, at any depth: folders, bundled names or Hub ids."""
        return list(_references(self.section))

    @property
    def usable(self) -> bool:
        """Whether the packages that it requires are installed."""
        return all(importlib.util.find_spec(package) for package in self.requires)


def read_folder(config: str | Path, name: str | None = None) -> ModelFolder | None:
    """The folder around ``config``, where this is of our format; None where it is anything else, such as a codec's.

    Raises:
        CheckpointError: it is of this format, and damaged, too new or of an unknown kind.
    """
    config = Path(config)
    try:
        header = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):  # who reads codecs says what is wrong with it
        return None
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        return None
    if header.get("version") != VERSION:
        raise CheckpointError(
            f"{config}: version {header.get('version')}, this release reads {VERSION}; upgrade speechtok"
        )
    kind = header.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise CheckpointError(f"{config}: kind {kind!r}; this release knows {', '.join(KINDS)}")
    parts = [header.get(part, {}) for part in (kind, "shape", "card")]
    if not all(isinstance(part, dict) for part in parts) or any(key not in parts[1] for key in SHAPE):
        raise CheckpointError(f"{config}: {kind}, shape and card must be mappings, the shape with {', '.join(SHAPE)}")
    section, shape, card = parts
    _check_shape(shape, config)
    told = {key: shape[key] for key in ("scheme", "semantic_levels")}
    checked = read_card(card | told, len(shape["codebook_sizes"]), config)
    requires = header.get("requires", [])
    if not isinstance(requires, list) or not all(isinstance(package, str) for package in requires):
        raise CheckpointError(f"{config}: requires must be a list of packages, not {requires!r}; restore it")
    folder = config.parent
    return ModelFolder(folder, name or folder.resolve().name, kind, section, shape, checked, tuple(requires))


def load_folder(folder: ModelFolder, device: str = "cpu") -> Tokenizer:
    """The tokenizer of a folder, on ``device``.

    Raises:
        CheckpointError: something that it needs is missing or damaged, or it names itself.
        ConfigError: the device cannot be used.
    """
    place, begun = folder.path.resolve(), _BEGUN.get()
    if place in begun:
        raise CheckpointError(f"{folder.path}: its config.json names, in the end, itself; name other models")
    token = _BEGUN.set((*begun, place))
    try:
        return importlib.import_module(KINDS[folder.kind]).from_folder(folder, device)
    finally:
        _BEGUN.reset(token)


def part_of(section: Mapping[str, Any], key: str, path: Path) -> dict[str, Any]:
    """The mapping ``key`` of a section of the configuration in the folder ``path``.

    Raises:
        CheckpointError: there is none, or it is something else.
    """
    part = section.get(key)
    if not isinstance(part, dict):
        raise CheckpointError(f"{path}: {key} in its config.json must be a mapping, not {part!r}; restore it")
    return part


def _references(section: Mapping[str, Any]) -> Iterator[str]:
    for key, value in section.items():
        if isinstance(value, dict):
            yield from _references(value)
        elif key in REFERENCES and isinstance(value, str):
            yield value


def _check_shape(shape: Mapping[str, Any], config: Path) -> None:
    """Raise CheckpointError unless the numbers of a shape are numbers; scheme and levels are checked with the card."""
    sizes = shape["codebook_sizes"]
    numbers = [shape["sample_rate"], *([] if shape["hop"] is None else [shape["hop"]])]
    numbers += sizes if isinstance(sizes, list) else [None]
    if any(type(number) is not int or number < 1 for number in numbers):
        raise CheckpointError(f"{config}: its shape must hold whole numbers above 0, hop may be null; restore it")


def write_folder(
    path: str | Path,
    kind: str,
    tokenizer: Tokenizer,
    section: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    card: Mapping[str, Any] | None = None,
    requires: Sequence[str] = (),
) -> None:
    """Write a folder that ``read_folder`` reads; older files of the same names are replaced.

    Args:
        path: made if missing.
        kind: one of ``KINDS``.
        tokenizer: whose shape, licence and note are told.
        section: what its module reads again.
        tensors: the weights, if any.
        card: what people should know. Plain JSON values.
        requires: packages that an extra brings.

    Raises:
        OutputError: it cannot be written.
    """
    folder = make_folder(path)
    if tensors:
        from safetensors.torch import save

        stored = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
        write_bytes_atomic(folder / WEIGHTS, save(stored, metadata={"format": FORMAT}))
    shape = {key: getattr(tokenizer, key) for key in SHAPE}
    card = {"licence_weights": tokenizer.licence, "note": tokenizer.note, **(card or {})}
    header = {"format": FORMAT, "version": VERSION, "kind": kind, "shape": shape, kind: dict(section), "card": card}
    header |= {"requires": list(requires)} if requires else {}
    write_text_atomic(folder / CONFIG, json.dumps(header, indent=2, ensure_ascii=False) + "\n")
