"""Checks of the fields of token values, and arrays that nobody can change."""

import operator
from collections.abc import Sequence

import numpy as np

from speechtok.errors import TokenError


def smallest_type(largest: int) -> type[np.unsignedinteger]:
    """The smallest unsigned type that holds ``largest``."""
    for dtype in (np.uint8, np.uint16, np.uint32):
        if largest <= np.iinfo(dtype).max:
            return dtype
    return np.uint64


def frozen(array: np.ndarray, dtype: type[np.generic]) -> np.ndarray:
    """A read-only contiguous array of ``dtype``; the given one where it is that already, else a copy."""
    if array.dtype == dtype and array.flags.c_contiguous and not array.flags.writeable:
        return array
    copy = np.array(array, dtype, order="C")
    copy.flags.writeable = False
    return copy


def whole(name: str, value: object, least: int) -> int:
    """``value`` as an int of at least ``least`` that fits 63 bits. Raises TokenError."""
    try:
        number = least - 1 if isinstance(value, bool) else operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = least - 1
    if number < least or number >= 2**63:
        raise TokenError(f"{name} must be a whole number of at least {least}, got {value!r}")
    return number


def wholes(name: str, values: object, least: int) -> tuple[int, ...]:
    """A sequence of such numbers. Raises TokenError."""
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise TokenError(f"{name} must be a sequence of whole numbers, got {values!r}")
    return tuple(whole(name, value, least) for value in values)


def text(name: str, value: object) -> str:
    """``value``, known to be a string. Raises TokenError."""
    if not isinstance(value, str):
        raise TokenError(f"{name} must be text, got {value!r}")
    return value
