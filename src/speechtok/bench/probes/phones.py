"""Probe task ``phones``: the phone of every frame by cross-entropy, the ablation of the probe without CTC."""

from __future__ import annotations

from functools import partial

from speechtok.bench.probes.measuring import ProbeTask, accuracies
from speechtok.bench.tables import Shown

HELP = "share of frames whose aligned phone a recurrent probe names (needs phones.tsv)"
MEASURES = {"frame_accuracy": Shown("phone accuracy", True)}
TASK = ProbeTask("phones", "phones", partial(accuracies, measure="frame_accuracy"))
measure, prepare = TASK.measure, TASK.prepare
