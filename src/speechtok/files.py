"""Files: written so that a reader sees the old content or the new content, never half of it."""

import errno
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from speechtok.errors import OutputError

StrPath = str | os.PathLike[str]


@contextmanager
def atomic_path(path: StrPath) -> Iterator[Path]:
    """Yield an empty temporary file beside `path` to write into; it becomes `path` when the body succeeds.

    When the body fails, the temporary file is removed and whatever stood at `path` stays as it was. A link is
    written through; anything else that is not a regular file (a folder, a device) is refused.

    Raises OutputError for every OSError of the body or of the replacement: no such folder, no permission,
    read-only or full disk. Read inputs before entering, so that their errors are not taken for the output's.
    """
    temporary: Path | None = None
    try:
        target = Path(os.path.realpath(path))
        _refuse_unwritable(path, target)
        temporary = target.with_name(f".{secrets.token_hex(8)}.tmp")
        # Created here, exclusively and with the user's umask; tempfile's would be readable by the owner only.
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        yield temporary
        os.replace(temporary, target)
    except (OSError, ValueError) as error:
        # The only ValueError of ours is a name with a NUL character, which no file system holds.
        if isinstance(error, ValueError) and temporary is not None:
            raise
        reason = getattr(error, "strerror", None) or str(error)
        raise OutputError(f"{os.fspath(path)}: cannot be written: {reason}; choose another place") from error
    finally:
        if temporary is not None:
            with suppress(OSError):
                temporary.unlink()


@contextmanager
def atomic_folder(folder: StrPath) -> Iterator[Path]:
    """Yield an empty folder to fill; it becomes `folder`, new or empty so far, when the body succeeds.

    When the body fails, nothing is left of it. Raises OutputError: there is something in the folder already, or it
    cannot be written, in the body or here.
    """
    folder = Path(folder)
    if os.path.lexists(folder) and (not folder.is_dir() or any(folder.iterdir())):
        raise OutputError(f"{folder}: exists and is no empty folder; choose another place")
    make_folder(folder.parent)
    try:
        with tempfile.TemporaryDirectory(prefix=".", suffix=".tmp", dir=folder.parent) as scratch:
            made = Path(scratch) / folder.name
            made.mkdir()
            yield made
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(made, folder)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written: {error.strerror or error}; choose another place") from error


def write_bytes_atomic(path: StrPath, data: bytes) -> None:
    """Write `data` as the whole content of `path`; raises OutputError as `atomic_path` does."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_text_atomic(path: StrPath, text: str) -> None:
    """Write `text` in UTF-8, line ends untouched; raises OutputError as `atomic_path` does."""
    write_bytes_atomic(path, text.encode("utf-8"))


def make_folder(path: StrPath) -> Path:
    """Make a folder and those above it, where they are missing; raises OutputError where that is impossible."""
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the name
        reason = getattr(error, "strerror", None) or str(error)
        raise OutputError(f"{folder}: cannot make this folder: {reason}; choose another place") from error
    return folder


def refuse_special(path: StrPath) -> None:
    """Raise OSError for a pipe or device, before opening it for reading could wait for ever.

    Headers are read twice and sizes compared, which only a regular file allows.
    """
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise OSError(errno.EINVAL, "it is a pipe or device; save it to a file first")


def _refuse_unwritable(path: StrPath, target: Path) -> None:
    # os.replace would put a regular file in the place of /dev/null, or of one its owner marked read-only.
    if target.is_dir():
        raise OutputError(f"{os.fspath(path)}: is a folder; name a file inside it")
    if target.exists() and not target.is_file():
        raise OutputError(f"{os.fspath(path)}: is a device or pipe, not a regular file; name a regular file")
    if target.exists() and not os.access(target, os.W_OK):
        raise OutputError(f"{os.fspath(path)}: is read-only; make it writable or choose another name")
    if not target.parent.is_dir():
        raise OutputError(f"{os.fspath(path)}: there is no folder {target.parent}; create it first")
