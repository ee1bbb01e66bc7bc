"""Encoding and decoding speed of codecs on the same audio, threads and run.

    pip install 'speechtok[transformers]'
    python benchmarks/speed.py --threads 1 -o speed.json
    pip install --no-deps speechtokenizer && pip install einops   # to have the official package, too
    python benchmarks/speed.py --only official ours-official-size --clips 16 -o official.json

Ours: the bundled model in fp32 and bf16, and a SEANet of the official size (104 M parameters). Theirs: the official
``speechtokenizer`` package, and EnCodec, Mimi and DAC of ``transformers``. Random weights where none are bundled: speed
does not depend on them. How many codes a precision changes does, so ours of the official size is fitted to speech
(``official_size.py``) and judged by clips that took no part. The models take turns, so that a busy machine slows all;
medians are compared, and with one thread it is processor time that is taken. Resampling is not timed. Peak memory is
that of a process of its own for each model, Python and libraries included.
"""

from __future__ import annotations

import argparse
import importlib.machinery
import json
import statistics
import subprocess
import sys
import time
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from official_size import explained, held_out, official_size

import speechtok
from speechtok.audio import Audio
from speechtok.bench.reconstruction import versions
from speechtok.clips import bundled_clips
from speechtok.errors import ConfigError, SpeechtokError
from speechtok.files import write_text_atomic
from speechtok.nn.codec import Codec
from speechtok.processes import peak_memory
from speechtok.tokenizers.codec import CodecTokenizer

BANDWIDTH = 6.0  # kbit/s, 8 of EnCodec's codebooks: the setting that papers on speech tokens compare with
GIGA, MEGABYTE = 1e9, 1e6
OFFICIAL_GIGAFLOP = {"encode": 11.7, "decode": 8.5}
"""Of SpeechTokenizer, per second of audio: its convolutions, LSTM and products of the search."""


@dataclass
class Contestant:
    """A model with its audio at hand: ``encode(i)`` gives what ``decode`` takes."""

    name: str
    encode: Callable[[int], Any]
    decode: Callable[[Any], object]
    bulk: Callable[[], object] | None = None
    """Encodes all clips, as fast as its interface allows."""
    gigaflop: dict[str, float] | None = None
    """Per second of audio, where that is known."""
    times: dict[str, list[float]] = field(default_factory=lambda: {"encode": [], "decode": [], "bulk": []})

    def turn(self, clip: int, timed: bool) -> None:
        """One clip there and back."""
        started = clock()
        codes = self.encode(clip)
        between = clock()
        self.decode(codes)
        if timed:
            self.times["encode"].append(between - started)
            self.times["decode"].append(clock() - between)

    def bulk_turn(self) -> None:
        """All clips at once."""
        started = clock()
        self.bulk()
        self.times["bulk"].append(clock() - started)

    def speeds(self, seconds: float, count: int) -> dict[str, float]:
        """Times real time: medians over all turns."""
        both = [a + b for a, b in zip(self.times["encode"], self.times["decode"], strict=True)]
        found = {name: seconds / statistics.median(taken) for name, taken in
                 {"encode": self.times["encode"], "decode": self.times["decode"], "both": both}.items()}  # fmt: skip
        if self.times["bulk"]:
            found["encode_in_bulk"] = count * seconds / statistics.median(self.times["bulk"])
        return found


def clock() -> float:
    """Seconds: of the processor with one thread, else of the wall."""
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


def clips(count: int, seconds: float, rate: int) -> list[Audio]:
    """Different stretches of the bundled recordings, end to end, each exactly so long."""
    speech = np.concatenate([speechtok.read(clip.path, rate).samples for clip in bundled_clips()])
    length = round(seconds * rate)
    starts = np.linspace(0, len(speech), count, endpoint=False).astype(int)
    return [Audio(speech[(start + np.arange(length)) % len(speech)], rate) for start in starts]


def of_tokenizer(tokenizer: CodecTokenizer, count: int, seconds: float, **more: Any) -> Contestant:
    """A speechtok tokenizer, used as anybody would."""
    audios = clips(count, seconds, tokenizer.sample_rate)
    bulk = lambda: tokenizer.encode_batch(audios, exact=False, batch_size=count)  # noqa: E731
    name = f"{tokenizer.name}, {tokenizer.precision}"
    return Contestant(name, lambda i: tokenizer.encode(audios[i]), tokenizer.decode, bulk, **more)


def ours(model: str | None, count: int, seconds: float) -> list[Contestant]:
    """The bundled model, or another one, in every precision that it has."""
    tokenizer = speechtok.load(model)
    found = [of_tokenizer(tokenizer, count, seconds)]
    if isinstance(tokenizer, CodecTokenizer):
        found.append(of_tokenizer(tokenizer.in_precision("bf16"), count, seconds))
    return found


def ours_official_size(count: int, seconds: float, fit: Sequence[str] | None = ()) -> list[Contestant]:
    """Our SEANet of the official size in both precisions, with codebooks fitted to speech unless ``fit`` is None."""
    codec = official_size(tuple(fit or ()), fit is not None)
    both = [CodecTokenizer(codec, "SEANet of 104 M parameters", precision=one) for one in ("fp32", "bf16")]
    return [of_tokenizer(one, count, seconds, gigaflop=OFFICIAL_GIGAFLOP) for one in both]


def official(count: int, seconds: float) -> list[Contestant]:
    """The official package, given a stand-in for torchaudio, of which it uses nothing here.

    Raises:
        ConfigError: it is not installed.
    """
    for name in ("torchaudio", "torchaudio.transforms", "torchaudio.functional"):
        if name not in sys.modules:
            module = sys.modules[name] = types.ModuleType(name)
            module.__spec__ = importlib.machinery.ModuleSpec(name, None)
    # its trainer, which the package imports first, needs more packages and is not wanted
    trainer = sys.modules.setdefault("speechtokenizer.trainer", types.ModuleType("speechtokenizer.trainer"))
    trainer.SpeechTokenizerTrainer = None
    try:
        from speechtokenizer.model import SpeechTokenizer
    except ImportError as error:
        raise ConfigError(f"the official package does not import ({error})") from error
    config = {
        "n_filters": 64, "strides": [8, 5, 4, 2], "dimension": 1024, "semantic_dimension": 768, "bidirectional": True,
        "dilation_base": 2, "residual_kernel_size": 3, "n_residual_layers": 1, "lstm_layers": 2, "activation": "ELU",
        "n_q": 8, "codebook_size": 1024, "sample_rate": 16000,
    }  # fmt: skip
    torch.manual_seed(0)
    model = SpeechTokenizer(config).eval()
    waves = [torch.tensor(audio.samples)[None, None] for audio in clips(count, seconds, 16000)]

    @torch.inference_mode()
    def encode(clip: int) -> torch.Tensor:
        return model.encode(waves[clip])

    def bulk() -> None:  # file by file: it has no lengths, so recordings cannot share a pass
        for clip in range(count):
            encode(clip)

    decode = torch.inference_mode()(model.decode)
    return [Contestant("SpeechTokenizer (official package)", encode, decode, bulk, OFFICIAL_GIGAFLOP)]


def of_transformers(kind: str, count: int, seconds: float) -> list[Contestant]:
    """EnCodec 24 kHz, Mimi or DAC of ``transformers``, in their default shapes."""
    try:
        import transformers
    except ImportError as error:
        raise ConfigError("transformers is not installed; run: pip install 'speechtok[transformers]'") from error
    torch.manual_seed(0)
    model = getattr(transformers, f"{kind}Model")(getattr(transformers, f"{kind}Config")()).eval()
    waves = [torch.tensor(audio.samples)[None, None] for audio in clips(count, seconds, model.config.sampling_rate)]
    options = {"Encodec": {"bandwidth": BANDWIDTH}}.get(kind, {})

    @torch.inference_mode()
    def encode(clip: int) -> Any:
        return model.encode(waves[clip], **options)

    @torch.inference_mode()
    def decode(encoded: Any) -> object:
        if kind == "Encodec":
            return model.decode(encoded.audio_codes, encoded.audio_scales)
        return model.decode(audio_codes=encoded.audio_codes)

    name = {"Encodec": f"EnCodec 24 kHz, {BANDWIDTH:g} kbit/s (transformers)"}.get(kind, f"{kind} (transformers)")
    return [Contestant(name, encode, decode)]


def entries(model: str | None, fit: Sequence[str] | None = ()) -> dict[str, Callable[[int, float], list[Contestant]]]:
    """All that can take part, by the name for ``--only``; ours comes first and EnCodec second."""
    return {
        "ours": lambda count, seconds: ours(model, count, seconds),
        "encodec": lambda *audio: of_transformers("Encodec", *audio),
        "ours-official-size": lambda *audio: ours_official_size(*audio, fit),
        "official": official,
        "mimi": lambda *audio: of_transformers("Mimi", *audio),
        "dac": lambda *audio: of_transformers("Dac", *audio),
    }


def compare(contestants: Sequence[Contestant], count: int, seconds: float, repeats: int, bulk: bool) -> list[dict]:
    """Every contestant on every clip in turn, ``repeats`` times after one that is not timed; then all clips at once."""
    for one in contestants:
        one.turn(0, timed=False)
    for _ in range(repeats):
        for clip in range(count):
            for contestant in contestants:
                contestant.turn(clip, timed=True)
        for contestant in contestants:
            if bulk and contestant.bulk:
                contestant.bulk_turn()
    return [{"model": one.name, **one.speeds(seconds, count)} for one in contestants]


@torch.inference_mode()
def ceilings(repeats: int = 5) -> dict[str, float]:
    """Gigaflop per second of the best of several matrix products, in each precision."""
    found = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        speeds = []
        for size in (512, 1024):
            a, b = torch.randn(size, size).to(dtype), torch.randn(size, size).to(dtype)
            for _ in range(repeats):
                started = clock()
                torch.nn.functional.linear(a, b)
                speeds.append(2 * size**3 / GIGA / max(clock() - started, 1e-9))
        found[name] = max(speeds)
    return found


@torch.inference_mode()
def agreement(codec: Codec, seconds: float) -> dict[str, Any]:
    """Equal codes and decoding noise of both fast paths against the plain network, on clips that it was not fitted to.

    The shares of variance, the frames and the used codes of level one say what the equality is worth: where the
    codebooks explain nothing, or one code is always chosen, it means little.
    """
    paths = {one: CodecTokenizer(codec, one, precision=one) for one in ("fp32", "bf16")}
    waves = held_out(codec.config.sample_rate, seconds)
    expected = [codec.encode(wave) for wave in waves]
    sounds = [codec.decode(codes) for codes in expected]
    first = torch.cat([codes[0, 0] for codes in expected])
    found: dict[str, Any] = {
        "frames": len(first),
        "used_codes_level_1": len(first.unique()),
        "explained_variance": explained(codec, waves),
    }
    for name, path in paths.items():
        equal = torch.cat([path.runner.encode(w) == codes for w, codes in zip(waves, expected, strict=True)], 2)[0]
        noise = sum(float((path.runner.decode(c) - s).square().sum()) for c, s in zip(expected, sounds, strict=True))
        power = sum(float(sound.square().sum()) for sound in sounds)
        found[name] = {
            "codes_equal_level_1": float(equal[0].float().mean()),
            "codes_equal": float(equal.float().mean()),
            "decode_snr_db": 10 * float(np.log10(power / max(noise, 1e-20))),
        }
    return found


def shares(contestants: Sequence[Contestant], rows: Sequence[dict], ceiling: dict[str, float]) -> None:
    """Add to each row what share of the machine's matrix products in its own precision it reaches, where known."""
    for contestant, row in zip(contestants, rows, strict=True):
        if contestant.gigaflop:
            peak = ceiling["bf16" if contestant.name.endswith("bf16") else "fp32"]
            row["share_of_ceiling"] = {name: row[name] * work / peak for name, work in contestant.gigaflop.items()}


def memory_of(name: str, options: argparse.Namespace) -> float:
    """Megabytes of a process that encodes and decodes one clip with every contestant of an entry."""
    command = [sys.executable, __file__, "--memory-of", name, "--seconds", str(options.seconds)]
    command += ["--threads", str(torch.get_num_threads())] + (["--model", options.model] if options.model else [])
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout.splitlines()[-1])


def gathered(options: argparse.Namespace) -> tuple[dict[str, list[Contestant]], dict[str, str]]:
    """Contestants by entry, and why others are missing."""
    found, missing = {}, {}
    for name, make in entries(options.model, options.fit).items():
        if options.only and name not in options.only:
            continue
        try:
            found[name] = make(options.clips, options.seconds)
        except ConfigError as error:
            missing[name] = str(error)
            print(f"{name}: left out, {error}", file=sys.stderr)
    return found, missing


def parser() -> argparse.ArgumentParser:
    """The options."""
    found = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    found.add_argument("--model", help="a name of `speechtok models`, a folder or a Hub id (default: bundled model)")
    found.add_argument("--threads", type=int, help="threads of all models (default: as many as torch takes)")
    found.add_argument("--clips", type=int, default=4, help="different clips, and recordings of a bulk")
    found.add_argument("--seconds", type=float, default=10.0, help="length of each clip")
    found.add_argument("--repeats", type=int, default=3, help="rounds over all clips")
    found.add_argument(
        "--fit", nargs="+", default=[], metavar="AUDIO",
        help="recordings that the codebooks of the official size are fitted to, beside bundled clips",
    )  # fmt: skip
    found.add_argument("--only", nargs="+", choices=list(entries(None)), metavar="NAME", help="some of the models")
    found.add_argument("--no-bulk", action="store_true", help="leave encoding in bulk out")
    found.add_argument("--no-memory", action="store_true", help="leave peak memory out")
    found.add_argument("-o", "--output", help="JSON with speeds, ratios, settings and versions")
    found.add_argument("--memory-of", help=argparse.SUPPRESS)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    options = parser().parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    try:
        if options.memory_of:
            for contestant in entries(options.model, None)[options.memory_of](1, options.seconds):
                contestant.turn(0, timed=False)
            print(peak_memory() / MEGABYTE)
            return 0
        document = measured(options)
    except SpeechtokError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if options.output:
        write_text_atomic(options.output, json.dumps(document, indent=1) + "\n")
    return 0


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """The whole comparison, printed as it goes."""
    found, missing = gathered(options)
    contestants = [one for group in found.values() for one in group]
    ceiling = ceilings()
    rows = compare(contestants, options.clips, options.seconds, options.repeats, not options.no_bulk)
    shares(contestants, rows, ceiling)
    for row in rows:
        print(f"{row['model']:<44} " + "  ".join(f"{k} {v:6.1f}" for k, v in row.items() if isinstance(v, float)))
    by_name = {name: [row["model"] for row in rows if row["model"] in [c.name for c in group]]
               for name, group in found.items()}  # fmt: skip
    ratios = {
        f"{mine} / {theirs}": against(rows, by_name[mine], by_name[theirs][0])
        for mine, theirs in (("ours", "encodec"), ("ours-official-size", "official"))
        if mine in by_name and theirs in by_name
    }
    print(json.dumps({"ratios": ratios, "ceiling_gigaflop_per_second": ceiling}, indent=1))
    document: dict[str, Any] = {"unit": "times real time", "speeds": rows, "ratios": ratios}
    if "encodec" in by_name and "ours" in by_name:
        best = max(ratios["ours / encodec"].values(), key=lambda one: one["both"])
        document["ratio"] = {name: best[name] for name in ("encode", "decode", "both")}
    if "ours-official-size" in found:
        document["agreement"] = agreement(official_size(tuple(options.fit)), options.seconds)
        print(json.dumps(document["agreement"], indent=1))
    if not options.no_memory:
        document["peak_mb"] = {name: memory_of(name, options) for name in found}
    settings = {"threads": torch.get_num_threads(), "clips": options.clips, "seconds": options.seconds,
                "repeats": options.repeats, "batch": 1, "bandwidth_kbps": BANDWIDTH,
                "fitted_to": len(options.fit)}  # fmt: skip
    machine = {"capability": torch.backends.cpu.get_cpu_capability(), "ceiling_gigaflop_per_second": ceiling}
    return document | {"missing": missing, "settings": settings, "machine": machine, "versions": versions()}


def against(rows: Sequence[dict], mine: Sequence[str], theirs: str) -> dict[str, dict[str, float]]:
    """How many times faster each of ``mine`` is than ``theirs``, by what both have."""
    named = {row["model"]: row for row in rows}
    return {
        one: {key: value / named[theirs][key] for key, value in named[one].items()
              if isinstance(value, float) and key in named[theirs]}
        for one in mine
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
