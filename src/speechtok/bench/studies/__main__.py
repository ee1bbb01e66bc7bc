"""Studies over the results of ``speechtok bench``: tables, pictures, and what could not be answered.

python -m speechtok.bench.studies REPORT [--vocoding vocoding.json] -o DIR

REPORT is the folder of a benchmark, or its summary.json alone, which answers less. DIR gets ``studies.md`` (all tables,
to read or to paste), ``studies.json`` (the same numbers with n and 95 % intervals) and ``study-*.png``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from speechtok.bench.studies.causal import causal
from speechtok.bench.studies.codebooks import codebooks
from speechtok.bench.studies.drawing import save_png
from speechtok.bench.studies.knee import knee
from speechtok.bench.studies.prompt import prompt
from speechtok.bench.studies.results import BenchResults, read_document
from speechtok.bench.studies.settings import MARGINS, Settings
from speechtok.bench.studies.study import Study
from speechtok.bench.studies.tradeoff import tradeoff
from speechtok.bench.vocoding import FORMAT as VOCODING
from speechtok.errors import ConfigError, run_module
from speechtok.files import atomic_path, make_folder, write_text_atomic

FORMAT, VERSION = "speechtok.studies", 1


def run_studies(results: BenchResults, settings: Settings, vocoding: Path | None, folder: Path) -> list[Study]:
    """Make every study that has its inputs, and write all of them.

    Raises:
        ConfigError: ``vocoding`` is not what it should be, or matplotlib is missing.
        OutputError: the folder cannot be written.
    """
    document = vocoding and read_document(vocoding, VOCODING, "python -m speechtok.bench.vocoding")
    studies = [make(results, settings) for make in (tradeoff, causal, knee)]
    studies += [prompt(document), codebooks(results, settings)]
    make_folder(folder)
    for study in studies:
        for name, figure in study.files().items():
            with atomic_path(folder / name) as temporary:
                save_png(figure, temporary)
    fingerprints = {name: one["fingerprint"] for name, one in results.tokenizers.items()}
    head = {"format": FORMAT, "version": VERSION, "tokenizers": fingerprints, "confidence": 0.95}
    body = json.dumps(head | {"studies": [study.to_dict() for study in studies]}, indent=1)
    write_text_atomic(folder / "studies.json", body + "\n")
    write_text_atomic(folder / "studies.md", "\n".join(study.markdown() for study in studies))
    return studies


def parse_margin(text: str) -> tuple[str, float]:
    """``MEASURE=NUMBER``.

    Raises:
        ConfigError: it is something else.
    """
    name, _, value = text.partition("=")
    try:
        return name, float(value)
    except ValueError as error:
        raise ConfigError(f"--margin {text}: write a measure and a number, such as wer={MARGINS['wer']}") from error


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    options = _parser().parse_args(arguments)
    names = {name: getattr(options, name) for name in ("reference", "plain", "causal", "rates")}
    settings = Settings(**names, margins=dict(map(parse_margin, options.margin)))
    studies = run_studies(BenchResults.read(options.results), settings, options.vocoding, options.output)
    for study in studies:
        print(f"{study.name}: {len(study.numbers)} figures" if study.made else f"{study.name}: not made")
        for line in study.missing:
            print(f"  missing: {line}")
    print(f"{options.output}: studies.md, studies.json, {sum(len(study.pictures) for study in studies)} pictures")
    return 0


def _parser() -> argparse.ArgumentParser:
    names = Settings()
    parser = argparse.ArgumentParser(
        prog="python -m speechtok.bench.studies",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("results", type=Path, metavar="REPORT", help="folder of speechtok bench, or its summary.json")
    parser.add_argument("--vocoding", type=Path, metavar="JSON", help="of python -m speechtok.bench.vocoding")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR")
    for name in ("reference", "plain", "causal"):
        parser.add_argument(
            f"--{name}", default=getattr(names, name), metavar="NAME", help="a twin (default: %(default)s)"
        )
    parser.add_argument("--rates", nargs="+", default=names.rates, metavar="NAME", help="twins of several frame rates")
    parser.add_argument(
        "--margin", action="append", default=[], metavar="MEASURE=NUMBER",
        help=f"how much worse is as good ({', '.join(f'{k}={v}' for k, v in MARGINS.items())})",
    )  # fmt: skip
    return parser


if __name__ == "__main__":
    run_module(main)
