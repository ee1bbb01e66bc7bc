"""``speechtok adapt``: bring a recogniser to another domain by the chain, and say what it won and forgot."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "adapt a token recogniser to another corpus by the chain"
NOTE = """Example: speechtok adapt --asr runs/asr/model --t2s runs/t2s/model --target data/kathleen.tsv
--source data/librispeech.tsv --replay 0.2 -o runs/adapted. Started again, it goes on where it was."""
BEAM = 20


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings of the training, as in recipes")
    parser.add_argument("--asr", required=True, type=Path, metavar="DIR", help="recogniser of 'speechtok train asr'")
    parser.add_argument("--t2s", required=True, type=Path, metavar="DIR", help="speaker of 'speechtok train t2s'")
    parser.add_argument(
        "--target", required=True, type=Path, metavar="TSV",
        help="manifest of the new domain, with texts; rows train, dev and test",
    )  # fmt: skip
    parser.add_argument("--source", type=Path, metavar="TSV", help="manifest of the old domain: what is forgotten?")
    parser.add_argument(
        "--replay", type=float, metavar="SHARE",
        help="share of the training that is speech of the source (default: the recipe's, or 0)",
    )  # fmt: skip
    parser.add_argument("--recipe", type=Path, metavar="YAML", help="of 'speechtok train chain' (default: built in)")
    parser.add_argument("--beam", type=int, default=BEAM, metavar="N", help=f"of the search when measured ({BEAM})")
    parser.add_argument(
        "--utterances", type=int, default=0, metavar="N", help="of each test split to measure (default: all)"
    )
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="DIR", help="folder of the run")


def run(args: argparse.Namespace) -> int:
    """Train, measure and print the table."""
    from speechtok.bench.adaptation import Job, adapt
    from speechtok.chain.decoding import SearchConfig

    job = Job(args.asr, args.t2s, args.target, args.source, args.replay, args.recipe, tuple(args.overrides))
    if adapt(job, args.output, SearchConfig(beam=args.beam), args.utterances) is not None:
        print((args.output / "adaptation.md").read_text(encoding="utf-8"))
        print(f"{args.output}: model/asr, model/t2s, adaptation.json, adaptation.md")
    return 0
