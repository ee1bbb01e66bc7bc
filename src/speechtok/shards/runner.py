"""The loop that makes missing shards: claim, make under a temporary name, rename.

A shard is a file whose content depends on its plan alone, so it does not matter which process makes it, how often it
was begun before, or whether two make it at once. A file under its final name is whole.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from speechtok.files import make_folder
from speechtok.shards.claims import Claims
from speechtok.shards.durable import remove_leftovers_of, write_durably

WAIT = 0.5
"""Seconds between looks at what other processes have claimed."""


def work_through(
    names: Sequence[str],
    folder: Path,
    suffix: str,
    make: Callable[[str, Path], object],
    claims: Claims,
    wait: float = WAIT,
) -> Iterator[str]:
    """Make every missing file ``folder / (name + suffix)``; yields the names of those made here.

    Names that other processes have claimed are waited for, and made here where those processes die. Nothing is left to
    do when the iteration ends.

    Args:
        make: writes the shard of a name into an empty file.

    Raises:
        OutputError: the folder cannot be written.
        SpeechtokError: whatever ``make`` raises; the shard is then left to be made again.
    """
    make_folder(folder)
    waiting = list(names)
    while waiting:
        taken = []
        for name in waiting:
            path = folder / f"{name}{suffix}"
            if path.exists():
                continue
            with claims.hold(name) as mine:
                if not mine:
                    taken.append(name)
                elif not path.exists():  # or it was made between the look and the claim
                    remove_leftovers_of(path)
                    write_durably(path, lambda temporary, name=name: make(name, temporary))
                    yield name
        if len(taken) == len(waiting):
            time.sleep(wait)
        waiting = taken
