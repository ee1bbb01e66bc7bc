"""Probe task ``asr``: how well a small CTC network transcribes from tokens alone, without a language model."""

from __future__ import annotations

from speechtok.bench.judge import error_scores
from speechtok.bench.probes.goals import best_path, spelled
from speechtok.bench.probes.measuring import Figure, ProbeTask, figure
from speechtok.bench.probes.recipe import TEST
from speechtok.bench.probes.training import Trained
from speechtok.bench.tables import Shown

HELP = "word and character error rate of a recurrent CTC probe (DASB, SLMTokBench)"
MEASURES = {"wer": Shown("probe WER", False), "cer": Shown("probe CER", False)}


def figures(trained: Trained) -> list[Figure]:
    """WER and CER of the best paths against the transcripts, after the normaliser ``plain``."""
    test, answers = trained.parts[TEST], trained.learner.answers(trained.parts[TEST])
    pairs = [
        error_scores(item.utterance.text, spelled(best_path(answer)))
        for item, answer in zip(test.items, answers, strict=True)
    ]
    return [
        figure(trained, name, scores) for name, scores in zip(("wer", "cer"), zip(*pairs, strict=True), strict=True)
    ]


TASK = ProbeTask("asr", "characters", figures)
measure, prepare = TASK.measure, TASK.prepare
