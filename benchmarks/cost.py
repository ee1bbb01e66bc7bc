"""What a tokenizer costs here: speed, peak memory, size of the model and of its tokens.

    python benchmarks/cost.py --model speechtok-base --minutes 0.2 1 10 --threads 2 -o cost.json

Each length runs in a process of its own, whose peak memory (Python, libraries and audio included) is reported.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HOUR, MEGABYTE = 3600, 1e6


def measure(model: str | None, minutes: float, threads: int) -> dict[str, Any]:
    """Encode and decode once in this process, after a second of warm-up."""
    import numpy as np
    import torch

    import speechtok
    from speechtok.demo import bundled_clips

    torch.set_num_threads(threads)
    tokenizer = speechtok.load(model)
    speech = np.concatenate([speechtok.read(clip.path, tokenizer.sample_rate).samples for clip in bundled_clips()])
    audio = speechtok.Audio(np.resize(speech, round(minutes * 60 * tokenizer.sample_rate)), tokenizer.sample_rate)
    tokenizer.decode(tokenizer.encode(speechtok.Audio(audio.samples[: tokenizer.sample_rate], audio.rate)))
    started = time.perf_counter()
    tokens = tokenizer.encode(audio)
    between = time.perf_counter()
    tokenizer.decode(tokens)
    ended = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        tokens.save(Path(folder) / "tokens")
        size = (Path(folder) / "tokens").stat().st_size
    return {
        "tokenizer": tokenizer.name,
        "minutes": minutes,
        "threads": threads,
        "encode_times_real_time": audio.seconds / (between - started),
        "decode_times_real_time": audio.seconds / (ended - between),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MEGABYTE,
        "token_mb_per_hour": size / audio.seconds * HOUR / MEGABYTE,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a name, a folder or a Hub id (default: bundled model)")
    parser.add_argument("--minutes", type=float, nargs="+", default=[0.2, 1, 10])
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
        rows.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
        print(
            "{tokenizer}  {minutes:g} min  encode {encode_times_real_time:.0f} x  decode {decode_times_real_time:.0f} x"
            "  peak {peak_mb:.0f} MB  tokens {token_mb_per_hour:.2f} MB/h".format(**rows[-1]),
            flush=True,
        )
    if options.output:
        options.output.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
