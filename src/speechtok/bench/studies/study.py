"""What a study comes to: tables, their numbers as JSON, pictures, and what it lacked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from speechtok.bench.reconstruction import estimate_text
from speechtok.bench.statistics import Estimate

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Table(NamedTuple):
    """One table."""

    title: str
    columns: Sequence[str]
    lines: Sequence[Sequence[str]]

    def markdown(self) -> str:
        """With its title above it."""
        lines = [self.columns, ["---"] * len(self.columns), *self.lines]
        return f"{self.title}\n\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines)


@dataclass
class Study:
    """A question and what the results say to it."""

    name: str
    title: str
    method: str
    """How to read its tables: what was compared, and what its intervals cover."""
    tables: list[Table] = field(default_factory=list)
    numbers: list[dict[str, Any]] = field(default_factory=list)
    """Every figure of the tables: its place, mean, interval and n."""
    pictures: dict[str, Figure] = field(default_factory=dict)
    """By the last part of the file's name; empty for the only one."""
    missing: list[str] = field(default_factory=list)
    """Inputs that were not there, one line each."""

    @property
    def made(self) -> bool:
        """Whether there is anything to show."""
        return bool(self.numbers)

    def add(self, table: str, estimate: Estimate | dict[str, Any], **place: Any) -> None:
        """Keep one figure for the JSON file."""
        values = estimate.to_dict() if isinstance(estimate, Estimate) else estimate
        kept = {name: values[name] for name in ("mean", "low", "high", "n", "failed")}
        self.numbers.append({"table": table, **place, **kept})

    def lack(self, line: str) -> None:
        """Say once that an input is missing."""
        if line not in self.missing:
            self.missing.append(line)

    def files(self) -> dict[str, Figure]:
        """Pictures by file name."""
        return {f"study-{'-'.join(filter(None, (self.name, part)))}.png": one for part, one in self.pictures.items()}

    def markdown(self) -> str:
        """Its section of a page."""
        parts = [f"## {self.title}\n", f"{self.method}\n"]
        if not self.made:
            parts.append("Not made.\n")
        parts += [f"![{self.title}]({name})\n" for name in self.files()]
        parts += [table.markdown() for table in self.tables if table.lines]
        if self.missing:
            parts.append("Missing:\n\n" + "".join(f"- {line}\n" for line in self.missing))
        return "\n".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """Plain types, ready for JSON."""
        return {
            "name": self.name,
            "title": self.title,
            "method": self.method,
            "made": self.made,
            "pictures": list(self.files()),
            "missing": self.missing,
            "numbers": self.numbers,
        }


def cell(estimate: Estimate | dict[str, Any] | None, digits: int, difference: bool = False) -> str:
    """An estimate for a table; of a difference, bold where its interval excludes zero."""
    if estimate is None:
        return ""
    values = estimate.to_dict() if isinstance(estimate, Estimate) else estimate
    text = estimate_text(values, digits)
    known = difference and values["low"] is not None
    return f"**{text}**" if known and (values["low"] > 0 or values["high"] < 0) else text


def arrow(higher_is_better: bool) -> str:
    """Which way is better."""
    return "↑" if higher_is_better else "↓"
