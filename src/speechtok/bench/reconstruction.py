"""How well a tokenizer gives speech back, by number of levels, and how well it uses its codebooks.

python -m speechtok.bench.reconstruction --data MANIFEST.tsv --split test --levels 1 2 4 8 -o result.json
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

import speechtok
from speechtok.audio import Audio, read
from speechtok.bench.codebooks import CodebookUsage, codebook_usage, entropy_bitrate
from speechtok.bench.metrics import METRICS, UNREADABLE, Score
from speechtok.bench.scoring import Scorer, Scores, score_row
from speechtok.bench.statistics import Estimate, summarize
from speechtok.errors import AudioError, ConfigError, SpeechtokError
from speechtok.files import write_text_atomic
from speechtok.tokenizers.base import Tokenizer
from speechtok.tokens import Tokens, nominal_bitrate
from speechtok.train.data import Utterance, read_manifest

FORMAT, VERSION = "speechtok.reconstruction", 1
PACKAGES = (
    "torch", "numpy", "scipy", "soxr", "soundfile", "pesq", "pystoi", "transformers", "tokenizers", "visqol-python",
    "speechmos", "onnxruntime",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """One utterance, encoded once and decoded from several numbers of levels."""

    original: Audio
    """At the tokenizer's rate, which is what it heard."""
    tokens: Tokens
    decoded: dict[int, Audio]
    encode_seconds: float
    decode_seconds: dict[int, float]


@dataclass(frozen=True)
class LevelSummary:
    """All utterances at one number of levels."""

    levels: int
    bitrate: float
    """Bit/s were every code equally likely."""
    entropy_bitrate: float
    """Bit/s of an ideal entropy coder on these very codes."""
    metrics: dict[str, Estimate] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain types, ready for JSON."""
        head = {"levels": self.levels, "bitrate": self.bitrate, "entropy_bitrate": self.entropy_bitrate}
        return head | {name: estimate.to_dict() for name, estimate in self.metrics.items()}


def reconstruct(tokenizer: Tokenizer, audio: Audio, levels: Iterable[int]) -> Reconstruction:
    """Encode once, decode at each number of levels (0: tokens without levels, as they are), and time both.

    Resampling is not part of the times.

    Raises:
        ConfigError: more levels than the tokenizer has.
    """
    original = audio if audio.rate == tokenizer.sample_rate else audio.resample(tokenizer.sample_rate)
    started = time.perf_counter()
    tokens = tokenizer.encode(original)
    encode_seconds = time.perf_counter() - started
    decoded, decode_seconds = {}, {}
    for count in levels:
        chosen = tokens.take(count) if count else tokens
        started = time.perf_counter()
        decoded[count] = tokenizer.decode(chosen)
        decode_seconds[count] = time.perf_counter() - started
    return Reconstruction(original, tokens, decoded, encode_seconds, decode_seconds)


def level_choices(wanted: Iterable[int], tokenizer: Tokenizer) -> tuple[int, ...]:
    """Those of the wanted numbers of levels that the tokenizer has, and all of its levels: 0 where it has none."""
    return tuple(sorted({count for count in wanted if 1 <= count < tokenizer.levels} | {tokenizer.levels}))


def summarize_levels(
    tokenizer: Tokenizer, scores: Sequence[dict[int, Scores]], usage: Sequence[CodebookUsage]
) -> list[LevelSummary]:
    """One summary per number of levels from ``scores[utterance][levels][metric]``."""
    summaries = []
    for count in scores[0]:
        estimates = {name: summarize(one[count][name] for one in scores) for name in scores[0][count]}
        nominal = nominal_bitrate(tokenizer.frame_rate, tokenizer.codebook_sizes[:count])
        real = entropy_bitrate(usage[:count], tokenizer.frame_rate)
        summaries.append(LevelSummary(count, nominal, real, estimates))
    return summaries


def evaluate(
    tokenizer: Tokenizer,
    utterances: Sequence[Utterance],
    levels: Sequence[int],
    metrics: Sequence[str] = tuple(METRICS),
    processes: int = 0,
) -> dict[str, Any]:
    """Reconstruct and rate every utterance; the result is plain types: ``summary``, ``usage``, ``utterances``.

    Metrics run in ``processes`` other processes while the model goes on. A file that cannot be read fails in every
    metric; ``n`` counts the others, and ``failed`` those.

    Raises:
        AudioError: no file can be read.
        ConfigError: a metric or a number of levels that does not exist.
    """
    pending: list[dict[int, Future[Scores]] | None] = []
    unread = {count: {name: Score(name, None, UNREADABLE) for name in metrics} for count in levels}
    codes, seconds = [], []
    with Scorer(metrics, processes) as scorer:
        for audio in recordings(utterances, "reconstructing"):
            if audio is None:
                seconds.append(None)
                pending.append(None)
                continue
            result = reconstruct(tokenizer, audio, levels)
            codes.append(result.tokens.codes)
            seconds.append(result.original.seconds)
            reference, rate = result.original.samples, result.original.rate
            pending.append({k: scorer.submit(reference, audio.samples, rate) for k, audio in result.decoded.items()})
        scores = [{k: future.result() for k, future in one.items()} if one else unread for one in pending]
    usage = _usage(tokenizer, codes)
    rows = [
        {"utterance": u.path.stem, "speaker": u.speaker, "seconds": length, "levels": count, **score_row(result)}
        for u, length, one in zip(utterances, seconds, scores, strict=True)
        for count, result in one.items()
    ]
    summaries = summarize_levels(tokenizer, scores, usage)
    return {
        "n": len(codes),
        "failed": len(utterances) - len(codes),
        "seconds": sum(filter(None, seconds)),
        "summary": [{"tokenizer": tokenizer.name, **one.to_dict()} for one in summaries],
        "usage": [level.to_dict() for level in usage],
        "utterances": rows,
    }


def split_usage(tokenizer: Tokenizer, utterances: Sequence[Utterance]) -> tuple[list[CodebookUsage], int]:
    """Codebook usage over whole utterances, nothing decoded, and how many files cannot be read.

    Raises:
        AudioError: no file can be read.
    """
    heard = (audio for audio in recordings(utterances, "codebook usage") if audio is not None)
    codes = [tokenizer.encode(audio).codes for audio in heard]
    return _usage(tokenizer, codes), len(utterances) - len(codes)


def recordings(utterances: Sequence[Utterance], task: str) -> Iterator[Audio | None]:
    """What every utterance holds, with a bar that names the task; None where the file cannot be read."""
    for utterance in tqdm(utterances, desc=task, unit="file", disable=None):
        try:
            yield read(utterance.path)
        except AudioError:
            yield None


def _usage(tokenizer: Tokenizer, codes: Sequence[np.ndarray]) -> list[CodebookUsage]:
    if not codes:
        raise AudioError("none of the files can be read; check the paths of the manifest")
    return codebook_usage(codes, tokenizer.codebook_sizes)


def versions() -> dict[str, str]:
    """What could change a number: this package and those that compute, and the machine."""
    system = f"{platform.system()} {platform.machine()}"
    found = {"speechtok": speechtok.__version__, "python": platform.python_version(), "system": system}
    found |= {"cores": str(os.cpu_count()), "threads": str(torch.get_num_threads())}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def estimate_text(estimate: Estimate | dict[str, Any], digits: int) -> str:
    """``1.23 [1.10, 1.36]``, or how many failed where nothing was measured."""
    values = estimate.to_dict() if isinstance(estimate, Estimate) else estimate
    failed = f" ({values['failed']} failed)" if values["failed"] else ""
    if values["mean"] is None:
        return f"not measured{failed}"
    interval = "" if values["low"] is None else f" [{values['low']:.{digits}f}, {values['high']:.{digits}f}]"
    return f"{values['mean']:.{digits}f}{interval}{failed}"


def summary_table(rows: Sequence[dict[str, Any]]) -> str:
    """Plain text table of summary rows: mean and 95 % interval of every metric by number of levels."""
    names = [name for name in METRICS if name in rows[0]]
    lines = [["levels", "bit/s", "entropy-coded", *(METRICS[name].label for name in names)]]
    for row in rows:
        cells = [str(row["levels"]), f"{row['bitrate']:.0f}", f"{row['entropy_bitrate']:.0f}"]
        lines.append(cells + [estimate_text(row[name], METRICS[name].digits) for name in names])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def failure_lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Every reason why a metric has no value, with its count over all rows."""
    counts: dict[tuple[str, str], int] = {}
    for row in rows:
        for name in METRICS:
            for reason, count in row.get(name, {}).get("reasons", {}).items():
                counts[METRICS[name].label, reason] = counts.get((METRICS[name].label, reason), 0) + count
    return [f"{label}: {count} not measured, {reason}" for (label, reason), count in counts.items()]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; prints the table and writes the JSON. Returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        _run(options)
    except SpeechtokError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _run(options: argparse.Namespace) -> None:
    utterances = read_manifest(options.data, options.split)[: options.limit]
    tokenizer = speechtok.load(options.model)
    wrong = [count for count in options.levels or () if not 1 <= count <= tokenizer.levels]
    if wrong:
        raise ConfigError(f"--levels {wrong[0]}: {tokenizer.name} has levels 1 to {tokenizer.levels}")
    levels = tuple(sorted(set(options.levels))) if options.levels else level_choices((1, 2, 4, 8), tokenizer)
    result = evaluate(tokenizer, utterances, levels, options.metrics, options.processes)
    settings = {
        "data": Path(options.data).name,
        "split": options.split,
        "limit": options.limit,
        "levels": levels,
        "metrics": options.metrics,
        "confidence": 0.95,
    }
    document = {"format": FORMAT, "version": VERSION, "tokenizer": tokenizer.describe(), "settings": settings}
    document |= {"versions": versions(), **result}
    print(f"{tokenizer.name} ({tokenizer.fingerprint}), {result['n']} utterances, {result['seconds']:.0f} s of speech")
    print(summary_table(result["summary"]))
    print("\n".join(failure_lines(result["summary"])), end="")
    if options.usage_split:
        usage, failed = split_usage(tokenizer, read_manifest(options.data, options.usage_split))
        levels_used = [level.to_dict() for level in usage]
        document["split_usage"] = {"split": options.usage_split, "failed": failed, "levels": levels_used}
        print(f"\ncodebooks over {options.usage_split} ({usage[0].frames} frames, {failed} files failed)")
        for one in usage:
            print(f"  level {one.level + 1}: {one.usage:6.1%} used, perplexity {one.perplexity:.0f} of {one.size}")
    if options.output:
        write_text_atomic(options.output, json.dumps(document, indent=1) + "\n")
        print(f"wrote {options.output}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m speechtok.bench.reconstruction", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--data", required=True, help="manifest: tab-separated, columns path and split")
    parser.add_argument("--split", default="test")
    parser.add_argument(
        "--model", default=None, help="a name of `speechtok models`, a folder or a Hub id; bundled model"
    )
    parser.add_argument("--levels", type=int, nargs="+", help="numbers of levels to decode (default: 1 2 4 8)")
    parser.add_argument("--metrics", nargs="+", default=list(METRICS), choices=list(METRICS), metavar="METRIC")
    parser.add_argument("--usage-split", help="count codebook usage over this split as well")
    parser.add_argument("--limit", type=int, help="only the first so many utterances")
    parser.add_argument("--processes", type=int, default=2, help="processes for the metrics; 0 uses none")
    parser.add_argument("-o", "--output", help="JSON with summary, rows, settings and versions")
    return parser


if __name__ == "__main__":
    sys.exit(main())
