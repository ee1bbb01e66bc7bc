"""The whole of it: source, plan, missing shards, manifest."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from speechtok.corpus.cluster import run_on_ray
from speechtok.corpus.extras import library
from speechtok.corpus.finishing import finish, missing_shards
from speechtok.corpus.plan import Cut, Plan, Settings
from speechtok.corpus.planning import UPDATES, settle
from speechtok.corpus.progress import Progress
from speechtok.corpus.sources import read_source
from speechtok.corpus.worker import Job, job_argument, work
from speechtok.errors import ConfigError, SpeechtokError
from speechtok.processes import usable_cores
from speechtok.shards.local import Tell, run_workers
from speechtok.tokenizers.base import Tokenizer
from speechtok.tokenizers.registry import load


@dataclass(frozen=True)
class Means:
    """With what the shards are made; decides no code, but for near ties on another ``device``."""

    workers: int | None = None
    """Processes on this machine; None takes as many as it has cores, or one where the device is no CPU."""
    device: str = "cpu"
    ray: str | None = None
    """Address of a Ray cluster that does the work in their place."""
    num_gpus: float = 0.0
    """Of each task on the cluster."""

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise ConfigError(f"--workers is {self.workers}; give at least 1")
        if self.workers is not None and self.ray is not None:
            raise ConfigError("give --workers or --ray, not both: a cluster knows how many workers it has")
        if self.num_gpus < 0 or (self.num_gpus and self.ray is None):
            raise ConfigError("--num-gpus says how many GPUs a task on a cluster gets; give it with --ray")

    def count(self, missing: int) -> int:
        """How many processes for so many missing shards."""
        workers = self.workers or (usable_cores() if self.device == "cpu" else 1)
        return min(workers, missing)


@dataclass(frozen=True)
class Order:
    """What is to be tokenized, and how."""

    source: Path
    folder: Path
    model: str | None = None
    split: str | None = None
    settings: Settings = field(default_factory=Settings)
    cut: Cut = field(default_factory=Cut)
    update: str | None = None
    means: Means = field(default_factory=Means)

    def __post_init__(self) -> None:
        if self.update is not None and self.update not in UPDATES:
            raise ConfigError(f"--update is {self.update!r}; give one of {', '.join(UPDATES)}")


def tokenize(order: Order, tell: Tell | None = None, load: Callable[..., Any] = load) -> dict[str, Any]:
    """Make what is missing of a corpus of tokens; returns its manifest.

    Killed at any moment and started again, it goes on, and the files in the end are those of an undisturbed run, byte
    for byte, with any number of workers.

    Args:
        tell: is told what happens, in place of the progress on standard error.
        load: stands in for ``speechtok.load``.

    Raises:
        ConfigError: a source that cannot be read, or that, like the tokenizer or the settings, is another than the
            folder was made with.
        SpeechtokError: the work cannot go on.
    """
    library("pyarrow", "corpus")
    recordings = read_source(order.source, order.split)
    tokenizer = load(order.model, device=order.means.device, precision=order.settings.precision)
    tokenizer.checked_levels(order.settings.levels)
    settings = replace(order.settings, precision=tokenizer.precision)
    plan = settle(order.folder, recordings, tokenizer, settings, order.cut, order.update)
    del recordings
    missing = missing_shards(order.folder, plan)
    if missing:
        left = sum(len(shard.ids) for shard in plan.shards if shard.name in set(missing))
        before = sum(len(shard.ids) for shard in plan.shards) - left
        progress = None if tell else Progress(left, before)
        (tell or progress)({"event": "start", "recordings": left, "before": before, "shards": len(missing)})
        try:
            _make(order, plan, missing, tokenizer, tell or progress)
        finally:
            if progress:
                progress.close()
        missing = missing_shards(order.folder, plan)
    if missing:
        raise SpeechtokError(
            f"{order.folder}: {len(missing)} shards are missing, from {missing[0]} on, because workers ended"
            " unexpectedly; start the command again, nothing is lost"
        )
    return finish(order.folder, plan)


def _make(order: Order, plan: Plan, missing: list[str], tokenizer: Tokenizer, tell: Tell) -> None:
    means, job = order.means, Job(os.path.abspath(order.folder), _place(order.model), order.means.device)
    if means.ray is not None:
        run_on_ray(job, plan, missing, means.ray, means.num_gpus, tell)
    else:
        here = partial(work, order.folder, plan, missing, tokenizer)
        run_workers("speechtok.corpus.worker", job_argument(job), means.count(len(missing)), here, tell)


def _place(model: str | None) -> str | None:
    """A model for processes that may have another working directory."""
    return os.path.abspath(model) if model is not None and os.path.exists(model) else model
