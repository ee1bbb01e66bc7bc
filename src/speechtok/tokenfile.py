"""The file of one utterance's tokens, of whatever kind: a safetensors file that nothing can be hidden in.

Tensors in their smallest type, and text metadata: format (the kind of tokens), version, all other fields as JSON,
and a SHA-256 digest of all of it. Nothing in it is executed, and damage is refused, never repaired.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, BinaryIO, ClassVar, TypeVar

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from speechtok.errors import TokenError, TokenFileError
from speechtok.files import StrPath, atomic_path, refuse_special

_VERSION = 1
_MAX_HEADER = 1 << 20  # bytes; a real header has a few hundred
_DTYPE_NAMES = {
    "uint8": "U8", "uint16": "U16", "uint32": "U32", "uint64": "U64", "float16": "F16", "float32": "F32",
}  # fmt: skip
Tensors = dict[str, np.ndarray]
Value = TypeVar("Value", bound="TokenValue")


class TokenValue:
    """What every kind of tokens shares: a duration, a digest, equality by content, and a file.

    A frozen dataclass derives from it, names its ``FORMAT`` and the ``FIELDS`` of its header, and says what its
    ``_tensors`` are and how they are put together again.
    """

    FORMAT: ClassVar[str]
    FIELDS: ClassVar[tuple[str, ...]]
    num_samples: int
    sample_rate: int
    tokenizer: str
    fingerprint: str

    @property
    def seconds(self) -> float:
        """Duration of the audio that was encoded."""
        return self.num_samples / self.sample_rate

    @property
    def payload(self) -> np.ndarray:
        """What came out of the model, whatever it is called in this kind of tokens."""
        raise NotImplementedError

    @property
    def content(self) -> str:
        """How much of what this is, in a few words for people."""
        raise NotImplementedError

    @property
    def bitrate(self) -> float:
        """bit/s of the payload with fixed-length codes."""
        raise NotImplementedError

    def _tensors(self) -> Tensors:
        raise NotImplementedError

    @classmethod
    def _from_file(cls: type[Value], fields: dict[str, Any], tensors: Tensors) -> Value:
        raise NotImplementedError

    def _header(self) -> str:
        return json.dumps({name: getattr(self, name) for name in self.FIELDS}, sort_keys=True)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the content, in hexadecimal; the same for equal tokens on every machine."""
        return content_digest(self._header(), self._tensors())

    def __eq__(self, other: object) -> bool:
        return self.digest == other.digest if isinstance(other, type(self)) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.digest)

    def describe(self) -> dict[str, Any]:
        """Every field that is no array, and what follows from them, as plain types."""
        fields = {name: getattr(self, name) for name in self.FIELDS}
        fields = {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}
        return {
            "content": self.content,
            "seconds": self.seconds,
            "bitrate": self.bitrate,
            "samples": self.num_samples,
            **fields,
        }

    def save(self, path: StrPath) -> None:
        """Write the file, whole or not at all. Raises OutputError where the place cannot be written."""
        metadata = {"format": self.FORMAT, "version": str(_VERSION)}
        metadata |= {"header": self._header(), "sha256": self.digest}
        tensors = self._tensors()
        with atomic_path(path) as temporary, open(temporary, "wb") as file:
            file.write(_head(tensors, metadata))
            for tensor in tensors.values():
                file.write(np.ascontiguousarray(tensor, tensor.dtype.newbyteorder("<")))  # no copy where it is that

    @classmethod
    def load(cls: type[Value], path: StrPath) -> Value:
        """Read a file written by `save`; what it returns is what was saved. Raises TokenFileError as `load_any`."""
        return load_any(path, (cls,))


def load_any(path: StrPath, kinds: Sequence[type[Value]]) -> Value:
    """The tokens in a file, of whichever of ``kinds`` it holds.

    Raises TokenFileError in one line when the file is missing, cut, altered (digest), not a token file, of another
    kind, written by a newer release, or has an oversize header. Reads no more than the file holds, whatever its
    header says.
    """
    name = os.fspath(path)
    try:
        refuse_special(path)
        with open(path, "rb") as file:
            return _parsed(file, name, {kind.FORMAT: kind for kind in kinds})
    except FileNotFoundError:
        raise TokenFileError(f"{name}: no such file") from None
    except IsADirectoryError:
        raise TokenFileError(f"{name}: is a folder; name a token file") from None
    except (OSError, ValueError) as error:
        raise TokenFileError(f"{name}: cannot be read: {getattr(error, 'strerror', None) or error}") from error


def content_digest(header: str, tensors: Tensors) -> str:
    """SHA-256 over the JSON header and each tensor's name, type, shape and bytes."""
    total = hashlib.sha256(header.encode())
    for key in sorted(tensors):
        tensor = tensors[key]
        total.update(f"\n{key} {tensor.dtype.str} {tensor.shape}\n".encode())
        total.update(np.ascontiguousarray(tensor).data)
    return total.hexdigest()


def _parsed(file: BinaryIO, name: str, kinds: Mapping[str, type[Value]]) -> Value:
    metadata = _read_metadata(file, name)
    kind = metadata["format"]
    if kind not in kinds:
        raise TokenFileError(f"{name}: not a token file of speechtok ({kind!r}, and {' or '.join(kinds)} is wanted)")
    header, said = metadata.get("header"), metadata.get("sha256")
    file.seek(0)
    try:
        tensors = safetensors.numpy.load(file.read())
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise TokenFileError(f"{name}: truncated or damaged; encode the audio again ({error})") from error
    if not isinstance(header, str) or content_digest(header, tensors) != said:
        raise TokenFileError(f"{name}: damaged or altered after it was written; encode the audio again")
    try:
        return kinds[kind]._from_file(json.loads(header), tensors)
    except (TokenError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise TokenFileError(f"{name}: contradicts itself ({error}); encode the audio again") from error


def _read_metadata(file: BinaryIO, name: str) -> dict[str, Any]:
    """The header's metadata, known to be a token file's of this version."""
    foreign = f"{name}: not a token file of speechtok; make one with `speechtok encode`"
    size = os.fstat(file.fileno()).st_size
    prefix = file.read(8)
    length = int.from_bytes(prefix, "little")
    if size < 8 or length > size - 8:
        raise TokenFileError(f"{name}: truncated, or not a token file of speechtok; encode the audio again")
    if length > _MAX_HEADER:
        raise TokenFileError(f"{name}: refused: a header of {length} bytes, at most {_MAX_HEADER} are due")
    try:
        metadata = json.loads(file.read(length))["__metadata__"]
        kind, version = metadata["format"], int(metadata["version"])
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError):
        raise TokenFileError(foreign) from None
    if not isinstance(kind, str) or not kind.startswith("speechtok.") or version < 1:
        raise TokenFileError(foreign)
    if version > _VERSION:
        raise TokenFileError(f"{name}: version {version}, this release reads {_VERSION}; upgrade speechtok")
    return metadata


def _head(tensors: Tensors, metadata: dict[str, str]) -> bytes:
    """The head of a safetensors file, the same bytes for the same content: the library's writer shuffles metadata."""
    entries: dict[str, object] = {"__metadata__": metadata}
    end = 0
    for key, tensor in tensors.items():
        start, end = end, end + tensor.nbytes
        entries[key] = {"dtype": _DTYPE_NAMES[tensor.dtype.name], "shape": tensor.shape, "data_offsets": [start, end]}
    header = json.dumps(entries, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)  # the payload begins aligned
    return len(header).to_bytes(8, "little") + header
