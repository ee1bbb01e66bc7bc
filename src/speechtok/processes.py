"""Python processes beside this one: the same packages, one thread each, and no life of their own."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def child_environment() -> dict[str, str]:
    """For a Python process that must find the same packages, however this one came to its path."""
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def usable_cores() -> int:
    """Processors that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def peak_memory() -> int:
    """The most bytes that this process has held in memory.

    On Linux by ``/proc``: what ``getrusage`` tells there begins at the size of the process that started this one.
    """
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread of torch within the body.

    Sums of floating-point numbers depend on how many threads share them. Where several processes, or machines, must
    come to the same bytes, that number is one for all of them.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def end_with_parent(source: BinaryIO) -> None:
    """End this process at once when ``source``, a pipe that its parent holds open and never writes to, is closed.

    The system closes the pipe however the parent ends, by SIGKILL too, so no worker goes on that nobody waits for.
    """

    def watch() -> None:
        source.read()
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="parent").start()
