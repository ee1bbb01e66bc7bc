"""Folders of the chain's models: ``config.json`` (format, shape, tokens they were trained on) and their weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import nn

from speechtok.chain.text import TEXT, TextVocabulary, read_vocabulary
from speechtok.errors import CheckpointError, ConfigError, OutputError
from speechtok.files import make_folder, write_bytes_atomic, write_text_atomic
from speechtok.tokenizers.base import Tokenizer
from speechtok.tokenizers.folder import CONFIG, WEIGHTS

VERSION = 1
Model = TypeVar("Model", bound=nn.Module)


def tokens_section(tokenizer: Tokenizer) -> dict[str, str]:
    """What a header says under ``tokens``: whose codes a model was trained on."""
    return {"tokenizer": tokenizer.name, "fingerprint": tokenizer.fingerprint}


def known_tokenizer(header: dict[str, Any], folder: str | Path, load: Callable[[str], Tokenizer]) -> Tokenizer:
    """The tokenizer whose codes the model of ``folder`` knows, by the name in its header.

    Raises:
        CheckpointError: the name does not lead to it, such as that of a tokenizer's folder elsewhere.
    """
    own = header["tokens"]
    try:
        return load(own["tokenizer"])
    except CheckpointError as error:
        raise CheckpointError(
            f"{folder}: was trained on codes of {own['tokenizer']!r} ({own['fingerprint']}), which cannot be loaded by"
            " that name; name the tokenizer's folder with --tokenizer or tokenizer="
        ) from error


def require_tokens(header: dict[str, Any], tokenizer: Tokenizer, folder: str | Path) -> None:
    """Raise CheckpointError where the model of a folder was trained on other codes than ``tokenizer`` makes."""
    own = header["tokens"]
    if own["fingerprint"] != tokenizer.fingerprint:
        raise CheckpointError(
            f"{folder}: was trained on codes of {own['tokenizer']} ({own['fingerprint']}), not of {tokenizer.name}"
            f" ({tokenizer.fingerprint}); load it with the tokenizer that it knows, or train it on this one's codes"
        )


def digest_of(folder: str | Path) -> str:
    """By which the weights of a model's folder are known again.

    Raises:
        CheckpointError: they cannot be read.
    """
    try:
        return hashlib.sha256((Path(folder) / WEIGHTS).read_bytes()).hexdigest()[:16]
    except OSError as error:
        raise CheckpointError(f"{folder}: has no {WEIGHTS} ({error.strerror}); name the folder of a model") from error


def save_model(
    model: nn.Module, folder: str | Path, kind: str, header: dict[str, Any], dtype: torch.dtype = torch.float32
) -> None:
    """Write a folder that ``load_model`` reads; older files of the same names are replaced.

    Args:
        kind: of model, such as ``speechtok.t2s``.
        header: what ``config.json`` says beside that, JSON values.
        dtype: of the weights on disk.

    Raises:
        OutputError: the folder cannot be written, or a weight is too large for ``dtype``.
    """
    place = make_folder(folder)
    state = {key: value.detach().cpu().to(dtype).contiguous() for key, value in model.state_dict().items()}
    for key, value in state.items():
        if not value.isfinite().all():
            raise OutputError(f"{folder}: {key} is not finite in {dtype}; save it as float32, or train it again")
    write_bytes_atomic(place / WEIGHTS, to_bytes(state, metadata={"format": kind}))
    about = {"format": kind, "version": VERSION} | header
    write_text_atomic(place / CONFIG, json.dumps(about, indent=2, ensure_ascii=False) + "\n")


def save_with_text(
    model: nn.Module,
    vocabulary: TextVocabulary,
    folder: str | Path,
    kind: str,
    tokens: dict[str, str],
    card: dict[str, Any] | None = None,
    dtype: torch.dtype = torch.float32,
) -> None:
    """A model with a ``config``, and the vocabulary that it reads or writes, as ``load_with_text`` finds them.

    Args:
        tokens: what ``tokens_section`` says of the tokenizer.
        card: what people should know, JSON values.

    Raises:
        OutputError: it cannot be written.
    """
    header = {"network": asdict(model.config), "text": vocabulary.digest, "tokens": tokens, "card": card or {}}
    save_model(model, folder, kind, header, dtype)
    write_text_atomic(Path(folder) / TEXT, vocabulary.to_json())


def load_with_text(
    folder: str | Path, kind: str, build: Callable[[dict[str, Any]], Model], symbols: Callable[[Model], int]
) -> tuple[Model, TextVocabulary, dict[str, Any]]:
    """Model in evaluation mode, its text vocabulary and its header (``tokens``, ``card``).

    Args:
        symbols: how many of them a model knows.

    Raises:
        CheckpointError: something is missing, damaged, foreign or does not fit.
    """
    model, header = load_model(folder, kind, build)
    vocabulary = read_vocabulary(folder)
    if (vocabulary.digest, vocabulary.size) != (header.get("text"), symbols(model)):
        raise CheckpointError(f"{Path(folder) / TEXT}: is not the vocabulary of this model; restore both together")
    return model, vocabulary, header


def load_model(folder: str | Path, kind: str, build: Callable[[dict[str, Any]], Model]) -> tuple[Model, dict[str, Any]]:
    """A model in evaluation mode and float32, and its header.

    Args:
        build: makes the model of a header, with any weights.

    Raises:
        CheckpointError: something is missing, damaged, foreign or does not fit.
    """
    place = Path(folder)
    header = read_header(place, kind)
    try:
        model = build(header)
        state = {key: value.float() for key, value in load_file(place / WEIGHTS).items()}
        if not all(value.isfinite().all() for value in state.values()):
            raise ValueError("a weight is not finite")
        model.load_state_dict(state)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError, ConfigError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{folder}: is no whole model ({reason}); restore it or train it again") from error
    return model.float().eval(), header


def read_header(folder: str | Path, kind: str) -> dict[str, Any]:
    """What ``config.json`` says of a model of this kind.

    Raises:
        CheckpointError: it is missing, damaged, foreign, or newer than this release.
    """
    path = Path(folder) / CONFIG
    try:
        header = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: cannot be read as JSON ({error}); name the folder of a {kind} model") from error
    if not isinstance(header, dict) or header.get("format") != kind:
        raise CheckpointError(f"{path}: is no configuration of a {kind} model; name the folder of one")
    if header.get("version") != VERSION:
        raise CheckpointError(
            f"{path}: version {header.get('version')}, this release reads {VERSION}; upgrade speechtok"
        )
    tokens = header.get("tokens")
    if not isinstance(tokens, dict) or not all(isinstance(tokens.get(k), str) for k in ("tokenizer", "fingerprint")):
        raise CheckpointError(f"{path}: does not say whose codes its model knows; restore it or train the model again")
    return header
