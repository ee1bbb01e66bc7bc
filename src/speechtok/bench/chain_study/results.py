"""What a study of the chain comes to, as plain rows: every figure with intervals over seeds and over utterances."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from speechtok.bench.chain_study.study import SOURCE, START, Run
from speechtok.bench.recognition import MEASURES as RATES
from speechtok.bench.repeats import over_seeds, relative_change
from speechtok.bench.statistics import Estimate, bootstrap_mean, paired_difference

FINAL, CHANGE, DEV_CHANGE, REACHED, FORGETTING, COST = "final", "change", "dev-change", "reached", "forgetting", "cost"
"""Kinds of rows."""

Row = dict[str, Any]


def summarise(runs: Sequence[Run], baseline: str, judged: str) -> list[Row]:
    """All rows; those that compare need runs of the baseline with the same seeds."""
    variants = {name: [run for run in runs if run.variant == name] for name in dict.fromkeys(r.variant for r in runs)}
    start, base = variants.get(START, []), variants.get(baseline, [])
    rows: list[Row] = []
    for name, own in variants.items():
        rows += finals(name, own)
        if name == START:
            continue
        rows += costs(name, own)
        if name != baseline:
            pairs = paired(own, base)
            rows += changes(name, pairs) if pairs else []
        rows += reached(name, paired(own, base), f"cer/{judged}")
        rows += forgetting(name, own, start[0]) if start else []
    return rows


def paired(own: Sequence[Run], base: Sequence[Run]) -> list[tuple[Run, Run]]:
    """Runs with the baseline's of the same seed."""
    seeds = {run.seed: run for run in base}
    return [(run, seeds[run.seed]) for run in own if run.seed in seeds]


def finals(name: str, own: Sequence[Run]) -> Iterator[Row]:
    """Test rates of the exported recognisers, and the last epoch's figures on dev."""
    for domain in own[0].tests:
        for rate in RATES:
            values, weights = utterance_rates(own, domain, rate)
            known = [(value, weight) for value, weight in zip(values, weights, strict=True) if value is not None]
            drawn = bootstrap_mean([value for value, _ in known], weights=[weight for _, weight in known])
            each = [corpus_rate(run, domain, rate) for run in own]
            yield row(FINAL, name, own, rate, domain, each, drawn, failed=len(values) - len(known))
    for measure in own[0].curves.measures if own[0].curves else ():
        each = [run.curves.measures[measure][-1] for run in own]
        yield row(FINAL, name, own, measure, "dev", each)


def costs(name: str, own: Sequence[Run]) -> Iterator[Row]:
    """Length of training."""
    yield row(COST, name, own, "epochs", "", [run.curves.epochs for run in own])
    yield row(COST, name, own, "steps", "", [run.curves.steps for run in own])


def changes(name: str, pairs: Sequence[tuple[Run, Run]]) -> Iterator[Row]:
    """Relative to the baseline: test rates of what is exported, and dev figures at the last epoch that both have."""
    own, base = ([pair[side] for pair in pairs] for side in (0, 1))
    equal = all(one.curves.epochs == other.curves.epochs for one, other in pairs)
    for domain in own[0].tests:
        for rate in RATES:
            (first, weights), (second, _) = (utterance_rates(side, domain, rate) for side in (own, base))
            each = [relative(*(corpus_rate(run, domain, rate) for run in pair)) for pair in pairs]
            drawn = relative_change(first, second, weights)
            yield row(CHANGE, name, own, rate, domain, each, drawn) | {"equal_epochs": equal}
    for measure in own[0].curves.measures:
        last = min(run.curves.epochs for pair in pairs for run in pair)
        each = [relative(*(run.curves.measures[measure][last - 1] for run in pair)) for pair in pairs]
        yield row(DEV_CHANGE, name, own, measure, "dev", each) | {"epoch": last}


def reached(name: str, pairs: Sequence[tuple[Run, Run]], measure: str) -> Iterator[Row]:
    """The first epoch that is as good as the last of the baseline with the same seed, and how much sooner that is.

    The last epoch and not the best one: a lowest value of many is lucky, and other runs would have to be so, too. None
    for seeds in which it is never as good.
    """
    if not pairs:
        return
    epochs, sooner = [], []
    for one, other in pairs:
        last = other.curves.measures[measure][-1]
        then = first_at_most(other.curves.measures[measure], last)
        now = first_at_most(one.curves.measures[measure], last)
        epochs.append(now)
        sooner.append(None if now is None else then - now)
    own = [one for one, _ in pairs]
    yield row(REACHED, name, own, "epoch", measure, epochs)
    yield row(REACHED, name, own, "epochs sooner", measure, sooner)


def forgetting(name: str, own: Sequence[Run], start: Run) -> Iterator[Row]:
    """Changes on the source's test, from the models that training began with."""
    if SOURCE not in start.tests:
        return
    for rate in RATES:
        (after, weights), (before, _) = (utterance_rates(runs, SOURCE, rate) for runs in (own, [start]))
        at_start = corpus_rate(start, SOURCE, rate)
        each = [difference(corpus_rate(run, SOURCE, rate), at_start) for run in own]
        yield row(FORGETTING, name, own, rate, SOURCE, each, paired_difference(after, before, weights=weights))
        each = [relative(corpus_rate(run, SOURCE, rate), at_start) for run in own]
        yield row(FORGETTING, name, own, f"relative {rate}", SOURCE, each, relative_change(after, before, weights))


def utterance_rates(runs: Sequence[Run], domain: str, rate: str) -> tuple[list[float | None], list[float]]:
    """Rate of every utterance, the mean over the runs, and its weight; None where it failed."""
    rows = list(zip(*(run.tests[domain] for run in runs), strict=True))
    values = [[one[rate] for one in same] for same in rows]
    means = [None if None in some else float(np.mean(some)) for some in values]
    return means, [float(same[0].get(f"weight/{rate}", 1.0)) for same in rows]


def corpus_rate(run: Run, domain: str, rate: str) -> float | None:
    """Of the corpus, as one run hears it."""
    values, weights = utterance_rates([run], domain, rate)
    known = [(value * weight, weight) for value, weight in zip(values, weights, strict=True) if value is not None]
    return sum(value for value, _ in known) / sum(weight for _, weight in known) if known else None


def relative(value: float | None, base: float | None) -> float | None:
    """``value / base - 1``; None where that is not known."""
    return value / base - 1 if value is not None and base else None


def difference(value: float | None, base: float | None) -> float | None:
    """``value - base``; None where that is not known."""
    return None if value is None or base is None else value - base


def first_at_most(values: Sequence[float], bound: float) -> int | None:
    """First epoch, from 1, whose value is not above a bound."""
    return next((epoch for epoch, value in enumerate(values, 1) if value <= bound), None)


def row(
    kind: str,
    variant: str,
    runs: Sequence[Run],
    measure: str,
    domain: str,
    each: Sequence[float | None],
    utterances: Estimate | None = None,
    failed: int = 0,
) -> Row:
    """One figure; ``each`` has that of every run."""
    found = {"kind": kind, "variant": variant, "measure": measure, "domain": domain}
    found |= {"seeds": [run.seed for run in runs], "each": list(each), "over_seeds": over_seeds(each).to_dict()}
    found["over_utterances"] = utterances.to_dict() if utterances else None
    return found | {"failed_utterances": failed or (utterances.failed if utterances else 0)}
