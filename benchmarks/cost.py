"""What a tokenizer costs here: speed, peak memory, size of the model and of its tokens.

    python benchmarks/cost.py --model speechtok-base --minutes 0.2 1 10 60 180 --threads 2 -o cost.json

The bundled clips, repeated, stand in a WAV file of each length. Each runs in a process of its own: the file is encoded,
its tokens are saved, and decoded into another file. The peak memory is that of the process, Python, libraries and audio
included.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from speechtok.errors import ConfigError, run_module
from speechtok.files import write_text_atomic
from speechtok.processes import peak_memory

HOUR, MEGABYTE = 3600, 1e6


def measure(model: str | None, minutes: float, threads: int) -> dict[str, Any]:
    """Encode and decode once in this process, after a second of warm-up."""
    import numpy as np
    import torch

    import speechtok
    from speechtok.audio import write_blocks
    from speechtok.clips import bundled_clips

    torch.set_num_threads(threads)
    tokenizer = speechtok.load(model)
    rate = tokenizer.sample_rate
    speech = np.concatenate([speechtok.read(clip.path, rate).samples for clip in bundled_clips()])
    tokenizer.decode(tokenizer.encode(speechtok.Audio(speech[:rate], rate)))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_blocks(folder / "in.wav", repeated(speech, round(minutes * 60 * rate)), rate)
        started = time.perf_counter()
        tokens = tokenizer.encode_file(folder / "in.wav")
        between = time.perf_counter()
        peak = peak_memory() / MEGABYTE
        tokens.save(folder / "tokens")
        size = (folder / "tokens").stat().st_size
        saved = time.perf_counter()
        tokenizer.decode_file(tokens, folder / "out.wav")
        ended = time.perf_counter()
    return {
        "tokenizer": tokenizer.name,
        "minutes": minutes,
        "threads": threads,
        "encode_times_real_time": tokens.seconds / (between - started),
        "decode_times_real_time": tokens.seconds / (ended - saved),
        "encode_peak_mb": peak,
        "peak_mb": peak_memory() / MEGABYTE,
        "token_mb_per_hour": size / tokens.seconds * HOUR / MEGABYTE,
    }


def repeated(samples: Any, count: int) -> Iterator[Any]:
    """``samples`` over and over, cut after ``count``."""
    while count > 0:
        yield samples[:count]
        count -= len(samples)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a name, a folder or a Hub id (default: bundled model)")
    parser.add_argument("--minutes", type=float, nargs="+", default=[0.2, 1, 10, 60, 180])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        print(json.dumps(measure(options.model, options.minutes[0], options.threads)))
        return
    rows = []
    for minutes in options.minutes:
        command = [sys.executable, __file__, "--here", "--minutes", str(minutes), "--threads", str(options.threads)]
        command += ["--model", options.model] if options.model else []
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            raise ConfigError(f"the run of {minutes:g} min ended with code {done.returncode}; mend what it says above")
        rows.append(json.loads(done.stdout))
        print(
            "{tokenizer}  {minutes:g} min  encode {encode_times_real_time:.0f} x  decode {decode_times_real_time:.0f} x"
            "  peak {peak_mb:.0f} MB  tokens {token_mb_per_hour:.2f} MB/h".format(**rows[-1]),
            flush=True,
        )
    if options.output:
        write_text_atomic(options.output, json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    run_module(main)
