"""A comparison for people: two tables in Markdown, and one picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from speechtok.bench.facts import ORIGINAL
from speechtok.bench.metrics import METRICS
from speechtok.bench.reconstruction import estimate_text
from speechtok.errors import ConfigError
from speechtok.files import StrPath, atomic_path


class Shown(NamedTuple):
    """How a measure is shown."""

    label: str
    higher_is_better: bool
    digits: int = 3


SHOWN = {name: Shown(METRICS[name].label, METRICS[name].higher_is_better, METRICS[name].digits) for name in METRICS} | {
    "wer": Shown("WER", False),
    "cer": Shown("CER", False),
    "voice_cosine": Shown("voice cosine", True),
    "pnmi": Shown("PNMI", True),
    "phone_purity": Shown("phone purity", True),
}


def markdown(rows: Sequence[dict[str, Any]], reference: str) -> str:
    """Two tables, a line per figure: values with their intervals, and differences from the reference."""
    names = list(dict.fromkeys(row["tokenizer"] for row in rows))
    cells = {(row["measure"], row["role"], row["tokenizer"]): row for row in rows}
    values, differences = [], []
    for measure, role in _figures(rows):
        shown, line = SHOWN[measure], _label(measure, role)
        found = [cells.get((measure, ORIGINAL if name == ORIGINAL else role, name)) for name in names]
        values.append([line, *(estimate_text(row, shown.digits) if row else "" for row in found)])
        differences.append([line, *(_apart(row and row["difference"], shown.digits) for row in found)])
    text = f"Mean [95 % interval]; an arrow points to better.\n\n{_table(names, values)}"
    if not any(any(line[1:]) for line in differences):
        return text
    about = f"Difference from `{reference}` over the same utterances; bold where the interval excludes zero."
    return f"{text}\n{about} {_caveats(rows)}\n\n{_table(names, differences)}"


def _caveats(rows: Sequence[dict[str, Any]]) -> str:
    """What the intervals do not say."""
    count = sum(bool(row["difference"]) for row in rows)
    return (
        "Intervals cover the choice of utterances only: each model was trained once, with one seed, and another seed"
        f" moves it too. They are not corrected for the {count} comparisons made: of that many without any"
        f" difference, about {round(0.05 * count)} would be bold by chance."
    )


def _figures(rows: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    there = {(row["measure"], row["role"]) for row in rows}
    return [(measure, role) for measure in SHOWN for role in ("first", "all") if (measure, role) in there]


def _label(measure: str, role: str) -> str:
    levels = "first level" if role == "first" else "all levels"
    return f"{SHOWN[measure].label}, {levels} {'↑' if SHOWN[measure].higher_is_better else '↓'}"


def _table(names: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    filled = [place for place in range(len(names)) if any(line[place + 1] for line in lines)]
    head = ["", *(names[place] for place in filled)]
    body = [[line[0], *(line[place + 1] for place in filled)] for line in lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in (head, ["---"] * len(head), *body))


def _apart(difference: dict[str, Any] | None, digits: int) -> str:
    if not difference:
        return ""
    text = estimate_text(difference, digits)
    sure = difference["low"] is not None and (difference["low"] > 0 or difference["high"] < 0)
    return f"**{text}**" if sure else text


def draw(rows: Sequence[dict[str, Any]], picture: StrPath) -> None:
    """One panel per measure as a PNG: hollow for the first level, filled for all, a line for the original.

    Raises:
        ConfigError: matplotlib is not installed.
        OutputError: the picture cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError("drawing needs matplotlib; pip install 'speechtok[train]'") from error
    names = [name for name in dict.fromkeys(row["tokenizer"] for row in rows) if name != ORIGINAL]
    measures = list(dict.fromkeys(measure for measure, _ in _figures(rows)))
    across = min(4, len(measures))
    down = -(-len(measures) // across)
    figure = Figure(figsize=(4.2 * across, (1.2 + 0.34 * len(names)) * down), layout="constrained")
    for place, measure in enumerate(measures):
        axis = figure.add_subplot(down, across, place + 1)
        for row in rows:
            if row["measure"] == measure and row["mean"] is not None:
                _mark(axis, row, names)
        axis.set_title(f"{SHOWN[measure].label} ({'higher' if SHOWN[measure].higher_is_better else 'lower'} is better)")
        axis.set_yticks(range(len(names)), names if place % across == 0 else [""] * len(names))
        axis.set_ylim(len(names) - 0.5, -0.5)
        axis.grid(axis="x", alpha=0.3)
    figure.supxlabel("hollow: first level   filled: all levels   dashed: the recordings   bars: 95 % interval")
    with atomic_path(picture) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


def _mark(axis: Any, row: dict[str, Any], names: Sequence[str]) -> None:
    if row["role"] == ORIGINAL:
        axis.axvline(row["mean"], color="grey", linestyle="--", linewidth=1)
        return
    height = names.index(row["tokenizer"]) + (0.12 if row["role"] == "first" else -0.12)
    if row["low"] is not None:
        axis.plot([row["low"], row["high"]], [height, height], color="tab:blue", linewidth=1)
    fill = "white" if row["role"] == "first" else "tab:blue"
    axis.plot([row["mean"]], [height], "o", color="tab:blue", markerfacecolor=fill, markersize=5)
