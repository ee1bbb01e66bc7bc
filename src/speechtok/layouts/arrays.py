"""Sequences of many utterances as one flat array on disk, to be memory-mapped by a trainer, and an index beside it.

``NAME.bin`` holds nothing but little-endian numbers, ``NAME.npy`` the same behind numpy's header. Steps of parallel
layouts are rows, ``[steps, Q]``, so that a slice along the first axis is a slice in time for every layout. The index,
``NAME.bin.json``, has the layout with its vocabulary, each utterance's id, first step and number of samples, and a
digest of the data.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from speechtok.checks import wholes
from speechtok.errors import ConfigError, OutputError, TokenError, TokenFileError
from speechtok.files import StrPath, atomic_path
from speechtok.layouts.base import Layout
from speechtok.layouts.jsonfile import read_json, require_format
from speechtok.layouts.saved import layout_from_dict, layout_to_dict
from speechtok.tokens import Tokens

FORMAT, VERSION = "speechtok.sequences", 1
SUFFIXES = (".bin", ".npy")
_HEADER = {".bin": 0, ".npy": 128}  # bytes before the numbers


@dataclass(frozen=True, eq=False)
class TokenArrays:
    """An opened file of sequences. ``array`` is read-only and memory-mapped, ``[steps]`` or ``[steps, Q]``."""

    layout: Layout
    array: np.ndarray
    ids: tuple[str, ...]
    offsets: np.ndarray
    """int64 ``[n + 1]``: utterance i has the steps ``offsets[i]`` to ``offsets[i + 1] - 1``."""
    num_samples: tuple[int, ...]
    timbres: tuple[np.ndarray | None, ...]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def seconds(self) -> float:
        """Duration of all audio."""
        return sum(self.num_samples) / self.layout.vocabulary.sample_rate

    def sequence(self, i: int) -> np.ndarray:
        """Utterance i as ``Layout.encode`` gave it, int64 ``[T]`` or ``[Q, T]``."""
        return self.array[self.offsets[i] : self.offsets[i + 1]].T.astype(np.int64)

    def tokens(self, i: int) -> Tokens:
        """Exactly the tokens that were written. Raises TokenFileError where the data do not hold them."""
        try:
            return self.layout.decode(self.sequence(i), num_samples=self.num_samples[i], timbre=self.timbres[i])
        except TokenError as error:
            raise TokenFileError(f"utterance {self.ids[i]!r} is damaged ({error}); write the file again") from error


def write_arrays(
    path: StrPath, layout: Layout, utterances: Iterable[tuple[str, Tokens]], *, bos: bool = True, eos: bool = True
) -> TokenArrays:
    """Write the sequences and their index, one utterance in memory at a time, and open them.

    The type is uint16 where the vocabulary has at most 65,536 ids, else uint32.

    Args:
        path: ends in ``.bin`` or ``.npy``; the index gets the same name and ``.json``.
        layout: what the sequences shall be.
        utterances: ids, each of its own, and tokens.
        bos: start each utterance with one.
        eos: end each with one.

    Raises:
        OutputError: another suffix, or a place that cannot be written.
        ConfigError: no utterance, two of one id, or a vocabulary beyond uint32.
        TokenFileError: tokens that do not fit the layout's vocabulary.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise OutputError(f"{path}: sequences go into files that end in {' or '.join(SUFFIXES)}; choose such a name")
    ids, offsets, num_samples, timbres = [], [0], [], []
    dtype, digest = _dtype(layout), hashlib.sha256()
    # The index takes its place right after the data, and its digest refuses data of another run.
    with atomic_path(index_path(path)) as index, atomic_path(path) as target, target.open("wb") as file:
        file.write(bytes(_HEADER[path.suffix]))
        for name, tokens in utterances:
            rows = np.ascontiguousarray(layout.encode(tokens, bos=bos, eos=eos).T, dtype)
            file.write(rows.data)
            digest.update(rows.data)
            ids.append(name)
            offsets.append(offsets[-1] + len(rows))
            num_samples.append(tokens.num_samples)
            timbres.append(None if tokens.timbre is None else tokens.timbre.tolist())
        _check_ids(ids)
        if path.suffix == ".npy":
            file.seek(0)
            file.write(_npy_header(dtype, _shape(layout, offsets[-1])))
        values = {
            "format": FORMAT, "version": VERSION, "dtype": dtype.str, "fingerprint": layout.vocabulary.fingerprint,
            "sha256": digest.hexdigest(), **layout_to_dict(layout), "ids": ids, "offsets": offsets,
            "num_samples": num_samples, "timbres": timbres,
        }  # fmt: skip
        index.write_text(json.dumps(values, ensure_ascii=False) + "\n", encoding="utf-8")
    return open_arrays(path, verify=False)


def open_arrays(path: StrPath, *, fingerprint: str | None = None, verify: bool = True) -> TokenArrays:
    """Open a file of sequences; only its index is held in memory.

    Args:
        path: the ``.bin`` or ``.npy`` file, whose index stands beside it.
        fingerprint: of the tokenizer whose codes are wanted; other files are refused.
        verify: read all data once to compare their digest.

    Raises:
        TokenFileError: a file is missing, damaged, foreign, too new, or of another tokenizer.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise TokenFileError(f"{path}: is no file of sequences; they end in {' or '.join(SUFFIXES)}")
    index = index_path(path)
    values = read_json(index)
    require_format(values, FORMAT, VERSION, str(index), "write it again with `speechtok layout`")
    layout = layout_from_dict(values, str(index), fingerprint)
    try:
        ids = tuple(str(one) for one in values["ids"])
        offsets = np.array(wholes("offsets", values["offsets"], 0), np.int64)
        num_samples = wholes("num_samples", values["num_samples"], 1)
        timbres = tuple(None if one is None else np.array(one, np.float32) for one in values["timbres"])
        sha256 = values["sha256"]
    except (TokenError, KeyError, TypeError, ValueError) as error:
        raise TokenFileError(f"{index}: lacks what an index has ({error}); write it again") from error
    rising = len(offsets) > 1 and offsets[0] == 0 and (np.diff(offsets) >= 0).all()
    if not rising or {len(num_samples), len(timbres), len(offsets) - 1} != {len(ids)}:
        raise TokenFileError(f"{index}: its lists do not fit each other; write it again")
    array = _mapped(path, layout, int(offsets[-1]))
    if verify and hashlib.sha256(array.data).hexdigest() != sha256:
        raise TokenFileError(f"{path}: damaged, or not what {index.name} describes; write it again")
    return TokenArrays(layout, array, ids, offsets, num_samples, timbres)


def _mapped(path: Path, layout: Layout, steps: int) -> np.ndarray:
    dtype, shape, skipped = _dtype(layout), _shape(layout, steps), _HEADER[path.suffix]
    try:
        due = skipped + dtype.itemsize * steps * layout.streams
        if os.stat(path).st_size != due:
            raise TokenFileError(f"{path}: has {os.stat(path).st_size} bytes and its index {due}; write it again")
        return np.memmap(path, dtype, "r", skipped, shape)
    except (OSError, ValueError) as error:
        raise TokenFileError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error


def index_path(path: Path) -> Path:
    """Where the index of a file of sequences stands: beside it, with ``.json`` after its name."""
    return path.with_name(f"{path.name}.json")


def _shape(layout: Layout, steps: int) -> tuple[int, ...]:
    return (steps, layout.streams) if layout.parallel else (steps,)


def _dtype(layout: Layout) -> np.dtype[Any]:
    size = layout.vocabulary.size
    if size > 1 << 32:
        raise ConfigError(f"a vocabulary of {size} ids does not fit 32 bits; take fewer levels")
    return np.dtype("<u2" if size <= 1 << 16 else "<u4")


def _npy_header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """Version 1.0 of numpy's format with a header of fixed length, written when the number of steps is known."""
    text = repr({"descr": dtype.str, "fortran_order": False, "shape": shape})
    length = _HEADER[".npy"] - 10
    return b"\x93NUMPY\x01\x00" + length.to_bytes(2, "little") + text.ljust(length - 1).encode() + b"\n"


def _check_ids(ids: list[str]) -> None:
    if not ids:
        raise ConfigError("there is no utterance to write; name at least one")
    if len(set(ids)) < len(ids):
        twice = next(name for name in ids if ids.count(name) > 1)
        raise ConfigError(f"two utterances have the id {twice!r}; give each its own")
