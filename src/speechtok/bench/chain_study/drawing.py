"""Curves of a study of the chain: figures on held-out speech by epoch, the mean over seeds and their range."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from speechtok.bench.chain_study.curves import MEASURES, REPLAY
from speechtok.bench.chain_study.study import START, Run
from speechtok.bench.studies.drawing import COLOURS, MARKS, new_figure, save_png
from speechtok.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHOWN = tuple(prefix + name for prefix in ("", REPLAY) for name in MEASURES if not name.startswith("wer"))
LINES = ("-", "--", ":")
"""When there are more variants than colours."""


def draw(runs: Sequence[Run], path: Path) -> None:
    """Write the picture; legends say how many seeds a line is the mean of, bands reach from the lowest to the highest.

    Raises:
        ConfigError: matplotlib is not installed.
        OutputError: the picture cannot be written.
    """
    trained = [run for run in runs if run.variant != START]
    names = list(dict.fromkeys(run.variant for run in trained))
    shown = [one for one in SHOWN if any(one in run.curves.measures for run in trained)]
    down = -(-len(shown) // 2)
    figure, axes = new_figure(down, 2, 2.4 * down + 0.25 * -(-len(names) // 3) + 0.3)
    for axis, measure in zip(axes.flat, shown, strict=False):
        for place, name in enumerate(names):
            _curve(axis, [run for run in trained if run.variant == name], measure, place)
        axis.set_title(measure)
        axis.set_xlabel("epoch")
        axis.xaxis.get_major_locator().set_params(integer=True)
    for axis in axes.flat[len(shown) :]:
        axis.set_visible(False)
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8)
    with atomic_path(path) as temporary:
        save_png(figure, temporary)


def _curve(axis: Axes, own: Sequence[Run], measure: str, place: int) -> None:
    rows = [run.curves.measures[measure] for run in own if measure in run.curves.measures]
    if not rows:
        return
    values, line, colour = np.array(rows), LINES[place // len(COLOURS) % len(LINES)], COLOURS[place % len(COLOURS)]
    epochs, style = np.arange(1, values.shape[1] + 1), {"color": colour, "linestyle": line, "linewidth": 1.2}
    name = f"{own[0].variant} ({len(rows)})"
    axis.plot(epochs, values.mean(axis=0), label=name, marker=MARKS[place % len(MARKS)], markersize=3, **style)
    if len(rows) > 1:
        axis.fill_between(epochs, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.12, linewidth=0)
