"""Files that many processes write into one folder: whole or not at all, on the disk, and no leftovers of the killed.

A temporary file is named after its owner, so that any later process can tell whether somebody still writes it.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path

from speechtok.errors import OutputError
from speechtok.shards.claims import identity, is_alive, this_place

SUFFIX = ".tmp"


def write_durably(path: Path, make: Callable[[Path], object]) -> None:
    """Have ``make`` fill an empty file, which then becomes ``path``.

    Raises:
        OutputError: the place cannot be written.
    """
    with _temporary(path) as temporary:
        _fill(temporary, make)
        os.replace(temporary, path)
        _sync_folder(path.parent)


def create_durably(path: Path, make: Callable[[Path], object]) -> bool:
    """The same, unless there is such a file already: False then, and it stays as it is."""
    with _temporary(path) as temporary:
        _fill(temporary, make)
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        _sync_folder(path.parent)
        return True


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of processes that are gone from this machine."""
    for path in folder.glob(f".*{SUFFIX}"):
        if _is_orphan(path):
            path.unlink(missing_ok=True)


def remove_leftovers_of(path: Path) -> None:
    """Those of one file, for a caller who has its claim: other machines' too, for they have lost it."""
    for leftover in path.parent.glob(f".{path.name}.*{SUFFIX}"):
        if _is_orphan(leftover) or f".{_mark()}." not in leftover.name:
            leftover.unlink(missing_ok=True)


@contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    who = identity()
    owner = f"{_mark()}.{who['pid']}.{who['started']}.{secrets.token_hex(4)}"
    temporary = path.with_name(f".{path.name}.{owner}{SUFFIX}")
    try:
        temporary.touch(exist_ok=False)
        yield temporary
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(f"{path}: cannot be written: {reason}; make room or choose another place") from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def _fill(temporary: Path, make: Callable[[Path], object]) -> None:
    make(temporary)
    with temporary.open("rb") as file:
        os.fsync(file.fileno())


def _is_orphan(path: Path) -> bool:
    fields = path.name.split(".")[-5:-2]  # mark, process number, when it began
    return len(fields) == 3 and fields[0] == _mark() and fields[1].isdigit() and not is_alive(int(fields[1]), fields[2])


@lru_cache
def _mark() -> str:
    """This place in a few letters that file names may hold."""
    return hashlib.sha256(this_place().encode()).hexdigest()[:12]


def _sync_folder(folder: Path) -> None:
    """Bring a renaming to the disk, on systems where folders can be opened."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
