"""``speechtok features``: what a teacher hears in a corpus, kept in one file for training."""

from __future__ import annotations

import argparse
import sys
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
    parser.add_argument("--device", default="cpu", help="where the teacher runs, such as cuda (default: cpu)")


def run(args: argparse.Namespace) -> int:
    """Extract what the trainer will ask for: the same utterances, in its order."""
    from tqdm import tqdm

    from speechtok.files import make_folder
    from speechtok.guidance.extraction import extract_store
    from speechtok.guidance.naming import describe
    from speechtok.guidance.store import FeatureStore
    from speechtok.guidance.teachers import load_semantic_teacher
    from speechtok.train.data import WaveStore, pooled

    utterances = pooled(args.manifests, args.split)
    teacher = load_semantic_teacher(args.teacher, args.layer)
    waves = WaveStore.build(utterances, teacher.law.rate, args.cache)
    make_folder(args.output.absolute().parent)
    name = describe(args.teacher, args.layer)
    with tqdm(total=len(waves), unit="file", disable=not sys.stderr.isatty()) as bar:
        kept = extract_store(args.output, teacher, name, waves, waves.lengths, args.device, bar.update)
    frames = int(FeatureStore(args.output).offsets[-1])
    print(
        f"{args.output}: {len(waves)} utterances ({kept} from before), {frames} frames of {teacher.dimension} features"
    )
    return 0
