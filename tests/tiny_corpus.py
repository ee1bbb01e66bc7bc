"""A small corpus on disk with a small model, and the command that tokenizes it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import speechtok
from speechtok.corpus.plan import Cut, Settings
from speechtok.corpus.run import Means, Order, tokenize
from speechtok.processes import child_environment
from tiny import signal

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = child_environment() | {"OMP_NUM_THREADS": "1"}


def make_sounds(folder: Path, count: int = 10, bad: bool = True) -> Path:
    """``count`` signals of 0.2 to 0.5 s in two folders below ``folder``, and a file without sound; gives ``folder``."""
    for i in range(count):
        path = folder / ("ab"[i % 2]) / f"{i:02d}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        speechtok.write(path, signal(0.2 + 0.03 * (i % 10), seed=i))
    if bad:
        (folder / "a" / "broken.wav").write_bytes(b"RIFF no sound at all")
    return folder


def order(source: Path, folder: Path, model: Path | None = None, size: int = 3, **options) -> Order:
    """An order with shards of ``size`` recordings in this very process."""
    means = Means(**{"workers": 1, **{name: options.pop(name) for name in ("workers", "ray") if name in options}})
    settings = Settings(options.pop("levels", None), options.pop("batch", 1))
    return Order(source, folder, model, settings=settings, cut=Cut(size), means=means, **options)


def run(source: Path, folder: Path, tokenizer, **options) -> dict:
    """Tokenize with a tokenizer in memory; returns the manifest."""
    return tokenize(order(source, folder, **options), lambda event: None, lambda *_, **__: tokenizer)


def start(source: Path, folder: Path, model: Path, *options: object) -> subprocess.Popen:
    """The command in a process and a group of its own."""
    words = ["tokenize", source, "-o", folder, "--model", model, "--shard-size", 2, "--json", *options]
    command = [sys.executable, "-m", "speechtok", *map(str, words)]
    return subprocess.Popen(
        command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder and its bytes."""
    return {os.path.relpath(path, folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
