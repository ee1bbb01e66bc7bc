"""Probe task ``keyword``: which keyword is said, as keywords.tsv labels it."""

from __future__ import annotations

from speechtok.bench.probes.measuring import ProbeTask, accuracies
from speechtok.bench.tables import Shown

HELP = "which of a few keywords is said (manifests with the column keyword)"
MEASURES = {"accuracy": Shown("keyword accuracy", True)}
TASK = ProbeTask("keyword", "classes", accuracies, label="keyword")
measure, prepare = TASK.measure, TASK.prepare
