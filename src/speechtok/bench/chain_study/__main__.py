"""Train variants of the chain with several seeds, test all of them alike, and say what differs.

    python -m speechtok.bench.chain_study STUDY.yaml -o DIR [--only NAME ...] [--seeds N ...] [--quick] [name=value ...]

Every training runs in a process of its own. Started again, it trains and tests only what is missing.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from speechtok.bench.chain_study.drawing import draw
from speechtok.bench.chain_study.results import Row, summarise
from speechtok.bench.chain_study.study import ChainStudy, Run, Testers, finished_runs
from speechtok.bench.chain_study.tables import markdown
from speechtok.bench.judge import error_scores
from speechtok.bench.reconstruction import versions
from speechtok.bench.repeats import over_seeds
from speechtok.config import from_yaml
from speechtok.errors import ConfigError, TrainingError, run_module
from speechtok.files import make_folder, write_text_atomic

FORMAT, VERSION = "speechtok.chain-study", 1


def run_study(study: ChainStudy, folder: Path, only: Sequence[str] = ()) -> list[Row]:
    """Train and test the variants (those in ``only``, or all), seed by seed, and write what is known about all of them.

    ``folder`` gets ``variants/NAME/seed-N/`` (runs, with their tests), ``summary.json``, ``summary.md`` and
    ``summary.png``.

    Returns:
        The rows of the summary.

    Raises:
        CheckpointError: a model that the runs begin with is missing.
        ConfigError: a setting, a manifest, or a missing package.
        TrainingError: a run could not be trained; the others were, and are in the summary.
    """
    unknown = sorted(set(only) - set(study.variants))
    if unknown:
        raise ConfigError(f"there is no variant {', '.join(unknown)}; the study has {', '.join(study.variants)}")
    error_scores("a", "a")  # missing packages are said before any work
    over_seeds([0.0, 1.0])
    chosen = [name for name in study.variants if name in (only or study.variants)]
    wanted = [study.run_of(name, seed, folder) for seed in study.seeds for name in chosen]
    testers = Testers(study)
    failed = [variant.name for variant in wanted if not variant.train()]
    runs = finished_runs(study, testers, folder)
    rows = summarise(runs, study.baseline, study.judged)
    write(study, folder, runs, rows, {name: len(items) for name, items in testers.items.items()})
    if failed:
        raise TrainingError(f"not trained: {', '.join(failed)}; what it said stands above, start again to go on")
    return rows


def write(study: ChainStudy, folder: Path, runs: Sequence[Run], rows: Sequence[Row], counts: dict[str, int]) -> None:
    """The three files of a study."""
    trained = [run for run in runs if run.curves is not None]
    curves = [{"variant": run.variant, "seed": run.seed, **asdict(run.curves)} for run in trained]
    document = {"format": FORMAT, "version": VERSION, "study": asdict(study), "confidence": 0.95, "n": counts}
    document |= {"versions": versions(), "summary": list(rows), "curves": curves}
    write_text_atomic(folder / "summary.json", json.dumps(document, indent=1) + "\n")
    write_text_atomic(folder / "summary.md", markdown(rows, study))
    if trained:
        draw(runs, folder / "summary.png")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    options = _parser().parse_intermixed_args(arguments)
    study = from_yaml(ChainStudy, options.study, options.settings)
    if options.seeds:
        study = replace(study, seeds=options.seeds)
    folder = options.output / "quick" if options.quick else options.output
    make_folder(folder)
    run_study(study.in_brief() if options.quick else study, folder, options.only)
    print((folder / "summary.md").read_text(encoding="utf-8"))
    print(f"{folder}: summary.json, summary.md, summary.png")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m speechtok.bench.chain_study", description=__doc__.split("\n")[0])
    parser.add_argument("study", type=Path, metavar="STUDY", help="a YAML file, see recipes/chain-study.yaml")
    parser.add_argument("settings", nargs="*", metavar="name=value", help="settings that replace the study's")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="folder of the study")
    parser.add_argument("--only", nargs="+", action="extend", default=[], metavar="NAME", help="only these variants")
    parser.add_argument("--seeds", nargs="+", type=int, action="extend", metavar="N", help="instead of the study's")
    parser.add_argument("--quick", action="store_true", help="a trial run of one seed and few steps, in DIR/quick")
    return parser


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # by default a training process would be left behind
    run_module(main)
