"""Units: k-means of feature vectors that need not fit into memory.

The centres of HuBERT, WavLM or MFCC features are the "units" of the field: SpeechTokenizer's pseudo-labels (section
3.2), HuBERT's own targets, the semantic tokens of GSLM. They are kept as a folder with ``centres.safetensors``
(float32 ``[K, D]``) and ``config.json``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import Tensor

from speechtok.config import from_mapping
from speechtok.errors import CheckpointError, ConfigError
from speechtok.files import StrPath, make_folder, write_bytes_atomic, write_text_atomic
from speechtok.guidance.naming import describe
from speechtok.guidance.targets import assign_units

CENTRES, CONFIG = "centres.safetensors", "config.json"
START_VECTORS = 16
"""Vectors per cluster that the k-means++ start is drawn from: more cost time and change little."""


@dataclass
class UnitsConfig:
    """What is known of the centres in a folder."""

    teacher: str
    """Name or folder of the teacher, as it was given when the features were made."""
    layer: int | str | None
    clusters: int
    dimension: int
    vectors: int
    """How many vectors the figures below were taken from."""
    inertia: float
    """Mean squared distance between a vector and its centre."""
    explained: float
    """1 - inertia / mean squared distance from the mean of all vectors."""
    used: float
    """Share of the centres that are nearest to any vector."""
    seed: int = 0
    weights: str = ""
    """Digest of the teacher's weights, see ``FeatureStore``."""

    @property
    def described(self) -> str:
        """Teacher and layer as feature stores name them."""
        return describe(self.teacher, self.layer)


class CentreFit:
    """Mini-batch k-means that is fed batch by batch; see ``fit_centres``.

    ``state_dict`` is all that the fit has learned: another one with the same settings that is given it, and then the
    batches from ``batches`` on, comes to the same centres.

    Raises:
        ConfigError: no clusters, or no scikit-learn.
    """

    def __init__(self, clusters: int, seed: int = 0):
        try:
            from sklearn.cluster import MiniBatchKMeans
        except ImportError as error:
            raise ConfigError("k-means needs scikit-learn; pip install 'speechtok[units]'") from error
        if clusters < 1:
            raise ConfigError(f"clusters is {clusters}; give a whole number of at least 1")
        self.clusters, self.batches = clusters, 0
        self._first: list[np.ndarray] = []
        self._model = MiniBatchKMeans(clusters, random_state=seed, n_init=1)

    @property
    def started(self) -> bool:
        """Whether there are centres; before, vectors are only gathered, and there is no state to keep."""
        return hasattr(self._model, "cluster_centers_")

    def feed(self, vectors: np.ndarray) -> None:
        """Move the centres towards float32 ``vectors[M, D]``."""
        self.batches += 1
        if self.started:
            self._model.partial_fit(vectors)
            return
        self._first.append(vectors)
        if sum(map(len, self._first)) >= self.clusters * START_VECTORS:
            self._start()

    def centres(self) -> Tensor:
        """Float32 ``[K, D]``.

        Raises:
            ConfigError: there were fewer vectors than clusters.
        """
        if not self.started:
            self._start()
        return torch.from_numpy(self._model.cluster_centers_.astype(np.float32))

    def state_dict(self) -> dict[str, Any]:
        """What ``partial_fit`` has changed of the model, as tensors and plain values."""
        given = self._model.get_params()
        found = {name: value for name, value in vars(self._model).items() if name not in given}
        learned = {
            name: torch.from_numpy(value.copy()) if isinstance(value, np.ndarray) else value
            for name, value in found.items()
            if isinstance(value, np.ndarray | int | float) and name != "labels_"  # of the last batch
        }
        generator = self._model._random_state.get_state(legacy=False)
        words = torch.from_numpy(generator["state"]["key"].astype(np.int64))
        return {"batches": self.batches, "model": learned, "words": words, "place": generator["state"]["pos"]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of ``state_dict``."""
        self.batches = state["batches"]
        for name, value in state["model"].items():
            setattr(self._model, name, value.numpy() if isinstance(value, Tensor) else value)
        self._model._random_state = np.random.RandomState()
        self._model._random_state.set_state(("MT19937", state["words"].numpy().astype(np.uint32), state["place"]))

    def _start(self) -> None:
        first = np.concatenate(self._first) if self._first else np.zeros((0, 1), np.float32)
        if len(first) < self.clusters:
            raise ConfigError(
                f"{len(first)} vectors cannot make {self.clusters} clusters; give more speech or fewer clusters"
            )
        self._model.set_params(init_size=len(first)).partial_fit(first)
        self._first = []


def fit_centres(batches: Iterable[Tensor | np.ndarray], clusters: int, seed: int = 0) -> Tensor:
    """Mini-batch k-means of a stream, float32 ``centres[K, D]``; the same stream and seed give the same centres.

    The start is k-means++ on the first ``START_VECTORS`` vectors per cluster (or all, where there are fewer); then
    every batch moves the centres nearest to its vectors (Sculley 2010, as scikit-learn has it), and centres that
    nothing comes near are put on vectors of the batch. Batches of about ten vectors per cluster or more work best;
    for several passes over the data, chain them.

    Args:
        batches: vectors ``[M, D]`` each, read once. Vectors of a batch should be mixed, such as those of many
            utterances: a batch of one speaker pulls centres to that speaker.
        clusters: K.

    Raises:
        ConfigError: fewer vectors than clusters, vectors that are not finite or of unequal width, or no scikit-learn.
    """
    fit = CentreFit(clusters, seed)
    for batch in checked_vectors(batches):
        fit.feed(batch)
    return fit.centres()


@torch.no_grad()
def measure_centres(batches: Iterable[Tensor | np.ndarray], centres: Tensor) -> dict[str, float]:
    """``vectors``, ``inertia``, ``explained`` and ``used`` of ``UnitsConfig``, over a stream of vectors ``[M, D]``."""
    count, distance, energy = 0, 0.0, 0.0
    total = torch.zeros(centres.shape[1], dtype=torch.float64)
    used = torch.zeros(len(centres), dtype=torch.bool)
    for batch in map(torch.from_numpy, checked_vectors(batches)):
        units = assign_units(batch, centres)
        used[units] = True
        count += len(batch)
        distance += float((batch - centres[units]).double().square().sum())
        energy += float(batch.double().square().sum())
        total += batch.double().sum(0)
    if not count:
        raise ConfigError("there are no vectors to measure the centres with; give more speech")
    spread = energy / count - float((total / count).square().sum())
    inertia = distance / count
    explained = 1 - inertia / spread if spread > 0 else 0.0
    return {"vectors": count, "inertia": inertia, "explained": explained, "used": float(used.float().mean())}


def save_centres(folder: StrPath, centres: Tensor, config: UnitsConfig) -> None:
    """Write the folder that ``load_centres`` reads.

    Raises:
        OutputError: it cannot be written.
    """
    folder = make_folder(folder)
    write_bytes_atomic(folder / CENTRES, to_bytes({"centres": centres.detach().cpu().float().contiguous()}))
    write_text_atomic(folder / CONFIG, json.dumps(asdict(config), indent=2) + "\n")


def load_centres(folder: StrPath) -> Tensor:
    """Float32 ``[K, D]``.

    Raises:
        CheckpointError: missing, damaged, or other than its config says.
    """
    path, config = Path(folder) / CENTRES, load_units_config(folder)
    try:
        centres = load_file(path)["centres"]
    except (OSError, SafetensorError, KeyError) as error:
        raise CheckpointError(f"{path}: missing or damaged ({error}); run 'speechtok train units' again") from error
    if centres.shape != (config.clusters, config.dimension) or not centres.isfinite().all():
        raise CheckpointError(
            f"{path}: holds {tuple(centres.shape)} numbers, its config says {config.clusters, config.dimension};"
            " run 'speechtok train units' again"
        )
    return centres.float()


def load_units_config(folder: StrPath) -> UnitsConfig:
    """What the folder says of its centres.

    Raises:
        CheckpointError: missing, damaged, or of something else.
    """
    path = Path(folder) / CONFIG
    try:
        return from_mapping(UnitsConfig, json.loads(path.read_text(encoding="utf-8")), str(path))
    except (OSError, ValueError, ConfigError) as error:
        raise CheckpointError(
            f"{path}: missing, or no centres of units ({error}); give a folder that 'speechtok train units' made"
        ) from error


def checked_vectors(batches: Iterable[Tensor | np.ndarray]) -> Iterator[np.ndarray]:
    """Float32 arrays ``[M, D]`` of a stream; raises ConfigError where they are not finite or of unequal width."""
    width = None
    for batch in batches:
        vectors = np.ascontiguousarray(torch.as_tensor(batch).detach().cpu().numpy(), np.float32)
        if vectors.ndim != 2 or vectors.shape[1] != (width or vectors.shape[1]) or not np.isfinite(vectors).all():
            wanted = "D" if width is None else width
            raise ConfigError(
                f"k-means got a batch of shape {vectors.shape}; give finite vectors of shape [M, {wanted}]"
            )
        width = vectors.shape[1]
        yield vectors
