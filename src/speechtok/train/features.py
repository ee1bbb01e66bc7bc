"""A teacher's features of a training corpus, made by any number of processes: what ``speechtok features`` does.

The parts of the store are shards: claimed, whole or not there, and the same bytes whoever makes them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from speechtok.corpus.progress import Progress
from speechtok.errors import ConfigError
from speechtok.files import make_folder
from speechtok.guidance.extraction import PART, Parts
from speechtok.guidance.naming import describe
from speechtok.guidance.store import FeatureStore
from speechtok.guidance.teachers import load_semantic_teacher
from speechtok.processes import one_thread, usable_cores
from speechtok.shards.local import Tell, run_workers, serve
from speechtok.train.data import WaveStore, pooled


@dataclass(frozen=True)
class FeatureJob:
    """Which features of which speech, in plain types."""

    manifests: tuple[str, ...]
    """Those of the recipe, in the same order."""
    output: str
    """The feature store."""
    teacher: str
    """A folder or a Hub id."""
    layer: int | str = "average"
    split: str = "train"
    cache: str = "cache"
    """The recipe's ``data.cache``."""
    device: str = "cpu"
    shard_size: int = PART
    """Utterances that a kill costs at most."""

    def __post_init__(self) -> None:
        if self.shard_size < 1:
            raise ConfigError(f"--shard-size is {self.shard_size}; give at least 1")

    def parts(self) -> Parts:
        """What there is to make.

        Raises:
            AudioError: a recording that cannot be read.
            CheckpointError, ConfigError: no such manifest, teacher or layer.
        """
        utterances = pooled(self.manifests, self.split)
        teacher = load_semantic_teacher(self.teacher, self.layer)
        waves = WaveStore.build(utterances, teacher.law.rate, self.cache)
        make_folder(Path(self.output).absolute().parent)
        sources = [os.fspath(utterance.path) for utterance in utterances]
        heard = (describe(self.teacher, self.layer), waves, waves.lengths)
        return Parts(self.output, teacher, *heard, self.device, sources, self.shard_size)


class Extracted(NamedTuple):
    """What a run came to."""

    utterances: int
    kept: int
    """Of them, those that an earlier run had left."""
    frames: int
    dimension: int


def extract_features(job: FeatureJob, workers: int | None = None, tell: Tell | None = None) -> Extracted:
    """Make what is missing and join the store; killed at any moment and started again, it goes on.

    Args:
        workers: processes; None takes as many as this machine has cores, or one where the device is no CPU. Each
            computes with one thread, so the store is the same, byte for byte, with any number.
        tell: is told what happens, in place of the progress on standard error.

    Raises:
        AudioError: a recording that cannot be read.
        CheckpointError: no such teacher.
        ConfigError: bad settings, or features that are not finite; names the recording.
        OutputError: the store cannot be written.
        SpeechtokError: any of these, of a worker.
    """
    if workers is not None and workers < 1:
        raise ConfigError(f"--workers is {workers}; give at least 1")
    parts = job.parts()
    kept = parts.keep()
    progress = None if tell else Progress(len(parts.samples) - kept, kept)
    count = min(workers or (usable_cores() if job.device == "cpu" else 1), len(parts.missing()))
    try:
        with one_thread():
            run_workers("speechtok.train.features", json.dumps(asdict(job)), count, _making(parts), tell or progress)
            parts.finish()
    finally:
        if progress:
            progress.close()
    store = FeatureStore(job.output)
    return Extracted(len(store), kept, int(store.offsets[-1]), store.dimension)


def _making(parts: Parts) -> Callable[[Tell], object]:
    return lambda tell: parts.make(_telling(parts, tell))


def _telling(parts: Parts, tell: Tell) -> Callable[[int], object]:
    def done(utterance: int) -> None:
        seconds = parts.samples[utterance] / parts.teacher.law.rate
        tell({"event": "recording", "id": parts.sources[utterance], "seconds": seconds})

    return done


def _work_on(argument: str, tell: Tell) -> None:
    values: dict[str, Any] = json.loads(argument)
    parts = FeatureJob(**{**values, "manifests": tuple(values["manifests"])}).parts()
    with one_thread():
        _making(parts)(tell)


if __name__ == "__main__":
    serve(_work_on)
