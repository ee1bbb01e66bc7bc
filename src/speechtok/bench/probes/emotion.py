"""Probe task ``emotion``: which emotion an utterance was acted with, as emodb.tsv labels it."""

from __future__ import annotations

from speechtok.bench.probes.measuring import ProbeTask, accuracies
from speechtok.bench.tables import Shown

HELP = "which emotion an utterance was acted with (manifests with the column emotion)"
MEASURES = {"accuracy": Shown("emotion accuracy", True)}
TASK = ProbeTask("emotion", "classes", accuracies, label="emotion")
measure, prepare = TASK.measure, TASK.prepare
