"""How much faster are several workers of ``speechtok tokenize`` than one?

    python benchmarks/workers.py --data MANIFEST.tsv --files 200 --workers 2 -o workers.json

The same recordings are tokenized by one worker and by several, in turns, into new folders each time. What is compared
is speed at work: seconds of audio per second, from the moment when every worker has done its first recording to the
last recording of all. So the start of the processes and the manifest at the end, which a long run does not notice, are
left out; the end, where one worker has nothing left and another still has a shard, is not. The whole time is told, too.

A worker uses more than one core: while the model computes, a thread reads, decodes and resamples the next recordings.
``cores_of_one`` says how many, processor time against the clock; on ``cores`` of them workers cannot be more than
cores / cores_of_one times as fast as one, and a light model leaves them less than a heavy one (``--official-size``).
Recordings should be many times longer than a start (LibriSpeech rather than
single words). Medians of the rounds. All folders must be equal byte for byte.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kill import chosen, tree
from official_size import official_size

from speechtok.bench.reconstruction import versions
from speechtok.errors import ConfigError, run_module
from speechtok.files import write_text_atomic
from speechtok.processes import ONE_THREAD, child_environment, usable_cores
from speechtok.tokenizers.checkpoint import save_codec

UNTRAINED = "SEANet of 104 M parameters"


def timed(source: Path, folder: Path, options: Sequence[str], workers: int) -> dict[str, float]:
    """One run: seconds of all of it, its speed at work, and the processor time of the processes together."""
    words = ["tokenize", str(source), "-o", str(folder), "--json", "--workers", str(workers), *options]
    command = [sys.executable, "-m", "speechtok", *words]
    started, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    seen: list[tuple[float, int, float]] = []  # when, by whom, seconds of audio
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=child_environment() | ONE_THREAD) as process:
        for line in process.stdout:
            event = json.loads(line)
            if event["event"] == "recording":
                seen.append((time.monotonic(), event["worker"], event["seconds"]))
    ended, after = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode not in (0, 2) or len({worker for _, worker, _ in seen}) < workers:
        raise ConfigError(
            f"{source}: a run ended with code {process.returncode} and {len(seen)} recordings; mend what it says above,"
            " or give more --files"
        )
    at_work = _at_work(seen, workers)
    return {
        "all": ended - started,
        "work": at_work[-1][0] - at_work[0][0],
        "speed": sum(seconds for _, _, seconds in at_work[1:]) / (at_work[-1][0] - at_work[0][0]),
        "processor": sum(getattr(after, name) - getattr(before, name) for name in ("ru_utime", "ru_stime")),
    }


def _at_work(seen: Sequence[tuple[float, int, float]], workers: int) -> Sequence[tuple[float, int, float]]:
    """Recordings from that one on by which every worker had done one."""
    known: set[int] = set()
    for number, (_, worker, _) in enumerate(seen):
        known.add(worker)
        if len(known) == workers:
            return seen[number:]
    return seen


def untrained(scratch: Path) -> Path:
    """A folder with a codec of SpeechTokenizer's size; its codebooks are random, which no speed depends on."""
    save_codec(official_size(fit=False), scratch / "codec")
    return scratch / "codec"


def compare(source: Path, options: Sequence[str], workers: int, rounds: int, scratch: Path) -> dict[str, Any]:
    """Figures by number of workers, and ratios of their medians."""
    found: dict[int, list[dict[str, float]]] = {1: [], workers: []}
    for turn in range(rounds):
        for count, runs in found.items():
            run = timed(source, scratch / f"{count}-{turn}", options, count)
            runs.append(run)
            print(f"{count} workers: {run['speed']:.0f} x real time at work, {run['all']:.1f} s in all, "
                  f"{run['processor']:.1f} s of processors", flush=True)  # fmt: skip
    trees = [tree(folder) for folder in scratch.glob("*-*")]
    middle = {
        count: {part: statistics.median(run[part] for run in runs) for part in runs[0]} for count, runs in found.items()
    }
    return {
        "workers": workers,
        "ratio_of_speed": middle[workers]["speed"] / middle[1]["speed"],
        "ratio_of_all": middle[1]["all"] / middle[workers]["all"],
        "cores_of_one": middle[1]["processor"] / middle[1]["all"],
        "identical": all(one == trees[0] for one in trees),
        "runs": {str(count): runs for count, runs in found.items()},
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code: 1 where a file differs."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="tab-separated manifest with the column path")
    parser.add_argument("--files", type=int, default=200, help="how many of its recordings, spread evenly")
    parser.add_argument("--workers", type=int, default=2, help="to be compared with one")
    parser.add_argument("--rounds", type=int, default=3)
    model = parser.add_mutually_exclusive_group()
    model.add_argument("--model", help="as for speechtok tokenize (default: the bundled model)")
    model.add_argument("--official-size", action="store_true", help="an untrained codec of SpeechTokenizer's size")
    parser.add_argument("--shard-size", type=int, default=8)
    parser.add_argument("-o", "--output", type=Path, help="JSON with the figures, settings and versions")
    options = parser.parse_args(arguments)
    if options.workers < 2 or options.rounds < 1:
        raise ConfigError("compare at least 2 workers with one, in at least 1 round")
    with tempfile.TemporaryDirectory() as scratch:
        model = untrained(Path(scratch)) if options.official_size else options.model
        words = ["--shard-size", str(options.shard_size), *(["--model", str(model)] if model else [])]
        source = chosen(options.data, options.files, Path(scratch))
        figures = compare(source, words, options.workers, options.rounds, Path(scratch))
    print(f"{options.workers} workers against one: {figures['ratio_of_speed']:.2f} times as fast at work, "
          f"{figures['ratio_of_all']:.2f} with their start; identical: {figures['identical']}")  # fmt: skip
    if options.output:
        settings = {name: getattr(options, name) for name in ("files", "rounds", "shard_size")}
        name = UNTRAINED if options.official_size else options.model or "the bundled model"
        settings |= {"model": name, "data": options.data.name, "cores": usable_cores()}
        document = {**figures, "settings": settings, "versions": versions()}
        write_text_atomic(options.output, json.dumps(document, indent=1) + "\n")
    return 0 if figures["identical"] else 1


if __name__ == "__main__":
    run_module(main)
