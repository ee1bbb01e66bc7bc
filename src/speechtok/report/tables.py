"""Figures of a task as one table: a line per tokenizer and number of levels, a column per measure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any, NamedTuple

from speechtok.bench.tables import Shown
from speechtok.bench.tasks import ALL
from speechtok.report.page import DASH, Html, table, tag, text

Row = Mapping[str, Any]


class Layout(NamedTuple):
    """What makes lines and columns."""

    lines: dict[tuple[str, str], None]
    """Tokenizer, and what else tells its lines apart."""
    columns: dict[tuple[str, str], Shown]
    """Key of a column, and how its figures are shown; the role is empty where it is part of the line."""


def task_table(rows: Sequence[Row], module: ModuleType, differences: bool = False) -> Html:
    """The table of summary rows, or of rows of differences, which are marked where their interval excludes zero."""
    by_role = getattr(module, "COLUMNS", "measure") == "role"
    layout = _layout(rows, getattr(module, "MEASURES", {}), by_role)
    cells = {(_line(row, by_role), _column(row, by_role)): row for row in rows}
    named = any(line != ALL for _, line in layout.lines)
    heads = ["Tokenizer", *(["Levels"] if named else []), *(_heading(key, one) for key, one in layout.columns.items())]
    body = [
        [_name(name, line) if named else name, *([line] if named else [])]
        + [estimate_cell(cells.get(((name, line), key)), shown, differences) for key, shown in layout.columns.items()]
        for name, line in layout.lines
    ]
    return table(heads, body, class_="numbers sortable")


def estimate_cell(row: Row | None, shown: Shown, difference: bool = False) -> Html:
    """Mean over its interval, with the number of failures; a dash where there is no such figure."""
    if row is None:
        return Html(DASH)
    if row["mean"] is None:
        reasons = "; ".join(row["reasons"])
        return tag("span", DASH, tag("small", f"{row['failed']} failed"), title=reasons)
    sign = "+" if difference else ""
    value = tag("b", f"{row['mean']:{sign},.{shown.digits}f}")
    known = row["low"] is not None and row["high"] is not None
    spread = known and row["low"] != row["high"]
    notes = [f"{row['low']:,.{shown.digits}f} to {row['high']:,.{shown.digits}f}"] if spread else []
    notes += [f"{row['failed']} failed"] if row["failed"] else []
    small = [tag("small", ", ".join(notes))] if notes else []
    sure = difference and known and (row["low"] > 0 or row["high"] < 0)
    title = "; ".join(row["reasons"]) or row.get("detail")
    return tag("span", value, *small, title=title, class_="sure" if sure else None)


def shown_measure(measure: str, measures: Mapping[str, Shown]) -> Shown:
    """How a measure is shown; its own name where the task says nothing."""
    return measures.get(measure) or Shown(measure.replace("_", " "), True)


def _layout(rows: Sequence[Row], measures: Mapping[str, Shown], by_role: bool) -> Layout:
    lines = dict.fromkeys(_line(row, by_role) for row in rows)
    found = dict.fromkeys(_column(row, by_role) for row in rows)
    order = list(measures)
    if not by_role:
        known = [key for name in order for key in found if key[0] == name]
        found = dict.fromkeys([*known, *found])
    return Layout(lines, {key: shown_measure(key[0], measures) for key in found})


def _name(name: str, line: str) -> Html:
    """The first cell of a line, which stays in view when the second has been scrolled away."""
    return Html(f"{text(name)}{tag('small', f' {line}')}")


def _line(row: Row, by_role: bool) -> tuple[str, str]:
    if not by_role:
        return row["tokenizer"], row["role"]
    levels = row.get("levels")
    return row["tokenizer"], ALL if levels is None else f"{levels} level{'s' * (levels > 1)}"


def _column(row: Row, by_role: bool) -> tuple[str, str]:
    return (row["measure"], row["role"]) if by_role else (row["measure"], "")


def _heading(key: tuple[str, str], shown: Shown) -> str:
    return f"{key[1] or shown.label} {'↑' if shown.higher_is_better else '↓'}"
