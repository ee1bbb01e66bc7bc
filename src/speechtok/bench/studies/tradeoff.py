"""Sound against words: what a tokenizer keeps of the recording, and how easily its tokens are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from speechtok.bench.studies.drawing import COLOURS, MARKS, name_points, new_figure, whisker
from speechtok.bench.studies.results import RECONSTRUCTION, BenchResults, Stage, shown
from speechtok.bench.studies.settings import Settings
from speechtok.bench.studies.study import Study, Table, arrow, cell
from speechtok.bench.tables import Shown

QUALITIES = ("pesq_wb", "stoi")
KNOWN = (("asr", "cer"), ("codes", "pnmi"), ("mutual_information", "mutual_information"))
"""Task and measure of what the tokens tell about words or phones."""
KINDS = {"A": "acoustic", "B": "units", "C": "vectors", "D": "text", "E": "taught and acoustic"}
"""Schemes as a picture calls them."""
METHOD = (
    "One point per tokenizer and number of levels for which both sides were measured; the levels of one tokenizer are"
    " joined, and a larger mark has more bit/s. On the front (ringed) is what no other point beats on one side without"
    " losing on the other, by the means. Surely beaten is what another point beats on both sides with intervals apart."
    " The two sides were measured on different recordings: sound on those that were decoded, the others on the parts"
    " that their task names."
)


class Spot(NamedTuple):
    """One point: how it sounds and what its tokens tell, as rows of the summary."""

    stage: Stage
    bitrate: float | None
    sound: Mapping[str, Any]
    told: Mapping[str, Any]


def tradeoff(results: BenchResults, settings: Settings) -> Study:
    """The study; a pair of measures without a common point is listed."""
    study = Study("tradeoff", "Sound against words", METHOD)
    for task, measure in KNOWN:
        spots = {quality: spots_of(results, quality, task, measure) for quality in QUALITIES}
        for quality, found in spots.items():
            if found:
                study.tables.append(_table(study, found, quality, task, measure))
            else:
                study.lack(f"{task}.{measure} and {RECONSTRUCTION}.{quality} of one tokenizer at one number of levels")
        there = {quality: found for quality, found in spots.items() if found}
        if there:
            study.pictures[measure.replace("mutual_information", "mi")] = _draw(results, there, task, measure)
            for name in _absent(results, [one for found in there.values() for one in found]):
                study.lack(f"{name}: no point with {task}.{measure}, for one of the sides was not measured")
    return study


def spots_of(results: BenchResults, quality: str, task: str, measure: str) -> list[Spot]:
    """Where both measures have a figure."""
    found = []
    for name in results.tokenizers:
        for stage in results.stages(name, quality):
            told = results.figure(stage, measure, task)
            if told:
                found.append(Spot(stage, results.bitrate(stage), results.figure(stage, quality), told))
    return found


def front(spots: Sequence[Spot], sound: Shown, told: Shown) -> list[bool]:
    """Which points are on the front of the means."""
    means = [(_good(one.sound["mean"], sound), _good(one.told["mean"], told)) for one in spots]
    return [not any(_beats(other, own) for other in means) for own in means]


def surely_beaten(spots: Sequence[Spot], sound: Shown, told: Shown) -> list[bool]:
    """Which points another one beats on both sides, with its intervals apart from theirs."""
    return [any(_apart(a.sound, b.sound, sound) and _apart(a.told, b.told, told) for a in spots) for b in spots]


def _good(value: float, by: Shown) -> float:
    return value if by.higher_is_better else -value


def _beats(ours: tuple[float, float], theirs: tuple[float, float]) -> bool:
    return ours != theirs and all(a >= b for a, b in zip(ours, theirs, strict=True))


def _apart(ours: Mapping[str, Any], theirs: Mapping[str, Any], by: Shown) -> bool:
    if None in (ours["low"], theirs["low"]):
        return False
    return ours["low"] > theirs["high"] if by.higher_is_better else ours["high"] < theirs["low"]


def _table(study: Study, spots: Sequence[Spot], quality: str, task: str, measure: str) -> Table:
    sound, told = shown(quality), shown(measure, task)
    best, beaten = front(spots, sound, told), surely_beaten(spots, sound, told)
    lines = []
    for spot, on, off in zip(spots, best, beaten, strict=True):
        stage, name = spot.stage, f"{quality} against {task}.{measure}"
        place = {"tokenizer": stage.tokenizer, "levels": stage.levels, "bitrate": spot.bitrate}
        study.add(name, spot.sound, **place, measure=f"{RECONSTRUCTION}.{quality}", front=on, surely_beaten=off)
        study.add(name, spot.told, **place, measure=f"{task}.{measure}", front=on, surely_beaten=off)
        rate = "" if spot.bitrate is None else f"{spot.bitrate:,.0f}"
        sides = [cell(spot.sound, sound.digits), cell(spot.told, told.digits), str(spot.told["n"])]
        state = "on the front" if on else "surely beaten" if off else ""
        lines.append([stage.tokenizer, str(stage.levels or ""), rate, *sides, state])
    sides = [f"{one.label} {arrow(one.higher_is_better)}" for one in (sound, told)]
    columns = ["tokenizer", "levels", "bit/s", *sides, f"n of {told.label}", ""]
    return Table(f"{sound.label} against {told.label}", columns, lines)


def _absent(results: BenchResults, spots: Sequence[Spot]) -> list[str]:
    there = {spot.stage.tokenizer for spot in spots}
    return [name for name in results.tokenizers if name not in there]


def _draw(results: BenchResults, spots: Mapping[str, Sequence[Spot]], task: str, measure: str) -> Any:
    told = shown(measure, task)
    figure, axes = new_figure(len(spots), 1, 0.5 + 4.1 * len(spots))
    schemes = list(dict.fromkeys(one["scheme"] for one in results.document["tokenizers"]))
    for axis, (quality, found) in zip(axes[:, 0], spots.items(), strict=True):
        sound = shown(quality)
        on, ends, colours = front(found, sound, told), {}, {}
        for spot, ringed in zip(found, on, strict=True):
            number = schemes.index(results.tokenizers[spot.stage.tokenizer]["scheme"])
            colours[spot.stage.tokenizer] = COLOURS[number % len(COLOURS)]
            _mark(axis, spot, colours[spot.stage.tokenizer], MARKS[number % len(MARKS)], ringed)
            ends[spot.stage.tokenizer] = (spot.told["mean"], spot.sound["mean"])
        _join(axis, found, colours)
        axis.margins(0.16, 0.12)
        if not told.higher_is_better:
            axis.invert_xaxis()
        axis.set_xlabel(f"{told.label} (better to the right)")
        axis.set_ylabel(f"{sound.label} (better upwards)")
        name_points(axis, ends, colours)
    axes[0, 0].set_title("Ringed: on the front. Small digits: levels. Bars: 95 % intervals.", fontsize=9)
    used = [one for one in schemes if one in _schemes(results, [spot for found in spots.values() for spot in found])]
    _legend(figure, {KINDS.get(one, f"scheme {one}"): schemes.index(one) for one in used})
    return figure


def _schemes(results: BenchResults, spots: Sequence[Spot]) -> set[str]:
    return {results.tokenizers[spot.stage.tokenizer]["scheme"] for spot in spots}


def _legend(figure: Any, numbers: Mapping[str, int]) -> None:
    from matplotlib.lines import Line2D

    styles = [(COLOURS[number % len(COLOURS)], MARKS[number % len(MARKS)]) for number in numbers.values()]
    marks = [Line2D([], [], color=colour, marker=mark, linestyle="none") for colour, mark in styles]
    figure.legend(marks, list(numbers), loc="outside lower center", ncols=len(marks), frameon=False, handletextpad=0.2)


def _mark(axis: Any, spot: Spot, colour: str, mark: str, ringed: bool) -> None:
    x, y = spot.told["mean"], spot.sound["mean"]
    whisker(axis, (spot.told["low"], spot.told["high"]), (y, y), colour)
    whisker(axis, (x, x), (spot.sound["low"], spot.sound["high"]), colour)
    size = 5.0 if not spot.bitrate else 4.0 + 1.4 * max(0.0, min(3.0, (spot.bitrate / 500) ** 0.5))
    axis.plot([x], [y], mark, color=colour, markersize=size, zorder=3)
    if ringed:
        axis.plot(
            [x], [y], "o", color="black", markerfacecolor="none", markersize=size + 6, markeredgewidth=1, zorder=4
        )
    if spot.stage.levels:
        axis.annotate(str(spot.stage.levels), (x, y), (0, -11), textcoords="offset points", fontsize=7, ha="center")


def _join(axis: Any, spots: Sequence[Spot], colours: Mapping[str, str]) -> None:
    for name, colour in colours.items():
        own = [spot for spot in spots if spot.stage.tokenizer == name]
        path = [one.told["mean"] for one in own], [one.sound["mean"] for one in own]
        axis.plot(*path, color=colour, linewidth=0.8, alpha=0.5, zorder=1)
