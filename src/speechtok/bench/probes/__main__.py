"""Train a probe on the tokens of a model and measure it.

python -m speechtok.bench.probes --task asr --model M --data MANIFEST.tsv -o DIR [name=value ...]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import speechtok
from speechtok.bench.probes import asr, emotion, intent, keyword, mutual_information, phones, speaker
from speechtok.bench.probes.measuring import ProbeTask, accuracies
from speechtok.bench.probes.recipe import ProbeRecipe
from speechtok.bench.reconstruction import estimate_text, versions
from speechtok.config import from_yaml
from speechtok.errors import ConfigError, run_module
from speechtok.files import make_folder, write_text_atomic

FORMAT, VERSION = "speechtok.probes", 1
MODULES = (asr, mutual_information, phones, intent, emotion, keyword, speaker)
TASKS = {module.TASK.name: module.TASK for module in MODULES} | {"label": ProbeTask("label", "classes", accuracies)}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; prints one line per figure and writes the JSON."""
    options = _parser().parse_intermixed_args(arguments)
    task, folder = TASKS[options.task], make_folder(options.output / options.task)
    recipe = recipe_of(options, task)
    tokenizer = speechtok.load(options.model)
    rows = task.run(tokenizer, recipe, options.levels, folder)
    for row in rows:
        levels = "" if row["levels"] is None else f", {row['levels']} levels"
        print(f"{row['tokenizer']} {row['measure']} ({row['role']}{levels}): {estimate_text(row, 3)}, n {row['n']}")
    document = {"format": FORMAT, "version": VERSION, "settings": asdict(recipe), "versions": versions()}
    write_text_atomic(
        folder / f"summary-{tokenizer.fingerprint}.json", json.dumps(document | {"summary": rows}, indent=1) + "\n"
    )
    return 0


def recipe_of(options: argparse.Namespace, task: ProbeTask) -> ProbeRecipe:
    """The recipe that was named, or the small one, with overrides and the task's question.

    Raises:
        ConfigError: it cannot be read, a setting is unknown, or the task lacks a label or alignments.
    """
    if task.name == "label" and not options.label:
        raise ConfigError("task label needs --label COLUMN, or --label COLUMN:KEY where it holds JSON")
    if task.goal == "phones" and not options.phones:
        raise ConfigError("task phones needs --phones PHONES.tsv, which speechtok align makes")
    recipe = from_yaml(ProbeRecipe, options.recipe, options.overrides)
    cache = options.cache or options.output / "tokens"
    return task.adapted(recipe, [*map(str, options.data)], [*map(str, options.phones)], cache, options.label)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m speechtok.bench.probes", description=__doc__.split("\n")[0])
    parser.add_argument("--task", required=True, choices=tuple(TASKS))
    parser.add_argument("--recipe", required=True, type=Path, help="such as recipes/probe-mini.yaml")
    parser.add_argument(
        "--data", required=True, type=Path, nargs="+", help="manifests: tab-separated, columns path, split, ..."
    )
    parser.add_argument("--model", help="a name of `speechtok models`, a folder or a Hub id; bundled model")
    parser.add_argument("--levels", type=int, nargs="+", default=[1, 0], help="numbers of levels to read; 0: all")
    parser.add_argument("--label", default="", help="column with the classes, or column:key where it holds JSON")
    parser.add_argument("--phones", type=Path, nargs="+", default=[], help="phones.tsv of speechtok align")
    parser.add_argument("--cache", type=Path, help="folder for the tokens; DIR/tokens")
    parser.add_argument("-o", "--output", required=True, type=Path, help="folder for probes, rows and summary")
    parser.add_argument("overrides", nargs="*", help="settings of the recipe, such as steps=500")
    return parser


if __name__ == "__main__":
    run_module(main)
