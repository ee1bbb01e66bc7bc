"""What a tokenizer costs on this machine: speed, memory, size, and bytes of tokens.

python -m speechtok.bench.suite.cost MODEL --seconds 10 --repeats 5

Measured in a process of its own, so that nothing else of a benchmark is in its memory; the figures are those of this
machine and of what else it does, and only their ratios travel.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import speechtok
from speechtok.audio import Audio, read
from speechtok.bench.facts import Fact, Facts, Item
from speechtok.bench.statistics import Estimate, bootstrap_mean
from speechtok.bench.tables import Shown
from speechtok.bench.tasks import ALL, About, Options, Speech, does_not_apply, summary_row
from speechtok.clips import bundled_clips
from speechtok.errors import ConfigError, NotSupportedError, run_module
from speechtok.processes import child_environment, peak_memory
from speechtok.tokenizers.base import Tokenizer
from speechtok.tokenizers.codec import CodecTokenizer
from speechtok.train.data import Utterance

NAME = "cost"
HELP = "One recording at a time on this machine and its load, in a process of its own; mean over the repetitions."
HOUR, MEGABYTE = 3600, 1e6
MEASURES = {
    "encode_speed": Shown("encoding, times real time", True, 1),
    "decode_speed": Shown("decoding, times real time", True, 1),
    "first_chunk_latency": Shown("first half second, ms", False, 1),
    "algorithmic_latency": Shown("algorithmic latency, ms", False, 1),
    "peak_memory": Shown("peak memory, MB", False, 0),
    "model_size": Shown("tensors of the model, MB", False, 1),
    "token_size": Shown("token files, MB per hour", False, 2),
}
CHUNK_SECONDS = 0.5
"""The first piece of audio whose codes are waited for."""
IN_MEMORY = "peak memory needs a process of its own, and so a model that can be loaded by name"


def measure(tokenizer: Tokenizer, speech: Speech, folder: Path, options: Options) -> list[dict[str, Any]]:
    """See ``tasks``. The recordings are the bundled clips, joined and repeated.

    Raises:
        ConfigError: the process failed; the message is its last line.
    """
    about, facts = About.of(tokenizer, NAME), Facts(folder, tokenizer.fingerprint)
    seconds, repeats = (4.0, 2) if options.quick else (10.0, 5)
    what = f"cost and latency of {seconds:g} s, {repeats} times, on {options.device}, {torch.get_num_threads()} threads"
    item = Item(NAME, NAME, Utterance(Path(), "", ""))
    if facts.missing(item, [what]):
        found = (
            measure_cost(tokenizer, seconds, repeats)
            if options.model is None
            else _in_process(options.model, seconds, repeats, options.device)
        )
        facts.add(item, {what: Fact(found)})
    found = facts[item, what].value
    rows = [_row(about, name, values, found["refused"]) for name, values in found["figures"].items()]
    return rows if options.model is not None else [*rows, does_not_apply(about, IN_MEMORY, "peak_memory", ALL)]


def measure_cost(tokenizer: Tokenizer, seconds: float, repeats: int) -> dict[str, Any]:
    """Encode and decode ``seconds`` of speech ``repeats`` times after a first run that is not counted.

    Returns:
        plain types: ``figures``, values by measure (none where the reason is in ``refused``), without the memory.
    """
    audio = _speech(tokenizer, seconds)
    refused, times = {}, {"encode_speed": [], "decode_speed": []}
    for repeat in range(repeats + 1):
        started = time.perf_counter()
        tokens = tokenizer.encode(audio)
        between = time.perf_counter()
        try:
            if not isinstance(tokenizer.decode(tokens), Audio):
                refused["decode_speed"] = "its tokens decode to text, not to sound"
        except NotSupportedError as error:
            refused["decode_speed"] = str(error)
        ended = time.perf_counter()
        if repeat:
            times["encode_speed"].append(audio.seconds / (between - started))
            times["decode_speed"].append(audio.seconds / (ended - between))
    times["first_chunk_latency"] = first_chunk_times(tokenizer, audio, repeats)
    latency, refused_latency = algorithmic_latency(tokenizer)
    if refused_latency:
        refused["algorithmic_latency"] = refused_latency
    with tempfile.TemporaryDirectory() as folder:
        tokens.save(Path(folder) / "tokens")
        size = (Path(folder) / "tokens").stat().st_size
    held = tensor_bytes(tokenizer)
    if not held:
        refused["model_size"] = "it holds no tensors; what computes it keeps its weights elsewhere"
    sizes = {
        "algorithmic_latency": [latency],
        "model_size": [held / MEGABYTE],
        "token_size": [size / audio.seconds * HOUR / MEGABYTE],
    }
    figures = {name: [] if name in refused else values for name, values in (times | sizes).items()}
    return {"figures": figures, "refused": refused}


def first_chunk_times(tokenizer: Tokenizer, audio: Audio, repeats: int) -> list[float]:
    """Milliseconds of computing until the first half second has its codes, after one run that is not counted."""
    chunk, times = Audio(audio.samples[: round(CHUNK_SECONDS * audio.rate)], audio.rate), []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        tokenizer.encode(chunk)
        times.append(1000 * (time.perf_counter() - started))
    return times[1:]


def algorithmic_latency(tokenizer: Tokenizer) -> tuple[float, str | None]:
    """Milliseconds of audio that must have been heard before the first frame can have its codes, however fast one is.

    That is the frame itself (of the coarsest level) and what its receptive field holds after it.

    Returns:
        the figure, and why there is none.
    """
    if tokenizer.hop is None:
        return math.nan, "its tokens are no frames in time"
    frames, after = 1, 0 if tokenizer.causal else None
    if isinstance(tokenizer, CodecTokenizer):
        frames, context = math.lcm(*tokenizer.codec.quantizer.strides), tokenizer.codec.encoder_context()
        after = after if context is None else context[1]
    if after is None:
        return math.nan, "a frame may depend on all that comes after it"
    return 1000 * (frames + after) * tokenizer.hop / tokenizer.sample_rate, None


def tensor_bytes(thing: Any) -> int:
    """Bytes of all tensors that an object holds, in networks, lists and objects inside it, each counted once."""
    sizes = {tensor.data_ptr(): tensor.numel() * tensor.element_size() for tensor in _tensors(thing, set())}
    return sum(sizes.values())


def _tensors(thing: Any, seen: set[int]) -> Iterator[torch.Tensor]:
    if id(thing) in seen or isinstance(thing, str | bytes | int | float | type | None):
        return
    seen.add(id(thing))
    if isinstance(thing, torch.Tensor):
        yield thing
    elif isinstance(thing, torch.nn.Module):
        yield from thing.parameters()
        yield from thing.buffers()
    elif isinstance(thing, dict):
        for value in list(thing.values()):
            yield from _tensors(value, seen)
    elif isinstance(thing, list | tuple):
        for value in thing:
            yield from _tensors(value, seen)
    elif hasattr(thing, "__dict__"):
        yield from _tensors(vars(thing), seen)


def _speech(tokenizer: Tokenizer, seconds: float) -> Audio:
    rate = tokenizer.sample_rate
    clips = np.concatenate([read(clip.path).resample(rate).samples for clip in bundled_clips()])
    return Audio(np.resize(clips, round(seconds * rate)), rate)


def _row(about: About, name: str, values: Sequence[float], refused: dict[str, str]) -> dict[str, Any]:
    if name in refused:
        return does_not_apply(about, refused[name], name, ALL)
    estimate = bootstrap_mean(values) if len(values) > 1 else Estimate(values[0], None, None, 1)
    return summary_row(about, name, ALL, estimate)


def _in_process(model: str, seconds: float, repeats: int, device: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "speechtok.bench.suite.cost", model]
    command += ["--seconds", str(seconds), "--repeats", str(repeats), "--device", device]
    done = subprocess.run(command, capture_output=True, text=True, env=child_environment())
    if done.returncode:
        raise ConfigError(f"measuring the cost failed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    return json.loads(done.stdout)


def main(arguments: Sequence[str] | None = None) -> int:
    """The process: prints ``measure_cost`` with the peak memory of all of it, libraries and speech included."""
    parser = argparse.ArgumentParser(prog="python -m speechtok.bench.suite.cost", description=__doc__.split("\n")[0])
    parser.add_argument("model", metavar="MODEL", help="a name of `speechtok models`, a folder or a Hub id")
    parser.add_argument("--seconds", type=float, default=10.0, help="of speech")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args(arguments)
    found = measure_cost(speechtok.load(options.model, device=options.device), options.seconds, options.repeats)
    found["figures"]["peak_memory"] = [peak_memory() / MEGABYTE]
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    run_module(main)
