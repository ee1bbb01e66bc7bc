"""``speechtok features``: what a teacher hears in a corpus, kept in one file for training."""

from __future__ import annotations

import argparse
from pathlib import Path

from speechtok.guidance.naming import layer_of

HELP = "keep a teacher's features of a corpus in one file, for guidance and for units"
NOTE = (
    "Example: speechtok features corpus.tsv -o hubert.safetensors --teacher facebook/hubert-base-ls960 --layer 9;"
    " started again after an interruption it goes on."
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "manifests", nargs="+", metavar="MANIFEST", type=Path, help="those of the recipe, in the same order"
    )
    parser.add_argument("-o", "--output", required=True, metavar="FILE", type=Path, help="the feature store")
    parser.add_argument("--teacher", required=True, metavar="TEACHER", help="a folder or a Hub id")
    parser.add_argument(
        "--layer", type=layer_of, default="average", metavar="LAYER", help="its number, or 'average' of all (default)"
    )
    parser.add_argument("--split", default="train", metavar="NAME", help="rows of the manifests (default: train)")
    parser.add_argument("--cache", default="cache", metavar="DIR", help="the recipe's data.cache (default: cache)")
    parser.add_argument("--shard-size", type=int, default=200, metavar="N", help="most recordings of a part (200)")
    parser.add_argument("--workers", type=int, metavar="N", help="processes (default: one a core, or one on a GPU)")
    parser.add_argument("--device", default="cpu", help="where the teacher runs, such as cuda (default: cpu)")


def run(args: argparse.Namespace) -> int:
    """Extract what the trainer will ask for: the same utterances, in its order."""
    from speechtok.train.features import FeatureJob, extract_features

    manifests = tuple(map(str, args.manifests))
    job = FeatureJob(
        manifests, str(args.output), args.teacher, args.layer, args.split, args.cache, args.device, args.shard_size
    )
    found = extract_features(job, args.workers)
    print(
        f"{args.output}: {found.utterances} utterances ({found.kept} from before), {found.frames} frames of"
        f" {found.dimension} features"
    )
    return 0
