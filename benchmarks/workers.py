"""How much faster are several workers of ``speechtok tokenize`` than one?

    python benchmarks/workers.py --data MANIFEST.tsv --files 300 --workers 2 -o workers.json

The same recordings are tokenized by one worker and by several, in turns, into new folders each time. The time counts
from the first recording that is done to the end, so that the start of the processes, which a long run does not notice,
is left out; the whole time is told, too. Medians of the rounds. All folders must be equal byte for byte.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kill import chosen, tree

from speechtok.bench.reconstruction import versions
from speechtok.errors import ConfigError, run_module
from speechtok.files import write_text_atomic
from speechtok.processes import ONE_THREAD, child_environment, usable_cores


def timed(source: Path, folder: Path, options: Sequence[str]) -> dict[str, float]:
    """Seconds of one run: all of it, and from the first recording on."""
    words = ["tokenize", str(source), "-o", str(folder), "--json", *options]
    command = [sys.executable, "-m", "speechtok", *words]
    started = time.monotonic()
    first = None
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=child_environment() | ONE_THREAD) as process:
        for line in process.stdout:
            if first is None and json.loads(line)["event"] == "recording":
                first = time.monotonic()
    if process.returncode not in (0, 2) or first is None:
        raise ConfigError(f"{source}: a run ended with code {process.returncode}; mend what it says above")
    ended = time.monotonic()
    return {"all": ended - started, "work": ended - first}


def compare(source: Path, options: Sequence[str], workers: int, rounds: int, scratch: Path) -> dict[str, Any]:
    """Seconds by number of workers, and the ratios of their medians."""
    times: dict[int, list[dict[str, float]]] = {1: [], workers: []}
    for turn in range(rounds):
        for count, found in times.items():
            found.append(timed(source, scratch / f"{count}-{turn}", [*options, "--workers", str(count)]))
            print(f"{count} workers: {found[-1]['work']:.1f} s of work, {found[-1]['all']:.1f} s in all", flush=True)
    trees = [tree(folder) for folder in scratch.glob("*-*")]
    middle = {count: {part: statistics.median(one[part] for one in found) for part in ("work", "all")}
              for count, found in times.items()}  # fmt: skip
    return {
        "workers": workers,
        "ratio_of_work": middle[1]["work"] / middle[workers]["work"],
        "ratio_of_all": middle[1]["all"] / middle[workers]["all"],
        "identical": all(one == trees[0] for one in trees),
        "seconds": {str(count): found for count, found in times.items()},
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code: 1 where a file differs."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="tab-separated manifest with the column path")
    parser.add_argument("--files", type=int, default=300, help="how many of its recordings, spread evenly")
    parser.add_argument("--workers", type=int, default=2, help="to be compared with one")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", help="as for speechtok tokenize (default: the bundled model)")
    parser.add_argument("--shard-size", type=int, default=8)
    parser.add_argument("-o", "--output", type=Path, help="JSON with the figures, settings and versions")
    options = parser.parse_args(arguments)
    if options.workers < 2 or options.rounds < 1:
        raise ConfigError("compare at least 2 workers with one, in at least 1 round")
    words = ["--shard-size", str(options.shard_size), *(["--model", options.model] if options.model else [])]
    with tempfile.TemporaryDirectory() as scratch:
        source = chosen(options.data, options.files, Path(scratch))
        figures = compare(source, words, options.workers, options.rounds, Path(scratch))
    print(f"{options.workers} workers against one: {figures['ratio_of_work']:.2f} times as fast at work, "
          f"{figures['ratio_of_all']:.2f} with their start; identical: {figures['identical']}")  # fmt: skip
    if options.output:
        settings = {name: getattr(options, name) for name in ("files", "rounds", "shard_size")}
        settings |= {"model": options.model or "the bundled model", "data": options.data.name, "cores": usable_cores()}
        document = {**figures, "settings": settings, "versions": versions()}
        write_text_atomic(options.output, json.dumps(document, indent=1) + "\n")
    return 0 if figures["identical"] else 1


if __name__ == "__main__":
    run_module(main)
