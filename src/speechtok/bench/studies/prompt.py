"""What a vocoder's prompt tells beyond the voice: a prompt from the utterance itself against another one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from speechtok.bench.conversion import SOURCE
from speechtok.bench.statistics import Estimate, paired_difference
from speechtok.bench.studies.drawing import COLOURS, new_figure, whisker
from speechtok.bench.studies.study import Study, Table, cell
from speechtok.bench.vocoding import MEASURES, OTHER, OWN, ROLES, SAME, measures_of

PAIRS = ((SAME, OTHER), (SAME, OWN), (OTHER, OWN))
METHOD = (
    "Units say nothing of the voice, so a vocoder is given a prompt. Cut from the utterance that is to be spoken, it"
    " may also tell words, melody or noise, and what is measured is flattered. The difference between a prompt from the"
    " same and from another utterance of the speaker is that leak: both bring the voice. Differences are paired by"
    " utterance and count utterances alike, so those of WER are not the differences of the rates above, which count"
    " words; bold where the 95 % bootstrap interval excludes zero."
)


def prompt(document: Mapping[str, Any] | None) -> Study:
    """The study of a ``vocoding.json``; None where there is none."""
    study = Study("prompt", "What the vocoder's prompt tells", METHOD)
    if document is None:
        study.lack("vocoding.json, by --vocoding; python -m speechtok.bench.vocoding makes it")
        return study
    rows = {(row["role"], row["measure"]): row for row in document["summary"] if row["mean"] is not None}
    for role in ROLES:
        for measure in measures_of(role):
            if (role, measure) in rows:
                study.add("means", rows[role, measure], role=role, measure=measure)
            else:
                study.lack(f"{measure} with the prompt: {role}")
    apart = _differences(document.get("utterances") or [], study)
    if rows:
        study.tables.append(_mean_table(rows))
        study.pictures[""] = _draw(rows)
    for pair, measure in apart:
        study.add("differences", apart[pair, measure], ours=pair[0], theirs=pair[1], measure=measure)
    study.tables.append(_difference_table(apart))
    return study


Differences = dict[tuple[tuple[str, str], str], Estimate]


def _differences(utterances: Sequence[Mapping[str, Any]], study: Study) -> Differences:
    if not utterances:
        study.lack("the rows of utterances in vocoding.json: nothing can be paired")
    values = {(row["role"], row["utterance"]): row for row in utterances}
    names = list(dict.fromkeys(row["utterance"] for row in utterances))
    found = {}
    for pair in PAIRS:
        for measure in measures_of(pair[1]):
            sides = [[values.get((role, name), {}).get(measure) for name in names] for role in pair]
            estimate = paired_difference(*sides)
            if estimate.n:
                found[pair, measure] = estimate
    return found


def _mean_table(rows: Mapping[tuple[str, str], Any]) -> Table:
    lines = []
    for role in (role for role in ROLES if any(role == other for other, _ in rows)):
        cells = [cell(rows.get((role, one)), 3) for one in MEASURES]
        n = max(row["n"] for (other, _), row in rows.items() if other == role)
        lines.append(["(the recordings)" if role == SOURCE else role, *cells, str(n)])
    return Table("Means", ["prompt", *MEASURES.values(), "n"], lines)


def _difference_table(apart: Differences) -> Table:
    lines = []
    for pair in dict.fromkeys(pair for pair, _ in apart):
        cells = [cell(apart.get((pair, one)), 3, difference=True) for one in MEASURES]
        n = max(estimate.n for (other, _), estimate in apart.items() if other == pair)
        lines.append([f"{pair[0]} less {pair[1]}", *cells, str(n)])
    return Table("Paired differences", ["prompt", *MEASURES.values(), "n"], lines)


def _draw(rows: Mapping[tuple[str, str], Any]) -> Any:
    figure, axes = new_figure(2, 2, 4.0, sharey=True)
    for axis, (measure, label) in zip(axes.flat, MEASURES.items(), strict=True):
        for place, role in enumerate(ROLES):
            row = rows.get((role, measure))
            if row is not None and not (role == SOURCE and measure != "wer"):  # a recording is like itself
                colour = COLOURS[place]
                whisker(axis, (row["low"], row["high"]), (place, place), colour)
                axis.plot([row["mean"]], [place], "o", color=colour, markersize=5.5)
        axis.set_yticks(range(len(ROLES)), ["(the recordings)" if role == SOURCE else role for role in ROLES])
        axis.set_ylim(len(ROLES) - 0.5, -0.5)
        axis.set_title(label, fontsize=9)
        axis.locator_params(axis="x", nbins=4)
    figure.supxlabel("mean and 95 % interval, by whose recording is the prompt", fontsize=9)
    return figure
