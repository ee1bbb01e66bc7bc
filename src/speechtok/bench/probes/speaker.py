"""Probe task ``speaker``: who speaks, among the speakers of the train split, which is divided anew for it."""

from __future__ import annotations

from speechtok.bench.probes.measuring import ProbeTask, accuracies
from speechtok.bench.tables import Shown

HELP = "who speaks, among speakers of the train split (closed set)"
MEASURES = {"accuracy": Shown("speaker accuracy", True)}
TASK = ProbeTask("speaker", "classes", accuracies, label="speaker", within=True)
measure, prepare = TASK.measure, TASK.prepare
