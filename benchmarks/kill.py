"""Does a tokenization run survive kill -9 at random moments, again and again?

    python benchmarks/kill.py --data MANIFEST.tsv --files 500 --kills 100 -o kill.json

One run of ``speechtok tokenize`` is left alone. Another one, into a folder of its own, is killed (SIGKILL) and started
again so many times: three times of four while it works, else while it starts; every second time the parent process
alone, so that its workers, where it has any, are orphans when the next run begins. Where one comes to its end before
all kills are done, the rest of them disturb the next. In the end all files of all folders must be equal byte for byte,
with no id missing or twice.

The overhead is the wall time of all disturbed runs over that of as many undisturbed ones. Nearly all of it is
the start of a process, which is measured apart; ``redone`` is the share of the work that was done more than once.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import speechtok
from speechtok.bench.reconstruction import versions
from speechtok.errors import ConfigError, run_module
from speechtok.files import write_text_atomic
from speechtok.processes import ONE_THREAD, child_environment


@dataclass
class Run:
    """What one process did until it ended or was killed."""

    seconds: float
    recordings: list[str]
    worked: bool
    """Whether it came to its work."""
    code: int

    @property
    def killed(self) -> bool:
        """Or it ended by itself."""
        return self.code == -signal.SIGKILL


class Kill(NamedTuple):
    """When and what."""

    after: float
    """Seconds."""
    at_work: bool
    """Whether they count from the moment when work begins, or from the start of the process."""
    group: bool
    """The process with its workers, or alone."""


class Kills:
    """The experiment on one corpus.

    Args:
        source: a manifest, or whatever ``speechtok tokenize`` takes.
        options: further words of the command.
    """

    def __init__(self, source: Path, options: Sequence[str]):
        self.source, self.options = source, list(options)

    def run(self, folder: Path, kill: Kill | None = None) -> Run:
        """Run the command to its end, or until it is killed."""
        words = ["tokenize", str(self.source), "-o", str(folder), "--json", *self.options]
        command, environment = [sys.executable, "-m", "speechtok", *words], child_environment() | ONE_THREAD
        started = time.monotonic()
        with tempfile.TemporaryFile("w+", encoding="utf-8") as out:
            process = subprocess.Popen(command, stdout=out, start_new_session=True, env=environment)
            if kill is not None:
                _kill(process, kill, lambda: os.fstat(out.fileno()).st_size > 0)
            code = process.wait()
            seconds = time.monotonic() - started
            out.seek(0)
            events = [json.loads(line) for line in out if line.endswith("\n")]
        done = [event["id"] for event in events if event["event"] == "recording" and "failure" not in event]
        return Run(seconds, done, any(event["event"] == "start" for event in events), code)


def _kill(process: subprocess.Popen, kill: Kill, at_work: Callable[[], bool]) -> None:
    """SIGKILL at the moment that ``kill`` says, unless the process has ended by then."""
    while kill.at_work and not at_work() and process.poll() is None:
        time.sleep(0.005)
    try:
        process.wait(kill.after)
    except subprocess.TimeoutExpired:
        (os.killpg if kill.group else os.kill)(process.pid, signal.SIGKILL)


def tree(folder: Path) -> dict[str, bytes]:
    """Every file of a corpus and its bytes."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def measure(source: Path, options: Sequence[str], kills: int, seed: int, scratch: Path) -> dict[str, Any]:
    """The whole experiment; raises ConfigError where it cannot be made."""
    experiment, draws = Kills(source, options), random.Random(seed)
    left_alone = experiment.run(scratch / "undisturbed")
    nothing = experiment.run(scratch / "undisturbed")
    if {left_alone.code, nothing.code} - {0, 2}:
        raise ConfigError(f"{source}: the undisturbed run ended with code {left_alone.code}; mend what it says above")
    each = 2 * max(0.0, left_alone.seconds - nothing.seconds) / (kills + 1)
    starting = nothing.seconds
    runs, folders = [], [scratch / "disturbed-0"]
    while (done := sum(run.killed for run in runs)) < kills:
        at_work = done % 4 != 3
        moment = draws.uniform(0.0, each if at_work else starting)
        runs.append(experiment.run(folders[-1], Kill(moment, at_work, group=done % 2 == 0)))
        if runs[-1].killed:
            print(f"kill {done + 1} of {kills} after {runs[-1].seconds:.2f} s", flush=True)
        else:  # it was done before its moment came: sooner next time, and in a new folder
            each, starting = each / 2, starting / 2
            folders.append(scratch / f"disturbed-{len(folders)}")
    runs.append(experiment.run(folders[-1]))
    times = Counter(name for run in runs for name in run.recordings)
    one, others = tree(scratch / "undisturbed"), [tree(folder) for folder in folders]
    faults = [fault for folder in folders for fault in missing_or_twice(folder)]
    corpus, total = speechtok.open(folders[-1]), sum(run.seconds for run in runs)
    return {
        "recordings": len(corpus) + corpus.manifest["failures"],
        "audio_seconds": corpus.seconds,
        "shards": len(corpus.shards),
        "kills": sum(run.killed for run in runs),
        "kills_during_work": sum(run.killed and run.worked for run in runs),
        "corpora": len(folders),
        "identical": all(other == one for other in others),
        "files_compared": len(one) * len(others),
        "missing_or_twice": faults,
        "undisturbed_seconds": left_alone.seconds,
        "start_seconds": nothing.seconds,
        "disturbed_seconds": total,
        "overhead_seconds": total - len(folders) * left_alone.seconds,
        "overhead_per_kill_seconds": (total - len(folders) * left_alone.seconds) / kills,
        "redone": (sum(times.values()) - len(folders) * len(times)) / (len(folders) * len(times)),
        "kill_moments_seconds": [round(run.seconds, 3) for run in runs if run.killed],
    }


def missing_or_twice(folder: Path) -> list[str]:
    """Ids that shards and failures together have not exactly as often as the plan; checksums are compared, too."""
    corpus = speechtok.open(folder)
    corpus.verify()  # refuses an id that two rows have
    failed = [json.loads(line)["id"] for line in (folder / "failures.jsonl").read_text().splitlines()]
    planned = Counter(name for shard in corpus.plan.shards for name in shard.ids)
    found = Counter([*corpus.ids, *failed])
    return sorted({*(planned - found), *(found - planned)})


def chosen(manifest: Path, count: int, folder: Path) -> Path:
    """A manifest of ``count`` recordings spread evenly over another one, with absolute paths and the old ids."""
    try:
        header, *lines = manifest.read_text(encoding="utf-8").splitlines() or [""]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{manifest}: cannot read this manifest ({error}); give a tab-separated file") from error
    names = header.split("\t")
    if "path" not in names or not lines:
        raise ConfigError(f"{manifest}: is no tab-separated manifest with a column path")
    table = [dict(zip(names, line.split("\t"), strict=True)) for line in lines]
    rows = [table[i] for i in np.linspace(0, len(table) - 1, min(count, len(table))).astype(int)]
    for row in rows:
        row["id"] = row.get("id") or Path(row["path"]).with_suffix("").as_posix()
        row["path"] = str((manifest.parent / row["path"]).resolve())
    path = folder / "chosen.jsonl"
    write_text_atomic(path, "".join(json.dumps(row) + "\n" for row in rows))
    return path


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code: 1 where a file differs."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="tab-separated manifest with the column path")
    parser.add_argument("--files", type=int, default=500, help="how many of its recordings, spread evenly")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--model", help="as for speechtok tokenize (default: the bundled model)")
    parser.add_argument("--shard-size", type=int, default=8, help="small, so that a kill seldom finds a shard done")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("-o", "--output", type=Path, help="JSON with the figures, settings and versions")
    options = parser.parse_args(arguments)
    words = ["--shard-size", str(options.shard_size), "--workers", str(options.workers)]
    words += ["--model", options.model] if options.model else []
    with tempfile.TemporaryDirectory() as scratch:
        source = chosen(options.data, options.files, Path(scratch))
        figures = measure(source, words, options.kills, options.seed, Path(scratch))
    for name, value in figures.items():
        if name != "kill_moments_seconds":
            print(f"{name.replace('_', ' '):32} {value if not isinstance(value, float) else round(value, 3)}")
    if options.output:
        settings = {name: getattr(options, name) for name in ("files", "seed", "shard_size", "workers")}
        settings |= {"model": options.model or "the bundled model", "data": options.data.name}
        document = {**figures, "settings": settings, "versions": versions()}
        write_text_atomic(options.output, json.dumps(document, indent=1) + "\n")
    return 0 if figures["identical"] and not figures["missing_or_twice"] else 1


if __name__ == "__main__":
    run_module(main)
