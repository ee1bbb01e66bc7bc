"""Figures of several tokenizers against their bitrate, as one inline drawing."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape
from itertools import pairwise
from typing import NamedTuple

from speechtok.report.page import Html, tag

COLOURS = (
    "#4a78d6", "#e07a1f", "#2f9e6e", "#c2417c", "#8a63d2", "#b08900", "#1b9aaa", "#d64545", "#7a8088", "#7cb518",
)  # fmt: skip
SHAPES = ("M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0", "M-4-4H4V4H-4Z", "M0-5L5 0L0 5L-5 0Z", "M0-5L5 4H-5Z")
"""Circle, square, diamond, triangle: colours come again with another one."""
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 460, 290, 46, 14, 12, 38
WIDE, CLOSED = 0.8, 0.3
"""A gap of so many decades between bitrates is drawn as narrow as the other, with a break of the axis in it."""


class Point(NamedTuple):
    """One figure."""

    bitrate: float
    mean: float
    low: float | None
    high: float | None
    label: str


class Series(NamedTuple):
    """The figures of one tokenizer, in the order of their bitrates."""

    name: str
    number: int
    """Decides colour and shape, the same in all charts of a page."""
    points: tuple[Point, ...]


def legend(names: Sequence[str]) -> Html:
    """Names beside their marks; their places are the numbers of the series, which ``legend.js`` shows alone."""
    lines = []
    for number, name in enumerate(names):
        mark = Html(f'<svg viewBox="-6 -6 12 12" aria-hidden="true">{_mark(number)}</svg>')
        line = {"class_": "series", "style": _colour(number), "data_series": number}
        lines.append(tag("li", mark, tag("span", name), **line))
    return tag("ul", *lines, class_="legend")


def rate_chart(title: str, note: str, series: Sequence[Series], digits: int, level: float | None = None) -> Html:
    """Means with their intervals over bit/s (logarithmic), the levels of one tokenizer joined.

    Args:
        level: a dashed line, such as the figure of the recordings themselves.
    """
    known = [value for one in series for p in one.points for value in (p.mean, p.low, p.high) if value is not None]
    known += [] if level is None else [level]
    frame = _Frame.around([p.bitrate for one in series for p in one.points], known)
    shapes = [*frame.grid(digits)]
    if level is not None:
        y = frame.y(level)
        shapes.append(f'<line class="level" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
    shapes += [_drawn(one, frame, digits) for one in series]
    drawing = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">{"".join(shapes)}</svg>'
    caption = tag("figcaption", tag("b", title), " ", tag("span", note))
    return tag("figure", caption, Html(drawing), class_="chart card")


class _Frame(NamedTuple):
    """Ranges of both axes: decimal logarithms of bit/s, and values."""

    left: float
    right: float
    low: float
    high: float
    gap: tuple[float, float] | None
    """Where nothing is measured over more than ``WIDE`` decades."""

    @classmethod
    def around(cls, bitrates: Sequence[float], values: Sequence[float]) -> _Frame:
        logs = sorted({math.log10(rate) for rate in bitrates})
        widest = max(pairwise(logs), key=lambda pair: pair[1] - pair[0], default=(0.0, 0.0))
        gap = (widest[0] + 0.15, widest[1] - 0.15) if widest[1] - widest[0] > WIDE + 0.3 else None
        margin = (max(values) - min(values)) * 0.08 or 0.1
        return cls(logs[0] - 0.15, logs[-1] + 0.15, min(values) - margin, max(values) + margin, gap)

    def x(self, bitrate: float) -> float:
        share = self._along(math.log10(bitrate)) / self._along(self.right)
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        return TOP + (self.high - value) / (self.high - self.low) * (HEIGHT - TOP - BOTTOM)

    def grid(self, digits: int) -> Iterator[str]:
        values = round_values(self.low, self.high)
        for value in values:
            y = self.y(value)
            yield f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            yield f'<text x="{LEFT - 6}" y="{y + 3.5:.1f}" text-anchor="end">{value:.{digits}f}</text>'
        for rate in self.ticks():
            label = f"{rate / 1000:g}k" if rate >= 1000 else f"{rate:g}"
            yield f'<text x="{self.x(rate):.1f}" y="{HEIGHT - 20}" text-anchor="middle">{label}</text>'
        yield f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 5}" text-anchor="middle">bit/s</text>'
        if self.gap is not None:
            middle = (self.x(10 ** self.gap[0]) + self.x(10 ** self.gap[1])) / 2
            for x in (middle - 3, middle + 3):
                yield f'<line class="break" x1="{x - 3:.1f}" x2="{x + 3:.1f}" y1="{HEIGHT - 18}" y2="{HEIGHT - 32}"/>'

    def ticks(self) -> list[float]:
        """Bit/s at the axis: decades, with 2 and 5 between where there are few."""
        steps = (1, 2, 5) if self._along(self.right) < 2.5 else (1,)
        found = [step * 10.0**power for power in range(-1, 8) for step in steps]
        return [rate for rate in found if self.left <= math.log10(rate) <= self.right and not self._hidden(rate)]

    def _along(self, log: float) -> float:
        """Decades from the left end, the gap closed."""
        if self.gap is None or log <= self.gap[0]:
            return log - self.left
        width = self.gap[1] - self.gap[0]
        inside = min(log - self.gap[0], width)
        return log - self.left - inside + inside * CLOSED / width

    def _hidden(self, rate: float) -> bool:
        return self.gap is not None and self.gap[0] < math.log10(rate) < self.gap[1]


def round_values(low: float, high: float) -> list[float]:
    """Three to six round numbers from ``low`` to ``high``."""
    unit = 10.0 ** math.floor(math.log10((high - low) / 3))
    step = max(factor * unit for factor in (1, 2, 2.5, 5) if factor * unit * 3 <= (high - low) * (1 + 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]


def _drawn(series: Series, frame: _Frame, digits: int) -> str:
    places = [(frame.x(p.bitrate), frame.y(p.mean), p) for p in series.points]
    parts = []
    if len(places) > 1:
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in places)
        parts.append(f'<polyline points="{path}"/>')
    for x, y, point in places:
        if point.low is not None and point.high is not None:
            ends = f'y1="{frame.y(point.low):.1f}" y2="{frame.y(point.high):.1f}"'
            parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" {ends}/>')
        words = escape(f"{series.name}, {point.label}: {point.mean:.{digits}f}")
        parts.append(f'<g transform="translate({x:.1f} {y:.1f})"><title>{words}</title>{_mark(series.number)}</g>')
    head = f'class="series" data-series="{series.number}" style="{_colour(series.number)}"'
    return f"<g {head}>{''.join(parts)}</g>"


def _colour(number: int) -> str:
    return f"--colour:{COLOURS[number % len(COLOURS)]}"


def _mark(number: int) -> str:
    return f'<path d="{SHAPES[number // len(COLOURS) % len(SHAPES)]}"/>'
