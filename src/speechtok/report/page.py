"""Building blocks of a page: plain functions from values to HTML. Text is escaped here, markup comes in as ``Html``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files

TIMES, DASH = "\N{MULTIPLICATION SIGN}", "\N{EN DASH}"


class Html(str):
    """Markup that must not be escaped again."""

    __slots__ = ()


def text(value: object) -> Html:
    """The value as text, escaped unless it is ``Html``."""
    return value if isinstance(value, Html) else Html(escape(str(value)))


def tag(name: str, *children: object, **attributes: object) -> Html:
    """``<name attributes>children</name>``: ``data_x`` gives ``data-x``, ``class_`` gives ``class``, None nothing."""
    return Html(f"<{name}{_attributes(attributes)}>{''.join(map(text, children))}</{name}>")


def image(source: str, alt: str, **attributes: object) -> Html:
    """A picture from a ``data:`` address; attributes as for ``tag``."""
    return Html(f"<img{_attributes({'src': source, 'alt': alt, **attributes})}>")


def section(name: str, title: str, *children: object, lead: object | None = None) -> Html:
    """A section that the navigation can reach under ``#name``."""
    opening = [tag("h2", title)] + ([tag("p", lead, class_="lead")] if lead is not None else [])
    return tag("section", *opening, *children, id=name)


def table(headers: Sequence[object], rows: Iterable[Sequence[object]], class_: str | None = None) -> Html:
    """A table that scrolls sideways where the screen is narrow; first column is the row's name.

    With the class ``sortable`` and the script ``sort.js`` a click on a heading sorts it, by the first number of a cell.
    """
    head = tag("tr", *(tag("th", cell, scope="col") for cell in headers))
    body = [tag("tr", tag("th", row[0], scope="row"), *(tag("td", cell) for cell in row[1:])) for row in rows]
    return tag("div", tag("table", tag("thead", head), tag("tbody", *body), class_=class_), class_="scroll")


def facts(values: Mapping[str, object]) -> Html:
    """Named facts as a grid."""
    return tag("dl", *(tag("div", tag("dt", name), tag("dd", value)) for name, value in values.items()), class_="facts")


def bars(rows: Iterable[tuple[object, float, object, str | None]]) -> Html:
    """Horizontal bars of (label, fraction from 0 to 1, value as text, class of the line)."""
    lines = []
    for label, fraction, value, kind in rows:
        fill = tag("i", style=f"width:{max(0.0, min(1.0, fraction)):.2%}")
        lines.append(tag("li", tag("span", label), tag("b", fill, class_="track"), tag("em", value), class_=kind))
    return tag("ul", *lines, class_="bars")


def interval_chart(
    title: str, note: str, points: Sequence[tuple[str, float, float | None, float | None]], digits: int
) -> Html:
    """Means over ordered categories as an inline drawing: (label, mean, low, high), whiskers where there are some."""
    width, height, left, right, top, bottom = 360, 190, 44, 14, 14, 30
    known = [value for _, *values in points for value in values if value is not None]
    low, high = min(known), max(known)
    margin = (high - low) * 0.12 or 0.1
    low, high = low - margin, high + margin
    step = (width - left - right) / max(1, len(points) - 1)

    def x(index: int) -> float:
        return left + 12 + index * (step - 24 / max(1, len(points) - 1))

    def y(value: float) -> float:
        return top + (high - value) / (high - low) * (height - top - bottom)

    shapes = []
    for value in (low + (high - low) * i / 4 for i in range(5)):
        shapes.append(f'<line class="grid" x1="{left}" x2="{width - right}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>')
        shapes.append(f'<text x="{left - 6}" y="{y(value) + 3.5:.1f}" text-anchor="end">{value:.{digits}f}</text>')
    path = " ".join(f"{x(i):.1f},{y(mean):.1f}" for i, (_, mean, _, _) in enumerate(points))
    shapes.append(f'<polyline class="line" points="{path}"/>')
    for i, (label, mean, bottom_of, top_of) in enumerate(points):
        if bottom_of is not None and top_of is not None:
            whisker = f'x1="{x(i):.1f}" x2="{x(i):.1f}" y1="{y(bottom_of):.1f}" y2="{y(top_of):.1f}"'
            shapes.append(f'<line class="whisker" {whisker}/>')
        shapes.append(f'<circle cx="{x(i):.1f}" cy="{y(mean):.1f}" r="4"/>')
        shapes.append(f'<text x="{x(i):.1f}" y="{height - 9}" text-anchor="middle">{escape(label)}</text>')
    drawing = Html(
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(title)}">{"".join(shapes)}</svg>'
    )
    return tag("figure", tag("figcaption", tag("b", title), " ", tag("span", note)), drawing, class_="chart card")


def page(
    title: str,
    header: object,
    navigation: Mapping[str, str],
    sections: Iterable[object],
    footer: object,
    scripts: Sequence[str] = ("script.js",),
) -> str:
    """The whole page; style and scripts are part of it."""
    style, *code = (files(__package__).joinpath(name).read_text("utf-8") for name in ("style.css", *scripts))
    links = [tag("a", label, href=f"#{name}") for name, label in navigation.items()]
    body = (
        tag("header", header),
        tag("nav", tag("div", *links), aria_label="Sections"),
        tag("main", *sections),
        tag("footer", footer),
        *(tag("script", Html(one)) for one in code),
    )
    head = (
        Html('<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'),
        Html('<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,">'),
        tag("title", title),
        tag("style", Html(style)),
    )
    return f"<!doctype html>\n{tag('html', tag('head', *head), tag('body', *body), lang='en')}\n"


def _attributes(values: Mapping[str, object]) -> str:
    pairs = ((key.rstrip("_").replace("_", "-"), value) for key, value in values.items() if value is not None)
    return "".join(f' {key}="{escape(str(value), quote=True)}"' for key, value in pairs)
