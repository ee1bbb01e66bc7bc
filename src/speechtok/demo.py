"""The demo: bundled recordings through a tokenizer, as files to keep and one page to hear, see and judge."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import speechtok
from speechtok.audio import read, write
from speechtok.bench.codebooks import codebook_usage
from speechtok.bench.reconstruction import (
    Reconstruction,
    failure_lines,
    level_choices,
    reconstruct,
    summarize_levels,
    summary_table,
    versions,
)
from speechtok.bench.scoring import Scorer, Scores, score_row
from speechtok.clips import Clip, bundled_clips
from speechtok.errors import ConfigError
from speechtok.files import make_folder, write_text_atomic
from speechtok.report.clip import Item
from speechtok.report.listening import Run, listening_page
from speechtok.tokenizers.base import Tokenizer

LEVELS = (1, 2, 4, 8)
METRICS = ("pesq_wb", "stoi", "mel_distance")


def run_demo(
    out_dir: str | Path,
    model: str | Path | Tokenizer | None = None,
    clips: Sequence[Clip] | None = None,
    processes: int = 2,
) -> Path:
    """Encode the recordings, decode them at 1, 2, 4 and 8 levels, rate both and write a page.

    Args:
        out_dir: gets ``report.html``, ``summary.json``, ``tokens/*.tokens.safetensors`` and ``audio/*.wav``.
        model: a tokenizer or what ``speechtok.load`` takes; the bundled model by default.
        clips: other recordings than the bundled ones.
        processes: for the metrics; 0 computes them in this process.

    Returns:
        The path of the report.

    Raises:
        OutputError: the folder cannot be written.
        ConfigError: no recordings.
        SpeechtokError: the model cannot be loaded, or a recording cannot be read.
    """
    say = partial(print, flush=True)
    out_dir = _folders(Path(out_dir))
    clips = bundled_clips() if clips is None else list(clips)
    if not clips:
        raise ConfigError("the demo needs at least one recording; leave clips out for the bundled ones")
    tokenizer = model if isinstance(model, Tokenizer) else speechtok.load(model)
    say(f"{tokenizer.name}: {tokenizer.levels} levels, {tokenizer.bitrate:.0f} bit/s, {tokenizer.fingerprint}")
    levels = level_choices(LEVELS, tokenizer)
    results = _reconstruct_all(tokenizer, clips, levels, say)
    for clip, result in zip(clips, results, strict=True):
        _write_files(out_dir, clip.name, result)
    say(f"rating {len(results) * len(levels)} reconstructions")
    scores = _score_all(results, processes)

    usage = codebook_usage([result.tokens.codes for result in results], tokenizer.codebook_sizes)
    summaries = summarize_levels(tokenizer, scores, usage)
    run = _describe_run(tokenizer, results)
    items = [
        Item(clip.name, clip.text, clip.language, clip.details, clip.source, result, one)
        for clip, result, one in zip(clips, results, scores, strict=True)
    ]
    report = out_dir / "report.html"
    write_text_atomic(report, listening_page(run, items, summaries, usage))
    rows = [{"tokenizer": tokenizer.name, **summary.to_dict()} for summary in summaries]
    document = {
        "format": "speechtok.demo",
        "version": 1,
        "model": run.model,
        "encode_speed": run.encode_speed,
        "decode_speed": run.decode_speed,
        "settings": run.settings,
        "summary": rows,
        "usage": [one.to_dict() for one in usage],
        "utterances": [
            {"utterance": clip.name, "levels": count, **score_row(result)}
            for clip, one in zip(clips, scores, strict=True)
            for count, result in one.items()
        ],
    }
    write_text_atomic(out_dir / "summary.json", json.dumps(document, indent=1) + "\n")
    say(f"\n{summary_table(rows)}\n")
    for line in failure_lines(rows):
        say(line)
    say(f"encoding {run.encode_speed:.1f} x real time, decoding {run.decode_speed:.1f} x real time")
    say(f"report: {report}")
    return report


def _reconstruct_all(
    tokenizer: Tokenizer, clips: Sequence[Clip], levels: Sequence[int], say: Callable[[str], None]
) -> list[Reconstruction]:
    audios = [read(clip.path) for clip in clips]
    reconstruct(tokenizer, audios[0], levels[:1])  # the first call of a process pays for set-up, so it is not timed
    results = []
    for number, (clip, audio) in enumerate(zip(clips, audios, strict=True), start=1):
        results.append(reconstruct(tokenizer, audio, levels))
        say(f"[{number}/{len(clips)}] {clip.name}: {audio.seconds:.1f} s, {results[-1].tokens.frames} frames")
    return results


def _score_all(results: Sequence[Reconstruction], processes: int) -> list[dict[int, Scores]]:
    with Scorer(METRICS, processes) as scorer:
        pending = [
            {
                count: scorer.submit(result.original.samples, audio.samples, audio.rate)
                for count, audio in result.decoded.items()
            }
            for result in results
        ]
        return [{count: future.result() for count, future in one.items()} for one in pending]


def _describe_run(tokenizer: Tokenizer, results: Sequence[Reconstruction]) -> Run:
    seconds = sum(result.original.seconds for result in results)
    full = tokenizer.levels
    facts: dict[str, Any] = tokenizer.describe()
    codec = getattr(tokenizer, "codec", None)
    if codec is not None:
        facts["parameters"] = codec.parameters_count()
    return Run(
        model=facts,
        encode_speed=seconds / sum(result.encode_seconds for result in results),
        decode_speed=seconds / sum(result.decode_seconds[full] for result in results),
        settings=versions(),
    )


def _write_files(out_dir: Path, name: str, result: Reconstruction) -> None:
    stem = re.sub(r"[^\w.-]", "_", name)
    result.tokens.save(out_dir / "tokens" / f"{stem}.tokens.safetensors")
    write(out_dir / "audio" / f"{stem}.original.wav", result.original)
    for count, audio in result.decoded.items():
        write(out_dir / "audio" / f"{stem}.{count}.wav", audio)


def _folders(out_dir: Path) -> Path:
    for folder in (out_dir, out_dir / "tokens", out_dir / "audio"):
        make_folder(folder)
    return out_dir
