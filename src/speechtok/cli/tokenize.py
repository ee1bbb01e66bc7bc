"""``speechtok tokenize``: a corpus of recordings to shards of tokens, resumable."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from speechtok.cli.common import add_model_options

HELP = "turn a whole corpus into Parquet shards of tokens; started again, it goes on"
NOTE = (
    "SOURCE is a folder of audio, a .tsv or .jsonl manifest, a wav.scp, a Lhotse CutSet or a Hugging Face dataset saved"
    " on disk. Example: speechtok tokenize corpus.tsv --split train -o tokens/"
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("source", metavar="SOURCE", type=Path, help="where the recordings are")
    parser.add_argument("-o", "--output", required=True, metavar="DIR", type=Path, help="folder of the corpus")
    add_model_options(parser)
    parser.add_argument("--split", metavar="NAME", help="only these rows of a manifest, or this split of a dataset")
    parser.add_argument("--levels", type=int, metavar="K", help="only the first K levels (default: all)")
    parser.add_argument(
        "--batch", type=int, default=1, metavar="N",
        help="recordings of a padded pass; more than 1 changes the odd near-tie code (default: 1)",
    )  # fmt: skip
    parser.add_argument("--shard-size", type=int, default=256, metavar="N", help="most recordings of a shard (256)")
    parser.add_argument("--shard-seconds", type=float, metavar="S", help="most seconds of a shard (default: any)")
    parser.add_argument("--workers", type=int, metavar="N", help="processes (default: one a core, or one on a GPU)")
    parser.add_argument("--ray", metavar="ADDRESS", help="let a Ray cluster do the work: its address, auto or local")
    parser.add_argument("--num-gpus", type=float, default=0.0, metavar="N", help="GPUs of each task of the cluster")
    parser.add_argument(
        "--update", choices=("extend", "sync", "redo"),
        help="where the source has changed: add what is new; sync also makes shards with changed recordings again;"
        " redo plans everything again and keeps shards that would come out the same",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print what happens as JSON lines")


def run(args: argparse.Namespace) -> int:
    """Tokenize what is missing."""
    from speechtok.corpus.finishing import FAILURES
    from speechtok.corpus.plan import Cut, Settings
    from speechtok.corpus.run import Means, Order, tokenize

    order = Order(
        source=args.source,
        folder=args.output,
        model=args.model,
        split=args.split,
        settings=Settings(args.levels, args.batch, args.precision),
        cut=Cut(args.shard_size, args.shard_seconds),
        update=args.update,
        means=Means(args.workers, args.device, args.ray, args.num_gpus),
    )
    manifest = tokenize(order, _print_line if args.json else None, args.load)
    totals = {name: manifest[name] for name in ("rows", "seconds", "failures", "fingerprint")}
    if args.json:
        _print_line({"event": "end", "shards": len(manifest["shards"]), **totals})
    else:
        hours, shards = manifest["seconds"] / 3600, len(manifest["shards"])
        print(f"{args.output}: {manifest['rows']} recordings, {hours:.2f} h, in {shards} shards")
        if manifest["failures"]:
            print(f"{manifest['failures']} recordings failed; {args.output / FAILURES} says why")
    return 2 if manifest["failures"] else 0


def _print_line(event: dict[str, Any]) -> None:
    print(json.dumps(event, ensure_ascii=False), flush=True)
