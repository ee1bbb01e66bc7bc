"""Pictures of the studies: wide enough for 700 pixels, colours that differ for everybody, names beside the marks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from speechtok.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000", "#7f7f7f")
"""Okabe and Ito's colours for all kinds of colour vision, without the yellow, which white swallows; and grey."""
MARKS = "osD^vP*X"
WIDTH, DPI = 7.0, 200
"""Inches and dots per inch: at half its size, 700 pixels wide, letters are 12 pixels high."""
STYLE = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.labelsize": 9,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
}
PLACES = [(side, up) for up in (0, 1, -1, 2, -2, 3.2, -3.2, 4.5, -4.5) for side in (1, -1)]
"""Where a name may stand beside its mark, the nearest first."""
STEP = 9.0
"""Points from a mark to its name."""


def new_figure(down: int, across: int, height: float, **options: Any) -> tuple[Figure, np.ndarray]:
    """A figure of ``height`` inches and its axes ``[down, across]``.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    try:
        from matplotlib import rc_context
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError("drawing needs matplotlib; pip install 'speechtok[bench]'") from error
    with rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        FigureCanvasAgg(figure)  # measures text, which placing names needs
        axes = figure.subplots(down, across, squeeze=False, **options)
    return figure, axes


def save_png(figure: Figure, path: Any) -> None:
    """As a PNG that is the same for the same figures."""
    from matplotlib import rc_context

    with rc_context(STYLE):
        figure.savefig(path, format="png", dpi=DPI, metadata={"Software": None})


def whisker(axis: Axes, x: Any, y: Any, colour: str, **style: Any) -> None:
    """An interval: a line from ``x[0], y[0]`` to ``x[1], y[1]``; nothing where an end is not known."""
    if None not in (*x, *y):
        axis.plot(x, y, color=colour, linewidth=1.2, alpha=0.55, solid_capstyle="butt", zorder=2, **style)


def name_points(axis: Axes, names: Mapping[str, tuple[float, float]], colours: Mapping[str, str]) -> None:
    """Write each name beside its point where it covers least of the other names and of all points.

    The limits of the axis must stand before.
    """
    from matplotlib.text import Text

    figure = axis.figure
    figure.canvas.draw()  # the layout decides where everything is
    renderer = figure.canvas.get_renderer()
    inside = axis.get_window_extent(renderer)
    marks = [np.column_stack(line.get_data()) for line in axis.get_lines()]
    points = axis.transData.transform(np.concatenate(marks)) if marks else np.zeros((0, 2))
    taken: list[Any] = []
    for name, place in names.items():
        options = []
        for dx, dy in PLACES:
            offset = dx * (STEP + 2 * abs(dy)), dy * STEP
            text = axis.annotate(
                name, place, offset, textcoords="offset points", color=colours[name], fontsize=8.5,
                ha="left" if dx > 0 else "right", va="center", zorder=5,
                arrowprops={"arrowstyle": "-", "color": colours[name], "linewidth": 0.5, "shrinkB": 3},
            )  # fmt: skip
            text.set_in_layout(False)  # what was measured must stay where it is
            text.update_positions(renderer)
            box = Text.get_window_extent(text, renderer).expanded(1.02, 1.1)  # an annotation's own has its line, too
            options.append((_cover(box, taken, points, inside) + 3 * abs(dy) + (dx < 0), text, box))
        best = min(options, key=lambda option: option[0])
        for _, text, _ in options:
            if text is not best[1]:
                text.remove()
        taken.append(best[2])


def _cover(box: Any, taken: Sequence[Any], points: np.ndarray, inside: Any) -> float:
    """What a name at ``box`` would hide, in rough weights."""
    names = sum(150.0 for other in taken if box.overlaps(other))
    out = box.x0 < inside.x0 or box.x1 > inside.x1 or box.y0 < inside.y0 or box.y1 > inside.y1
    x, y = points[:, 0], points[:, 1]
    hidden = ((x > box.x0) & (x < box.x1) & (y > box.y0) & (y < box.y1)).sum()
    return names + 200.0 * out + 8.0 * hidden


def name_ends(axis: Axes, ends: Mapping[str, tuple[float, float]], colours: Mapping[str, str]) -> None:
    """Names of lines at their right ends, pushed apart where they would overlap; limits must stand before."""
    axis.figure.canvas.draw()
    high = axis.get_window_extent().height
    least = 10.5 * axis.figure.dpi / 72 / high
    order = sorted(ends, key=lambda name: ends[name][1])
    wanted = np.array([axis.transAxes.inverted().transform(axis.transData.transform(ends[name]))[1] for name in order])
    for name, y in zip(order, spread(wanted, least), strict=True):
        axis.annotate(
            name, ends[name], (1.03, y), textcoords="axes fraction", color=colours[name], fontsize=8.5, va="center",
            arrowprops={"arrowstyle": "-", "color": colours[name], "linewidth": 0.5}, annotation_clip=False,
        )  # fmt: skip


def spread(wanted: np.ndarray, least: float) -> np.ndarray:
    """Rising places ``wanted[N]`` moved as little as needed to be ``least`` apart, in the same order."""
    found = np.array(wanted, dtype=np.float64)
    for _ in range(200):
        gaps = np.diff(found)
        close = gaps < least - 1e-9
        if not close.any():
            break
        push = np.where(close, (least - gaps) / 2, 0.0)
        found[:-1] -= push
        found[1:] += push
    return found
