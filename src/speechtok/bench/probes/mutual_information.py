"""Probe task ``mutual_information``: SLMTokBench's text alignment, with the probe of ``asr`` as q(y | x)."""

from __future__ import annotations

import numpy as np

from speechtok.bench.metrics import Score
from speechtok.bench.probes.information import BATCH, Information, by_length, mutual_information, random_orders
from speechtok.bench.probes.measuring import Figure, ProbeTask, figure
from speechtok.bench.probes.recipe import DEV
from speechtok.bench.probes.tokens import bitrate_of
from speechtok.bench.probes.training import Trained, levels_of
from speechtok.bench.tables import Shown

HELP = "mutual information of tokens and text on the dev part by vCLUB (SLMTokBench), also per kbit/s"
NATS, ALIKE, PER_KBPS = "mutual_information", "mutual_information_alike", "mutual_information_per_kbps"
MEASURES = {
    NATS: Shown("MI, nats per character", True, 2),
    ALIKE: Shown("MI among texts of like length", True, 2),
    PER_KBPS: Shown("MI per kbit/s", True, 2),
}


def figures(trained: Trained) -> list[Figure]:
    """The estimate by utterance: in random batches, in batches of like length, and the first by the tokens' rate."""
    examples, learner = trained.parts[DEV], trained.learner
    answers, targets = learner.answers(examples), examples.targets
    any_length = mutual_information(answers, targets, random_orders(len(answers), seed=learner.recipe.seed))
    alike = mutual_information(answers, targets, by_length(answers))
    kilobits = bitrate_of(trained.tokenizer, levels_of(trained.tokenizer, learner.recipe.levels)) / 1000
    return [
        _figure(trained, NATS, any_length),
        _figure(trained, ALIKE, alike),
        _figure(trained, PER_KBPS, any_length, kilobits),
    ]


def _figure(trained: Trained, name: str, found: Information, kilobits: float | None = None) -> Figure:
    """With what the number depends on; divided by the kbit/s where they are given."""
    about = {"unit": "nats per character", "batch": BATCH, "pairs": found.pairs, "skipped_pairs": found.skipped}
    if kilobits is not None:
        about |= {"unit": "nats per character and kbit/s", "kbps": kilobits}
    return figure(trained, name, [_score(name, value / (kilobits or 1)) for value in found.values], False, about, DEV)


def _score(name: str, value: float) -> Score:
    if np.isnan(value):
        return Score(name, None, "its text has more characters than its tokens have outputs")
    return Score(name, float(value))


TASK = ProbeTask("mutual_information", "characters", figures)
measure, prepare = TASK.measure, TASK.prepare
