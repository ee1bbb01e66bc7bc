"""Who works on what: claim files in a shared folder, which nobody has to clean up after a kill.

A claim is a small JSON file made exclusively (``O_EXCL``). It is stale when its process is gone, which can be seen on
the machine where it ran, or when it was not renewed for ``LEASE`` seconds, which can be seen from anywhere. Whoever
meets a stale claim takes it over.

Claims save work; they do not guard results. Should two processes ever hold one claim, on a file system that is late or
knows no locks, both make the same bytes under names of their own and rename them to the same place.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from speechtok.errors import OutputError

try:
    import fcntl
except ImportError:  # a system without it
    fcntl = None

LEASE = 60.0
"""Seconds after which a claim that was not renewed is stale."""
RENEWAL = 10.0
"""Seconds between renewals."""


class Claims:
    """The claims of this process in ``folder``, one at a time.

    Args:
        steal: take any claim over, for a caller who knows that nobody else works on what it asks for.
    """

    def __init__(self, folder: Path, steal: bool = False, lease: float = LEASE):
        self.folder, self.steal, self.lease = folder, steal, lease

    @contextmanager
    def hold(self, name: str) -> Iterator[bool]:
        """Whether ``name`` is ours within the body; renewed meanwhile and given back afterwards.

        Raises:
            OutputError: the folder cannot be written.
        """
        path = self.folder / name
        try:
            mine = self._take(path)
        except FileNotFoundError:  # somebody has just removed the empty folder: a later look
            mine = False
        except OSError as error:
            reason = error.strerror or str(error)
            raise OutputError(f"{path}: cannot be written: {reason}; make room or choose another place") from error
        if not mine:
            yield False
            return
        done = threading.Event()
        renewing = threading.Thread(target=_renew, args=(path, done), daemon=True, name=f"claim {name}")
        renewing.start()
        try:
            yield True
        finally:
            done.set()
            renewing.join()
            with suppress(OSError):
                path.unlink()

    def _take(self, path: Path) -> bool:
        self.folder.mkdir(parents=True, exist_ok=True)
        if _create(path):
            return True
        return self._may_be_taken(path) is not None and self._take_over(path)

    def _may_be_taken(self, path: Path) -> bytes | None:
        """The content of a claim that may be taken over, else None."""
        try:
            seen = path.read_bytes()
        except FileNotFoundError:  # given back since; a later look finds it free or its work done
            return None
        return seen if self.steal or self._is_stale(path, seen) else None

    def _take_over(self, path: Path) -> bool:
        # one at a time, who looks again: of two who judged the same claim, one would bury what the other has just made
        with _alone(self.folder):
            seen = self._may_be_taken(path)
            return seen is not None and _bury(path, seen) and _create(path)

    def _is_stale(self, path: Path, seen: bytes) -> bool:
        try:
            holder = json.loads(seen)
            place, process = holder["place"], (holder["pid"], holder["started"])
        except (ValueError, KeyError, TypeError):
            place = process = None  # made by a process that was killed before it could write; its age decides
        if place == this_place():
            return not is_alive(*process)
        return self._age(path) > self.lease

    def _age(self, path: Path) -> float:
        """Seconds since the renewal, by the clock of the file system: those of two machines may differ."""
        now = self.folder / f".{secrets.token_hex(8)}.now"
        try:
            now.touch()
            return now.stat().st_mtime - path.stat().st_mtime
        except FileNotFoundError:
            return 0.0
        finally:
            with suppress(OSError):
                now.unlink()


def identity() -> dict[str, Any]:
    """By which other processes can tell whether this one still runs."""
    return {"place": this_place(), "pid": os.getpid(), "started": _started(os.getpid())}


@lru_cache
def this_place() -> str:
    """Where process numbers mean the same: a boot of a machine, and a container on it."""
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    with suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)


def is_alive(pid: int, started: str) -> bool:
    """Whether the process of that number is still the one that began then; asked at its own place."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it runs, as another user
        pass
    return _started(pid) == started


def _started(pid: int) -> str:
    """When a process began, in the system's ticks; empty where the system does not say, or the process is dead."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """No other process is in such a body for this folder; on systems and file systems that know locks.

    The system gives a lock back when its process dies.
    """
    if fcntl is None:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _create(path: Path) -> bool:
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    except (FileExistsError, FileNotFoundError):  # or somebody has just removed the empty folder: a later look
        return False
    try:
        with os.fdopen(handle, "w") as file:
            json.dump(identity(), file)
    except OSError:  # a full disk: an empty claim would make others wait for its lease
        path.unlink(missing_ok=True)
        raise
    return True


def _bury(path: Path, seen: bytes) -> bool:
    """Remove a claim whose content was ``seen``; False where somebody else was faster.

    Only one process can rename a file. Where it turns out to be a newer claim than the one that was judged, it is put
    back, unless its place is taken by now.
    """
    grave = path.with_name(f".{secrets.token_hex(8)}.stale")
    try:
        os.rename(path, grave)
    except FileNotFoundError:
        return False
    try:
        if grave.read_bytes() == seen:
            return True
        with suppress(OSError):
            os.link(grave, path)
        return False
    finally:
        grave.unlink()


def _renew(path: Path, done: threading.Event) -> None:
    while not done.wait(RENEWAL):
        with suppress(OSError):
            os.utime(path)


def remove_stale(folder: Path, lease: float = LEASE) -> None:
    """Remove the claims that killed processes left, and the folder where nothing else is in it."""
    claims = Claims(folder, lease=lease)
    with suppress(OSError):
        for path in folder.iterdir():
            with suppress(FileNotFoundError):
                seen = path.read_bytes()
                old = path.suffix in (".now", ".stale") and time.time() - path.stat().st_mtime > lease
                if old or (not path.suffix and claims._is_stale(path, seen)):
                    _bury(path, seen)
        folder.rmdir()
