"""``speechtok export-corpus``: a corpus of tokens in the formats of other programs."""

from __future__ import annotations

import argparse
from pathlib import Path

from speechtok.errors import ConfigError

HELP = "write a corpus of tokens as WebDataset, Lhotse Shar, datasets, or one flat array"
NOTE = (
    "Parquet is read by DuckDB, polars and datasets as it is. Examples: speechtok export-corpus tokens/ --to webdataset"
    " -o tars/; speechtok export-corpus tokens/ --to flat --layout delay -o train.bin"
)
FORMATS = ("datasets", "flat", "shar", "webdataset")


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("corpus", metavar="DIR", type=Path, help="what speechtok tokenize has made")
    parser.add_argument("--to", required=True, choices=FORMATS, help="the format")
    parser.add_argument(
        "-o", "--output", required=True, metavar="OUT", type=Path, help="a new folder; for flat NAME.bin or NAME.npy"
    )
    parser.add_argument("--layout", metavar="NAME", help="of flat: flat, delay, parallel, coarse, split, dedup (flat)")
    parser.add_argument("--size", type=int, metavar="N", help="recordings of a file of webdataset or shar (1000)")
    parser.add_argument("--no-verify", action="store_true", help="do not compare checksums first")


def run(args: argparse.Namespace) -> int:
    """Check the corpus and write it."""
    from speechtok.corpus.reader import TokenCorpus

    if args.layout and args.to != "flat":
        raise ConfigError(f"--layout belongs to --to flat; leave it out for {args.to}")
    if args.size is not None and args.to not in ("shar", "webdataset"):
        raise ConfigError(f"--size belongs to --to webdataset and shar; leave it out for {args.to}")
    corpus = TokenCorpus(args.corpus)
    if not args.no_verify:
        corpus.verify()
    _export(args, corpus)
    print(f"{args.output}: {len(corpus)} recordings, {corpus.seconds / 3600:.2f} h, as {args.to}")
    return 0


def _export(args: argparse.Namespace, corpus: object) -> None:
    size = {} if args.size is None else {"size": args.size}
    if args.to == "flat":
        from speechtok.corpus.exporters.flat import write_flat

        write_flat(corpus, args.output, args.layout or "flat")
    elif args.to == "webdataset":
        from speechtok.corpus.exporters.webdataset import write_webdataset

        write_webdataset(corpus, args.output, **size)
    elif args.to == "shar":
        from speechtok.corpus.exporters.shar import write_shar

        write_shar(corpus, args.output, **size)
    else:
        from speechtok.corpus.exporters.datasets import write_datasets

        write_datasets(corpus, args.output)
