"""Several processes that measure beside each other what tasks can divide; whoever started them concludes alone.

Each process has one thread and every so-many-th recording, and does nothing but fill the folder's cache. What fails
in one is left out there: the concluding process meets it again, and counts it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import speechtok
from speechtok.bench.suite.speech import Choice, choose_speech, speech_of
from speechtok.bench.tasks import TASKS, Options, Share, Speech, load_task
from speechtok.errors import run_module
from speechtok.processes import child_environment
from speechtok.tokenizers.base import Tokenizer


class Model(NamedTuple):
    """A tokenizer of the benchmark."""

    name: str
    """What the report calls it; empty for the name that it has itself."""
    place: str
    """What ``speechtok.load`` finds it under."""

    def loaded(self, load: Callable[..., Tokenizer], device: str) -> Tokenizer:
        """The tokenizer, under its name; raises whatever ``load`` does."""
        tokenizer = load(self.place, device=device)
        tokenizer.name = self.name or tokenizer.name
        return tokenizer


@dataclass
class Work:
    """What is measured, on what, and in which folder its cache lies."""

    models: Sequence[Model]
    tasks: Sequence[str]
    choice: Choice
    options: Options
    folder: Path
    also: Mapping[str, Path] = field(default_factory=dict)
    """Manifests of tasks that have one of their own."""

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self), default=str)

    @classmethod
    def from_json(cls, line: str) -> Work:
        """What ``to_json`` wrote."""
        read = json.loads(line)
        return cls(
            models=[Model(*pair) for pair in read["models"]],
            tasks=read["tasks"],
            choice=Choice(**{name: _path(value) if name in PATHS else value for name, value in read["choice"].items()}),
            options=Options(**{name: _tuple(value) for name, value in read["options"].items()}),
            folder=Path(read["folder"]),
            also={name: Path(place) for name, place in read["also"].items()},
        )

    def cache(self, task: str) -> Path:
        """Folder of a task's facts."""
        return self.folder / "cache" / task


PATHS = ("data", "phones")
"""Fields of a choice that are files."""


def shareable(tasks: Sequence[str]) -> list[str]:
    """Those that processes can divide."""
    return [name for name in tasks if hasattr(load_task(name), "prepare")]


def prepare_together(work: Work, processes: int) -> None:
    """Fill the cache in so many processes; they end with this one, however it ends.

    A process that ends early leaves its rest to be measured later, which is said in one line.
    """
    if not shareable(work.tasks):
        return
    workers: list[subprocess.Popen[bytes]] = []
    try:
        for number in range(processes):
            workers.append(_started(work, Share(number, processes)))
        for number, worker in enumerate(workers):
            if worker.wait():
                print(f"process {number + 1} of {processes} ended early; what it left is measured here", flush=True)
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
            worker.stdin.close()


def _started(work: Work, share: Share) -> subprocess.Popen[bytes]:
    environment = child_environment() | {"OMP_NUM_THREADS": "1"}
    if share.number:
        environment["TQDM_DISABLE"] = "1"  # one bar is enough
    command = [sys.executable, "-m", "speechtok.bench.suite.sharing", *map(str, share)]
    worker = subprocess.Popen(command, stdin=subprocess.PIPE, env=environment)
    try:
        worker.stdin.write(work.to_json().encode() + b"\n")
        worker.stdin.flush()
    except BrokenPipeError:  # it has ended already, which is seen when it is waited for
        pass
    return worker


def prepare_share(work: Work, share: Share, load: Callable[..., Tokenizer]) -> None:
    """What one process does."""
    speech, names = choose_speech(work.choice), shareable(work.tasks)
    for name in names:
        if TASKS[name].originals:
            _prepare(work, name, None, speech, share, work.options)
    for model in work.models:
        try:
            tokenizer = model.loaded(load, work.options.device)
        except Exception:  # the concluding process meets and counts it
            continue
        for name in names:
            _prepare(work, name, tokenizer, speech, share, replace(work.options, model=model.place))


def _prepare(
    work: Work, name: str, tokenizer: Tokenizer | None, speech: Speech, share: Share, options: Options
) -> None:
    if not share.number:
        print(f"{tokenizer.name if tokenizer else 'the recordings'}: {name}, {share.of} processes", flush=True)
    try:
        load_task(name).prepare(tokenizer, speech_of(speech, work.also.get(name)), work.cache(name), options, share)
    except Exception:  # see above
        return


def _path(value: str | None) -> Path | None:
    return None if value is None else Path(value)


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _end_with_parent() -> None:
    while os.read(sys.stdin.fileno(), 1):  # past Python's buffer, whose lock would disturb an orderly end
        pass
    os._exit(1)


def main() -> int:
    """One process, as ``prepare_together`` starts it: the share as arguments, the work as a line of standard input."""
    share, work = Share(*map(int, sys.argv[1:])), Work.from_json(sys.stdin.buffer.readline().decode())
    # Standard input stays open as long as the parent lives: an orphan would write beside the next run's processes.
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        prepare_share(work, share, speechtok.load)
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    run_module(main)
