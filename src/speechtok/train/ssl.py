"""HuBERT pre-training: predict the k-means units of frames that were hidden (Hsu et al. 2021, section III)."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from speechtok.errors import ConfigError
from speechtok.guidance.frames import FrameLaw
from speechtok.nn import hubert
from speechtok.train import masking, pseudo
from speechtok.train.data import Crops
from speechtok.train.devices import Devices
from speechtok.train.learner import Learner
from speechtok.train.loop import prepare, run, run_command
from speechtok.train.pseudo import Labels, TargetsConfig
from speechtok.train.teaching import (
    HOP,
    UNKNOWN,
    Batch,
    TeacherRecipe,
    batch_of,
    fit_front_end,
    held_out_crops,
    mean_over_frames,
    stores_of,
    validation_batches,
)

TARGETS = "targets.safetensors"


@dataclass
class MaskConfig:
    """Which frames are hidden."""

    share: float = 0.08
    """Of the frames that begin a span."""
    span: int = 10
    """Frames."""

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1 or self.span < 1:
            raise ConfigError(f"mask.share={self.share} must lie in (0, 1] and mask.span={self.span} be at least 1")


@dataclass
class PredictionConfig:
    """How hidden states become units."""

    dimension: int = 256
    """Of the space where states and units are compared."""
    temperature: float = 0.1
    """Cosine similarities are divided by it."""


@dataclass
class SslWeights:
    """Weight of each loss."""

    masked: float = 1.0
    unmasked: float = 0.0
    """The paper's alpha is ``masked / (masked + unmasked)``; it found 1 best for good use of noisy units."""
    penalty: float = 0.0
    """Mean square of the waveform front end's output; the official base recipe has 10. The log-mel front end learns
    nothing that could be penalised."""


@dataclass
class SslRecipe(TeacherRecipe):
    """A pre-training run."""

    name: str = "ssl"
    targets: TargetsConfig = field(default_factory=TargetsConfig)
    mask: MaskConfig = field(default_factory=MaskConfig)
    prediction: PredictionConfig = field(default_factory=PredictionConfig)
    weights: SslWeights = field(default_factory=SslWeights)
    front_end_gradient: float = 0.1
    """Factor of the gradient into the waveform front end, as in the official recipe."""


class MaskedPrediction(nn.Module):
    """The network, the projection of its states, and one vector for every unit."""

    def __init__(self, recipe: SslRecipe):
        super().__init__()
        torch.manual_seed(recipe.seed)
        self.temperature = recipe.prediction.temperature
        self.network = hubert.build(recipe.network)
        self.projection = nn.Linear(recipe.network.width, recipe.prediction.dimension)
        # the official code draws from 0 to 1, which points all units the same way: small runs then start slower
        self.units = nn.Parameter(torch.randn(recipe.targets.clusters, recipe.prediction.dimension))

    def logits(self, states: Tensor) -> Tensor:
        """``states[M, D] -> [M, K]``: cosine similarities over the temperature (equation 3)."""
        projected = F.normalize(self.projection(states), dim=-1)
        return projected @ F.normalize(self.units, dim=-1).t() / self.temperature


class SslLearner(Learner):
    """A run of masked prediction; targets are made on its first start and kept in ``folder``."""

    model: MaskedPrediction

    def __init__(self, recipe: SslRecipe, folder: Path):
        super().__init__(recipe, MaskedPrediction(recipe), {f"ssl/{k}": v for k, v in vars(recipe.weights).items()})
        self.recipe: SslRecipe = recipe
        config = self.model.network.config
        self.law = FrameLaw.of_convolutions(hubert.RATE, config.conv_kernel, config.conv_stride)
        speech, held_out = stores_of(recipe.data, self.devices)
        self.corpus = speech.digest
        fit_front_end(self.model.network, speech)
        self.average.load_state_dict(self.model.state_dict())
        with self.devices.main_first():
            teacher = recipe.targets.teacher()
            origin = pseudo.origin_of(recipe.targets, teacher, recipe.seed)
            pseudo.make(recipe.targets, teacher, speech, folder / TARGETS, recipe.seed, origin)
        self.labels, centres = pseudo.read(folder / TARGETS, speech, teacher.law, origin)
        self.held_out_labels = Labels.of(teacher, centres, held_out)
        self.crops = Crops(speech, recipe.samples, recipe.data.batch, recipe.seed, recipe.data.gain_db, grid=HOP)
        self.held_out = held_out_crops(recipe, held_out)

    def losses(self) -> dict[str, Tensor]:
        """``ssl/masked`` and what goes with it, of this step's crops."""
        batch = batch_of(self.crops, self.step, self.devices)
        hidden = self.hidden(self.crops, self.step)[self.devices.share_of(self.recipe.data.batch)]
        return self.predict(self.model, batch, hidden, self.labels, self.devices)

    def hidden(self, crops: Crops, step: int) -> np.ndarray:
        """Mask of all crops of a step, ``[B, N]``; every process draws the same."""
        picks, starts = crops.places(step)
        lengths = np.minimum(crops.store.lengths[picks] - starts, crops.samples)
        draws = np.random.default_rng((crops.seed, step, 1))  # another stream than that of the crops
        counts = [self.law.frames(int(length)) for length in lengths]
        return masking.spans(
            draws, counts, self.law.frames(crops.samples), self.recipe.mask.share, self.recipe.mask.span
        )

    def predict(
        self,
        model: MaskedPrediction,
        batch: Batch,
        mask: np.ndarray,
        labels: Labels,
        together: Devices | None = None,
    ) -> dict[str, Tensor]:
        """Losses and accuracies of crops with the frames of ``mask[B, N]`` hidden; ``together`` with all processes."""
        device, weights = batch.wave.device, self.recipe.weights
        hidden = torch.from_numpy(mask).to(device)
        wanted = labels.crops(batch.picks, batch.starts, self.law, mask.shape[1]).to(device)
        extracted = hubert.features(model.network, batch.wave)
        losses = {}
        if weights.penalty:
            losses["ssl/penalty"] = extracted.float().square().mean()
        if extracted.requires_grad:
            factor = self.recipe.front_end_gradient
            extracted = factor * extracted + (1 - factor) * extracted.detach()
        valid = batch.valid(self.law)
        states = hubert.encode(model.network, extracted, hidden, valid)
        known = wanted != UNKNOWN
        known = known if valid is None else known & valid
        losses |= score(model, states, wanted, hidden & known, "masked", together)
        if weights.unmasked:
            losses |= score(model, states, wanted, ~hidden & known, "unmasked", together)
        return losses

    @torch.inference_mode()
    def validate(self, counted: bool) -> tuple[dict[str, Any], list[str]]:
        """Losses and accuracies of the averaged model on held-out crops under masks that never change."""
        rows = []
        for step in validation_batches(self.recipe):
            batch = batch_of(self.held_out, step, self.devices, alone=True)
            rows.append(self.predict(self.average, batch, self.hidden(self.held_out, step), self.held_out_labels))
        return {name: float(torch.stack([row[name] for row in rows]).mean()) for name in rows[0]}, []

    def export(self, folder: Path) -> None:
        """The averaged network, for ``load_semantic_teacher``."""
        hubert.save(self.average.network, folder)


def score(
    model: MaskedPrediction, states: Tensor, wanted: Tensor, where: Tensor, name: str, together: Devices | None
) -> dict[str, Tensor]:
    """Cross-entropy and accuracy over the frames ``where[B, N]``."""
    logits, units = model.logits(states[where]).float(), wanted[where]
    return {
        f"ssl/{name}": mean_over_frames(F.cross_entropy(logits, units, reduction="none"), together),
        f"accuracy/{name}": mean_over_frames((logits.argmax(-1) == units).float(), together),
    }


def train(recipe: SslRecipe, folder: Path, stop_at: int | None = None) -> SslLearner:
    """Train until ``recipe.steps`` (or ``stop_at``), resuming what ``folder`` holds, and export the model there.

    Raises:
        ConfigError: the recipe does not fit the data, the processes or what ``folder`` holds.
        OutputError: ``folder`` or the cache cannot be written.
        TrainingError: a loss or gradient is not finite; the last checkpoint stays as it is.
    """
    prepare(recipe, folder)
    learner = SslLearner(recipe, folder)
    run(learner, folder, stop_at)
    return learner


main = partial(run_command, SslRecipe, train)
