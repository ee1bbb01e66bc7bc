"""Is the summary of a benchmark the same if ``speechtok bench`` was killed on the way?

    python benchmarks/kill_bench.py --kills 2 -o kill-bench.json -- --data MANIFEST.tsv --split test --utterances 3 ...

What follows ``--`` are the words of the command but for ``-o``. It runs once undisturbed, and once into another folder,
killed (SIGKILL, all of its processes) at random moments and started again each time. All figures, differences and
refusals must be equal; what a clock or the system's memory decides is left out. Means of the same values may differ
in the last digits, by how the numbers happen to lie in memory: the largest relative difference is told.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from speechtok.bench.reconstruction import versions
from speechtok.errors import ConfigError, run_module
from speechtok.files import write_text_atomic
from speechtok.processes import child_environment

BY_THE_CLOCK = ("encode_speed", "decode_speed", "first_chunk_latency", "peak_memory")
TOLERANCE = 1e-9
PARTS = ("summary", "differences", "not_applicable", "failures")


def run(words: Sequence[str], folder: Path, kill_after: float | None = None) -> float:
    """Run the command to its end, or kill it after so many seconds; the seconds it took."""
    started, command = time.monotonic(), [sys.executable, "-m", "speechtok", "bench", *words, "-o", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True, env=child_environment())
    try:
        code = process.wait(kill_after)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    else:
        if code:
            raise ConfigError(f"speechtok bench ended with code {code}; mend what it says above")
    return time.monotonic() - started


def compare(one: Any, other: Any) -> float:
    """Largest relative difference of two documents of plain values; infinite where they are not alike."""
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other) / max(abs(one), abs(other), 1e-12)
    if type(one) is not type(other):
        return math.inf
    if isinstance(one, dict) and one.keys() == other.keys():
        return max((compare(one[key], other[key]) for key in one), default=0.0)
    if isinstance(one, list) and len(one) == len(other):
        return max(map(compare, one, other), default=0.0)
    return 0.0 if one == other else math.inf


def results(folder: Path) -> dict[str, Any]:
    """What a run must give again."""
    document = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    return {
        part: [row for row in document[part] if row.get("measure") not in BY_THE_CLOCK] for part in PARTS
    } | {"tokenizers": document["tokenizers"]}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code: 1 where the summaries differ."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("-o", "--output", type=Path, help="JSON with what was found, settings and versions")
    parser.add_argument("words", nargs="+", help="of speechtok bench, behind --")
    options = parser.parse_args(arguments)
    draws, times = random.Random(options.seed), []
    with tempfile.TemporaryDirectory() as scratch:
        alone, disturbed = Path(scratch, "alone"), Path(scratch, "disturbed")
        whole = run(options.words, alone)
        for _ in range(options.kills):
            times.append(run(options.words, disturbed, draws.uniform(0.1, 0.9) * whole / options.kills))
        times.append(run(options.words, disturbed))
        found = results(alone)
        difference = compare(found, results(disturbed))
    counts = {part: len(found[part]) for part in PARTS}
    moments = ", ".join(f"{one:.0f}" for one in times[:-1])
    equal = f"{counts['summary']} figures and {counts['differences']} differences agree to {difference:.1e}"
    print(f"killed after {moments} s of {whole:.0f} s: {equal}")
    if options.output:
        document = {"words": options.words, "seconds": whole, "killed": times[:-1], "last": times[-1], **counts,
                    "largest_difference": difference, "versions": versions()}  # fmt: skip
        write_text_atomic(options.output, json.dumps(document, indent=1) + "\n")
    return 0 if difference <= TOLERANCE else 1


if __name__ == "__main__":
    run_module(main)
