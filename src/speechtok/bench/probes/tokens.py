"""Tokens of every utterance of a corpus, made once and kept, and the code vectors where tables may begin."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import Tensor
from tqdm import tqdm

from speechtok.audio import read
from speechtok.bench.facts import Item
from speechtok.bench.metrics import UNREADABLE
from speechtok.checks import smallest_type
from speechtok.errors import AudioError, ConfigError, NotSupportedError, SpeechtokError
from speechtok.files import make_folder, write_bytes_atomic
from speechtok.nn.quantizers.base import Quantizer
from speechtok.soft_tokens import SoftTokens
from speechtok.text_tokens import TextTokens
from speechtok.tokenizers.base import Tokenizer
from speechtok.tokenizers.codec import CodecTokenizer
from speechtok.tokenizers.two_stage import TwoStageTokenizer
from speechtok.tokenizers.units import Clusters, UnitTokenizer
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
    require_frames(tokenizer)
    shards = [items[first : first + SHARD] for first in range(0, len(items), SHARD)]
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


@torch.no_grad()
def code_vectors(tokenizer: Tokenizer, levels: int) -> list[Tensor]:
    """The vector of every code, ``[K, D]`` of each of the first ``levels`` levels.

    Raises:
        ConfigError: this kind of tokenizer does not show any.
    """
    if isinstance(tokenizer, UnitTokenizer) and isinstance(tokenizer.source, Clusters):
        return [tokenizer.source.centres]
    if isinstance(tokenizer, TwoStageTokenizer):
        first = code_vectors(tokenizer.units, min(levels, tokenizer.units.levels))
        rest = levels - len(first)
        return first + (code_vectors(tokenizer.codec, rest) if rest else [])
    quantizer = tokenizer.codec.quantizer if isinstance(tokenizer, CodecTokenizer) else None
    if not isinstance(quantizer, Quantizer):
        raise ConfigError(f"{tokenizer.name} shows no code vectors; set network.start=random")
    device = next(tokenizer.codec.parameters()).device
    every = [torch.arange(size, device=device)[None, None] for size in tokenizer.codebook_sizes[:levels]]
    return [quantizer.vectors(codes, level)[0, 0] for level, codes in enumerate(every)]
