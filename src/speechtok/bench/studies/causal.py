"""What look-ahead is worth: twins that differ in nothing else, utterance by utterance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from speechtok.bench.statistics import Estimate
from speechtok.bench.studies.drawing import COLOURS, MARKS, new_figure, whisker
from speechtok.bench.studies.results import ROWS, BenchResults, Stage, shown
from speechtok.bench.studies.settings import Settings
from speechtok.bench.studies.study import Study, Table, arrow, cell

MEASURES = ("pesq_wb", "stoi", "wer", "ffe", "voice_cosine", "mel_distance")
METHOD = (
    "Differences over the same utterances, weighted as the measure is (error rates by words), with 95 % bootstrap"
    " intervals over utterances; bold where they exclude zero. Of the three comparisons only the first changes nothing"
    " but look-ahead in the network; the second is what mending the phases brings, which needs the future; the third is"
    " both. Each twin was trained once: another seed moves it too, and no interval covers that. Intervals are not"
    " corrected for the number of comparisons."
)


class Apart(NamedTuple):
    """One difference."""

    measure: str
    levels: str
    """``first level`` or ``all levels``."""
    ours: str
    theirs: str
    estimate: Estimate

    @property
    def pair(self) -> str:
        """Who is compared."""
        return f"{self.ours} less {self.theirs}"


def causal(results: BenchResults, settings: Settings) -> Study:
    """The study; a twin or measure that is not there is listed."""
    study = Study("causal", "Causal against non-causal twins", METHOD)
    pairs = [
        (settings.causal, settings.plain), (settings.plain, settings.reference), (settings.causal, settings.reference)
    ]  # fmt: skip
    for name in dict.fromkeys(name for pair in pairs for name in pair):
        if name not in results.tokenizers:
            study.lack(f"tokenizer {name}")
    if not results.has_rows:
        study.lack(f"{ROWS} beside the summary, without which nothing can be paired")
    found = list(_differences(results, pairs, study)) if results.has_rows else []
    for one in found:
        study.add("differences", one.estimate, **{k: v for k, v in one._asdict().items() if k != "estimate"})
    if found:
        study.tables.append(_table(found))
        study.pictures[""] = _draw(found)
    return study


def _differences(results: BenchResults, pairs: Sequence[tuple[str, str]], study: Study) -> list[Apart]:
    found = []
    for ours, theirs in pairs:
        if not {ours, theirs} <= set(results.tokenizers):
            continue
        for measure in MEASURES:
            ends = {"first level": [Stage(name, 1) for name in (ours, theirs)]}
            ends["all levels"] = [results.full(name) for name in (ours, theirs)]
            for levels, stages in ends.items():
                estimate = results.difference(*stages, measure)
                if estimate:
                    found.append(Apart(measure, levels, ours, theirs, estimate))
                else:
                    study.lack(f"{measure} of {ours} and {theirs} on common utterances, {levels}")
    return found


def _table(found: Sequence[Apart]) -> Table:
    pairs = list(dict.fromkeys(one.pair for one in found))
    cells = {
        (one.measure, one.levels, one.pair): cell(one.estimate, shown(one.measure).digits, difference=True)
        for one in found
    }
    lines = []
    for measure, levels in dict.fromkeys((one.measure, one.levels) for one in found):
        n = {one.estimate.n for one in found if (one.measure, one.levels) == (measure, levels)}
        label = f"{shown(measure).label}, {levels} {arrow(shown(measure).higher_is_better)}"
        texts = [cells.get((measure, levels, pair), "") for pair in pairs]
        lines.append([label, *texts, " to ".join(map(str, sorted({min(n), max(n)})))])
    return Table("Paired differences", ["", *pairs, "n"], lines)


def _draw(found: Sequence[Apart]) -> Any:
    measures = [one for one in MEASURES if one in {apart.measure for apart in found}]
    pairs = list(dict.fromkeys(one.pair for one in found))
    down = -(-len(measures) // 2)
    figure, axes = new_figure(down, 2, 0.6 + (0.9 + 0.34 * len(pairs)) * down, sharey=True)
    for axis, measure in zip(axes.flat, measures, strict=False):
        for one in found:
            if one.measure == measure:
                _bar(axis, one, pairs.index(one.pair))
        axis.axvline(0, color="black", linewidth=0.8)
        axis.set_title(f"{shown(measure).label} ({_better(measure)})", fontsize=9)
        axis.set_yticks(range(len(pairs)), [pair.replace(" less ", "\nless ") for pair in pairs])
        axis.set_ylim(len(pairs) - 0.45, -0.55)
    for axis in axes.flat[len(measures) :]:
        axis.set_visible(False)
    figure.supxlabel("difference, 95 % interval.   hollow: first level   filled: all levels", fontsize=9)
    return figure


def _better(measure: str) -> str:
    return "right is better" if shown(measure).higher_is_better else "left is better"


def _bar(axis: Any, one: Apart, place: int) -> None:
    first = one.levels == "first level"
    y, colour = place + (-0.16 if first else 0.16), COLOURS[place % len(COLOURS)]
    whisker(axis, (one.estimate.low, one.estimate.high), (y, y), colour)
    face = "white" if first else colour
    axis.plot([one.estimate.mean], [y], MARKS[place], color=colour, markerfacecolor=face, markersize=5.5, zorder=3)
