"""Tokens as a value, and their file.

One utterance is one safetensors file: `codes` in the smallest unsigned type that holds the codebooks,
`timbre` where there is one, and text metadata: format, version, the other fields as JSON, and a SHA-256
digest of all of it. Nothing in it is executed, and damage is refused, never repaired.
"""

import hashlib
import json
import math
import operator
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import BinaryIO

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from speechtok.errors import TokenError, TokenFileError
from speechtok.files import StrPath, refuse_special, write_bytes_atomic

_FORMAT = "speechtok.tokens"
_VERSION = 1
_MAX_HEADER = 1 << 20  # bytes; a real header has a few hundred
_DTYPE_NAMES = {"uint8": "U8", "uint16": "U16", "uint32": "U32", "uint64": "U64", "float32": "F32"}
_FIELDS = (
    "codebook_sizes",
    "sample_rate",
    "hop",
    "num_samples",
    "semantic_levels",
    "tokenizer",
    "fingerprint",
    "first_level",
)


def nominal_bitrate(frame_rate: float, codebook_sizes: Sequence[int]) -> float:
    """bit/s of codes of fixed length: frame rate times the sum of log2(codebook size)."""
    return frame_rate * sum(math.log2(size) for size in codebook_sizes)


@dataclass(frozen=True, eq=False)
class Tokens:
    """The codes of one utterance and what is needed to understand and decode them.

    `codes` is int64 [Q, N], read-only: Q consecutive levels of the tokenizer, coarsest first, beginning with
    its level `first_level`; N frames, N == ceil(num_samples / hop). `codebook_sizes` has one entry per level
    present. `semantic_levels` are level numbers of the tokenizer (0 = its coarsest), each among those
    present. `timbre` is float32 [D] or None. Equal content makes equal, equally hashed values. Raises
    TokenError for a contradiction.
    """

    codes: np.ndarray
    codebook_sizes: tuple[int, ...]
    sample_rate: int
    hop: int
    num_samples: int
    semantic_levels: tuple[int, ...]
    tokenizer: str
    fingerprint: str
    first_level: int = 0
    timbre: np.ndarray | None = None

    def __post_init__(self) -> None:
        put = partial(object.__setattr__, self)  # the class is frozen
        for name, least in (("sample_rate", 1), ("hop", 1), ("num_samples", 1), ("first_level", 0)):
            put(name, _whole(name, getattr(self, name), least))
        put("codebook_sizes", _wholes("codebook_sizes", self.codebook_sizes, 1))
        put("semantic_levels", _wholes("semantic_levels", self.semantic_levels, 0))
        for name in ("tokenizer", "fingerprint"):
            if not isinstance(getattr(self, name), str):
                raise TokenError(f"{name} must be text, got {getattr(self, name)!r}")
        put("codes", self._checked_codes())
        self._check_semantic_levels()
        if self.timbre is not None:
            put("timbre", _checked_timbre(self.timbre))

    def _checked_codes(self) -> np.ndarray:
        codes = np.asarray(self.codes)
        if codes.ndim != 2 or codes.dtype.kind not in "iu":
            raise TokenError(f"codes must be whole numbers [Q, N], got {codes.dtype} of shape {codes.shape}")
        frames = -(-self.num_samples // self.hop)
        if not len(codes) or codes.shape != (len(self.codebook_sizes), frames):
            raise TokenError(
                f"codes {codes.shape} do not fit {len(self.codebook_sizes)} codebooks and {frames} frames"
                f" (ceil({self.num_samples} samples / hop {self.hop}))"
            )
        for level, (row, size) in enumerate(zip(codes, self.codebook_sizes, strict=True), self.first_level):
            if int(row.min()) < 0 or int(row.max()) >= size:
                raise TokenError(f"level {level}: codes {row.min()}..{row.max()} leave the codebook of {size}")
        return _frozen(codes, np.int64)

    def _check_semantic_levels(self) -> None:
        stop = self.first_level + self.levels
        levels = self.semantic_levels
        if list(levels) != sorted(set(levels)) or any(not self.first_level <= q < stop for q in levels):
            present = f"{self.first_level}..{stop - 1}"
            raise TokenError(f"semantic levels {levels} must rise within the levels present, {present}")

    @property
    def levels(self) -> int:
        """Q, the number of quantizer levels present."""
        return self.codes.shape[0]

    @property
    def frames(self) -> int:
        """N, the number of frames."""
        return self.codes.shape[1]

    @property
    def frame_rate(self) -> float:
        """Frames per second."""
        return self.sample_rate / self.hop

    @property
    def seconds(self) -> float:
        """Duration of the audio that was encoded."""
        return self.num_samples / self.sample_rate

    @property
    def bitrate(self) -> float:
        """bit/s of the levels present with fixed-length codes: frame rate times the sum of log2(codebook
        size).
        """
        return nominal_bitrate(self.frame_rate, self.codebook_sizes)

    @property
    def semantic(self) -> "Tokens":
        """Only the semantic levels. Raises TokenError where there is none, or they do not stand together."""
        return self._only(self.semantic_levels, "semantic")

    @property
    def acoustic(self) -> "Tokens":
        """All levels but the semantic ones. Raises TokenError as `semantic` does."""
        present = range(self.first_level, self.first_level + self.levels)
        return self._only([q for q in present if q not in self.semantic_levels], "acoustic")

    def take(self, k: int) -> "Tokens":
        """The first (coarsest) `k` of the levels present. Raises TokenError unless 1 <= k <= levels."""
        k = _whole("the number of levels", k, 1)
        if k > self.levels:
            raise TokenError(f"cannot take {k} levels of {self.levels}")
        return self._slice(0, k)

    def _only(self, levels: Sequence[int], kind: str) -> "Tokens":
        if not levels:
            raise TokenError(f"tokens of {self.tokenizer} hold no {kind} level")
        if levels[-1] - levels[0] + 1 != len(levels):
            raise TokenError(f"the {kind} levels {tuple(levels)} of {self.tokenizer} do not stand together")
        return self._slice(levels[0] - self.first_level, levels[-1] - self.first_level + 1)

    def _slice(self, start: int, stop: int) -> "Tokens":
        first, end = self.first_level + start, self.first_level + stop
        return replace(
            self,
            codes=self.codes[start:stop],
            codebook_sizes=self.codebook_sizes[start:stop],
            semantic_levels=tuple(q for q in self.semantic_levels if first <= q < end),
            first_level=first,
        )

    def __eq__(self, other: object) -> bool:
        return self.digest == other.digest if isinstance(other, Tokens) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        shape = f"{self.levels} x {self.frames}"
        return f"Tokens({self.tokenizer}, {shape}, {self.seconds:.3f} s, {self.bitrate:.0f} bit/s)"

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the content, in hexadecimal; the same for equal tokens on every machine."""
        return _digest(self._header(), self._tensors())

    def _header(self) -> str:
        return json.dumps({name: getattr(self, name) for name in _FIELDS}, sort_keys=True)

    def _tensors(self) -> dict[str, np.ndarray]:
        tensors = {"codes": self.codes.astype(_storage(max(self.codebook_sizes)))}
        if self.timbre is not None:
            tensors["timbre"] = self.timbre
        return tensors

    def save(self, path: StrPath) -> None:
        """Write the file, whole or not at all. Raises OutputError where the place cannot be written."""
        metadata = {"format": _FORMAT, "version": str(_VERSION)}
        metadata |= {"header": self._header(), "sha256": self.digest}
        write_bytes_atomic(path, _safetensors(self._tensors(), metadata))

    @classmethod
    def load(cls, path: StrPath) -> "Tokens":
        """Read a file written by `save`; what it returns is what was saved.

        Raises TokenFileError in one line when the file is missing, cut, altered (digest), not a token file,
        written by a newer release, or has an oversize header. Reads no more than the file holds, whatever its
        header says.
        """
        name = os.fspath(path)
        try:
            refuse_special(path)
            with open(path, "rb") as file:
                return _parsed(file, name)
        except FileNotFoundError:
            raise TokenFileError(f"{name}: no such file") from None
        except IsADirectoryError:
            raise TokenFileError(f"{name}: is a folder; name a token file") from None
        except (OSError, ValueError) as error:
            raise TokenFileError(f"{name}: cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _parsed(file: BinaryIO, name: str) -> Tokens:
    start, metadata = _read_metadata(file, name)
    header, said = metadata.get("header"), metadata.get("sha256")
    try:
        tensors = safetensors.numpy.load(start + file.read())
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise TokenFileError(f"{name}: truncated or damaged; encode the audio again ({error})") from error
    if not isinstance(header, str) or _digest(header, tensors) != said:
        raise TokenFileError(f"{name}: damaged or altered after it was written; encode the audio again")
    try:
        values = json.loads(header)
        fields = {key: values[key] for key in _FIELDS}
        return Tokens(codes=tensors["codes"], timbre=tensors.get("timbre"), **fields)
    except (TokenError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise TokenFileError(f"{name}: contradicts itself ({error}); encode the audio again") from error


def _read_metadata(file: BinaryIO, name: str) -> tuple[bytes, dict[str, object]]:
    """The header's bytes and its metadata, known to be a token file's of this version."""
    foreign = f"{name}: not a token file of speechtok; make one with `speechtok encode`"
    size = os.fstat(file.fileno()).st_size
    prefix = file.read(8)
    length = int.from_bytes(prefix, "little")
    if size < 8 or length > size - 8:
        raise TokenFileError(f"{name}: truncated, or not a token file of speechtok; encode the audio again")
    if length > _MAX_HEADER:
        raise TokenFileError(f"{name}: refused: a header of {length} bytes, at most {_MAX_HEADER} are due")
    header = file.read(length)
    try:
        metadata = json.loads(header)["__metadata__"]
        kind, version = metadata["format"], int(metadata["version"])
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError):
        raise TokenFileError(foreign) from None
    if kind != _FORMAT or version < 1:
        raise TokenFileError(foreign)
    if version > _VERSION:
        raise TokenFileError(f"{name}: version {version}, this release reads {_VERSION}; upgrade speechtok")
    return prefix + header, metadata


def _safetensors(tensors: dict[str, np.ndarray], metadata: dict[str, str]) -> bytes:
    """A safetensors file, the same bytes for the same content: the library's writer shuffles the metadata."""
    entries: dict[str, object] = {"__metadata__": metadata}
    payload = b""
    for key, tensor in tensors.items():
        little_endian = tensor.astype(tensor.dtype.newbyteorder("<")).tobytes()
        offsets = [len(payload), len(payload) + len(little_endian)]
        entries[key] = {
            "dtype": _DTYPE_NAMES[tensor.dtype.name],
            "shape": tensor.shape,
            "data_offsets": offsets,
        }
        payload += little_endian
    header = json.dumps(entries, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)  # the payload begins aligned
    return len(header).to_bytes(8, "little") + header + payload


def _digest(header: str, tensors: dict[str, np.ndarray]) -> str:
    """SHA-256 over the JSON header and each tensor's name, type, shape and bytes."""
    digest = hashlib.sha256(header.encode())
    for key in sorted(tensors):
        tensor = tensors[key]
        digest.update(f"\n{key} {tensor.dtype.str} {tensor.shape}\n".encode())
        digest.update(np.ascontiguousarray(tensor).data)
    return digest.hexdigest()


def _storage(codebook_size: int) -> type[np.unsignedinteger]:
    """The smallest unsigned type that holds every code of the largest codebook."""
    for dtype in (np.uint8, np.uint16, np.uint32):
        if codebook_size - 1 <= np.iinfo(dtype).max:
            return dtype
    return np.uint64


def _frozen(array: np.ndarray, dtype: type[np.generic]) -> np.ndarray:
    """A read-only contiguous array of `dtype`; the given one where it is that already, else a copy."""
    if array.dtype == dtype and array.flags.c_contiguous and not array.flags.writeable:
        return array
    copy = np.array(array, dtype, order="C")
    copy.flags.writeable = False
    return copy


def _checked_timbre(timbre: object) -> np.ndarray:
    array = np.asarray(timbre)
    if array.ndim != 1 or array.dtype.kind != "f" or not len(array):
        raise TokenError(f"timbre must be floating point [D], got {array.dtype} of shape {array.shape}")
    array = _frozen(array, np.float32)
    if not np.isfinite(array).all():
        raise TokenError("timbre holds NaN or infinite values")
    return array


def _whole(name: str, value: object, least: int) -> int:
    try:
        number = least - 1 if isinstance(value, bool) else operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = least - 1
    if number < least or number >= 2**63:
        raise TokenError(f"{name} must be a whole number of at least {least}, got {value!r}")
    return number


def _wholes(name: str, values: object, least: int) -> tuple[int, ...]:
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise TokenError(f"{name} must be a sequence of whole numbers, got {values!r}")
    return tuple(_whole(name, value, least) for value in values)
