"""Tar files as WebDataset reads them: ``KEY.codes.npy`` and ``KEY.json`` for every recording."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from speechtok.corpus.reader import TokenCorpus
from speechtok.errors import ConfigError
from speechtok.files import StrPath, atomic_folder
from speechtok.tokenfile import TokenValue

NAMES = {"speechtok.tokens": "codes", "speechtok.soft": "features", "speechtok.text": "ids"}


def write_webdataset(corpus: TokenCorpus, folder: StrPath, size: int = 1000) -> list[Path]:
    """Write ``000000.tar`` and so on, ``size`` recordings in each; returns them.

    A key is the id with ``_`` for every dot, because WebDataset ends keys at the first one. The JSON has the id itself,
    the carried columns and what ``Tokens`` has beside its codes; codes are ``[Q, N]`` in their smallest type. Equal
    corpora give equal bytes.

    Raises:
        ConfigError: two ids have one key.
        OutputError: the folder is not empty or cannot be written.
    """
    if size < 1:
        raise ConfigError(f"--size is {size}; give at least 1")
    keys: dict[str, str] = {}
    rows = corpus.rows()
    with atomic_folder(folder) as made:
        count = 0
        while part := list(islice(rows, size)):
            with tarfile.open(made / f"{count:06d}.tar", "w", format=tarfile.PAX_FORMAT) as tar:
                for name, tokens, columns in part:
                    for suffix, data in _files(corpus, name, tokens, columns):
                        _add(tar, f"{_key(name, keys)}.{suffix}", data)
            count += 1
    return sorted(Path(folder).glob("*.tar"))


def _key(name: str, keys: dict[str, str]) -> str:
    key = name.strip("/").replace(".", "_")
    if keys.setdefault(key, name) != name:
        raise ConfigError(f"the ids {keys[key]!r} and {name!r} have one key, {key}; rename one in the source")
    return key


def _files(corpus: TokenCorpus, name: str, tokens: TokenValue, columns: dict[str, Any]) -> Iterator[tuple[str, bytes]]:
    about = {"id": name, "num_samples": tokens.num_samples, **corpus.plan.header, **columns}
    for key in ("timbre", "times", "text"):
        value = getattr(tokens, key, None)
        if value is not None:
            about[key if key not in columns else f"heard_{key}"] = value.tolist() if hasattr(value, "tolist") else value
    yield f"{NAMES[corpus.plan.value]}.npy", _npy(tokens.payload.astype(corpus.plan.payload))
    yield "json", (json.dumps(about, ensure_ascii=False, sort_keys=True) + "\n").encode()


def _npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    tar.addfile(entry, io.BytesIO(data))
