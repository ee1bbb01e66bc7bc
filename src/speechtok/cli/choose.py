"""``speechtok choose``: which tokens for which task, and why."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from speechtok.cli.common import print_json

if TYPE_CHECKING:
    from speechtok.bench.choose import Model, Option, Recommendation
    from speechtok.bench.figures import Figure, Results
    from speechtok.tokenizers.published import ModelEntry

HELP = "recommend a tokenizer for a task, with reasons, trade-offs and the next command"
NOTE = """Tasks: asr, tts, vc, speech-lm, understanding, compression, streaming, dialogue.
Example: speechtok choose --task compression --bitrate 2000"""
RESULTS = Path("benchmarks/results")
"""Looked into where nobody names a folder and this one is there."""
SHOWN = 4
"""Models named per scheme."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--task", required=True, metavar="TASK", help="what the tokens are for")
    parser.add_argument("--bitrate", type=float, metavar="BPS", help="at most so many bit/s")
    parser.add_argument("--causal", action="store_true", help="only models that need no audio from the future")
    parser.add_argument("--offline", action="store_true", help="only models that come with the package")
    parser.add_argument(
        "--results", type=Path, metavar="DIR", help=f"JSON files of benchmarks (default: {RESULTS}, if it is there)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Print the recommendation."""
    from speechtok.bench.choose import Constraints, choose
    from speechtok.bench.figures import Results, read_results
    from speechtok.tokenizers.registry import models

    folder = args.results or (RESULTS if RESULTS.is_dir() else None)
    results = read_results(folder) if folder else Results()
    entries = models()
    found = choose(args.task, Constraints(args.bitrate, args.causal, args.offline), entries, results)
    if args.json:
        print_json(found.to_dict() | {"unreadable": list(results.unreadable)})
    else:
        print("\n".join(_page(found, results, folder, entries)))
    return 0


def _page(found: Recommendation, results: Results, folder: Path | None, entries: Sequence[ModelEntry]) -> list[str]:
    from speechtok.bench.choose import read_guide

    guide = read_guide()
    lines = [f"{found.task}: {guide.tasks[found.task].about}"]
    lines += [f"constraints: {found.constraints.words}"] if found.constraints.words else []
    for place, option in enumerate(found.options, 1):
        lines += ["", *_option(place, option)]
    lines += ["", "What decided"]
    lines += ["  rules of the literature, by points (3: named for this very task ... -3: warned of)"]
    lines += [f"  figures: {words}" for words in found.moved] or [
        f"  no figure changed that order; {_read(results, folder)}"
    ]
    others = sorted({figure.tokenizer for figure in results.figures} - {entry.name for entry in entries})
    lines += (
        [f"  not used, figures of tokenizers that are not in speechtok models: {'; '.join(others)}"] if others else []
    )
    lines += [f"  not read: {words}" for words in results.unreadable]
    lines += ["", "What would change it", *(f"  {words}" for words in found.changes)]
    lines += ["", "Sources", *(f"  {name}: {title}" for name, title in guide.sources.items() if _cites(found, name))]
    commands = found.commands or ("nothing here satisfies this; loosen a constraint",)
    return [*lines, "", "Next", *(f"  {command}" for command in commands)]


def _option(place: int, option: Option) -> list[str]:
    lines = [f"{place}. {option.letter}, {option.scheme.title} ({option.points:+d} points)"]
    lines += [f"   {rule.points:+d}  {rule.reason} [{rule.source}]" for rule in option.rules]
    lines += [f"   costs: {cost}" for cost in option.scheme.costs]
    for model in option.models[:SHOWN]:
        lines += [f"   model: {_model(model)}", *(f"     {_figure(figure)}" for figure in model.figures)]
    more = len(option.models) - SHOWN
    lines += [f"   and {more} more, see speechtok models"] if more > 0 else []
    for why in dict.fromkeys(why for _, why in option.left_out):
        lines.append(f"   left out, {why}: {', '.join(name for name, reason in option.left_out if reason == why)}")
    if not option.models:
        begin = f"; begin with: {option.start[0]}" if option.start else ", and no recipe for one"
        lines.append(f"   no model at hand{begin}")
    return lines


def _model(model: Model) -> str:
    where = "bundled" if model.entry.bundled else "from the Hub" if "/" in model.entry.name else "lacks its packages"
    some = f"the first {model.levels} of {model.entry.levels} levels, " if model.levels < model.entry.levels else ""
    rate = "" if model.bitrate is None else f"{model.bitrate:.0f} bit/s, "
    measured = "" if model.figures else "; not measured"
    return f"{model.entry.name} ({some}{rate}{where}; weights: {model.entry.licence_weights}{measured})"


def _figure(figure: Figure) -> str:
    interval = "" if figure.low is None else f" [{figure.low:.3g}, {figure.high:.3g}]"
    whose = f", fingerprint {figure.fingerprint}" if figure.fingerprint else ""
    where = f"{figure.data or 'data not named'}{whose}, from {figure.file}"
    return f"{figure.measure}, {figure.role}: {figure.mean:.3g}{interval}, n = {figure.n}, {where}"


def _read(results: Results, folder: Path | None) -> str:
    if folder is None:
        return "none was read (--results DIR)"
    return f"{len(results.figures)} were read from {len(results.files)} files in {folder}"


def _cites(found: Recommendation, name: str) -> bool:
    return any(name in rule.source for option in found.options for rule in option.rules)
