"""Tokens of every utterance of a corpus, made once and kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from tqdm import tqdm

from speechtok.audio import read
from speechtok.bench.facts import Item
from speechtok.bench.metrics import UNREADABLE
from speechtok.bench.tasks import EVERYTHING, Share
from speechtok.checks import smallest_type
from speechtok.errors import AudioError, NotSupportedError, SpeechtokError
from speechtok.files import make_folder, write_bytes_atomic
from speechtok.soft_tokens import SoftTokens
from speechtok.text_tokens import TextTokens
from speechtok.tokenizers.base import Tokenizer
from speechtok.tokens import nominal_bitrate

CODE_VERSION = 1
"""Raised whenever the files of the cache change."""
SHARD = 64
"""Utterances of a file, and what a kill can lose."""

Found = np.ndarray | str
"""What was asked for, or why there is none."""


def require_frames(tokenizer: Tokenizer) -> None:
    """Refuse text tokens.

    Raises:
        NotSupportedError: they are no frames in time.
    """
    if issubclass(tokenizer.value, TextTokens):
        raise NotSupportedError(f"{tokenizer.name} gives text, which has no frames for a probe to read")


def token_rows(tokenizer: Tokenizer, items: Sequence[Item], cache: str | Path) -> list[Found]:
    """Codes ``[N, Q]`` of all levels, or features ``[N, D]`` of soft tokens, of every utterance, in order.

    What ``cache`` holds about these bytes and this tokenizer is not made again.

    Raises:
        NotSupportedError: text tokens.
        OutputError: the cache cannot be written.
    """
    return make_tokens(tokenizer, items, cache, EVERYTHING)


def make_tokens(tokenizer: Tokenizer, items: Sequence[Item], cache: str | Path, share: Share) -> list[Found]:
    """The same for a share of the files of the cache, so that several processes can fill it.

    Raises:
        as ``token_rows``.
    """
    require_frames(tokenizer)
    shards = share.take([items[first : first + SHARD] for first in range(0, len(items), SHARD)])
    bar = tqdm(shards, desc=f"tokens of {tokenizer.name}", unit="shard", disable=None)
    return [one for shard in bar for one in _shard(tokenizer, shard, Path(cache))]


def _shard(tokenizer: Tokenizer, items: Sequence[Item], cache: Path) -> list[Found]:
    about = [CODE_VERSION, tokenizer.fingerprint, [item.key for item in items]]
    path = cache / f"tokens-{hashlib.sha256(json.dumps(about).encode()).hexdigest()[:16]}.safetensors"
    try:
        return _load(path)
    except (OSError, SafetensorError):  # none yet
        pass
    found = [_encoded(tokenizer, item) for item in items]
    tensors = {str(i): one for i, one in enumerate(found) if not isinstance(one, str)}
    failures = {str(i): one for i, one in enumerate(found) if isinstance(one, str)}
    make_folder(cache)
    write_bytes_atomic(path, save(tensors, {"failures": json.dumps(failures)}))
    return found


def _load(path: Path) -> list[Found]:
    with safe_open(path, framework="numpy") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        found = tensors | json.loads(file.metadata()["failures"])
    return [found[str(i)] for i in range(len(found))]


def _encoded(tokenizer: Tokenizer, item: Item) -> Found:
    try:
        audio = read(item.utterance.path)
    except AudioError:
        return UNREADABLE
    try:
        tokens = tokenizer.encode(audio)
    except SpeechtokError as error:
        return f"{tokenizer.name} cannot encode it: {error}"
    if isinstance(tokens, SoftTokens):
        return np.ascontiguousarray(tokens.features)
    return np.ascontiguousarray(tokens.codes.T.astype(smallest_type(max(tokenizer.codebook_sizes) - 1)))


def bitrate_of(tokenizer: Tokenizer, levels: int | None) -> float:
    """Nominal bit/s of the first ``levels`` levels; of soft tokens (None), of their numbers as they are stored."""
    if levels is None or levels == tokenizer.levels:
        return tokenizer.bitrate
    return nominal_bitrate(tokenizer.frame_rate, tokenizer.codebook_sizes[:levels])
