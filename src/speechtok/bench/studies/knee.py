"""Where intelligibility falls off as levels are left out and frames become rarer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from speechtok.bench.statistics import Estimate
from speechtok.bench.studies.bend import Bend, find_bend
from speechtok.bench.studies.drawing import COLOURS, MARKS, name_ends, new_figure, whisker
from speechtok.bench.studies.results import ROWS, BenchResults, Stage, shown
from speechtok.bench.studies.settings import Settings
from speechtok.bench.studies.study import Study, Table, arrow, cell

MEASURES = ("wer", "stoi", "pesq_wb")
LEAST = 3
"""Numbers of levels that make a curve."""
METHOD = (
    "The knee of a codec is the smallest of its measured bitrates from which on the mean paired loss against all its"
    " own levels stays within a margin ({margins}). Its interval is the middle 95 % of the knees of 2,000 resamples of"
    " the utterances; like the knee itself it lies on measured bitrates. `sure from` is stricter: from there on the"
    " upper end of the loss's own interval is within the margin. A knee at the smallest bitrate may be lower (≤), and"
    " none means that the curve still falls at the largest. A codec that is bad with all its levels may have a low"
    " knee: read it beside the curve, and beside the two tables that hold frame rates against each other. Each codec"
    " was trained once; no interval covers another seed."
)


class Knee(NamedTuple):
    """The knee of one codec in one measure."""

    name: str
    measure: str
    bend: Bend


def knee(results: BenchResults, settings: Settings) -> Study:
    """The study; a twin, measure or file that is not there is listed."""
    margins = ", ".join(f"{shown(name).label} {margin:g}" for name, margin in settings.margins.items())
    study = Study("knee", "Where intelligibility falls off", METHOD.format(margins=margins))
    for name in settings.rates:
        if name not in results.tokenizers:
            study.lack(f"tokenizer {name}")
    if not results.has_rows:
        study.lack(f"{ROWS} beside the summary, without which there are curves and no knees or differences")
    curves = {measure: _curves(results, settings, measure) for measure in MEASURES}
    for measure, found in curves.items():
        if not found:
            study.lack(f"{measure} of a codec at {LEAST} numbers of levels")
    knees = list(_knees(results, settings, curves)) if results.has_rows else []
    if any(curves.values()):
        study.tables += [_curve_table(study, results, curves), _knee_table(study, knees)]
        study.tables += [_against(study, results, settings), _equal_rates(study, results, settings)]
        study.pictures[""] = _draw(results, {name: found for name, found in curves.items() if found}, knees)
    return study


def _curves(results: BenchResults, settings: Settings, measure: str) -> dict[str, list[Stage]]:
    """Codecs with enough numbers of levels; twins that differ in something else than the rate are left out."""
    others = {settings.causal, settings.plain} - set(settings.rates)
    found = {name: results.stages(name, measure) for name in results.tokenizers if name not in others}
    return {name: stages for name, stages in found.items() if len(stages) >= LEAST}


def _knees(results: BenchResults, settings: Settings, curves: Mapping[str, Mapping[str, Sequence[Stage]]]) -> Any:
    for measure, found in curves.items():
        for name, stages in found.items():
            losses, weights = losses_of(results, stages, measure)
            if len(losses):
                rates = [results.bitrate(stage) for stage in stages]
                yield Knee(name, measure, find_bend(losses, rates, settings.margins[measure], weights))


def losses_of(results: BenchResults, stages: Sequence[Stage], measure: str) -> tuple[np.ndarray, list[float]]:
    """How much worse than at the last stage ``[U, R]``, of the utterances that have all values, and their weights."""
    values = [results.values(stage, measure) for stage in stages]
    names = [name for name in values[-1] if all(one.get(name, (None, 0))[0] is not None for one in values)]
    table = np.array([[one[name][0] for one in values] for name in names]).reshape(len(names), len(stages))
    sign = 1.0 if shown(measure).higher_is_better else -1.0
    return sign * (table[:, -1:] - table), [values[-1][name][1] for name in names]


def _curve_table(study: Study, results: BenchResults, curves: Mapping[str, Mapping[str, Sequence[Stage]]]) -> Table:
    lines = []
    for name in dict.fromkeys(name for found in curves.values() for name in found):
        stages = {stage for found in curves.values() for stage in found.get(name, ())}
        for stage in sorted(stages, key=lambda one: one.levels or 0):
            texts = []
            for measure in MEASURES:
                row = results.figure(stage, measure)
                texts.append(cell(row, shown(measure).digits))
                if row:
                    place = {"tokenizer": name, "levels": stage.levels, "bitrate": results.bitrate(stage)}
                    study.add("curves", row, **place, measure=measure)
            rate = results.tokenizers[name]["frame_rate"]
            lines.append([name, f"{rate:g}", str(stage.levels), f"{results.bitrate(stage):,.0f}", *texts])
    return Table("The curves", ["tokenizer", "frames/s", "levels", "bit/s", *_labels()], lines)


def _labels() -> list[str]:
    return [f"{shown(name).label} {arrow(shown(name).higher_is_better)}" for name in MEASURES]


def _knee_table(study: Study, knees: Sequence[Knee]) -> Table:
    lines = []
    for one in knees:
        bend = one.bend
        place = {"tokenizer": one.name, "measure": one.measure, "sure": bend.sure}
        place |= {"below": bend.below, "above": bend.above}
        study.add("knees", Estimate(bend.at, bend.low, bend.high, bend.n), **place)
        at = f"{'≤ ' * bend.below}{bend.at:,.0f}" if not bend.above else f"none up to {bend.at:,.0f}"
        interval = f"{bend.low:,.0f} to {bend.high:,.0f}"
        lines.append([one.name, shown(one.measure).label, at, interval, f"{bend.sure:,.0f}", str(bend.n)])
    columns = ["tokenizer", "measure", "knee, bit/s", "95 % interval", "sure from, bit/s", "n"]
    return Table("The knees", columns, lines)


def _against(study: Study, results: BenchResults, settings: Settings) -> Table:
    """Every rate of the twins less the reference with all its levels."""
    if settings.reference not in results.tokenizers:
        return Table("", [], [])
    full, lines = results.full(settings.reference), []
    for name in settings.rates:
        for stage in results.stages(name, MEASURES[0]) if name in results.tokenizers else []:
            found = _differences(study, results, stage, full, "against the full rate")
            if stage != full and any(found):
                lines.append([name, str(stage.levels), f"{results.bitrate(stage):,.0f}", *found])
    title = f"Twins of other rates less {full}; bold where the interval excludes zero"
    return Table(title, ["tokenizer", "levels", "bit/s", *_labels()], lines)


def _equal_rates(study: Study, results: BenchResults, settings: Settings) -> Table:
    """Twins of fewer frames less the reference at the same bit/s."""
    stages: dict[float, dict[str, Stage]] = defaultdict(dict)
    for name in settings.rates:
        for stage in results.stages(name, MEASURES[0]) if name in results.tokenizers else []:
            stages[results.bitrate(stage)][name] = stage
    lines = []
    for rate, found in sorted(stages.items()):
        base = found.pop(settings.reference, None)
        for stage in found.values() if base else ():
            cells = _differences(study, results, stage, base, "at the same bitrate")
            if any(cells):
                lines.append([f"{rate:,.0f}", f"{stage} less {base}", *cells])
    title = "The same bit/s at fewer frames; bold where the interval excludes zero"
    return Table(title, ["bit/s", "", *_labels()], lines)


def _differences(study: Study, results: BenchResults, ours: Stage, theirs: Stage, table: str) -> list[str]:
    cells = []
    for measure in MEASURES:
        estimate = results.difference(ours, theirs, measure) if ours != theirs else None
        cells.append(cell(estimate, shown(measure).digits, difference=True))
        if estimate:
            study.add(table, estimate, ours=list(ours), theirs=list(theirs), measure=measure)
    return cells


def _draw(results: BenchResults, curves: Mapping[str, Mapping[str, Sequence[Stage]]], knees: Sequence[Knee]) -> Any:
    names = list(dict.fromkeys(name for found in curves.values() for name in found))
    colours = {name: COLOURS[place % len(COLOURS)] for place, name in enumerate(names)}
    bends = {(one.name, one.measure): one.bend for one in knees}
    figure, axes = new_figure(len(curves), 1, 0.6 + 3.0 * len(curves), sharex=True)
    for axis, (measure, found) in zip(axes[:, 0], curves.items(), strict=True):
        ends = {}
        for name, stages in found.items():
            mark = MARKS[names.index(name) % len(MARKS)]
            rows = [(results.bitrate(stage), results.figure(stage, measure)) for stage in stages]
            _curve(axis, rows, colours[name], mark, bends.get((name, measure)))
            ends[name] = (rows[-1][0], rows[-1][1]["mean"])
        own = results.of_recordings(measure)
        if own:
            axis.axhline(own["mean"], color="black", linestyle="--", linewidth=0.8)
            axis.annotate("the recordings", (0.01, own["mean"]), (0, 3), xycoords=("axes fraction", "data"),
                          textcoords="offset points", fontsize=8)  # fmt: skip
        axis.set_xscale("log", base=2)
        axis.set_ylabel(
            f"{shown(measure).label} ({'higher' if shown(measure).higher_is_better else 'lower'} is better)"
        )
        ticks = sorted({results.bitrate(stage) for stages in found.values() for stage in stages})
        _ticks(axis, ticks)
        name_ends(axis, ends, colours)
    axes[-1, 0].set_xlabel("bit/s")
    note = "Ringed: the knee. " * bool(knees) + "Bars: 95 % intervals."
    axes[0, 0].set_title(note, fontsize=9)
    return figure


def _ticks(axis: Any, rates: Sequence[float]) -> None:
    from matplotlib.ticker import NullFormatter, NullLocator

    kept: list[float] = []
    for rate in rates:
        if not kept or rate >= 1.4 * kept[-1]:
            kept.append(rate)
    axis.set_xticks(kept, [f"{rate:g}" for rate in kept])
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_minor_formatter(NullFormatter())


def _curve(axis: Any, rows: Sequence[tuple[float, Any]], colour: str, mark: str, bend: Bend | None) -> None:
    for rate, row in rows:
        whisker(axis, (rate, rate), (row["low"], row["high"]), colour)
        if bend and not bend.above and rate == bend.at:
            ring = {"color": colour, "markerfacecolor": "none", "markersize": 12, "markeredgewidth": 1.4}
            axis.plot([rate], [row["mean"]], "o", **ring)
    means = [row["mean"] for _, row in rows]
    axis.plot([rate for rate, _ in rows], means, color=colour, marker=mark, markersize=4.5, linewidth=1.2)
