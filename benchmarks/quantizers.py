"""Every kind of quantizer in one small codec, at one bitrate and one budget of steps: quality, use of codes, time.

    python benchmarks/quantizers.py --data librispeech.tsv -o quantizers/ [--steps 1000] [--only rvq fsq] [--tiny]

Trains recipes/speechtok-base-start.yaml with each kind, rates the dev split with all levels, and writes
``results.json`` and ``results.md``. Started again it goes on with the kinds that are missing; an interrupted training
resumes. Stacks have 4 kbit/s at 50 frames per second, single codebooks 0.5 kbit/s.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import speechtok
from speechtok.bench.metrics import METRICS
from speechtok.bench.reconstruction import estimate_text, evaluate, versions
from speechtok.config import from_yaml
from speechtok.errors import run_module
from speechtok.files import make_folder, write_text_atomic
from speechtok.train.codec import train
from speechtok.train.data import read_manifest
from speechtok.train.recipe import CodecRecipe

RECIPE = Path(__file__).parents[1] / "recipes" / "speechtok-base-start.yaml"
SHOWN = ("pesq_wb", "stoi", "mel_distance")
KINDS: dict[str, dict[str, Any]] = {
    "rvq": {},
    "rvq, gradient": {"codebook": "gradient"},
    "rvq, simvq": {"codebook": "simvq"},
    "rvq, factorised": {"codebook": "factorised"},
    "rvq, gumbel": {"codebook": "gumbel"},
    "rvq, kmeans": {"codebook": "kmeans"},
    "rvq, lfq": {"codebook": "lfq"},
    "rvq, bsq": {"codebook": "bsq"},
    "rvq, fsq": {"codebook": "fsq", "fsq_levels": [4, 4, 4, 4, 4]},
    "product": {"kind": "product"},
    "product, fsq": {"kind": "product", "codebook": "fsq", "fsq_levels": [4, 4, 4, 4, 4]},
    "product, lfq": {"kind": "product", "codebook": "lfq"},
    "product, bsq": {"kind": "product", "codebook": "bsq"},
    "gumbel": {"kind": "gumbel"},
    "grouped_rvq": {"kind": "grouped_rvq", "groups": 2},
    "cross_scale": {"kind": "cross_scale", "strides": [4, 4, 2, 1, 1, 1, 1, 1, 1, 1]},
}
"""What changes in the recipe's quantizer, at 4 kbit/s: kinds of one codebook are the levels of stacks here."""
SINGLE = {
    **{name: {"kind": name} for name in ("vq", "simvq", "factorised", "gumbel", "lfq", "bsq", "kmeans")},
    "fsq": {"kind": "fsq", "fsq_levels": [4, 4, 4, 4, 4]},
}
"""The same at one level, 0.5 kbit/s."""
SMALL = [
    "codec.frame.width=192",
    "codec.frame.encoder_blocks=3",
    "codec.frame.decoder_blocks=4",
    "weights.adversarial=0",
    *("data.batch=12", "data.seconds=0.5"),
]
TINY = [
    *("data.batch=2", "data.seconds=0.4", "data.validation_files=1", "codec.dimension=20"),
    *("codec.frame.width=16", "codec.frame.encoder_blocks=1", "codec.frame.decoder_blocks=1"),
    "codec.quantizer.kmeans_iterations=1",
]
"""Settings that only show whether everything works; the codes stay as many as they are."""


def variants() -> dict[str, list[str]]:
    """Settings of every variant."""
    found = {}
    for name, quantizer in KINDS.items():
        levels = len(quantizer.get("strides", range(8)))
        found[f"{levels} x {name}"] = [f"codec.n_q={levels}", f"codec.quantizer={json.dumps(quantizer)}"]
    for name, quantizer in SINGLE.items():
        found[f"1 x {name}"] = ["codec.n_q=1", f"codec.quantizer={json.dumps(quantizer)}"]
    return found


def measure(name: str, settings: Sequence[str], options: argparse.Namespace) -> dict[str, Any]:
    """Train one variant, or go on where it was, and rate it with all of its levels."""
    steps, folder = 3 if options.tiny else options.steps, options.output / name.replace(" ", "").replace(",", "-")
    common = [f"data.manifests=[{options.data}]", f"data.cache={options.output / 'cache'}", *SMALL]
    common += [
        f"steps={steps}",
        f"validate_every={steps}",
        f"checkpoint_every={max(1, steps // 5)}",
        f"log_every={steps}",
    ]
    common += ["optimisation.rate=1.0e-3", "optimisation.warmup=50", *(TINY if options.tiny else [])]
    recipe = from_yaml(CodecRecipe, RECIPE, [*common, *settings])
    # a warm-up of its own keeps the start (components, k-means) out of the time per step
    done = train(recipe, folder, stop_at=max(1, steps // 10)).step
    began = time.perf_counter()
    state = train(recipe, folder)
    seconds = (time.perf_counter() - began) / (steps - done) if done < steps else None
    tokenizer = speechtok.load(folder / "model")
    utterances = read_manifest(options.data, "dev")[: 1 if options.tiny else options.files]
    rated = evaluate(tokenizer, utterances, (tokenizer.levels,), SHOWN)
    usage = rated["usage"]
    return {
        "name": name,
        "settings": [*common, *settings],
        "steps": state.step,
        "bitrate": tokenizer.bitrate,
        "parameters": state.average.parameters_count(),
        "seconds_per_step": seconds,
        "n": rated["n"],
        "metrics": {metric: rated["summary"][-1][metric] for metric in SHOWN},
        "used": [level["usage"] for level in usage],
        "perplexity": [level["perplexity"] for level in usage],
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown, a line per variant."""
    head = ["quantizer", "kbit/s", *(METRICS[name].label for name in SHOWN), "codes used", "perplexity", "s/step"]
    lines = [head, ["---"] * len(head)]
    for row in rows:
        figures = [estimate_text(row["metrics"][name], METRICS[name].digits) for name in SHOWN]
        used, perplexity = (sum(row[name]) / len(row[name]) for name in ("used", "perplexity"))
        seconds = row["seconds_per_step"]
        speed = "" if seconds is None else f"{seconds:.2f}"
        lines.append([row["name"], f"{row['bitrate'] / 1000:.2f}", *figures, f"{used:.0%}", f"{perplexity:.0f}", speed])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="manifest with train and dev rows")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--files", type=int, default=24, help="dev utterances that are rated")
    parser.add_argument("--only", nargs="+", choices=list(variants()), metavar="NAME")
    parser.add_argument("--tiny", action="store_true", help="three steps and one utterance: does everything work?")
    options = parser.parse_args()
    make_folder(options.output)
    results = options.output / "results.json"
    rows = json.loads(results.read_text())["rows"] if results.exists() else []
    for name, settings in variants().items():
        if (options.only and name not in options.only) or name in {row["name"] for row in rows}:
            continue
        rows.append(measure(name, settings, options))
        document = {"versions": versions(), "files": options.files, "tiny": options.tiny, "rows": rows}
        write_text_atomic(results, json.dumps(document, indent=1) + "\n")
        write_text_atomic(options.output / "results.md", table(rows))
        print(table(rows[-1:]).splitlines()[-1], flush=True)
    print(table(rows))
    return 0


if __name__ == "__main__":
    run_module(main)
