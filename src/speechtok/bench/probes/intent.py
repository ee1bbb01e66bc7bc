"""Probe task ``intent``: which of the drinks a spoken order asks for, as barista.tsv labels it."""

from __future__ import annotations

from speechtok.bench.probes.measuring import ProbeTask, accuracies
from speechtok.bench.tables import Shown

HELP = "which drink an order asks for (manifests with the JSON column slots)"
MEASURES = {"accuracy": Shown("intent accuracy", True)}
TASK = ProbeTask("intent", "classes", accuracies, label="slots:coffeeDrink")
measure, prepare = TASK.measure, TASK.prepare
