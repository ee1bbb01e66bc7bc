"""One picture of a training run: its losses, its validation, and the health of its codebooks.

    python -m speechtok.train.plot RUN [-o curves.png] [--csv curves.csv]
"""

from __future__ import annotations

import argparse
import csv
import io
from pathlib import Path
from typing import Any

from speechtok.errors import ConfigError, run_module
from speechtok.files import atomic_path, write_text_atomic
from speechtok.train.log import read_log

ADVERSARIAL = ("adversarial/", "discriminator/", "feature/")
OTHER = ("codes/", "gradient/", "steps/s", "eta/")
CODES = {
    "codes/used": "share of codes in use",
    "codes/perplexity": "perplexity per level",
    "codes/revived": "codes revived since the last validation",
}


def draw(run: Path, picture: Path | None = None) -> Path:
    """Draw ``run/log.jsonl`` as a PNG, ``run/curves.png`` unless named; returns its path.

    Raises:
        ConfigError: there is no log, or matplotlib is not installed.
        OutputError: the picture cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError("drawing needs matplotlib; pip install 'speechtok[train]'") from error
    rows = read_log(run / "log.jsonl")
    training, validation, alarms = ([row for row in rows if row["kind"] == k] for k in ("train", "validation", "alarm"))
    figure = Figure(figsize=(14, 7), layout="constrained")
    axes = figure.subplots(2, 3).flat
    names = sorted({name for row in training for name in row} - {"kind", "step"})
    judged = [name for name in names if name.startswith(ADVERSARIAL)]
    plain = [name for name in names if not name.startswith((*ADVERSARIAL, *OTHER))]
    _curves(next(axes), "losses in training", training, plain, log=True)
    _curves(next(axes), "adversarial losses in training", training, judged)
    figures = {name for row in validation for name in row if isinstance(row[name], float)}
    distances = sorted(name for name in figures if name.startswith("mel/"))
    title = "mel distance in validation, by levels" if distances else "validation"
    _curves(next(axes), title, validation, distances or sorted(figures))
    for name, title in CODES.items():
        _levels(next(axes), title, validation, name)
    for axis in figure.axes:
        axis.set_xlabel("step")
        for step in {row["step"] for row in alarms}:
            axis.axvline(step, color="red", alpha=0.3, linewidth=1)
    figure.suptitle(f"{run.name}" + (f": {len(alarms)} alarms (red)" if alarms else ""))
    picture = picture or run / "curves.png"
    with atomic_path(picture) as temporary:
        figure.savefig(temporary, format="png", dpi=100)
    return picture


def write_table(run: Path, table: Path) -> Path:
    """The rows of ``run/log.jsonl`` as CSV, one column for each figure and each level of a figure; returns its path.

    Raises:
        ConfigError: there is no log.
        OutputError: the table cannot be written.
    """
    rows = [_flat(row) for row in read_log(run / "log.jsonl") if row["kind"] != "alarm"]
    names = ["kind", "step", *sorted({name for row in rows for name in row} - {"kind", "step"})]
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text_atomic(table, text.getvalue())
    return table


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    """Lists become one figure per level, and numbers keep five digits."""
    flat: dict[str, Any] = {}
    for name, value in row.items():
        flat |= {f"{name}/{i}": item for i, item in enumerate(value)} if isinstance(value, list) else {name: value}
    return {name: f"{value:.5g}" if isinstance(value, float) else value for name, value in flat.items()}


def _curves(axis: Any, title: str, rows: list[dict[str, Any]], names: list[str], log: bool = False) -> None:
    for name in names:
        points = [(row["step"], row[name]) for row in rows if name in row]
        axis.plot(*zip(*points, strict=True), label=name, linewidth=1)
    axis.set_title(title)
    if names:
        axis.legend(fontsize="small")
    if log and names:
        axis.set_yscale("log")


def _levels(axis: Any, title: str, rows: list[dict[str, Any]], name: str) -> None:
    rows = [row for row in rows if name in row]
    levels = len(rows[0][name]) if rows else 0
    for level in range(levels):
        points = [(row["step"], row[name][level]) for row in rows]
        shade = (0.1, 0.25 + 0.6 * level / levels, 0.75 - 0.5 * level / levels)
        axis.plot(*zip(*points, strict=True), label=f"level {level}", linewidth=1, color=shade)
    axis.set_title(title)
    axis.set_ylim(bottom=0)
    if levels:
        axis.legend(fontsize="x-small", ncols=2)


def main(arguments: list[str] | None = None) -> int:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a training run")
    parser.add_argument("-o", "--output", type=Path, help="the picture (default: curves.png in the run's folder)")
    parser.add_argument("--csv", type=Path, help="a table of the same figures")
    options = parser.parse_args(arguments)
    print(draw(options.run, options.output))
    if options.csv:
        print(write_table(options.run, options.csv))
    return 0


if __name__ == "__main__":
    run_module(main)
